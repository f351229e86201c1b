//! Who sits where: channel <-> socket <-> user, for the sockets of one thread. Pure.
//!
//! Names of channels are held once, in the table of the process; here a channel is known by its number there.
//!
//! The seats of a room stand in a dense vector in the order in which they joined: a fan-out that walks sockets in hash
//! order pays 1.5 to 2 µs more per send in the kernel. Leaving makes a hole, so that a fan-out under way keeps its
//! place; holes are closed when nobody walks the room.

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
    numbers::{RoomNo, SeatNo},
    pages::Pages,
};

/// An app with sockets or channels here, for as long as it has any.
type AppNo = u32;

const HOLE: SeatNo = SeatNo::MAX;

/// All seats and rooms of one thread; `S` is whatever belongs to a seat.
pub struct Index<S> {
    names: Arc<ChannelTable>,
    seats: Slab<Seat<S>>,
    sockets: FxHashMap<u32, SeatNo>,
    rooms: Pages<LocalChannel>,
    /// The rooms by the numbers of their channels.
    by_channel: HashTable<RoomNo>,
    apps: Slab<AppIndex>,
    by_app: HashMap<AppId, AppNo, RandomState>,
}

struct Seat<S> {
    socket: u32,
    app: AppNo,
    user: UserId,
    /// Sorted by room; the first stands here.
    rooms: SmallVec<[Subscription; 1]>,
    it: S,
}

struct Subscription {
    room: RoomNo,
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
    /// So many walk it, fan-outs and questions: places must not move.
    walks: u32,
}

/// The seats of a room in join order, with holes. Most rooms have one.
enum JoinOrder {
    One(SeatNo),
    Many(Vec<SeatNo>),
}

struct AppIndex {
    id: AppId,
    /// The rooms in the order of their names, for prefixes.
    rooms: BTreeMap<ChannelName, RoomNo>,
    users: HashMap<UserId, SmallVec<[SeatNo; 2]>>,
    sockets: usize,
}

