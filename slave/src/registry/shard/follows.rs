//! What sockets of a thread follow over the cluster: the counts of their channels, and users whom they watch.

use std::{sync::Arc, time::Instant};

use rustc_hash::FxHashSet;
use wellhead_proto::{
    frame::Frame,
    ids::{AppId, ChannelName, SocketId, UserId},
    notice::Notice,
};

use super::{ChannelNo, QueuedPush, Shard, SocketNo, WaitingForCommand};
use crate::{
    channels::{ChannelRef, ChannelTable},
    presence::{UserStanding, watchers::WatchNews},
    registry::message::CountUpdate,
};

/// Users that are looked at in the time of one delivery.
const LOOKED_AT: usize = 16;

/// Sockets on a channel that were not told yet how many they are.
pub(super) type Newcomers = FxHashSet<u32>;

impl Shard {
    /// A socket came to a channel, which is counted perhaps.
    pub(super) fn count_join(&mut self, local_socket: SocketNo, local_channel: ChannelNo) {
        let following = &self.presence.following;
        if following.is_counted(self.index.app_of(local_socket), self.index.name_of(local_channel)) {
            let channel = self.names().refer_to(self.index.channel_of(local_channel));
            following.count(&channel, self.worker, self.index.occupied(local_channel), true);
            if following.is_told(self.index.app_of(local_socket)) {
                self.newcomers.entry(channel.id()).or_default().insert(self.index.socket_of(local_socket));
            }
        }
    }

    /// The channel that a socket is about to leave, if channels are counted.
    pub(super) fn counted(&self, app: &AppId, channel: &ChannelName) -> Option<ChannelRef> {
        let local_channel =
            self.presence.following.counts().then(|| self.index.local_channel(app, channel)).flatten()?;
        Some(self.names().refer_to(self.index.channel_of(local_channel)))
    }

    /// All channels that a socket is about to leave, if channels are counted.
    pub(super) fn all_counted(&self, local_socket: SocketNo) -> Vec<ChannelRef> {
        if !self.presence.following.counts() {
            return Vec::new();
        }
        let local_channels = self.index.rooms_of(local_socket);
        local_channels.map(|local_channel| self.names().refer_to(self.index.channel_of(local_channel))).collect()
    }

    /// A socket has left a channel.
    pub(super) fn count_leave(&mut self, socket: u32, channel: &ChannelRef) {
        let sockets =
            self.index.local_channel_of(channel.id()).map_or(0, |local_channel| self.index.occupied(local_channel));
        self.presence.following.count(channel, self.worker, sockets, false);
        if let Some(newcomers) = self.newcomers.get_mut(&channel.id()) {
            newcomers.remove(&socket);
            if newcomers.is_empty() {
                self.newcomers.remove(&channel.id());
            }
        }
    }

    /// Tell the sockets on a channel how many there are.
    pub fn tell_count(&mut self, update: CountUpdate) {
        if self.is_held() {
            self.waiting.push_back(WaitingForCommand::Count(update));
        } else {
            self.announce_count(update);
        }
    }

    pub(super) fn announce_count(&mut self, CountUpdate { channel, count, all, permit }: CountUpdate) {
        let newcomers = self.newcomers.remove(&channel.id()).unwrap_or_default();
        let Some(local_channel) = self.index.local_channel_of(channel.id()) else { return };
        let name = self.index.name_of(local_channel).clone();
        if all {
            return self.publish(local_channel, QueuedPush::count(name, count, permit, Instant::now()));
        }
        for socket in newcomers {
            let Some(local_socket) = self.index.local_socket_of(socket) else { continue };
            self.spent += 1;
            let encoding = self.encodings.at(self.index.at(local_socket).encoding);
            let Some(shared) = encoding.encode(Notice::SubscriptionCount { channel: &name, count }) else { continue };
            let tag = || self.index.tag(local_socket, local_channel).unwrap_or_default();
            let frame = encoding.frame_of(shared, tag);
            self.enqueue(local_socket, frame);
            self.metrics.deliveries.inc();
        }
    }

    /// A socket watches these users from now on, and no others. What it is told at once, if all of them are known.
    pub fn watch(&mut self, socket: SocketId, users: &[UserId]) -> Option<Frame> {
        let local_socket = self.index.local_socket_of(socket.counter())?;
        let app = self.index.app_of(local_socket).clone();
        let new = self.watchers.unwatched(&app, users);
        if !new.is_empty() {
            let standings = self.presence.following.watch(&app, &new, self.worker);
            for (user, (online, number)) in new.iter().zip(standings) {
                self.watchers.open(&app, user, online, number);
            }
        }
        let ended = self.watchers.watch(socket.counter(), &app, users, Instant::now());
        if !ended.is_empty() {
            self.presence.following.unwatch(&app, &ended, self.worker);
        }
        let news = self.watchers.news(socket.counter());
        self.watch_frame(local_socket, &news)
    }

    /// A socket ends.
    pub(super) fn unwatch(&mut self, socket: u32) {
        if let Some((app, ended)) = self.watchers.unwatch(socket)
            && !ended.is_empty()
        {
            self.presence.following.unwatch(&app, &ended, self.worker);
        }
    }

    /// These users stand otherwise. Who watches them is told in its turn.
    pub fn users_stand(&mut self, users: Vec<UserStanding>) {
        users.into_iter().for_each(|user| self.watchers.stands(user));
    }

    /// From time to time. `true` if somebody is to be told something.
    pub fn tick_watchers(&mut self) -> bool {
        self.watchers.tick(Instant::now())
    }

    /// Tell those who watch users what is new, as many as fit into this turn.
    pub(super) fn tell_watchers(&mut self) {
        while self.spent < self.chunk {
            let Some((socket, news, looked_at)) = self.watchers.next() else { return };
            self.spent += 1 + looked_at / LOOKED_AT;
            let Some(local_socket) = self.index.local_socket_of(socket) else { continue };
            if let Some(frame) = self.watch_frame(local_socket, &news) {
                self.enqueue(local_socket, frame);
                self.metrics.deliveries.inc();
            }
        }
    }

    fn watch_frame(&self, local_socket: SocketNo, news: &WatchNews) -> Option<Frame> {
        if news.is_empty() {
            return None;
        }
        let encoding = self.encodings.at(self.index.at(local_socket).encoding);
        let shared = encoding.encode(Notice::Watched { online: &news.online, offline: &news.offline })?;
        Some(encoding.frame_of(shared, || ""))
    }

    fn names(&self) -> &Arc<ChannelTable> {
        self.interests.names()
    }
}
