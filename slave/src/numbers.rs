//! The numbers by which a thread knows its sockets and their channels.

/// The number of a socket in the index, for as long as it is open. A later socket may get it again.
pub type SocketNo = u32;

/// A channel that somebody of this thread is on, for as long as somebody is (or a broadcast to it is in progress).
pub type ChannelNo = u32;
