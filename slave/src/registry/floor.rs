//! The heart of a registry: the sockets of one thread, and what is done to them. Never waits; an outbox is flushed once
//! after everything that the mailbox held has been put into it.

mod asks;
mod members;
mod pushes;
mod users;

use std::{collections::VecDeque, num::NonZeroUsize, rc::Rc, sync::Arc, time::Instant};

use lru::LruCache;
use tokio::sync::oneshot;
use wellhead_proto::{
    command::{Command, Target},
    envelope::Envelope,
    event::Payload,
    frame::Frame,
    ids::{AppId, ChannelName, SocketId, UserId},
    matcher::Matcher,
    notice::Notice,
    refusal::CloseCause,
};

use self::{
    asks::Task,
    users::{Reload, UserOrder, Waiting, What},
};
use super::{
    fanout::{Fanout, Held, PendingJoin, Push, Run, Turn},
    grants::{AllGrants, Grants},
    index::{Change, Index},
    message::Order,
    presence::Granted,
};
use crate::{
    interests::Interests,
    metrics::Metrics,
    numbers::{RoomNo, SeatNo},
    outbox::{End, Outbox},
    presence::{Presence, local::LocalMembers},
    pulse::Pulse,
    voices::Voices,
};

/// Deliveries between two flushes: a few milliseconds, so that HTTP and small pushes on the same thread stay quick.
pub const CHUNK: usize = 512;

/// Compiled patterns that are kept.
const PATTERNS: usize = 256;

/// What belongs to a seat.
pub struct Seat {
    /// The socket as clients and backends name it.
    pub id: SocketId,
    /// The way to it.
    pub outbox: Rc<Outbox>,
    /// The kind of frame that it speaks.
    pub voice: u8,
    /// Channels that it may subscribe to.
    pub grants: Grants,
    /// When it was last pinged.
    pub pulse: Pulse,
}

impl Granted for Seat {
    fn grants(&self) -> Grants {
        self.grants.clone()
    }
}

/// The sockets of one thread.
pub struct Floor {
    /// Who sits where.
    pub(super) index: Index<Seat>,
    /// What the sockets may subscribe to.
    pub(super) grants: AllGrants,
    /// Who of them is a member of what.
    members: LocalMembers,
    voices: Rc<Voices>,
    fanout: Fanout,
    /// What is ordered for a user with many sockets.
    order: Option<UserOrder>,
    /// What arrived since.
    waiting: VecDeque<Waiting>,
    /// Questions under way.
    questions: VecDeque<Task>,
    /// Outboxes to flush after the drain.
    dirty: Vec<Rc<Outbox>>,
    /// Deliveries between two flushes.
    chunk: usize,
    /// Deliveries since the last flush.
    spent: usize,
    /// Arrivals of pushes whose last socket is served by the next flush.
    finished: Vec<Instant>,
    patterns: LruCache<String, Option<Matcher>>,
    /// Which worker thread this is.
    worker: usize,
    /// What the permissions of a socket may come to, in bytes.
    most_granted: usize,
    has_refused_grants: bool,
    interests: Arc<Interests>,
    presence: Arc<Presence>,
    metrics: Metrics,
}

impl Floor {
    /// The empty floor of thread `worker`, which flushes after every `chunk` deliveries.
    pub fn new(
        worker: usize,
        chunk: usize,
        most_granted: usize,
        voices: Rc<Voices>,
        interests: Arc<Interests>,
        presence: Arc<Presence>,
        metrics: Metrics,
    ) -> Self {
        Self {
            index: Index::new(interests.names().clone()),
            grants: AllGrants::default(),
            members: LocalMembers::default(),
            voices,
            fanout: Fanout::default(),
            order: None,
            waiting: VecDeque::new(),
            questions: VecDeque::new(),
            dirty: Vec::new(),
            chunk,
            spent: 0,
            finished: Vec::new(),
            patterns: LruCache::new(NonZeroUsize::new(PATTERNS).expect("some are kept")),
            worker,
            most_granted,
            has_refused_grants: false,
            interests,
            presence,
            metrics,
        }
    }

    /// A socket was opened.
    pub fn enter(&mut self, app: AppId, user: UserId, seat: Seat) {
        for question in &mut self.questions {
            question.note(&app, &user);
        }
        if !user.is_nobody() && !self.index.is_online(&app, &user) {
            self.metrics.users.connected(&app, &user);
        }
        self.index.enter(seat.id.counter(), app, user, seat);
    }

    /// A socket ends: from now on it is nowhere. Doing it twice is harmless.
    pub fn exit(&mut self, socket: SocketId) {
        let Some(seat) = self.index.seat_of(socket.counter()) else { return };
        self.resign_all(seat);
        let (app, user) = (self.index.app_of(seat).clone(), self.index.user_of(seat).clone());
        if let Some((_, change)) = self.index.exit(socket.counter()) {
            self.note(change);
        }
        if !user.is_nobody() && !self.index.is_online(&app, &user) {
            self.metrics.users.disconnected(&app, &user);
        }
    }

    /// Put a socket into channels and say `reply` in the same step, so that no event of theirs precedes it. If a
    /// fan-out walks one of them this waits for its end, and the answer tells when it is done.
    pub fn join(&mut self, mut join: PendingJoin) -> Option<oneshot::Receiver<()>> {
        if let Some(room) = self.walked_room_of(&join, None) {
            let (done, wait) = oneshot::channel();
            join.done = Some(done);
            self.fanout.hold(room, Held::Join(join));
            return Some(wait);
        }
        self.join_now(join);
        None
    }

