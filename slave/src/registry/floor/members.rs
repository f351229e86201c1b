//! Members of presence channels on the floor: how a socket comes as one, what it is told of the others, and how it goes.

use std::{collections::BTreeMap, time::Instant};

use bytestring::ByteString;
use wellhead_proto::{
    ids::{ChannelKey, ChannelName, SocketId, UserId},
    member::Member,
    notice::Bar,
};

use super::{Change, Floor, Push, SeatNo, Waiting};
use crate::{attendance::Told, backlog::Ticket, registry::attendees::Attendee};

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
        let attendance = self.attendance.clone();
        attendance.enter(channel, member, most, |since| {
            let mut change = Change::default();
            self.index.join(no, &channel.name, tag, &mut change);
            self.note_join(no, &channel.name);
            self.note(change);
            if let Some(room) = self.index.room(&channel.app, &channel.name) {
                self.attendees.add(room, no, Attendee { member: member.clone(), since });
            }
        })
    }

    /// Tell the members on a channel what has changed.
    pub fn tell_members(&mut self, channel: ChannelKey, told: Told, ticket: Ticket) {
        if self.is_held() {
            self.waiting.push_back(Waiting::Members(channel, told, ticket));
        } else {
            self.announce(&channel, told, ticket);
        }
    }

    pub(super) fn announce(&mut self, channel: &ChannelKey, told: Told, ticket: Ticket) {
        if let Some(room) = self.index.room(&channel.app, &channel.name)
            && self.attendees.has(room)
        {
            self.publish(room, Push::members(channel.name.clone(), told, ticket, Instant::now()));
        }
    }

    /// A seat leaves a channel: as a member first, if it is one.
    pub(super) fn resign(&mut self, no: SeatNo, channel: &ChannelName) {
        let app = self.index.app_of(no);
        if let Some(room) = self.index.room(app, channel)
            && let Some(member) = self.attendees.remove(room, no)
        {
            let channel = ChannelKey { app: app.clone(), name: channel.clone() };
            self.attendance.leave(&channel, &member.user);
        }
    }

    /// The same for every channel that it is on.
    pub(super) fn resign_all(&mut self, no: SeatNo) {
        if self.attendees.is_empty() {
            return;
        }
        let channels: Vec<_> = self.index.channels_of(no).cloned().collect();
        for channel in channels {
            self.resign(no, &channel);
        }
    }
}
