//! What slaves tell each other about channels, their members, and users, so that what must happen once in the cluster
//! does: see `slave/src/presence/coordinator`. From one slave to another these are one stream, in order.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{AppId, ChannelKey, NodeId, UserId};

/// What a coordinator decides about. A channel and its members have the same coordinator.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum CoordinatedKey {
    /// A channel, which is occupied or vacant.
    Channel(ChannelKey),
    /// One member of a presence channel, who is there or not.
    Member {
        /// The channel.
        channel: ChannelKey,
        /// The member.
        user: UserId,
    },
    /// A user of an app, who is online or not.
    User {
        /// The app.
        app: AppId,
        /// The user.
        user: UserId,
    },
}

impl From<ChannelKey> for CoordinatedKey {
    fn from(channel: ChannelKey) -> Self {
        Self::Channel(channel)
    }
}

/// One thing that a slave tells another.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum CoordinationMessage {
    /// "I have nothing of yours: tell me all that is mine to know, and go on telling me."
    Request {
        /// Stands in the answer. The slave never uses it for another request.
        number: u64,
    },
    /// "Here it comes, forget what I said before": opens the answer, which ends with [`CoordinationMessage::Synced`].
    Answer {
        /// The number of the request.
        number: u64,
    },
    /// "A socket of mine is on this channel (as this member; of this user)", which is yours to coordinate or to stand by for. If
    /// not `claimed`: none is any more, or it is no longer yours.
    Claim {
        /// What it is about.
        key: CoordinatedKey,
        /// Is a socket there?
        claimed: bool,
        /// Changes of it that this slave knows to be announced: odd is occupied, even is vacant.
        epoch: u64,
        /// What the others may know of the member.
        info: Option<Arc<str>>,
    },
    /// "So much of it is announced, which is yours to coordinate", or to stand by for.
    Handover {
        /// What it is about.
        key: CoordinatedKey,
        /// Changes that were announced.
        epoch: u64,
    },
    /// The same, to a slave that only claims it: it can tell the next coordinator.
    Announced {
        /// What it is about.
        key: CoordinatedKey,
        /// Changes that were announced.
        epoch: u64,
    },
    /// "These are the live slaves as I see them, and by this list you have been told everything."
    Synced {
        /// The live slaves, in ascending order.
        slaves: Vec<NodeId>,
        /// Grows with everything of which this slave wants to know that it has arrived.
        round: u64,
        /// The round that it received last from the slave it tells.
        confirmed: u64,
    },
    /// "I dropped announcements of members that I had decided: fetch the lists of my channels anew."
    AnnouncementsLost,
    /// "So many sockets of mine are on this channel (watch this user)", which is yours to coordinate: tell me how it stands. If
    /// the `count` is 0, none is any more, or it is no longer yours.
    Follow {
        /// The channel or the user.
        key: CoordinatedKey,
        /// How many sockets.
        count: u64,
        /// What all of them were told last.
        told: Option<u64>,
        /// Some of them were told nothing yet.
        asks: bool,
    },
    /// To who follows it: "So it stands in the cluster."
    Told {
        /// The channel or the user.
        key: CoordinatedKey,
        /// Of a channel: how many sockets are on it. Of a user: 1 if it is online.
        count: u64,
        /// All of your sockets are to know, not only those that were told nothing yet.
        all: bool,
    },
    /// "I am about to go, and tell outside what I decided: do not tell it for me."
    Leaving,
}
