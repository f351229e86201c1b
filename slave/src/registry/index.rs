//! Which socket is on which channel, and whose it is, for the sockets of one thread. Pure.
//!
//! Names of channels are held once, in the table of the process; here a channel is known by its number there.
//!
//! The sockets of a channel are kept in a dense vector in the order in which they subscribed: a fan-out that visits sockets in
//! hash order pays 1.5 to 2 µs more per send in the kernel. Leaving makes a hole, so that a fan-out under way keeps its
//! place; holes are closed when no broadcast to it is in progress.

use std::{
    collections::{BTreeMap, HashMap},
    hash::BuildHasher,
    ops::Bound,
    sync::Arc,
};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use rustc_hash::{FxBuildHasher, FxHashMap};
use slab::Slab;
use smallvec::SmallVec;
use wellhead_proto::ids::{AppId, ChannelName, UserId};

use crate::{
    channels::{ChannelId, ChannelRef, ChannelTable},
    numbers::{ChannelNo, SocketNo},
    pages::Pages,
};

/// An app with sockets or channels here, for as long as it has any.
type AppNo = u32;

const HOLE: SocketNo = SocketNo::MAX;

/// All sockets and channels of one thread; `S` is whatever else belongs to a socket.
pub struct Index<S> {
    names: Arc<ChannelTable>,
    local_sockets: Slab<SocketEntry<S>>,
    sockets: FxHashMap<u32, SocketNo>,
    local_channels: Pages<LocalChannel>,
    /// The local number of each channel, by its number in the process.
    by_channel: HashTable<ChannelNo>,
    apps: Slab<AppIndex>,
    by_app: HashMap<AppId, AppNo, RandomState>,
}

struct SocketEntry<S> {
    socket: u32,
    app: AppNo,
    user: UserId,
    /// Sorted by channel; the first is held here, without an allocation.
    local_channels: SmallVec<[Subscription; 1]>,
    it: S,
}

struct Subscription {
    local_channel: ChannelNo,
    place: u32,
    /// What the dialect wants to remember of it.
    tag: Option<Box<str>>,
}

struct LocalChannel {
    /// Its name, which the table of the process holds.
    name: ChannelName,
    /// A reference to it, put aside.
    channel: ChannelId,
    app: AppNo,
    places: JoinOrder,
    occupied: u32,
    /// How many broadcasts and queries are in progress here: meanwhile places must not move.
    pins: u32,
}

/// The sockets of a channel in the order in which they subscribed, with holes. Most channels have one.
enum JoinOrder {
    One(SocketNo),
    Many(Vec<SocketNo>),
}

struct AppIndex {
    id: AppId,
    /// The local channels in the order of their names, for prefixes.
    local_channels: BTreeMap<ChannelName, ChannelNo>,
    users: HashMap<UserId, SmallVec<[SocketNo; 2]>>,
    sockets: usize,
}

/// What changed when a socket was subscribed or unsubscribed.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Change {
    /// Channels that nobody of this thread was on before.
    pub occupied: Vec<ChannelRef>,
    /// Channels that nobody of this thread is on any more.
    pub vacated: Vec<ChannelRef>,
    /// By how many the number of subscriptions grew or shrank.
    pub subscriptions: i64,
}

#[cfg(test)]
impl<S> Default for Index<S> {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl<S> Index<S> {
    /// No sockets yet; `names` holds the names of channels.
    #[must_use]
    pub fn new(names: Arc<ChannelTable>) -> Self {
        Self {
            names,
            local_sockets: Slab::new(),
            sockets: FxHashMap::default(),
            local_channels: Pages::default(),
            by_channel: HashTable::new(),
            apps: Slab::new(),
            by_app: HashMap::default(),
        }
    }

    /// Add `socket`, which must not be there already.
    pub fn open(&mut self, socket: u32, app: AppId, user: UserId, it: S) -> SocketNo {
        let app = self.app(app);
        let there = &mut self.apps[app as usize];
        there.sockets += 1;
        // the name is that of whoever came first, so that it is kept once
        let local_sockets = there.users.entry(user);
        let user = local_sockets.key().clone();
        let nobody = user.is_nobody();
        let local_socket =
            self.local_sockets.insert(SocketEntry { socket, app, user, local_channels: SmallVec::new(), it })
                as SocketNo;
        if !nobody {
            local_sockets.or_default().push(local_socket);
        }
        self.sockets.insert(socket, local_socket);
        local_socket
    }

