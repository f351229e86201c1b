//! What slaves tell each other about channels and their members, so that what must happen once in the cluster does: see
//! `slave/src/keeper`. From one slave to another these are one stream, in order.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{ChannelKey, NodeId, UserId};

/// What a keeper decides about: a channel, which is occupied or vacant, or one member of it, who is there or not. All
/// posts of a channel have the same keeper.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Post {
    /// The channel.
    pub channel: ChannelKey,
    /// The member, if it is about one.
    pub member: Option<UserId>,
}

impl From<ChannelKey> for Post {
    fn from(channel: ChannelKey) -> Self {
        Self { channel, member: None }
    }
}

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
    /// "A socket of mine is on this channel (as this member)", which is yours to keep or to watch as deputy. If not
    /// `held`: none is any more, or it is no longer yours.
    Holds {
        /// The channel or member.
        post: Post,
        /// Is one there?
        held: bool,
        /// Changes of it that this slave knows to be announced: odd is occupied, even is vacant.
        epoch: u64,
        /// What the others may know of the member.
        info: Option<Arc<str>>,
    },
    /// "So much of it is announced, which is yours to keep", or to watch as deputy.
    Kept {
        /// The channel or member.
        post: Post,
        /// Changes that were announced.
        epoch: u64,
    },
    /// The same, to a slave that only has a socket there: it can tell the next keeper.
    Announced {
        /// The channel or member.
        post: Post,
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
