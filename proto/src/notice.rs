//! What a slave tells one client, in any dialect.

use bytestring::ByteString;

use crate::{
    channel::ChannelPattern,
    event::{Event, Payload},
    ids::{ChannelName, UserId},
    member::MemberChange,
};

/// The outcome of the [`crate::action::Action`] under way; the conversation remembers what it was about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome<'a> {
    /// It is done.
    Done,
    /// It is refused; the socket stays.
    Denied,
    /// It is refused for this reason; the socket stays. Only [`crate::action::Action::Enter`] ends so.
    Barred(Bar),
    /// It could not be done, which is no fault of the client's; the socket stays. Later it may go well.
    Failed,
    /// It is on a channel that shows its members to each other: all of them, the newcomer among them, each once.
    Joined {
        /// The members, each with what the others may know of it, in the order of their ids.
        members: &'a [(&'a UserId, &'a ByteString)],
    },
    /// Here, at this Unix time in seconds.
    Here {
        /// Seconds since 1970.
        unix_seconds: u64,
    },
    /// The patterns that the socket may subscribe to.
    Grants(&'a [ChannelPattern]),
}

/// Why a socket may not enter a channel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bar {
    /// It is there already.
    AlreadyThere,
    /// It is on as many channels as a socket may be on.
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

impl Bar {
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
    Direct(&'a Payload),
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
}
