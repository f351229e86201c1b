//! A socket as its session sees it: the only way for a session to reach the shard of its thread.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use bytestring::ByteString;
use tokio::sync::oneshot;
use wellhead_proto::{
    channel::ChannelPattern,
    frame::Frame,
    ids::{AppId, ChannelKey, ChannelName, SocketId, UserId},
    member::Member,
    notice::Denial,
};

use super::{
    cell::ShardCell,
    fanout::PendingSubscribe,
    grants::Grants,
    shard::{LocalSocket, LocalSocketView},
};
use crate::{keep_alive::KeepAlive, outbox::Outbox};

/// A socket that is about to be opened.
pub struct NewSocket {
    /// Its id.
    pub id: SocketId,
    /// The app that it enters.
    pub app: AppId,
    /// Whose it is.
    pub user: UserId,
    /// Channels that it may subscribe to.
    pub grants: Vec<ChannelPattern>,
    /// The number of the encoding of its frames.
    pub encoding: u8,
    /// How long its client may take to show something that its backend has signed; `None`: it need not.
    pub authorize_within: Option<Duration>,
    /// The way to it.
    pub outbox: Rc<Outbox>,
}

/// An open socket, until it is closed. Calls on a closed one have no effect.
pub struct SocketHandle {
    cell: Rc<ShardCell>,
    id: SocketId,
}

impl SocketHandle {
    /// Open a socket on this thread.
    pub fn open(cell: Rc<ShardCell>, socket: NewSocket) -> Self {
        let NewSocket { id, app, user, grants, encoding, authorize_within, outbox } = socket;
        let mut shard = cell.shard.borrow_mut();
        let grants = shard.grants.share(grants);
        let keep_alive = KeepAlive::default();
        shard.open(app, user, LocalSocket { id, outbox, encoding, grants, keep_alive, is_identified: false });
        if let Some(most) = authorize_within {
            shard.unauthorized.add(id.counter(), most);
        }
        drop(shard);
        Self { cell, id }
    }

    /// Its id.
    pub fn id(&self) -> SocketId {
        self.id
    }

    /// The app that it is in.
    pub fn app(&self) -> Option<AppId> {
        let shard = self.cell.shard.borrow();
        let local_socket = shard.index.local_socket_of(self.id.counter())?;
        Some(shard.index.app_of(local_socket).clone())
    }

    /// The app and the user, for logs; empty once it is closed.
    pub fn names(&self) -> (String, String) {
        let shard = self.cell.shard.borrow();
        let local_socket = shard.index.local_socket_of(self.id.counter());
        local_socket.map_or_else(Default::default, |local_socket| {
            (shard.index.app_of(local_socket).to_string(), shard.index.user_of(local_socket).to_string())
        })
    }

    /// What it may subscribe to.
    pub fn grants(&self) -> Option<Grants> {
        let shard = self.cell.shard.borrow();
        let local_socket = shard.index.local_socket_of(self.id.counter())?;
        Some(shard.index.at(local_socket).grants.clone())
    }

    /// Decide by what it may subscribe to and is subscribed to.
    pub fn judge<T>(&self, judge: impl FnOnce(&LocalSocketView<'_>) -> T) -> Option<T> {
        let shard = self.cell.shard.borrow();
        let local_socket = shard.index.local_socket_of(self.id.counter())?;
        Some(judge(&shard.socket_view(local_socket)))
    }

    /// The same when its client asks for something, which shows that it is not idle.
    pub fn judge_action<T>(&self, judge: impl FnOnce(&LocalSocketView<'_>) -> T) -> Option<T> {
        let mut shard = self.cell.shard.borrow_mut();
        let local_socket = shard.index.local_socket_of(self.id.counter())?;
        shard.index.at_mut(local_socket).keep_alive.note_action();
        Some(judge(&shard.socket_view(local_socket)))
    }

    /// Subscribe it to channels and say `reply` in the same step, so that no event of theirs precedes it. While a
    /// broadcast to one of them is in progress this waits for its end, and the answer tells when it is done.
    pub fn subscribe(
        &self,
        channels: Vec<ChannelName>,
        tag: Option<Box<str>>,
        reply: Option<Frame>,
    ) -> Option<oneshot::Receiver<()>> {
        let join = PendingSubscribe { socket: self.id.counter(), channels, tag, reply, done: None };
        self.cell.shard.borrow_mut().subscribe(join)
    }

    /// Subscribe it to a channel as a member; all members, itself among them.
    ///
    /// # Errors
    ///
    /// The channel is full.
    pub fn subscribe_as_member(
        &self,
        channel: &ChannelKey,
        member: &Member,
        most: usize,
        tag: Option<Box<str>>,
    ) -> Result<BTreeMap<UserId, ByteString>, Denial> {
        self.cell.shard.borrow_mut().attend(self.id, channel, member, most, tag)
    }

    /// It is that of `user` from now on. `false` if it is another's.
    pub fn identify(&self, user: &UserId) -> bool {
        self.cell.shard.borrow_mut().identify(self.id, user)
    }

    /// It watches these users from now on, and no others. What it is told at once.
    pub fn watch(&self, users: &[UserId]) -> Option<Frame> {
        self.cell.shard.borrow_mut().watch(self.id, users)
    }

    /// Its client has shown something that its backend has signed.
    pub fn note_signed(&self) {
        self.cell.shard.borrow_mut().unauthorized.remove(self.id.counter());
    }

    /// Take it out of a channel.
    pub fn unsubscribe(&self, channel: &ChannelName) {
        self.cell.shard.borrow_mut().unsubscribe(self.id, channel);
    }

    /// Close it: from now on nobody finds it any more. Doing it twice is harmless.
    pub fn close(&self) {
        self.cell.shard.borrow_mut().close(self.id);
    }

    /// Close it while its session panics, perhaps inside one of these calls.
    pub fn close_after_panic(&self) {
        if let Ok(mut shard) = self.cell.shard.try_borrow_mut() {
            shard.close(self.id);
        }
    }

    /// Close sockets of the thread if together they hold too much memory.
    pub fn look_after(&self) {
        self.cell.look_after();
    }
}
