//! What a client asks of its slave, in any dialect.

use crate::{event::Event, frame::Frame, ids::ChannelName, member::Member};

/// One message of a client, understood. A session carries out one at a time, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Nothing to do.
    Ignore,
    /// Answer with this frame; nothing else happens.
    Answer(Frame),
    /// Answer with this frame: the client asked to join a channel, and what it asked is refused already.
    RejectSubscribe {
        /// The channel, as it was written.
        channel: String,
        /// Why, for logs and metrics.
        reason: &'static str,
        /// What the client is told.
        says: Frame,
    },
    /// Say that you are there, and what time it is.
    Ping,
    /// Join all of these channels, or none.
    Subscribe(Vec<ChannelName>),
    /// Join one channel by credentials that came with the wish and that the dialect has found to be good: what else the
    /// socket may do plays no part.
    Enter(Entry),
    /// Deliver an event to everybody else on a channel, which the socket must be on itself.
    Say {
        /// Where.
        channel: ChannelName,
        /// What.
        event: Event,
    },
    /// Leave a channel.
    Unsubscribe(ChannelName),
    /// Tell the patterns of channels that the socket may subscribe to.
    ListGrants,
}

/// How a socket joins a channel by credentials of its own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The channel.
    pub channel: ChannelName,
    /// As whom, if the channel shows its members to each other.
    pub member: Option<Member>,
    /// How many members it may have.
    pub most_members: usize,
}
