//! The sockets and channels of one thread, and what is done to them. Never waits; an outbox is flushed once
//! after everything that the mailbox held has been put into it.

mod asks;
mod follows;
mod members;
mod pushes;
mod users;

use std::{collections::VecDeque, num::NonZeroUsize, rc::Rc, sync::Arc, time::Instant};

use lru::LruCache;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;
use wellhead_proto::{
    command::{Command, Target},
    envelope::Envelope,
    frame::Frame,
    ids::{AppId, ChannelName, SocketId, UserId},
    matcher::Matcher,
    notice::Notice,
    refusal::CloseCause,
};

use self::{
    asks::QueryTask,
    follows::Newcomers,
    users::{Reload, UserCommand, UserOrder, WaitingForCommand},
};
use super::{
    fanout::{Broadcast, Deferred, Fanout, PendingEnd, PendingSubscribe, QueuedPush, Slice},
    grants::{AllGrants, Grants},
    index::{Change, Index},
    message::Delivery,
    survey::Granted,
    unauthorized::Unauthorized,
};
use crate::{
    channels::ChannelId,
    encodings::Encodings,
    interests::Interests,
    keep_alive::KeepAlive,
    metrics::Metrics,
    numbers::{ChannelNo, SocketNo},
    outbox::{Outbox, SocketEnd},
    presence::{Presence, local::LocalMembers, watchers::Watchers},
};

/// Deliveries between two flushes: a few milliseconds, so that HTTP and small pushes on the same thread stay quick.
pub const CHUNK: usize = 512;

/// Compiled patterns that are kept.
const PATTERNS: usize = 256;

/// One socket of this thread.
pub struct LocalSocket {
    /// The socket as clients and backends name it.
    pub id: SocketId,
    /// The way to it.
    pub outbox: Rc<Outbox>,
    /// How frames to it are encoded.
    pub encoding: u8,
    /// Channels that it may subscribe to.
    pub grants: Grants,
    /// When it was last pinged.
    pub keep_alive: KeepAlive,
    /// Its client has said who it is after it was opened, and shows credentials for each channel.
    pub is_identified: bool,
}

impl Granted for LocalSocket {
    fn grants(&self) -> Grants {
        self.grants.clone()
    }
}

