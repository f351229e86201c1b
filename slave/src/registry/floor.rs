//! The heart of a registry: the sockets of one thread, and what is done to them. Never waits; an outbox is flushed once
//! after everything that the mailbox held has been put into it.

mod members;
mod pushes;

use std::{num::NonZeroUsize, rc::Rc, sync::Arc, time::Instant};

use lru::LruCache;
use tokio::sync::oneshot;
use wellhead_proto::{
    channel::{ChannelPattern, allowed},
    command::{Command, Target},
    envelope::Envelope,
    event::Payload,
    frame::Frame,
    ids::{AppId, ChannelName, SocketId, UserId},
    matcher::Matcher,
    notice::Notice,
    query::{Ask, Census, Query},
    refusal::CloseCause,
};

use super::{
    attendees::Attendees,
    fanout::{Fanout, Held, PendingJoin, Push, Run, Turn},
    grants::{AllGrants, Grants, replaced},
    index::{Change, Index, RoomNo, SeatNo},
    presence,
};
use crate::{
    attendance::Attendance,
    backlog::Ticket,
    interests::Interests,
    metrics::Metrics,
    outbox::{End, Outbox},
    pulse::Pulse,
    session::state::Standing,
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

/// The sockets of one thread.
pub struct Floor {
    /// Who sits where.
    pub index: Index<Seat>,
    /// What the sockets may subscribe to.
    pub grants: AllGrants,
    /// Who of them is a member of what.
    attendees: Attendees,
    voices: Rc<Voices>,
    fanout: Fanout,
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
    interests: Arc<Interests>,
    attendance: Arc<Attendance>,
    metrics: Metrics,
}

impl Floor {
    /// The empty floor of thread `worker`, which flushes after every `chunk` deliveries.
    pub fn new(
        worker: usize,
        chunk: usize,
        voices: Rc<Voices>,
        interests: Arc<Interests>,
        attendance: Arc<Attendance>,
        metrics: Metrics,
    ) -> Self {
        Self {
            index: Index::default(),
            grants: AllGrants::default(),
            attendees: Attendees::default(),
            voices,
            fanout: Fanout::default(),
            dirty: Vec::new(),
            chunk,
            spent: 0,
            finished: Vec::new(),
            patterns: LruCache::new(NonZeroUsize::new(PATTERNS).expect("some are kept")),
            worker,
            interests,
            attendance,
            metrics,
        }
    }

    /// A socket was opened.
    pub fn enter(&mut self, app: AppId, user: UserId, seat: Seat) {
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

    /// What a socket may do and does.
    pub fn standing(&self, socket: SocketId) -> Option<SeatStanding<'_>> {
        let seat = self.index.seat_of(socket.counter())?;
        Some(SeatStanding { index: &self.index, seat })
    }

    /// Carry out a command, which arrived at `since`.
    pub fn obey(&mut self, envelope: Envelope, ticket: Ticket, since: Instant) {
        let Envelope { app, command } = envelope;
        match command {
            Command::Publish { channel, event, except } => {
                let Some(room) = self.index.room(&app, &channel) else { return };
                let alone = self.index.occupied(room) == 1 && self.spent < self.chunk && !self.fanout.is_walked(room);
                if alone {
                    self.publish_alone(room, &channel, &event, except, since);
                } else {
                    self.publish(room, Push::new(channel, event, except, Some(ticket), since));
                }
            }
            Command::Direct { to: Target::User(user), data } => {
                for seat in self.index.seats_of(&app, &user) {
                    self.direct(seat, &data);
                }
            }
            Command::Direct { to: Target::Socket(socket), data } => {
                if let Some(seat) = self.seat_in(&app, socket) {
                    self.direct(seat, &data);
                }
            }
            Command::Reload { user, within, channels } => self.reload(&app, &user, &within, &channels),
            Command::Grant { user, channel } => self.grant(&app, &user, &channel),
            // the slave makes one message for each change out of it
            Command::Members { .. } => {}
        }
    }

    fn seat_in(&self, app: &AppId, socket: SocketId) -> Option<SeatNo> {
        let seat = self.index.seat_of(socket.counter())?;
        (self.index.app_of(seat) == app && self.index.at(seat).id == socket).then_some(seat)
    }

    fn direct(&mut self, seat: SeatNo, data: &Payload) {
        let voice = self.voices.at(self.index.at(seat).voice);
        let frame = voice.dialect.direct(voice.variant, data);
        self.owe(seat, frame);
        self.metrics.deliveries.inc();
    }

    fn reload(&mut self, app: &AppId, user: &UserId, within: &[ChannelPattern], channels: &[ChannelPattern]) {
        for seat in self.index.seats_of(app, user) {
            // each socket has patterns of its own, of which some may stay
            let grants = replaced(&self.index.at(seat).grants, within, channels);
            let grants = self.grants.share(grants);
            self.index.at_mut(seat).grants = grants.clone();
            let is_lost = |channel: &&ChannelName| allowed(within, channel) && !allowed(&grants, channel);
            let lost: Vec<_> = self.index.channels_of(seat).filter(is_lost).cloned().collect();
            let mut change = Change::default();
            for channel in &lost {
                self.index.leave(seat, channel, &mut change);
            }
            self.note(change);
            self.notify(seat, Notice::Reloaded(&grants));
        }
    }

    fn grant(&mut self, app: &AppId, user: &UserId, channel: &ChannelPattern) {
        for seat in self.index.seats_of(app, user) {
            let grants = &mut self.index.at_mut(seat).grants;
            if !grants.contains(channel) {
                *grants = self.grants.share([grants, std::slice::from_ref(channel)].concat());
            }
            self.notify(seat, Notice::Granted(channel));
        }
    }

    fn notify(&mut self, seat: SeatNo, notice: Notice<'_>) {
        let voice = self.voices.at(self.index.at(seat).voice);
        if let Some(frame) = voice.dialect.notice(voice.variant, notice) {
            self.owe(seat, frame);
        }
    }

    /// Answer a question; for a push to a pattern, push.
    pub fn answer(&mut self, ask: &Ask, ticket: Ticket) -> Census {
        match ask {
            Ask::Query { app, query: Query::GrantsOf(user) } => {
                let grants =
                    self.index.seats_of(app, user).into_iter().flat_map(|seat| self.index.at(seat).grants.iter());
                Census::Names(grants.map(|pattern| pattern.as_str().to_owned()).collect())
            }
            Ask::Query { app, query } => presence::census(&self.index, &self.attendees, app, query),
            Ask::Stats => presence::stats(&self.index),
            // the slave answers these itself
            Ask::Redeem { .. } | Ask::Attendance(_) => ask.nothing(),
            Ask::PublishMatching { app, pattern, within, event } => {
                let matched = self.publish_matching(app, pattern, within, event, ticket);
                Census::Hashes(matched)
            }
        }
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
            self.interests.add(channel, self.worker);
        }
        for channel in &change.vacated {
            // left and joined again in one step: still there
            if self.index.room(&channel.app, &channel.name).is_none_or(|room| self.index.occupied(room) == 0) {
                self.interests.remove(channel, self.worker);
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

impl Standing for SeatStanding<'_> {
    fn grants(&self) -> &[ChannelPattern] {
        &self.index.at(self.seat).grants
    }

    fn is_on(&self, channel: &ChannelName) -> bool {
        self.index.is_on(self.seat, channel)
    }

    fn subscriptions(&self) -> usize {
        self.index.subscriptions_of(self.seat)
    }
}

#[cfg(test)]
#[path = "floor_tests.rs"]
mod tests;
