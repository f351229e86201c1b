//! Who sits where: channel <-> socket <-> user, for the sockets of one thread. Pure.
//!
//! The seats of a room stand in a dense vector in the order in which they joined: a fan-out that walks sockets in hash
//! order pays 1.5 to 2 µs more per send in the kernel. Leaving makes a hole, so that a fan-out under way keeps its
//! place; holes are closed when nobody walks the room.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
};

use foldhash::fast::RandomState;
use rustc_hash::FxHashMap;
use slab::Slab;
use smallvec::SmallVec;
use wellhead_proto::ids::{AppId, ChannelKey, ChannelName, UserId};

/// Where a socket sits, for as long as it does.
pub type SeatNo = u32;
/// A channel that somebody is on, for as long as somebody is (or a fan-out walks it).
pub type RoomNo = u32;

const HOLE: SeatNo = SeatNo::MAX;

/// All seats and rooms of one thread; `S` is whatever belongs to a seat.
pub struct Index<S> {
    seats: Slab<Seat<S>>,
    sockets: FxHashMap<u32, SeatNo>,
    rooms: Slab<Room>,
    apps: HashMap<AppId, House, RandomState>,
}

struct Seat<S> {
    socket: u32,
    app: AppId,
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

struct Room {
    key: ChannelKey,
    /// In join order, with holes.
    places: Vec<SeatNo>,
    occupied: u32,
    /// So many walk it, fan-outs and questions: places must not move.
    walks: u32,
}

#[derive(Default)]
struct House {
    rooms: HashMap<ChannelName, RoomNo, RandomState>,
    /// The same rooms in order, for prefixes.
    ordered: BTreeMap<ChannelName, RoomNo>,
    users: HashMap<UserId, SmallVec<[SeatNo; 2]>>,
    sockets: usize,
}

/// What changed when a socket joined or left channels.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Change {
    /// Channels that nobody of this thread was on before.
    pub occupied: Vec<ChannelKey>,
    /// Channels that nobody of this thread is on any more.
    pub vacated: Vec<ChannelKey>,
    /// By how many the number of subscriptions grew or shrank.
    pub subscriptions: i64,
}

impl<S> Default for Index<S> {
    fn default() -> Self {
        Self { seats: Slab::new(), sockets: FxHashMap::default(), rooms: Slab::new(), apps: HashMap::default() }
    }
}

impl<S> Index<S> {
    /// Give `socket` a seat. A socket number must not have one already.
    pub fn enter(&mut self, socket: u32, app: AppId, user: UserId, it: S) -> SeatNo {
        // names are those of whoever came first, so that they are kept once
        let house = self.apps.entry(app);
        let app = house.key().clone();
        let house = house.or_default();
        house.sockets += 1;
        let seats = house.users.entry(user);
        let user = seats.key().clone();
        let nobody = user.is_nobody();
        let seat = self.seats.insert(Seat { socket, app, user, rooms: SmallVec::new(), it }) as SeatNo;
        if !nobody {
            seats.or_default().push(seat);
        }
        self.sockets.insert(socket, seat);
        seat
    }

    /// Take its seat and all its places from `socket`.
    pub fn exit(&mut self, socket: u32) -> Option<(S, Change)> {
        let no = self.sockets.remove(&socket)?;
        let mut change = Change::default();
        while let Some(subscription) = self.seats[no as usize].rooms.pop() {
            self.vacate(subscription.room, subscription.place, &mut change);
        }
        let seat = self.seats.remove(no as usize);
        if let Some(house) = self.apps.get_mut(&seat.app) {
            house.sockets -= 1;
            if let Some(seats) = house.users.get_mut(&seat.user) {
                seats.retain(|other| *other != no);
                if seats.is_empty() {
                    house.users.remove(&seat.user);
                }
            }
        }
        self.drop_empty_house(&seat.app);
        Some((seat.it, change))
    }

    /// Put `seat` into `channel`, behind those who are there. Joining again changes only the tag.
    pub fn join(&mut self, no: SeatNo, channel: &ChannelName, tag: Option<Box<str>>, change: &mut Change) {
        let app = self.seats[no as usize].app.clone();
        let house = self.apps.entry(app.clone()).or_default();
        let room = *house.rooms.entry(channel.clone()).or_insert_with(|| {
            let key = ChannelKey { app, name: channel.clone() };
            let room = Room { key, places: Vec::new(), occupied: 0, walks: 0 };
            let room = self.rooms.insert(room) as RoomNo;
            house.ordered.insert(channel.clone(), room);
            room
        });
        let seat = &mut self.seats[no as usize];
        match seat.rooms.binary_search_by_key(&room, |subscription| subscription.room) {
            Ok(at) => seat.rooms[at].tag = tag,
            Err(at) => {
                let hall = &mut self.rooms[room as usize];
                seat.rooms.insert(at, Subscription { room, place: hall.places.len() as u32, tag });
                hall.places.push(no);
                hall.occupied += 1;
                change.subscriptions += 1;
                if hall.occupied == 1 {
                    change.occupied.push(hall.key.clone());
                }
            }
        }
    }