    /// A socket is that of `user` from now on, if it was nobody's. `false` if it is another's.
    pub fn identify(&mut self, no: SocketNo, user: UserId) -> bool {
        let local_socket = &mut self.local_sockets[no as usize];
        if local_socket.user == user {
            return true;
        }
        if !local_socket.user.is_nobody() {
            return false;
        }
        let local_sockets = self.apps[local_socket.app as usize].users.entry(user);
        local_socket.user = local_sockets.key().clone();
        local_sockets.or_default().push(no);
        true
    }

    /// The number of an app, which is given one if it has none.
    fn app(&mut self, id: AppId) -> AppNo {
        *self.by_app.entry(id).or_insert_with_key(|id| {
            let app = AppIndex { id: id.clone(), local_channels: BTreeMap::new(), users: HashMap::new(), sockets: 0 };
            self.apps.insert(app) as AppNo
        })
    }

    fn app_index(&self, app: &AppId) -> Option<&AppIndex> {
        Some(&self.apps[*self.by_app.get(app)? as usize])
    }

    /// Remove `socket` and all its subscriptions.
    pub fn close(&mut self, socket: u32) -> Option<(S, Change)> {
        let no = self.sockets.remove(&socket)?;
        let mut change = Change::default();
        while let Some(subscription) = self.local_sockets[no as usize].local_channels.pop() {
            self.vacate(subscription.local_channel, subscription.place, &mut change);
        }
        let local_socket = self.local_sockets.remove(no as usize);
        let app = &mut self.apps[local_socket.app as usize];
        app.sockets -= 1;
        if let Some(local_sockets) = app.users.get_mut(&local_socket.user) {
            local_sockets.retain(|other| *other != no);
            if local_sockets.is_empty() {
                app.users.remove(&local_socket.user);
            }
        }
        self.drop_empty_app(local_socket.app);
        Some((local_socket.it, change))
    }

    /// Subscribe a socket to `channel`, behind the others. Subscribing again changes only the tag.
    pub fn subscribe(
        &mut self,
        no: SocketNo,
        channel: &ChannelName,
        tag: Option<Box<str>>,
        change: &mut Change,
    ) -> ChannelNo {
        let app = self.local_sockets[no as usize].app;
        let reference = self.names.refer(&self.apps[app as usize].id, channel);
        let Some(local_channel) = self.local_channel_of(reference.id()) else {
            return self.subscribe_first(no, app, reference, channel, tag, change);
        };
        let local_socket = &mut self.local_sockets[no as usize];
        match local_socket
            .local_channels
            .binary_search_by_key(&local_channel, |subscription| subscription.local_channel)
        {
            Ok(at) => local_socket.local_channels[at].tag = tag,
            Err(at) => {
                let there = &mut self.local_channels[local_channel];
                local_socket
                    .local_channels
                    .insert(at, Subscription { local_channel, place: there.places.push(no), tag });
                there.occupied += 1;
                change.subscriptions += 1;
                if there.occupied == 1 {
                    change.occupied.push(reference);
                }
            }
        }
        local_channel
    }

    /// Subscribe `local_socket` to a channel that has no subscribers in this thread yet.
    fn subscribe_first(
        &mut self,
        no: SocketNo,
        app: AppNo,
        reference: ChannelRef,
        name: &ChannelName,
        tag: Option<Box<str>>,
        change: &mut Change,
    ) -> ChannelNo {
        let channel = reference.clone().into_id();
        let places = JoinOrder::One(no);
        let name = name.clone();
        let local_channel = LocalChannel { name: name.clone(), channel, app, places, occupied: 1, pins: 0 };
        let local_channel = self.local_channels.insert(local_channel);
        let Self { by_channel, local_channels, .. } = self;
        by_channel.insert_unique(hash(channel), local_channel, |&other| hash(local_channels[other].channel));
        self.apps[app as usize].local_channels.insert(name, local_channel);
        let subscriptions = &mut self.local_sockets[no as usize].local_channels;
        let at = subscriptions.partition_point(|subscription| subscription.local_channel < local_channel);
        subscriptions.insert(at, Subscription { local_channel, place: 0, tag });
        change.subscriptions += 1;
        change.occupied.push(reference);
        local_channel
    }