/// The sockets of one thread.
pub struct Shard {
    /// Sockets, channels and users of this thread.
    pub(super) index: Index<LocalSocket>,
    /// What the sockets may subscribe to.
    pub(super) grants: AllGrants,
    /// Which sockets are members of which presence channels.
    members: LocalMembers,
    /// Who is to be told the count of a channel.
    newcomers: FxHashMap<ChannelId, Newcomers>,
    /// Which sockets watch which users.
    watchers: Watchers,
    /// Who of them must still show something signed, by their numbers in the node.
    pub(super) unauthorized: Unauthorized,
    encodings: Rc<Encodings>,
    fanout: Fanout,
    /// A command for a user with many sockets that is not carried out yet.
    order: Option<UserOrder>,
    /// Commands, queries and changes of members that arrived since.
    waiting: VecDeque<WaitingForCommand>,
    /// Queries, and pushes to patterns, that are in progress.
    questions: VecDeque<QueryTask>,
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

impl Shard {
    /// The empty shard of thread `worker`, which flushes after every `chunk` deliveries.
    pub fn new(
        worker: usize,
        chunk: usize,
        most_granted: usize,
        encodings: Rc<Encodings>,
        interests: Arc<Interests>,
        presence: Arc<Presence>,
        metrics: Metrics,
    ) -> Self {
        Self {
            index: Index::new(interests.names().clone()),
            grants: AllGrants::default(),
            members: LocalMembers::default(),
            newcomers: FxHashMap::default(),
            watchers: Watchers::default(),
            unauthorized: Unauthorized::default(),
            encodings,
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
    pub fn open(&mut self, app: AppId, user: UserId, local_socket: LocalSocket) {
        for question in &mut self.questions {
            question.note(&app, &user);
        }
        if !user.is_nobody() && !self.index.is_online(&app, &user) {
            self.user_connected(&app, &user);
        }
        self.index.open(local_socket.id.counter(), app, user, local_socket);
    }

    /// A socket is that of `user` from now on. `false` if it is another's.
    pub fn identify(&mut self, socket: SocketId, user: &UserId) -> bool {
        // it has ended: nobody hears the answer
        let Some(no) = self.index.local_socket_of(socket.counter()) else { return true };
        let app = self.index.app_of(no).clone();
        let is_new = !user.is_nobody() && !self.index.is_online(&app, user);
        if !self.index.identify(no, user.clone()) {
            return false;
        }
        if is_new {
            self.user_connected(&app, user);
        }
        self.index.at_mut(no).is_identified = true;
        self.unauthorized.remove(socket.counter());
        for question in &mut self.questions {
            question.note(&app, user);
        }
        let channels: Vec<_> =
            if self.questions.is_empty() { Vec::new() } else { self.index.channels_of(no).cloned().collect() };
        for channel in &channels {
            self.note_join(no, channel);
        }
        true
    }

    /// Remove a socket that ends, with its subscriptions. Doing it twice is harmless.
    pub fn close(&mut self, socket: SocketId) {
        let Some(local_socket) = self.index.local_socket_of(socket.counter()) else { return };
        self.resign_all(local_socket);
        let (app, user) = (self.index.app_of(local_socket).clone(), self.index.user_of(local_socket).clone());
        self.unauthorized.remove(socket.counter());
        self.unwatch(socket.counter());
        let counted = self.all_counted(local_socket);
        if let Some((_, change)) = self.index.close(socket.counter()) {
            self.note(change);
        }
        for channel in counted {
            self.count_leave(socket.counter(), &channel);
        }
        if !user.is_nobody() && !self.index.is_online(&app, &user) {
            self.user_disconnected(&app, &user);
        }
    }

    /// Subscribe a socket to channels and say `reply` in the same step, so that no event of theirs precedes it. While a
    /// broadcast to one of them is in progress this waits for its end, and the answer tells when it is done.
    pub fn subscribe(&mut self, mut join: PendingSubscribe) -> Option<oneshot::Receiver<()>> {
        if let Some(local_channel) = self.busy_channel_of(&join, None) {
            let (done, wait) = oneshot::channel();
            join.done = Some(done);
            self.fanout.hold(local_channel, Deferred::Join(join));
            return Some(wait);
        }
        self.subscribe_now(join);
        None
    }

    /// A channel with a broadcast in progress, which the subscribe must wait for; `but` does not count: it is its turn.
    fn busy_channel_of(&self, join: &PendingSubscribe, but: Option<ChannelNo>) -> Option<ChannelNo> {
        let app = self.index.app_of(self.index.local_socket_of(join.socket)?);
        let mut local_channels = join.channels.iter().filter_map(|channel| self.index.local_channel(app, channel));
        local_channels.find(|&local_channel| Some(local_channel) != but && self.fanout.is_in_progress(local_channel))
    }

    fn subscribe_now(&mut self, join: PendingSubscribe) {
        // the socket may have ended while it waited
        if let Some(local_socket) = self.index.local_socket_of(join.socket) {
            let mut change = Change::default();
            for channel in &join.channels {
                let local_channel = self.index.subscribe(local_socket, channel, join.tag.clone(), &mut change);
                self.note_join(local_socket, channel);
                self.count_join(local_socket, local_channel);
            }
            self.note(change);
            // the session that asks flushes its own outbox, unless the subscribe had to wait for a broadcast
            match (join.reply, &join.done) {
                (Some(reply), None) => self.index.at(local_socket).outbox.reply(reply),
                (Some(reply), Some(_)) => self.enqueue(local_socket, reply),
                (None, _) => {}
            }
        }
        if let Some(done) = join.done {
            // fails only if the session has ended
            let _ = done.send(());
        }
    }

    /// Unsubscribe a socket from a channel.
    pub fn unsubscribe(&mut self, socket: SocketId, channel: &ChannelName) {
        if let Some(local_socket) = self.index.local_socket_of(socket.counter()) {
            self.resign(local_socket, channel);
            let counted = self.counted(self.index.app_of(local_socket), channel);
            let mut change = Change::default();
            self.index.unsubscribe(local_socket, channel, &mut change);
            self.note(change);
            if let Some(channel) = counted {
                self.count_leave(socket.counter(), &channel);
            }
        }
    }

    /// What a socket may subscribe to and is subscribed to.
    pub(super) fn socket_view(&self, local_socket: SocketNo) -> LocalSocketView<'_> {
        LocalSocketView { index: &self.index, local_socket }
    }

    /// Carry out a command, which arrived at `since`.
    pub fn execute(&mut self, order: Delivery, since: Instant) {
        if self.is_held() {
            self.waiting.push_back(WaitingForCommand::Delivery(order, since));
        } else {
            self.carry_out(order, since);
        }
    }

    fn carry_out(&mut self, order: Delivery, since: Instant) {
        let Delivery { envelope: Envelope { app, command }, channel: id, permit } = order;
        match command {
            Command::Publish { channel, event, except } => {
                let Some(local_channel) = id.and_then(|id| self.index.room_if(id, &app, &channel)) else { return };
                self.publish(local_channel, QueuedPush::new(channel, event, except, Some(permit), since));
            }
            Command::Direct { to: Target::User(user), data } => match self.index.local_sockets_of(&app, &user)[..] {
                // most users have one socket
                [only] => self.direct(only, Notice::Direct { user: Some(&user), data: &data }),
                _ => self.order(&app, &user.clone(), UserCommand::Direct(user, data), permit),
            },
            Command::DirectEvent { user, event, except } => match self.index.local_sockets_of(&app, &user)[..] {
                [only] if Some(self.index.at(only).id) == except => {}
                [only] => self.direct(only, Notice::DirectEvent { user: &user, event: &event }),
                _ => self.order(&app, &user.clone(), UserCommand::DirectEvent(user, event, except), permit),
            },
            Command::Direct { to: Target::Socket(socket), data } => {
                if let Some(local_socket) = self.socket_in(&app, socket) {
                    self.direct(local_socket, Notice::Direct { user: None, data: &data });
                }
            }
            Command::Reload { user, within, channels } => {
                self.order(&app, &user, UserCommand::Reload(Reload::new(&within, channels)), permit);
            }
            Command::Grant { user, channel } => self.order(&app, &user, UserCommand::Grant(channel, None), permit),
            Command::Terminate { whose: Target::User(user), reconnect } => {
                self.order(&app, &user, UserCommand::End(CloseCause::Terminated { reconnect }), permit);
            }
            Command::Terminate { whose: Target::Socket(socket), reconnect } => {
                if self.socket_in(&app, socket).is_some() {
                    let cause = CloseCause::Terminated { reconnect };
                    self.terminate(PendingEnd { socket: socket.counter(), cause }, None);
                }
            }
        }
    }

    fn socket_in(&self, app: &AppId, socket: SocketId) -> Option<SocketNo> {
        let local_socket = self.index.local_socket_of(socket.counter())?;
        (self.index.app_of(local_socket) == app && self.index.at(local_socket).id == socket).then_some(local_socket)
    }

    fn direct(&mut self, local_socket: SocketNo, notice: Notice<'_>) {
        let encoding = self.encodings.at(self.index.at(local_socket).encoding);
        let Some(shared) = encoding.encode(notice) else { return };
        let frame = encoding.frame_of(shared, || "");
        self.enqueue(local_socket, frame);
        self.metrics.deliveries.inc();
    }

    /// Put a frame on the outbox of one socket; the next flush sends it.
    pub fn enqueue(&mut self, local_socket: SocketNo, frame: Frame) {
        let outbox = &self.index.at(local_socket).outbox;
        outbox.push(frame);
        if outbox.mark() {
            self.dirty.push(outbox.clone());
        }
    }

    /// End a socket behind what was pushed before: while a broadcast to one of its channels is in progress this waits for its
    /// end. It waits for each channel once, in the order of their numbers, and `waited` was the last: channels that are busy
    /// without a pause cannot keep it.
    pub(super) fn terminate(&mut self, end: PendingEnd, waited: Option<ChannelNo>) {
        // it may have ended while it waited
        let Some(local_socket) = self.index.local_socket_of(end.socket) else { return };
        let is_next = |no: &ChannelNo| waited.is_none_or(|waited| *no > waited) && self.fanout.is_in_progress(*no);
        match self.index.rooms_of(local_socket).filter(is_next).min() {
            Some(local_channel) => self.fanout.hold(local_channel, Deferred::End(end)),
            None => self.end_socket(local_socket, end.cause),
        }
    }

    /// End a socket, with a close frame.
    pub fn end_socket(&self, local_socket: SocketNo, cause: CloseCause) {
        let local_socket = self.index.at(local_socket);
        let goodbye = self.encodings.at(local_socket.encoding).goodbye(cause);
        local_socket.outbox.end(SocketEnd { cause, goodbye: Some(goodbye) });
    }

    fn user_connected(&self, app: &AppId, user: &UserId) {
        self.interests.user_connected(app, user);
        self.metrics.users.connected(app, user);
        self.presence.following.user_came(app, user, self.worker);
    }

    fn user_disconnected(&self, app: &AppId, user: &UserId) {
        self.metrics.users.disconnected(app, user);
        self.presence.following.user_left(app, user, self.worker);
        self.interests.user_disconnected(app, user);
    }

    fn note(&mut self, change: Change) {
        for channel in &change.occupied {
            self.interests.add(channel.id(), self.worker);
        }
        for channel in &change.vacated {
            // unsubscribed and subscribed again in one step: still there
            if self
                .index
                .local_channel_of(channel.id())
                .is_none_or(|local_channel| self.index.occupied(local_channel) == 0)
            {
                self.interests.remove(channel.id(), self.worker);
            }
        }
        self.metrics.subscriptions.inc_by(change.subscriptions);
        self.metrics.channels.set(self.interests.channels() as i64);
    }
}

/// What a socket is subscribed to and may subscribe to.
pub struct LocalSocketView<'a> {
    index: &'a Index<LocalSocket>,
    local_socket: SocketNo,
}

impl LocalSocketView<'_> {
    /// May it subscribe to this channel?
    pub fn may_subscribe(&self, channel: &ChannelName) -> bool {
        self.index.at(self.local_socket).grants.allow(channel)
    }

    /// Is it on this channel?
    pub fn is_on(&self, channel: &ChannelName) -> bool {
        self.index.is_on(self.local_socket, channel)
    }

    /// How many channels it is on.
    pub fn subscriptions(&self) -> usize {
        self.index.subscriptions_of(self.local_socket)
    }
}

#[cfg(test)]
#[path = "shard_tests.rs"]
mod tests;
