//! What a client asks of its slave, in any dialect.

use crate::{frame::Frame, ids::ChannelName};

/// One message of a client, understood. A session carries out one at a time, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Nothing to do.
    Ignore,
    /// Answer with this frame; nothing else happens.
    Answer(Frame),
    /// Say that you are there, and what time it is.
    Ping,
    /// Join all of these channels, or none.
    Subscribe(Vec<ChannelName>),
    /// Leave a channel.
    Unsubscribe(ChannelName),
    /// Tell the patterns of channels that the socket may subscribe to.
    ListGrants,
}