    /// Take `seat` out of `channel`. `false` if it was not there.
    pub fn leave(&mut self, no: SeatNo, channel: &ChannelName, change: &mut Change) -> bool {
        let Some(room) = self.room(&self.seats[no as usize].app, channel) else {
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
        let room = &mut self.rooms[no as usize];
        room.places[place as usize] = HOLE;
        room.occupied -= 1;
        change.subscriptions -= 1;
        if room.occupied == 0 {
            change.vacated.push(room.key.clone());
        }
        self.tidy(no);
    }

    /// Close the holes of a room, or drop it if it is empty, unless somebody walks it.
    fn tidy(&mut self, no: RoomNo) {
        let room = &mut self.rooms[no as usize];
        if room.walks > 0 {
            return;
        }
        if room.occupied == 0 {
            let key = self.rooms.remove(no as usize).key;
            if let Some(house) = self.apps.get_mut(&key.app) {
                house.rooms.remove(&key.name);
                house.ordered.remove(&key.name);
            }
            self.drop_empty_house(&key.app);
        } else if room.places.len() > 2 * room.occupied as usize + 16 {
            room.places.retain(|&seat| seat != HOLE);
            for (place, &seat) in room.places.iter().enumerate() {
                let rooms = &mut self.seats[seat as usize].rooms;
                let at = rooms.binary_search_by_key(&no, |subscription| subscription.room);
                rooms[at.expect("who has a place has a subscription")].place = place as u32;
            }
            room.places.shrink_to_fit();
        }
    }

    fn drop_empty_house(&mut self, app: &AppId) {
        if self.apps.get(app).is_some_and(|house| house.sockets == 0 && house.rooms.is_empty()) {
            self.apps.remove(app);
        }
    }

    /// The room of a channel that somebody is on.
    #[must_use]
    pub fn room(&self, app: &AppId, channel: &ChannelName) -> Option<RoomNo> {
        self.apps.get(app)?.rooms.get(channel).copied()
    }

    /// The channel of a room.
    #[must_use]
    pub fn channel(&self, room: RoomNo) -> &ChannelKey {
        &self.rooms[room as usize].key
    }

    /// How many are in a room.
    #[must_use]
    pub fn occupied(&self, room: RoomNo) -> usize {
        self.rooms[room as usize].occupied as usize
    }

    /// From now on the places of a room do not move, and it stays even when it is empty.
    pub fn begin_walk(&mut self, room: RoomNo) {
        self.rooms[room as usize].walks += 1;
    }

    /// The walk is over. `false` if the room was empty and is gone.
    pub fn end_walk(&mut self, room: RoomNo) -> bool {
        self.rooms[room as usize].walks -= 1;
        self.tidy(room);
        self.rooms.contains(room as usize)
    }

    /// Those who sit in a room from `place` on, in join order, each with its place.
    pub fn seated(&self, room: RoomNo, place: usize) -> impl Iterator<Item = (usize, SeatNo, &S)> {
        let places = self.rooms[room as usize].places.iter().enumerate().skip(place);
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
        &self.seats[seat as usize].app
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
        self.apps.get(app).and_then(|house| house.users.get(user)).cloned().unwrap_or_default()
    }

    /// Has a user a seat?
    #[must_use]
    pub fn is_online(&self, app: &AppId, user: &UserId) -> bool {
        self.apps.get(app).is_some_and(|house| house.users.contains_key(user))
    }

    /// Channels that a seat is subscribed to.
    pub fn channels_of(&self, seat: SeatNo) -> impl Iterator<Item = &ChannelName> {
        self.seats[seat as usize].rooms.iter().map(|subscription| &self.rooms[subscription.room as usize].key.name)
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
            .apps
            .get(app)
            .into_iter()
            .flat_map(move |house| house.ordered.range::<str, _>((from, Bound::Unbounded)));
        let under = rooms.take_while(move |(name, _)| name.as_str().starts_with(prefix));
        under.map(|(name, &room)| (name, room)).filter(|&(_, room)| self.occupied(room) > 0)
    }

    /// Every seat from `from` on, the empty ones too: whose it is, in which app.
    pub fn seats_from(&self, from: SeatNo) -> impl Iterator<Item = (SeatNo, Option<(&AppId, &UserId)>)> {
        (from..self.seats.capacity() as SeatNo)
            .map(|no| (no, self.seats.get(no as usize).map(|seat| (&seat.app, &seat.user))))
    }

    /// Apps with sockets: how many, and their users.
    pub fn apps(&self) -> impl Iterator<Item = (&AppId, usize, impl Iterator<Item = &UserId>)> {
        self.apps
            .iter()
            .filter(|(_, house)| house.sockets > 0)
            .map(|(app, house)| (app, house.sockets, house.users.keys()))
    }
}

#[cfg(test)]
mod tests;
