//! What a slave sends to one client, in any dialect.

use bytestring::ByteString;

use crate::{
    channel::ChannelPattern,
    event::{Event, Payload},
    ids::{ChannelName, UserId},
    member::MemberChange,
};

/// The outcome of the [`crate::action::Action`] under way; the protocol remembers what it was about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ActionOutcome<'a> {
    /// It is done.
    Done,
    /// It is refused; the socket stays.
    Denied,
    /// It is refused for this reason; the socket stays. Only [`crate::action::Action::Enter`] ends so.
    Barred(Denial),
    /// It failed through no fault of the client; the socket stays, and the client may try again.
    Failed,
    /// It is subscribed to a presence channel: all members, itself included, each once.
    Joined {
        /// The members, each with what the others may know of it, in the order of their ids.
        members: &'a [(&'a UserId, &'a ByteString)],
    },
    /// The answer to a ping: the Unix time in seconds.
    Here {
        /// Seconds since 1970.
        unix_seconds: u64,
    },
    /// The patterns that the socket may subscribe to.
    Grants(&'a [ChannelPattern]),
}

/// Why a socket may not subscribe to a channel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Denial {
    /// It is subscribed already.
    AlreadyThere,
    /// It has as many subscriptions as a socket may have.
    TooManySubscriptions {
        /// How many that are.
        most: usize,
    },
    /// The channel has as many members as it may have.
    Full {
        /// How many that are.
        most: usize,
    },
}

impl Denial {
    /// Its name in logs and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::AlreadyThere => "already_there",
            Self::TooManySubscriptions { .. } => "too_many_subscriptions",
            Self::Full { .. } => "channel_full",
        }
    }
}

/// Something that a client did not ask for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Notice<'a> {
    /// An event was published to a channel that it is on.
    Event {
        /// The channel.
        channel: &'a ChannelName,
        /// The event.
        event: &'a Event,
    },
    /// A payload was sent to its user or to its socket, without a channel.
    Direct {
        /// The user; `None` if it was sent to the socket alone.
        user: Option<&'a UserId>,
        /// The payload.
        data: &'a Payload,
    },
    /// An event was sent to its user, without a channel.
    DirectEvent {
        /// The user.
        user: &'a UserId,
        /// The event.
        event: &'a Event,
    },
    /// Its permissions were replaced.
    Reloaded(&'a [ChannelPattern]),
    /// It was given one more permission.
    Granted(&'a ChannelPattern),
    /// The members of a channel that it is on have changed.
    Members {
        /// The channel.
        channel: &'a ChannelName,
        /// What has changed.
        change: &'a MemberChange,
    },
    /// So many sockets are on a channel that it is on, in the whole cluster.
    SubscriptionCount {
        /// The channel.
        channel: &'a ChannelName,
        /// How many.
        count: u64,
    },
    /// Users that its client watches are online or offline, which it was not told yet.
    Watched {
        /// Those who are online.
        online: &'a [UserId],
        /// Those who are not.
        offline: &'a [UserId],
    },
}