    /// Unsubscribe a socket from `channel`. `false` if it was not subscribed.
    pub fn unsubscribe(&mut self, no: SocketNo, channel: &ChannelName, change: &mut Change) -> bool {
        let Some(local_channel) = self.local_channel(self.app_of(no), channel) else {
            return false;
        };
        let local_socket = &mut self.local_sockets[no as usize];
        let Ok(at) =
            local_socket.local_channels.binary_search_by_key(&local_channel, |subscription| subscription.local_channel)
        else {
            return false;
        };
        let subscription = local_socket.local_channels.remove(at);
        self.vacate(local_channel, subscription.place, change);
        true
    }

    fn vacate(&mut self, no: ChannelNo, place: u32, change: &mut Change) {
        let local_channel = &mut self.local_channels[no];
        local_channel.places.leave_hole(place);
        local_channel.occupied -= 1;
        change.subscriptions -= 1;
        if local_channel.occupied == 0 {
            change.vacated.push(self.names.refer_to(local_channel.channel));
        }
        self.tidy(no);
    }

    /// Close the holes of a channel, or drop it if it is empty, unless it is pinned.
    fn tidy(&mut self, no: ChannelNo) {
        let local_channel = &mut self.local_channels[no];
        if local_channel.pins > 0 {
            return;
        }
        if local_channel.occupied == 0 {
            self.drop_channel(no);
        } else if let Some(places) = local_channel.places.close_holes(local_channel.occupied as usize) {
            for (place, &local_socket) in places.iter().enumerate() {
                let local_channels = &mut self.local_sockets[local_socket as usize].local_channels;
                let at = local_channels.binary_search_by_key(&no, |subscription| subscription.local_channel);
                local_channels[at.expect("who has a place has a subscription")].place = place as u32;
            }
        }
    }

    fn drop_channel(&mut self, no: ChannelNo) {
        let Some(LocalChannel { name, channel, app, .. }) = self.local_channels.remove(no) else { return };
        if let Ok(entry) = self.by_channel.find_entry(hash(channel), |&local_channel| local_channel == no) {
            entry.remove();
        }
        let (len, capacity) = (self.by_channel.len(), self.by_channel.capacity());
        // memory that a large crowd needed is freed when the crowd has gone
        if capacity > 64 + 8 * len {
            let Self { by_channel, local_channels, .. } = self;
            by_channel.shrink_to(2 * len, |&local_channel| hash(local_channels[local_channel].channel));
        }
        self.apps[app as usize].local_channels.remove(&name);
        self.drop_empty_app(app);
        drop(self.names.adopt(channel));
    }

    fn drop_empty_app(&mut self, no: AppNo) {
        let app = &self.apps[no as usize];
        if app.sockets == 0 && app.local_channels.is_empty() {
            let AppIndex { id, .. } = self.apps.remove(no as usize);
            self.by_app.remove(&id);
        }
    }

    /// The number of a channel that has subscribers.
    #[must_use]
    pub fn local_channel(&self, app: &AppId, channel: &ChannelName) -> Option<ChannelNo> {
        let (id, _) = self.names.find(app, channel)?;
        self.local_channel_of(id)
    }

    /// The same by the number of the channel, which is referred to.
    #[must_use]
    pub fn local_channel_of(&self, channel: ChannelId) -> Option<ChannelNo> {
        self.by_channel
            .find(hash(channel), |&local_channel| self.local_channels[local_channel].channel == channel)
            .copied()
    }

    /// The same by a number that may be another channel's by now.
    #[must_use]
    pub fn room_if(&self, id: ChannelId, app: &AppId, name: &ChannelName) -> Option<ChannelNo> {
        let is_it = |local_channel: &ChannelNo| {
            self.local_channels[*local_channel].name == *name
                && self.apps[self.local_channels[*local_channel].app as usize].id == *app
        };
        self.local_channel_of(id).filter(is_it)
    }

