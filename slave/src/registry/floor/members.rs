//! Members among the sockets of a thread: how a socket comes as one, what it is told of the others, and how it goes.

use std::{collections::BTreeMap, time::Instant};

use bytestring::ByteString;
use wellhead_proto::{
    ids::{ChannelKey, ChannelName, SocketId, UserId},
    member::Member,
    notice::Bar,
};

use super::{Change, Floor, Push, RoomNo, SeatNo, Waiting};
use crate::{
    backlog::Ticket,
    channels::ChannelRef,
    presence::{MemberUpdate, local::LocalMember},
};

impl Floor {
    /// Put a socket into a channel as a member; all members, itself among them. It joins at once, also while a fan-out
    /// walks the channel: the list and what is told afterwards must fit together.
    ///
    /// # Errors
    ///
    /// The channel is full.
    pub fn attend(
        &mut self,
        socket: SocketId,
        channel: &ChannelKey,
        member: &Member,
        most: usize,
        tag: Option<Box<str>>,
    ) -> Result<BTreeMap<UserId, ByteString>, Bar> {
        let Some(no) = self.index.seat_of(socket.counter()) else {
            // it has ended: nobody hears the answer
            return Ok(BTreeMap::new());
        };
        let presence = self.presence.clone();
        presence.subscribe(channel, member, most, |since| {
            let mut change = Change::default();
            let room = self.index.join(no, &channel.name, tag, &mut change);
            self.note_join(no, &channel.name);
            self.note(change);
            self.members.add(room, no, LocalMember { member: member.clone(), since });
        })
    }

    /// Tell the members on a channel what has changed.
    pub fn tell_members(&mut self, channel: ChannelRef, update: MemberUpdate, ticket: Ticket) {
        if self.is_held() {
            self.waiting.push_back(Waiting::Members(channel, update, ticket));
        } else {
            self.announce(&channel, update, ticket);
        }
    }

    pub(super) fn announce(&mut self, channel: &ChannelRef, update: MemberUpdate, ticket: Ticket) {
        if let Some(room) = self.index.room_of(channel.id())
            && self.members.has(room)
        {
            let name = self.index.name_of(room).clone();
            self.publish(room, Push::members(name, update, ticket, Instant::now()));
        }
    }

    /// A seat leaves a channel: as a member first, if it is one.
    pub(super) fn resign(&mut self, no: SeatNo, channel: &ChannelName) {
        // most threads have no members, and most leave without a look at the name
        if self.members.is_empty() {
            return;
        }
        if let Some(room) = self.index.room(self.index.app_of(no), channel) {
            self.resign_from(no, room);
        }
    }

    /// The same for every channel that it is on.
    pub(super) fn resign_all(&mut self, no: SeatNo) {
        if self.members.is_empty() {
            return;
        }
        let rooms: Vec<_> = self.index.rooms_of(no).collect();
        for room in rooms {
            self.resign_from(no, room);
        }
    }

    fn resign_from(&mut self, no: SeatNo, room: RoomNo) {
        if let Some(member) = self.members.remove(room, no) {
            self.presence.unsubscribe(self.index.channel_of(room), &member.user);
        }
    }
}
