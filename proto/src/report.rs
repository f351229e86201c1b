//! What slaves tell each other about channels, so that what must happen once in the cluster does: see
//! `slave/src/keeper`. From one slave to another these are one stream, in order.

use serde::{Deserialize, Serialize};

use crate::ids::{ChannelKey, NodeId};

/// One thing that a slave tells another.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Report {
    /// "I have nothing of yours: tell me all that is mine to know, and go on telling me."
    Ask {
        /// Stands in the answer. The slave never uses it for another question.
        no: u64,
    },
    /// "Here it comes, forget what I said before": opens the answer, which ends with [`Report::Settled`].
    Answer {
        /// The number of the question.
        no: u64,
    },
    /// "Somebody of mine is on this channel", which is yours to keep or to watch as deputy. If not `held`: nobody is
    /// any more, or it is no longer yours.
    Holds {
        /// The channel.
        channel: ChannelKey,
        /// Is somebody on it?
        held: bool,
        /// Changes of the channel that this slave knows to be announced: odd is occupied, even is vacant.
        epoch: u64,
    },
    /// "So much of a channel is announced, which is yours to keep", or to watch as deputy.
    Kept {
        /// The channel.
        channel: ChannelKey,
        /// Changes that were announced.
        epoch: u64,
    },
    /// The same, to a slave that only has somebody on the channel: it can tell the next keeper.
    Announced {
        /// The channel.
        channel: ChannelKey,
        /// Changes that were announced.
        epoch: u64,
    },
    /// "This is who is alive as I see it, and by this roster you have been told everything."
    Settled {
        /// The live slaves, in ascending order.
        slaves: Vec<NodeId>,
        /// Grows with everything of which this slave wants to know that it has arrived.
        turn: u64,
        /// The turn that it heard last from the slave it tells.
        heard: u64,
    },
}
