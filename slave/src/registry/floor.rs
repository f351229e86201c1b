//! The heart of a registry: the sockets of one thread, and what is done to them. Never waits; an outbox is flushed once
//! after everything that the mailbox held has been put into it.

mod members;

use std::{num::NonZeroUsize, rc::Rc, sync::Arc, time::Instant};

use lru::LruCache;
use smallvec::SmallVec;
use tokio::sync::oneshot;
use wellhead_proto::{
    channel::{ChannelPattern, allowed},
    command::{Command, Target},
    dialect::contract::Shared,
    envelope::Envelope,
    event::{Event, Payload},
    frame::Frame,
    ids::{AppId, ChannelName, SocketId, UserId},
    matcher::Matcher,
    notice::Notice,
    query::{Ask, Census, name_hash},
    refusal::CloseCause,
};

use super::{
    attendees::{Attendee, Attendees},
    fanout::{Fanout, Held, PendingJoin, Push, Run, Turn},
    grants::{AllGrants, Grants},
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

/// Sockets of a room that are looked at together: in a large one none of them is in the processor's caches, and
/// memory brings several as fast as it brings one.
const GROUP: usize = 16;

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
        self.index.enter(seat.id.counter(), app, user, seat);
    }

    /// A socket ends: from now on it is nowhere. Doing it twice is harmless.
    pub fn exit(&mut self, socket: SocketId) {
        if let Some(seat) = self.index.seat_of(socket.counter()) {
            self.resign_all(seat);
        }
        if let Some((_, change)) = self.index.exit(socket.counter()) {
            self.note(change);
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
                (Some(reply), None) => self.index.at(seat).outbox.push(reply),
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
            Command::Reload { user, channels } => self.reload(&app, &user, &channels),
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

    fn reload(&mut self, app: &AppId, user: &UserId, channels: &[ChannelPattern]) {
        let grants = self.grants.share(channels.to_vec());
        for seat in self.index.seats_of(app, user) {
            self.index.at_mut(seat).grants = grants.clone();
            let lost: Vec<_> =
                self.index.channels_of(seat).filter(|channel| !allowed(channels, channel)).cloned().collect();
            let mut change = Change::default();
            for channel in &lost {
                self.index.leave(seat, channel, &mut change);
            }
            self.note(change);
            self.notify(seat, Notice::Reloaded(channels));
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

    fn publish_matching(
        &mut self,
        app: &AppId,
        pattern: &str,
        within: &[ChannelPattern],
        event: &Event,
        ticket: Ticket,
    ) -> std::collections::HashSet<u64> {
        let matcher = self.patterns.get_or_insert_ref(pattern, || Matcher::compile(pattern).ok());
        let Some(matcher) = matcher else {
            return Default::default();
        };
        let mut rooms = self.index.rooms_matching(app, matcher);
        let since = Instant::now();
        rooms.retain(|&room| self.index.occupied(room) > 0 && allowed(within, &self.index.channel(room).name));
        let mut ticket = Some(ticket);
        if let (Some(ticket), [_, ..]) = (&mut ticket, &*rooms) {
            ticket.set_deliveries(rooms.iter().map(|&room| self.index.occupied(room)).sum());
        }
        let mut hashes = std::collections::HashSet::with_capacity(rooms.len());
        let last = rooms.last().copied();
        for room in rooms {
            let channel = self.index.channel(room).name.clone();
            hashes.insert(name_hash(channel.as_str()));
            // the last room carries the ticket: it is served last, or close to it
            let ticket = if Some(room) == last { ticket.take() } else { None };
            self.publish(room, Push::new(channel, event.clone(), None, ticket, since));
        }
        hashes
    }

    /// Hand an event to the only socket of a room. Most channels have one; it needs no run.
    fn publish_alone(
        &mut self,
        room: RoomNo,
        channel: &ChannelName,
        event: &Event,
        except: Option<SocketId>,
        since: Instant,
    ) {
        let Some((_, no, seat)) = self.index.seated(room, 0).next() else { return };
        if except != Some(seat.id) {
            let voice = self.voices.at(seat.voice);
            let frame = match voice.dialect.event(voice.variant, channel, event) {
                Shared::Whole(frame) => Frame::Whole(frame),
                Shared::Tail(tail) => {
                    let tag = self.index.tag(no, room).unwrap_or_default();
                    Frame::text_with_tail(&voice.dialect.head(voice.variant, tag), tail)
                }
            };
            self.owe(no, frame);
            self.metrics.deliveries.inc();
        }
        self.spent += 1;
        self.finished.push(since);
    }

    /// Hand a push to a room: at once if it is small, else chunk by chunk.
    fn publish(&mut self, room: RoomNo, mut push: Push) {
        let size = self.index.occupied(room);
        if let Some(ticket) = &mut push.ticket {
            ticket.set_deliveries(size.max(1));
        }
        if self.fanout.is_walked(room) {
            self.fanout.hold(room, Held::Push(push));
        } else if self.spent + size > self.chunk {
            self.index.begin_walk(room);
            self.fanout.begin(room, push);
        } else {
            let mut run = Run::new(vec![push]);
            self.walk(room, &mut run, size, false);
            self.finish(run);
        }
    }

    /// Serve up to `most` places of a room. `true` if that was the last.
    fn walk(&mut self, room: RoomNo, run: &mut Run, most: usize, at_once: bool) -> bool {
        let (mut served, mut frames) = (0, 0);
        let mut seats = self.index.seated(room, run.place);
        let mut group = SmallVec::<[_; GROUP]>::new();
        while served < most {
            group.clear();
            let next = seats.by_ref().take(GROUP.min(most - served));
            group.extend(next.map(|(place, no, seat)| (place, no, seat, at_once && seat.outbox.is_clear())));
            if group.is_empty() {
                break;
            }
            served += group.len();
            for &(place, no, seat, clear) in &group {
                run.place = place + 1;
                // in a large push every socket gets one piece, which leaves at once
                if at_once && let Some(block) = run.block(seat.voice, &self.voices) {
                    if clear {
                        seat.outbox.send_now(block)
                    } else {
                        seat.outbox.send(block)
                    }
                    frames += run.pushes.len() as u64;
                    continue;
                }
                let part = || self.attendees.of(room, no);
                frames += hand(run, seat, &self.voices, part, || self.index.tag(no, room).unwrap_or_default());
                if seat.outbox.mark() {
                    self.dirty.push(seat.outbox.clone());
                }
            }
        }
        self.spent += served;
        self.metrics.deliveries.inc_by(frames);
        served < most || self.index.seated(room, run.place).next().is_none()
    }

    fn finish(&mut self, run: Run) {
        self.finished.extend(run.pushes.iter().map(|push| push.since));
    }

    /// Give the walks under way their turn, about one chunk together. A room gets one turn at most: what comes before its
    /// next goes along with what waits there.
    fn step(&mut self) {
        for _ in 0..self.fanout.turns() {
            if self.spent >= self.chunk {
                return;
            }
            let Some(Turn { room, joins, run }) = self.fanout.next_turn() else { return };
            for join in joins {
                match self.walked_room_of(&join, Some(room)) {
                    Some(other) => self.fanout.hold(other, Held::Join(join)),
                    None => self.join_now(join),
                }
            }
            let over = match run {
                None => true,
                Some(mut run) => {
                    if !self.walk(room, &mut run, self.chunk - self.spent, true) {
                        self.fanout.go_on(room, run);
                        continue;
                    }
                    self.finish(run);
                    self.fanout.run_over(room)
                }
            };
            if over {
                self.index.end_walk(room);
            }
        }
    }

    /// After the mailbox was drained: send what was put into outboxes, then a chunk of what waits. `true` if more waits.
    pub fn settle(&mut self) -> bool {
        self.flush();
        if self.fanout.is_idle() {
            return false;
        }
        if self.fanout.take_fresh() {
            // requests that are here already are read before the first large push walks: then they all walk together
            return true;
        }
        self.step();
        self.flush();
        !self.fanout.is_idle()
    }

    fn flush(&mut self) {
        self.spent = 0;
        for outbox in self.dirty.drain(..) {
            outbox.flush();
        }
        if self.dirty.capacity() > 4 * self.chunk {
            self.dirty.shrink_to(self.chunk);
        }
        if self.finished.is_empty() {
            return;
        }
        let now = Instant::now();
        for since in self.finished.drain(..) {
            self.metrics.fan_out.observe(now.duration_since(since).as_secs_f64());
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

/// Put the pushes of a run into the outbox of one socket; how many frames those are. `part`, as which member it is there,
/// is asked for only by changes of the members, `tag` only where the socket's own head goes before what is shared.
fn hand<'a>(
    run: &mut Run,
    seat: &Seat,
    voices: &Voices,
    part: impl Fn() -> Option<&'a Attendee>,
    tag: impl Fn() -> &'a str,
) -> u64 {
    if let Some(block) = run.block(seat.voice, voices) {
        seat.outbox.push(Frame::Whole(block.clone()));
        return run.pushes.len() as u64;
    }
    let mut frames = 0;
    for push in run.pushes.iter_mut().filter(|push| push.is_for(seat.id, &part)) {
        seat.outbox.push(match push.encoded(seat.voice, voices) {
            // its dialect has no word for it
            Shared::Whole(frame) if frame.is_empty() => continue,
            Shared::Whole(frame) => Frame::Whole(frame.clone()),
            Shared::Tail(tail) => {
                let voice = voices.at(seat.voice);
                Frame::text_with_tail(&voice.dialect.head(voice.variant, tag()), tail.clone())
            }
        });
        frames += 1;
    }
    frames
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