    /// A room that the join must wait for; the one whose turn for joins it is does not count.
    fn walked_room_of(&self, join: &PendingJoin, but: Option<RoomNo>) -> Option<RoomNo> {
        let app = self.index.app_of(self.index.seat_of(join.socket)?);
        let mut rooms = join.channels.iter().filter_map(|channel| self.index.room(app, channel));
        rooms.find(|&room| Some(room) != but && self.fanout.is_walked(room))
    }

    fn join_now(&mut self, join: PendingJoin) {
        // the socket may have ended while it waited
        if let Some(seat) = self.index.seat_of(join.socket) {
            let mut change = Change::default();
            for channel in &join.channels {
                self.index.join(seat, channel, join.tag.clone(), &mut change);
                self.note_join(seat, channel);
            }
            self.note(change);
            // the session that asks flushes its own outbox; waiting for a fan-out, it has had its turn
            match (join.reply, &join.done) {
                (Some(reply), None) => self.index.at(seat).outbox.reply(reply),
                (Some(reply), Some(_)) => self.owe(seat, reply),
                (None, _) => {}
            }
        }
        if let Some(done) = join.done {
            // fails only if the session has ended
            let _ = done.send(());
        }
    }

    /// Take a socket out of a channel.
    pub fn leave(&mut self, socket: SocketId, channel: &ChannelName) {
        if let Some(seat) = self.index.seat_of(socket.counter()) {
            self.resign(seat, channel);
            let mut change = Change::default();
            self.index.leave(seat, channel, &mut change);
            self.note(change);
        }
    }

    /// What the socket of a seat may do and does.
    pub(super) fn standing(&self, seat: SeatNo) -> SeatStanding<'_> {
        SeatStanding { index: &self.index, seat }
    }

    /// Carry out a command, which arrived at `since`.
    pub fn obey(&mut self, order: Order, since: Instant) {
        if self.is_held() {
            self.waiting.push_back(Waiting::Order(order, since));
        } else {
            self.carry_out(order, since);
        }
    }

    fn carry_out(&mut self, order: Order, since: Instant) {
        let Order { envelope: Envelope { app, command }, channel: id, ticket } = order;
        match command {
            Command::Publish { channel, event, except } => {
                let Some(room) = id.and_then(|id| self.index.room_if(id, &app, &channel)) else { return };
                self.publish(room, Push::new(channel, event, except, Some(ticket), since));
            }
            Command::Direct { to: Target::User(user), data } => match self.index.seats_of(&app, &user)[..] {
                // most users have one socket
                [only] => self.direct(only, &data),
                _ => self.order(&app, &user, What::Direct(data), ticket),
            },
            Command::Direct { to: Target::Socket(socket), data } => {
                if let Some(seat) = self.seat_in(&app, socket) {
                    self.direct(seat, &data);
                }
            }
            Command::Reload { user, within, channels } => {
                self.order(&app, &user, What::Reload(Reload::new(&within, channels)), ticket);
            }
            Command::Grant { user, channel } => self.order(&app, &user, What::Grant(channel, None), ticket),
        }
    }

    fn seat_in(&self, app: &AppId, socket: SocketId) -> Option<SeatNo> {
        let seat = self.index.seat_of(socket.counter())?;
        (self.index.app_of(seat) == app && self.index.at(seat).id == socket).then_some(seat)
    }

    fn direct(&mut self, seat: SeatNo, data: &Payload) {
        let voice = self.voices.at(self.index.at(seat).voice);
        let Some(shared) = voice.encode(Notice::Direct(data)) else { return };
        let frame = voice.frame_of(shared, || "");
        self.owe(seat, frame);
        self.metrics.deliveries.inc();
    }

    /// Owe a frame to one socket; it leaves with the next flush.
    pub fn owe(&mut self, seat: SeatNo, frame: Frame) {
        let outbox = &self.index.at(seat).outbox;
        outbox.push(frame);
        if outbox.mark() {
            self.dirty.push(outbox.clone());
        }
    }

    /// End the socket of a seat, with a goodbye.
    pub fn close(&self, seat: SeatNo, cause: CloseCause) {
        let seat = self.index.at(seat);
        let goodbye = self.voices.at(seat.voice).goodbye(cause);
        seat.outbox.end(End { cause, goodbye: Some(goodbye) });
    }

    fn note(&mut self, change: Change) {
        for channel in &change.occupied {
            self.interests.add(channel.id(), self.worker);
        }
        for channel in &change.vacated {
            // left and joined again in one step: still there
            if self.index.room_of(channel.id()).is_none_or(|room| self.index.occupied(room) == 0) {
                self.interests.remove(channel.id(), self.worker);
            }
        }
        self.metrics.subscriptions.inc_by(change.subscriptions);
        self.metrics.channels.set(self.interests.channels() as i64);
    }
}

/// What a socket may do and does.
pub struct SeatStanding<'a> {
    index: &'a Index<Seat>,
    seat: SeatNo,
}

impl SeatStanding<'_> {
    /// May it subscribe to this channel?
    pub fn may_join(&self, channel: &ChannelName) -> bool {
        self.index.at(self.seat).grants.allow(channel)
    }

    /// Is it on this channel?
    pub fn is_on(&self, channel: &ChannelName) -> bool {
        self.index.is_on(self.seat, channel)
    }

    /// How many channels it is on.
    pub fn subscriptions(&self) -> usize {
        self.index.subscriptions_of(self.seat)
    }
}

#[cfg(test)]
#[path = "floor_tests.rs"]
mod tests;