/// What changed when a socket joined or left channels.
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
    /// Nobody sits anywhere yet; `names` holds the names of channels.
    #[must_use]
    pub fn new(names: Arc<ChannelTable>) -> Self {
        Self {
            names,
            seats: Slab::new(),
            sockets: FxHashMap::default(),
            rooms: Pages::default(),
            by_channel: HashTable::new(),
            apps: Slab::new(),
            by_app: HashMap::default(),
        }
    }

    /// Give `socket` a seat. A socket number must not have one already.
    pub fn enter(&mut self, socket: u32, app: AppId, user: UserId, it: S) -> SeatNo {
        let app = self.app(app);
        let there = &mut self.apps[app as usize];
        there.sockets += 1;
        // the name is that of whoever came first, so that it is kept once
        let seats = there.users.entry(user);
        let user = seats.key().clone();
        let nobody = user.is_nobody();
        let seat = self.seats.insert(Seat { socket, app, user, rooms: SmallVec::new(), it }) as SeatNo;
        if !nobody {
            seats.or_default().push(seat);
        }
        self.sockets.insert(socket, seat);
        seat
    }

    /// The number of an app, which is given one if it has none.
    fn app(&mut self, id: AppId) -> AppNo {
        *self.by_app.entry(id).or_insert_with_key(|id| {
            let app = AppIndex { id: id.clone(), rooms: BTreeMap::new(), users: HashMap::new(), sockets: 0 };
            self.apps.insert(app) as AppNo
        })
    }

    fn app_index(&self, app: &AppId) -> Option<&AppIndex> {
        Some(&self.apps[*self.by_app.get(app)? as usize])
    }

    /// Take its seat and all its places from `socket`.
    pub fn exit(&mut self, socket: u32) -> Option<(S, Change)> {
        let no = self.sockets.remove(&socket)?;
        let mut change = Change::default();
        while let Some(subscription) = self.seats[no as usize].rooms.pop() {
            self.vacate(subscription.room, subscription.place, &mut change);
        }
        let seat = self.seats.remove(no as usize);
        let app = &mut self.apps[seat.app as usize];
        app.sockets -= 1;
        if let Some(seats) = app.users.get_mut(&seat.user) {
            seats.retain(|other| *other != no);
            if seats.is_empty() {
                app.users.remove(&seat.user);
            }
        }
        self.drop_empty_app(seat.app);
        Some((seat.it, change))
    }

    /// Put `seat` into `channel`, behind those who are there. Joining again changes only the tag.
    pub fn join(&mut self, no: SeatNo, channel: &ChannelName, tag: Option<Box<str>>, change: &mut Change) -> RoomNo {
        let app = self.seats[no as usize].app;
        let reference = self.names.refer(&self.apps[app as usize].id, channel);
        let Some(room) = self.room_of(reference.id()) else {
            return self.join_first(no, app, reference, channel, tag, change);
        };
        let seat = &mut self.seats[no as usize];
        match seat.rooms.binary_search_by_key(&room, |subscription| subscription.room) {
            Ok(at) => seat.rooms[at].tag = tag,
            Err(at) => {
                let there = &mut self.rooms[room];
                seat.rooms.insert(at, Subscription { room, place: there.places.push(no), tag });
                there.occupied += 1;
                change.subscriptions += 1;
                if there.occupied == 1 {
                    change.occupied.push(reference);
                }
            }
        }
        room
    }

    /// Put `seat` into a channel that has no room yet.
    fn join_first(
        &mut self,
        no: SeatNo,
        app: AppNo,
        reference: ChannelRef,
        name: &ChannelName,
        tag: Option<Box<str>>,
        change: &mut Change,
    ) -> RoomNo {
        let channel = reference.clone().into_id();
        let places = JoinOrder::One(no);
        let name = name.clone();
        let room = LocalChannel { name: name.clone(), channel, app, places, occupied: 1, walks: 0 };
        let room = self.rooms.insert(room);
        let Self { by_channel, rooms, .. } = self;
        by_channel.insert_unique(hash(channel), room, |&other| hash(rooms[other].channel));
        self.apps[app as usize].rooms.insert(name, room);
        let subscriptions = &mut self.seats[no as usize].rooms;
        let at = subscriptions.partition_point(|subscription| subscription.room < room);
        subscriptions.insert(at, Subscription { room, place: 0, tag });
        change.subscriptions += 1;
        change.occupied.push(reference);
        room
    }

    /// Take `seat` out of `channel`. `false` if it was not there.
    pub fn leave(&mut self, no: SeatNo, channel: &ChannelName, change: &mut Change) -> bool {
        let Some(room) = self.room(self.app_of(no), channel) else {
            return false;
        };
        let seat = &mut self.seats[no as usize];
        let Ok(at) = seat.rooms.binary_search_by_key(&room, |subscription| subscription.room) else {
            return false;
        };
        let subscription = seat.rooms.remove(at);
        self.vacate(room, subscription.place, change);
        true
    }

    fn vacate(&mut self, no: RoomNo, place: u32, change: &mut Change) {
        let room = &mut self.rooms[no];
        room.places.leave_hole(place);
        room.occupied -= 1;
        change.subscriptions -= 1;
        if room.occupied == 0 {
            change.vacated.push(self.names.refer_to(room.channel));
        }
        self.tidy(no);
    }

    /// Close the holes of a room, or drop it if it is empty, unless somebody walks it.
    fn tidy(&mut self, no: RoomNo) {
        let room = &mut self.rooms[no];
        if room.walks > 0 {
            return;
        }
        if room.occupied == 0 {
            self.drop_room(no);
        } else if let Some(places) = room.places.close_holes(room.occupied as usize) {
            for (place, &seat) in places.iter().enumerate() {
                let rooms = &mut self.seats[seat as usize].rooms;
                let at = rooms.binary_search_by_key(&no, |subscription| subscription.room);
                rooms[at.expect("who has a place has a subscription")].place = place as u32;
            }
        }
    }

    fn drop_room(&mut self, no: RoomNo) {
        let Some(LocalChannel { name, channel, app, .. }) = self.rooms.remove(no) else { return };
        if let Ok(entry) = self.by_channel.find_entry(hash(channel), |&room| room == no) {
            entry.remove();
        }
        let (len, capacity) = (self.by_channel.len(), self.by_channel.capacity());
        // what a crowd needed is given back when it has gone
        if capacity > 64 + 8 * len {
            let Self { by_channel, rooms, .. } = self;
            by_channel.shrink_to(2 * len, |&room| hash(rooms[room].channel));
        }
        self.apps[app as usize].rooms.remove(&name);
        self.drop_empty_app(app);
        drop(self.names.adopt(channel));
    }

    fn drop_empty_app(&mut self, no: AppNo) {
        let app = &self.apps[no as usize];
        if app.sockets == 0 && app.rooms.is_empty() {
            let AppIndex { id, .. } = self.apps.remove(no as usize);
            self.by_app.remove(&id);
        }
    }

    /// The room of a channel that somebody is on.
    #[must_use]
    pub fn room(&self, app: &AppId, channel: &ChannelName) -> Option<RoomNo> {
        let (id, _) = self.names.find(app, channel)?;
        self.room_of(id)
    }

    /// The same by the number of the channel, which is referred to.
    #[must_use]
    pub fn room_of(&self, channel: ChannelId) -> Option<RoomNo> {
        self.by_channel.find(hash(channel), |&room| self.rooms[room].channel == channel).copied()
    }

    /// The same by a number that may be another channel's by now.
    #[must_use]
    pub fn room_if(&self, id: ChannelId, app: &AppId, name: &ChannelName) -> Option<RoomNo> {
        let is_it =
            |room: &RoomNo| self.rooms[*room].name == *name && self.apps[self.rooms[*room].app as usize].id == *app;
        self.room_of(id).filter(is_it)
    }

    /// The name of a room's channel.
    #[must_use]
    pub fn name_of(&self, room: RoomNo) -> &ChannelName {
        &self.rooms[room].name
    }

    /// The number of a room's channel.
    #[must_use]
    pub fn channel_of(&self, room: RoomNo) -> ChannelId {
        self.rooms[room].channel
    }

    /// How many are in a room.
    #[must_use]
    pub fn occupied(&self, room: RoomNo) -> usize {
        self.rooms[room].occupied as usize
    }

    /// From now on the places of a room do not move, and it stays even when it is empty.
    pub fn begin_walk(&mut self, room: RoomNo) {
        self.rooms[room].walks += 1;
    }

    /// The walk is over. `false` if the room was empty and is gone.
    pub fn end_walk(&mut self, room: RoomNo) -> bool {
        self.rooms[room].walks -= 1;
        self.tidy(room);
        self.rooms.get(room).is_some()
    }

    /// Those who sit in a room from `place` on, in join order, each with its place.
    pub fn seated(&self, room: RoomNo, place: usize) -> impl Iterator<Item = (usize, SeatNo, &S)> {
        let places = self.rooms[room].places.as_slice().iter().enumerate().skip(place);
        places.filter(|(_, seat)| **seat != HOLE).map(|(place, &seat)| (place, seat, &self.seats[seat as usize].it))
    }

    /// The tag of a subscription.
    #[must_use]
    pub fn tag(&self, seat: SeatNo, room: RoomNo) -> Option<&str> {
        let rooms = &self.seats[seat as usize].rooms;
        let at = rooms.binary_search_by_key(&room, |subscription| subscription.room).ok()?;
        rooms[at].tag.as_deref()
    }

    /// The seat of a socket.
    #[must_use]
    pub fn seat_of(&self, socket: u32) -> Option<SeatNo> {
        self.sockets.get(&socket).copied()
    }

    /// What belongs to a seat.
    #[must_use]
    pub fn at(&self, seat: SeatNo) -> &S {
        &self.seats[seat as usize].it
    }

    /// The same, to change it.
    pub fn at_mut(&mut self, seat: SeatNo) -> &mut S {
        &mut self.seats[seat as usize].it
    }

    /// The app of a seat.
    #[must_use]
    pub fn app_of(&self, seat: SeatNo) -> &AppId {
        &self.apps[self.seats[seat as usize].app as usize].id
    }

    /// The user of a seat.
    #[must_use]
    pub fn user_of(&self, seat: SeatNo) -> &UserId {
        &self.seats[seat as usize].user
    }

    /// The number of the socket that sits there.
    #[must_use]
    pub fn socket_of(&self, seat: SeatNo) -> u32 {
        self.seats[seat as usize].socket
    }

    /// The seats of a user. Nobody has none, however many sockets are anonymous: looking for one among all of them would
    /// take longer the more there are.
    #[must_use]
    pub fn seats_of(&self, app: &AppId, user: &UserId) -> SmallVec<[SeatNo; 2]> {
        self.app_index(app).and_then(|there| there.users.get(user)).cloned().unwrap_or_default()
    }

    /// Has a user a seat?
    #[must_use]
    pub fn is_online(&self, app: &AppId, user: &UserId) -> bool {
        self.app_index(app).is_some_and(|there| there.users.contains_key(user))
    }

    /// Channels that a seat is subscribed to.
    pub fn channels_of(&self, seat: SeatNo) -> impl Iterator<Item = &ChannelName> {
        self.seats[seat as usize].rooms.iter().map(|subscription| &self.rooms[subscription.room].name)
    }

    /// Their rooms.
    pub fn rooms_of(&self, seat: SeatNo) -> impl Iterator<Item = RoomNo> {
        self.seats[seat as usize].rooms.iter().map(|subscription| subscription.room)
    }

    /// How many those are.
    #[must_use]
    pub fn subscriptions_of(&self, seat: SeatNo) -> usize {
        self.seats[seat as usize].rooms.len()
    }

    /// Is `seat` on `channel`?
    #[must_use]
    pub fn is_on(&self, seat: SeatNo, channel: &ChannelName) -> bool {
        let rooms = &self.seats[seat as usize].rooms;
        self.room(self.app_of(seat), channel)
            .is_some_and(|room| rooms.binary_search_by_key(&room, |there| there.room).is_ok())
    }

    /// Every seat.
    pub fn seats(&self) -> impl Iterator<Item = (SeatNo, &S)> {
        self.seats.iter().map(|(no, seat)| (no as SeatNo, &seat.it))
    }

    /// Channels of `app` that somebody is on and whose names begin with `prefix`, in order, from behind `after` on.
    pub fn channels<'a>(
        &'a self,
        app: &AppId,
        prefix: &'a str,
        after: Option<&'a ChannelName>,
    ) -> impl Iterator<Item = (&'a ChannelName, RoomNo)> {
        let from = after.map_or(Bound::Included(prefix), |after| Bound::Excluded(after.as_str()));
        let rooms = self
            .app_index(app)
            .into_iter()
            .flat_map(move |there| there.rooms.range::<str, _>((from, Bound::Unbounded)));
        let under = rooms.take_while(move |(name, _)| name.as_str().starts_with(prefix));
        under.map(|(name, &room)| (name, room)).filter(|&(_, room)| self.occupied(room) > 0)
    }

    /// Every seat from `from` on, the empty ones too: whose it is, in which app.
    pub fn seats_from(&self, from: SeatNo) -> impl Iterator<Item = (SeatNo, Option<(&AppId, &UserId)>)> {
        (from..self.seats.capacity() as SeatNo)
            .map(|no| (no, self.seats.get(no as usize).map(|seat| (self.app_of(no), &seat.user))))
    }

    /// Apps with sockets: how many, and their users.
    pub fn apps(&self) -> impl Iterator<Item = (&AppId, usize, impl Iterator<Item = &UserId>)> {
        let with_sockets = self.apps.iter().map(|(_, app)| app).filter(|app| app.sockets > 0);
        with_sockets.map(|app| (&app.id, app.sockets, app.users.keys()))
    }
}

