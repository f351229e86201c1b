//! The numbers by which a thread knows its sockets and their channels.

/// Where a socket sits, for as long as it does.
pub type SeatNo = u32;

/// A channel that somebody of this thread is on, for as long as somebody is (or a fan-out walks it).
pub type RoomNo = u32;
