//! What a slave tells one client, in any dialect.

use crate::channel::ChannelPattern;

/// The outcome of the [`crate::action::Action`] under way; the conversation remembers what it was about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome<'a> {
    /// It is done.
    Done,
    /// It is refused; the socket stays.
    Denied,
    /// Here, at this Unix time in seconds.
    Here {
        /// Seconds since 1970.
        unix_seconds: u64,
    },
    /// The patterns that the socket may subscribe to.
    Grants(&'a [ChannelPattern]),
}

/// Something that a client did not ask for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Notice<'a> {
    /// Its permissions were replaced.
    Reloaded(&'a [ChannelPattern]),
    /// It was given one more permission.
    Granted(&'a ChannelPattern),
}