impl JoinOrder {
    fn as_slice(&self) -> &[SeatNo] {
        match self {
            Self::One(seat) => std::slice::from_ref(seat),
            Self::Many(seats) => seats,
        }
    }

    /// Its place.
    fn push(&mut self, seat: SeatNo) -> u32 {
        match self {
            Self::One(first) => {
                *self = Self::Many(vec![*first, seat]);
                1
            }
            Self::Many(seats) => {
                seats.push(seat);
                seats.len() as u32 - 1
            }
        }
    }

    fn leave_hole(&mut self, place: u32) {
        match self {
            Self::One(seat) => *seat = HOLE,
            Self::Many(seats) => seats[place as usize] = HOLE,
        }
    }

    /// If there are more holes than are worth it, the places without them; `occupied` are none.
    fn close_holes(&mut self, occupied: usize) -> Option<&[SeatNo]> {
        let Self::Many(seats) = self else { return None };
        if seats.len() <= 2 * occupied + 16 {
            return None;
        }
        seats.retain(|&seat| seat != HOLE);
        seats.shrink_to_fit();
        Some(seats)
    }
}

/// Numbers are given out by this process, so nobody chooses them.
fn hash(channel: ChannelId) -> u64 {
    FxBuildHasher.hash_one(channel)
}

#[cfg(test)]
mod tests;
