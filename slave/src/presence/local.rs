//! Which sockets of this thread are members of presence channels, and as whom: beside the index, since most channels have
//! no members. A room that is none has nothing here.

use rustc_hash::FxHashMap;
use wellhead_proto::{ids::UserId, member::Member};

use crate::numbers::{RoomNo, SeatNo};

/// A socket's part in a presence channel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LocalMember {
    /// As whom it is there.
    pub member: Member,
    /// The last change of the members that the list which it was given knows of: it is told of those after.
    pub since: u64,
}

impl LocalMember {
    /// Is it to be told of the change with that number, which concerns `user`?
    #[must_use]
    pub fn is_told(&self, user: &UserId, number: u64) -> bool {
        self.since < number && self.member.user != *user
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct LocalMembers {
    rooms: FxHashMap<RoomNo, FxHashMap<SeatNo, LocalMember>>,
}

impl LocalMembers {
    /// The socket of `seat` is a member from now on.
    pub fn add(&mut self, room: RoomNo, seat: SeatNo, member: LocalMember) {
        self.rooms.entry(room).or_default().insert(seat, member);
    }

    /// It leaves the room. As whom it was there, if it was a member.
    pub fn remove(&mut self, room: RoomNo, seat: SeatNo) -> Option<Member> {
        let seats = self.rooms.get_mut(&room)?;
        let member = seats.remove(&seat)?;
        if seats.is_empty() {
            self.rooms.remove(&room);
        }
        Some(member.member)
    }

    /// The part of a socket in a room.
    #[must_use]
    pub fn of(&self, room: RoomNo, seat: SeatNo) -> Option<&LocalMember> {
        self.rooms.get(&room)?.get(&seat)
    }

    /// The members in a room, one for each socket.
    pub fn in_room(&self, room: RoomNo) -> impl Iterator<Item = &Member> {
        self.rooms.get(&room).into_iter().flat_map(|seats| seats.values().map(|member| &member.member))
    }

    /// Is anybody a member in that room?
    #[must_use]
    pub fn has(&self, room: RoomNo) -> bool {
        self.rooms.contains_key(&room)
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }
}
