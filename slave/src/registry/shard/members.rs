//! Members among the sockets of a thread: how a socket becomes one, which changes of the others it gets, and how it
//! leaves.

use std::{collections::BTreeMap, time::Instant};

use bytestring::ByteString;
use wellhead_proto::{
    ids::{ChannelKey, ChannelName, SocketId, UserId},
    member::Member,
    notice::Denial,
};

use super::{Change, ChannelNo, QueuedPush, Shard, SocketNo, WaitingForCommand};
use crate::{
    backlog::Permit,
    channels::ChannelRef,
    presence::{MemberUpdate, local::LocalMember},
};

impl Shard {
    /// Put a socket into a channel as a member; all members, itself among them. It is subscribed at once, also while a
    /// broadcast to the channel is in progress: the list and what is told afterwards must fit together.
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
    ) -> Result<BTreeMap<UserId, ByteString>, Denial> {
        let Some(no) = self.index.local_socket_of(socket.counter()) else {
            // the socket has ended: nobody reads the answer
            return Ok(BTreeMap::new());
        };
        let presence = self.presence.clone();
        presence.subscribe(channel, member, most, |since| {
            let mut change = Change::default();
            let local_channel = self.index.subscribe(no, &channel.name, tag, &mut change);
            self.note_join(no, &channel.name);
            self.note(change);
            self.members.add(local_channel, no, LocalMember { member: member.clone(), since });
            self.count_join(no, local_channel);
        })
    }

    /// Tell the members on a channel what has changed.
    pub fn tell_members(&mut self, channel: ChannelRef, update: MemberUpdate, permit: Permit) {
        if self.is_held() {
            self.waiting.push_back(WaitingForCommand::Members(channel, update, permit));
        } else {
            self.announce(&channel, update, permit);
        }
    }

    pub(super) fn announce(&mut self, channel: &ChannelRef, update: MemberUpdate, permit: Permit) {
        if let Some(local_channel) = self.index.local_channel_of(channel.id())
            && self.members.has(local_channel)
        {
            let name = self.index.name_of(local_channel).clone();
            self.publish(local_channel, QueuedPush::members(name, update, permit, Instant::now()));
        }
    }

    /// A socket leaves a channel: as a member first, if it is one.
    pub(super) fn resign(&mut self, no: SocketNo, channel: &ChannelName) {
        // most threads have no members, and most leave without a look at the name
        if self.members.is_empty() {
            return;
        }
        if let Some(local_channel) = self.index.local_channel(self.index.app_of(no), channel) {
            self.resign_from(no, local_channel);
        }
    }

    /// The same for every channel that it is on.
    pub(super) fn resign_all(&mut self, no: SocketNo) {
        if self.members.is_empty() {
            return;
        }
        let local_channels: Vec<_> = self.index.rooms_of(no).collect();
        for local_channel in local_channels {
            self.resign_from(no, local_channel);
        }
    }

    fn resign_from(&mut self, no: SocketNo, local_channel: ChannelNo) {
        if let Some(member) = self.members.remove(local_channel, no) {
            self.presence.unsubscribe(self.index.channel_of(local_channel), &member.user);
        }
    }
}
