//! Who is on a presence channel, as its members see each other. Not every dialect knows such channels.

use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use crate::ids::{ChannelKey, UserId};

/// A user on a presence channel; one, however many sockets the user has there.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Member {
    /// Who it is, as the channel's credentials name it.
    pub user: UserId,
    /// What the others may know of it: the text of a JSON object, as it was signed.
    pub info: ByteString,
}

/// What becomes of the members of a channel.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum MemberChange {
    /// The first socket of a user came, anywhere in the cluster.
    Added(Member),
    /// The last one left.
    Removed(UserId),
}

/// Says how the members of a channel have changed. Only the channel's coordinator says it; every slave with members there
/// hears it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct MemberAnnouncement {
    /// The channel.
    pub channel: ChannelKey,
    /// What has changed.
    pub change: MemberChange,
}

impl MemberChange {
    /// Whom it is about. That user's own sockets are not told.
    #[must_use]
    pub fn user(&self) -> &UserId {
        match self {
            Self::Added(member) => &member.user,
            Self::Removed(user) => user,
        }
    }
}