    /// The name of a local channel.
    #[must_use]
    pub fn name_of(&self, local_channel: ChannelNo) -> &ChannelName {
        &self.local_channels[local_channel].name
    }

    /// The number in the process of a local channel.
    #[must_use]
    pub fn channel_of(&self, local_channel: ChannelNo) -> ChannelId {
        self.local_channels[local_channel].channel
    }

    /// How many sockets are subscribed to a channel.
    #[must_use]
    pub fn occupied(&self, local_channel: ChannelNo) -> usize {
        self.local_channels[local_channel].occupied as usize
    }

    /// From now on the places of a channel do not move, and it stays even when it is empty.
    pub fn pin(&mut self, local_channel: ChannelNo) {
        self.local_channels[local_channel].pins += 1;
    }

    /// What pinned the channel is over. `false` if the channel was empty and is gone.
    pub fn unpin(&mut self, local_channel: ChannelNo) -> bool {
        self.local_channels[local_channel].pins -= 1;
        self.tidy(local_channel);
        self.local_channels.get(local_channel).is_some()
    }

    /// The sockets of a channel from `place` on, in the order in which they subscribed, each with its place.
    pub fn sockets_from(&self, local_channel: ChannelNo, place: usize) -> impl Iterator<Item = (usize, SocketNo, &S)> {
        let places = self.local_channels[local_channel].places.as_slice().iter().enumerate().skip(place);
        places
            .filter(|(_, local_socket)| **local_socket != HOLE)
            .map(|(place, &local_socket)| (place, local_socket, &self.local_sockets[local_socket as usize].it))
    }

    /// The tag of a subscription.
    #[must_use]
    pub fn tag(&self, local_socket: SocketNo, local_channel: ChannelNo) -> Option<&str> {
        let local_channels = &self.local_sockets[local_socket as usize].local_channels;
        let at = local_channels.binary_search_by_key(&local_channel, |subscription| subscription.local_channel).ok()?;
        local_channels[at].tag.as_deref()
    }

    /// The entry of a socket, by its number in the node.
    #[must_use]
    pub fn local_socket_of(&self, socket: u32) -> Option<SocketNo> {
        self.sockets.get(&socket).copied()
    }

    /// What else belongs to a socket.
    #[must_use]
    pub fn at(&self, local_socket: SocketNo) -> &S {
        &self.local_sockets[local_socket as usize].it
    }

    /// The same, to change it.
    pub fn at_mut(&mut self, local_socket: SocketNo) -> &mut S {
        &mut self.local_sockets[local_socket as usize].it
    }

    /// The app of a socket.
    #[must_use]
    pub fn app_of(&self, local_socket: SocketNo) -> &AppId {
        &self.apps[self.local_sockets[local_socket as usize].app as usize].id
    }

    /// The user of a socket.
    #[must_use]
    pub fn user_of(&self, local_socket: SocketNo) -> &UserId {
        &self.local_sockets[local_socket as usize].user
    }

    /// The number that the socket has in its node.
    #[must_use]
    pub fn socket_of(&self, local_socket: SocketNo) -> u32 {
        self.local_sockets[local_socket as usize].socket
    }

    /// The sockets of a user. None for the anonymous user, however many sockets it has: looking for one among all of them
    /// would take longer the more there are.
    #[must_use]
    pub fn local_sockets_of(&self, app: &AppId, user: &UserId) -> SmallVec<[SocketNo; 2]> {
        self.app_index(app).and_then(|there| there.users.get(user)).cloned().unwrap_or_default()
    }

    /// Has a user a socket here?
    #[must_use]
    pub fn is_online(&self, app: &AppId, user: &UserId) -> bool {
        self.app_index(app).is_some_and(|there| there.users.contains_key(user))
    }

    /// Channels that a socket is subscribed to.
    pub fn channels_of(&self, local_socket: SocketNo) -> impl Iterator<Item = &ChannelName> {
        self.local_sockets[local_socket as usize]
            .local_channels
            .iter()
            .map(|subscription| &self.local_channels[subscription.local_channel].name)
    }

