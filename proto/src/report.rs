//! What slaves tell the keeper of a channel, so that what must happen once in the cluster does: see `slave/src/keeper`.

use serde::{Deserialize, Serialize};

use crate::ids::{ChannelKey, NodeId};

/// One thing that a slave tells another. All of them may arrive twice, late, or from a slave that sees another roster:
/// higher numbers win.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Report {
    /// "Somebody of mine is on this channel", or nobody any more.
    Holds {
        /// The channel.
        channel: ChannelKey,
        /// Counts the changes of this slave.
        seq: u64,
        /// Is somebody on it?
        held: bool,
        /// It was told to a keeper before: who hears of the channel for the first time now need not announce it.
        known: bool,
    },
    /// "This is what I kept of a channel that is yours to keep now", or yours to watch as deputy.
    Kept {
        /// The channel.
        channel: ChannelKey,
        /// Who said what about it: slave, number of its change, and whether it holds it.
        holders: Vec<(NodeId, u64, bool)>,
        /// Changes that were announced: odd is occupied, even is vacant.
        epoch: u64,
    },
    /// "You have everything of mine that is yours to keep": sent to a slave that came, after all of it.
    Settled,
}
