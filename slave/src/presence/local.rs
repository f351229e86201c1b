//! Which sockets of this thread are members of presence channels, and as whom: beside the index, since most channels have
//! no members. A channel without members has nothing here.

use rustc_hash::FxHashMap;
use wellhead_proto::{ids::UserId, member::Member};

use crate::numbers::{ChannelNo, SocketNo};

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
    local_channels: FxHashMap<ChannelNo, FxHashMap<SocketNo, LocalMember>>,
}

impl LocalMembers {
    /// A socket is a member from now on.
    pub fn add(&mut self, local_channel: ChannelNo, local_socket: SocketNo, member: LocalMember) {
        self.local_channels.entry(local_channel).or_default().insert(local_socket, member);
    }

    /// It leaves the channel. As whom it was there, if it was a member.
    pub fn remove(&mut self, local_channel: ChannelNo, local_socket: SocketNo) -> Option<Member> {
        let local_sockets = self.local_channels.get_mut(&local_channel)?;
        let member = local_sockets.remove(&local_socket)?;
        if local_sockets.is_empty() {
            self.local_channels.remove(&local_channel);
        }
        Some(member.member)
    }

    /// The part of a socket in a channel.
    #[must_use]
    pub fn of(&self, local_channel: ChannelNo, local_socket: SocketNo) -> Option<&LocalMember> {
        self.local_channels.get(&local_channel)?.get(&local_socket)
    }

    /// The members in a channel, one for each socket.
    pub fn in_channel(&self, local_channel: ChannelNo) -> impl Iterator<Item = &Member> {
        self.local_channels
            .get(&local_channel)
            .into_iter()
            .flat_map(|local_sockets| local_sockets.values().map(|member| &member.member))
    }

    /// Is anybody a member in that channel?
    #[must_use]
    pub fn has(&self, local_channel: ChannelNo) -> bool {
        self.local_channels.contains_key(&local_channel)
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.local_channels.is_empty()
    }
}
