//! A socket as its session sees it: the session's one way to what its thread holds.

use std::{collections::BTreeMap, rc::Rc};

use bytestring::ByteString;
use tokio::sync::oneshot;
use wellhead_proto::{
    channel::ChannelPattern,
    frame::Frame,
    ids::{AppId, ChannelKey, ChannelName, SocketId, UserId},
    member::Member,
    notice::Bar,
};

use super::{
    fanout::PendingJoin,
    floor::{Seat, SeatStanding},
    grants::Grants,
    hall::Hall,
};
use crate::{outbox::Outbox, pulse::Pulse};

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
    /// The number of the kind of frame that it speaks.
    pub voice: u8,
    /// The way to it.
    pub outbox: Rc<Outbox>,
}

/// An open socket, until it is closed. Whatever is asked of a closed one comes to nothing.
pub struct SocketHandle {
    hall: Rc<Hall>,
    id: SocketId,
}

impl SocketHandle {
    /// Open a socket on this thread.
    pub fn open(hall: Rc<Hall>, socket: NewSocket) -> Self {
        let NewSocket { id, app, user, grants, voice, outbox } = socket;
        let mut floor = hall.floor.borrow_mut();
        let grants = floor.grants.share(grants);
        floor.enter(app, user, Seat { id, outbox, voice, grants, pulse: Pulse::default() });
        drop(floor);
        Self { hall, id }
    }

    /// Its id.
    pub fn id(&self) -> SocketId {
        self.id
    }

    /// The app that it is in.
    pub fn app(&self) -> Option<AppId> {
        let floor = self.hall.floor.borrow();
        let seat = floor.index.seat_of(self.id.counter())?;
        Some(floor.index.app_of(seat).clone())
    }

    /// The app and the user, for logs; empty once it is closed.
    pub fn names(&self) -> (String, String) {
        let floor = self.hall.floor.borrow();
        let seat = floor.index.seat_of(self.id.counter());
        seat.map_or_else(Default::default, |seat| {
            (floor.index.app_of(seat).to_string(), floor.index.user_of(seat).to_string())
        })
    }

    /// What it may subscribe to.
    pub fn grants(&self) -> Option<Grants> {
        let floor = self.hall.floor.borrow();
        let seat = floor.index.seat_of(self.id.counter())?;
        Some(floor.index.at(seat).grants.clone())
    }

    /// Judge by what it may do and does.
    pub fn judge<T>(&self, judge: impl FnOnce(&SeatStanding<'_>) -> T) -> Option<T> {
        let floor = self.hall.floor.borrow();
        let seat = floor.index.seat_of(self.id.counter())?;
        Some(judge(&floor.standing(seat)))
    }

    /// The same when its client asks for something, which shows that it is not idle.
    pub fn judge_action<T>(&self, judge: impl FnOnce(&SeatStanding<'_>) -> T) -> Option<T> {
        let mut floor = self.hall.floor.borrow_mut();
        let seat = floor.index.seat_of(self.id.counter())?;
        floor.index.at_mut(seat).pulse.note_action();
        Some(judge(&floor.standing(seat)))
    }

    /// Subscribe it to channels and say `reply` in the same step, so that no event of theirs precedes it. If a fan-out walks
    /// one of them this waits for its end, and the answer tells when it is done.
    pub fn subscribe(
        &self,
        channels: Vec<ChannelName>,
        tag: Option<Box<str>>,
        reply: Option<Frame>,
    ) -> Option<oneshot::Receiver<()>> {
        let join = PendingJoin { socket: self.id.counter(), channels, tag, reply, done: None };
        self.hall.floor.borrow_mut().join(join)
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
    ) -> Result<BTreeMap<UserId, ByteString>, Bar> {
        self.hall.floor.borrow_mut().attend(self.id, channel, member, most, tag)
    }

    /// Take it out of a channel.
    pub fn unsubscribe(&self, channel: &ChannelName) {
        self.hall.floor.borrow_mut().leave(self.id, channel);
    }

    /// Close it: from now on nobody finds it any more. Doing it twice is harmless.
    pub fn close(&self) {
        self.hall.floor.borrow_mut().exit(self.id);
    }

    /// The same while its session panics, perhaps in the midst of one of these.
    pub fn close_after_panic(&self) {
        if let Ok(mut floor) = self.hall.floor.try_borrow_mut() {
            floor.exit(self.id);
        }
    }

    /// See to it that the sockets of the thread hold no more than they may.
    pub fn look_after(&self) {
        self.hall.look_after();
    }
}