    /// The local channels that it is subscribed to.
    pub fn rooms_of(&self, local_socket: SocketNo) -> impl Iterator<Item = ChannelNo> {
        self.local_sockets[local_socket as usize].local_channels.iter().map(|subscription| subscription.local_channel)
    }

    /// How many those are.
    #[must_use]
    pub fn subscriptions_of(&self, local_socket: SocketNo) -> usize {
        self.local_sockets[local_socket as usize].local_channels.len()
    }

    /// Is `local_socket` on `channel`?
    #[must_use]
    pub fn is_on(&self, local_socket: SocketNo, channel: &ChannelName) -> bool {
        let local_channels = &self.local_sockets[local_socket as usize].local_channels;
        self.local_channel(self.app_of(local_socket), channel).is_some_and(|local_channel| {
            local_channels.binary_search_by_key(&local_channel, |there| there.local_channel).is_ok()
        })
    }

    /// Every socket.
    pub fn local_sockets(&self) -> impl Iterator<Item = (SocketNo, &S)> {
        self.local_sockets.iter().map(|(no, local_socket)| (no as SocketNo, &local_socket.it))
    }

    /// Channels of `app` that somebody is on and whose names begin with `prefix`, in order, from behind `after` on.
    pub fn channels<'a>(
        &'a self,
        app: &AppId,
        prefix: &'a str,
        after: Option<&'a ChannelName>,
    ) -> impl Iterator<Item = (&'a ChannelName, ChannelNo)> {
        let from = after.map_or(Bound::Included(prefix), |after| Bound::Excluded(after.as_str()));
        let local_channels = self
            .app_index(app)
            .into_iter()
            .flat_map(move |there| there.local_channels.range::<str, _>((from, Bound::Unbounded)));
        let under = local_channels.take_while(move |(name, _)| name.as_str().starts_with(prefix));
        under
            .map(|(name, &local_channel)| (name, local_channel))
            .filter(|&(_, local_channel)| self.occupied(local_channel) > 0)
    }

    /// Every number of a socket from `from` on, the unused ones too: whose it is, in which app.
    pub fn entries_from(&self, from: SocketNo) -> impl Iterator<Item = (SocketNo, Option<(&AppId, &UserId)>)> {
        (from..self.local_sockets.capacity() as SocketNo).map(|no| {
            (no, self.local_sockets.get(no as usize).map(|local_socket| (self.app_of(no), &local_socket.user)))
        })
    }

    /// Apps with sockets: how many, and their users.
    pub fn apps(&self) -> impl Iterator<Item = (&AppId, usize, impl Iterator<Item = &UserId>)> {
        let with_sockets = self.apps.iter().map(|(_, app)| app).filter(|app| app.sockets > 0);
        with_sockets.map(|app| (&app.id, app.sockets, app.users.keys()))
    }
}

impl JoinOrder {
    fn as_slice(&self) -> &[SocketNo] {
        match self {
            Self::One(local_socket) => std::slice::from_ref(local_socket),
            Self::Many(local_sockets) => local_sockets,
        }
    }

    /// Its place.
    fn push(&mut self, local_socket: SocketNo) -> u32 {
        match self {
            Self::One(first) => {
                *self = Self::Many(vec![*first, local_socket]);
                1
            }
            Self::Many(local_sockets) => {
                local_sockets.push(local_socket);
                local_sockets.len() as u32 - 1
            }
        }
    }

    fn leave_hole(&mut self, place: u32) {
        match self {
            Self::One(local_socket) => *local_socket = HOLE,
            Self::Many(local_sockets) => local_sockets[place as usize] = HOLE,
        }
    }

    /// If there are more holes than are worth it, the places without them; `occupied` are none.
    fn close_holes(&mut self, occupied: usize) -> Option<&[SocketNo]> {
        let Self::Many(local_sockets) = self else { return None };
        if local_sockets.len() <= 2 * occupied + 16 {
            return None;
        }
        local_sockets.retain(|&local_socket| local_socket != HOLE);
        local_sockets.shrink_to_fit();
        Some(local_sockets)
    }
}

/// Numbers are given out by this process, so nobody chooses them.
fn hash(channel: ChannelId) -> u64 {
    FxBuildHasher.hash_one(channel)
}

#[cfg(test)]
mod tests;
