//! The one way out of a socket. Replies and pushed frames pass the same outbox, so their order is the order in which
//! we decided it. Nobody waits for a reader: a flush sends what the kernel takes and keeps the rest, counted.

mod owed;

use std::{
    cell::{Cell, OnceCell, RefCell},
    io::{self, ErrorKind, IoSlice},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use wellhead_proto::{frame::Frame, refusal::CloseCause};

use self::owed::SendQueue;
use crate::{
    keep_alive::Moment,
    memory::{Count, PIECE, Share},
    transport::Transport,
};

/// Pieces that one `writev` takes.
const MAX_PIECES: usize = 64;

/// Replies to a client that are put together before they are sent, in bytes.
const MOST_REPLIES: usize = 64 << 10;

/// What a flush left behind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flushed {
    /// Nothing.
    All,
    /// Something: the kernel takes no more now.
    Rest,
    /// More than the reader may be behind.
    TooSlow,
    /// The connection is gone.
    Gone,
}

/// How a socket ends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SocketEnd {
    /// Why.
    pub cause: CloseCause,
    /// The close frame that goes out behind what is owed; without one the connection is simply dropped.
    pub goodbye: Option<Frame>,
}

struct EndingSocket {
    cause: CloseCause,
    goodbye: Cell<Option<Frame>>,
}

/// What is queued for one socket.
pub struct Outbox {
    transport: Transport,
    /// How far its reader may be behind, what it must take in its time if it is behind for longer, and who counts what it
    /// holds.
    share: Rc<Share>,
    owed: RefCell<SendQueue>,
    /// It is on a list of outboxes to flush.
    marked: Cell<bool>,
    /// The client showed that it is there since the last heartbeat: something came from it, or it took something that it had
    /// refused before.
    heard: Cell<bool>,
    /// The heartbeat at which what the reader is measured by began.
    behind_since: Cell<Option<Moment>>,
    /// What is held of messages of the client that are not whole, in bytes.
    unfinished: Cell<u32>,
    end: OnceCell<Box<EndingSocket>>,
    /// The task that drives the socket.
    driver: Cell<Option<Waker>>,
    /// It waits for room to write, and needs no further call.
    driver_waits: Cell<bool>,
}

impl Outbox {
    /// An outbox of a thread with that share of the memory.
    #[must_use]
    pub fn new(transport: Transport, share: Rc<Share>) -> Self {
        Self {
            transport,
            share,
            owed: RefCell::default(),
            marked: Cell::new(false),
            heard: Cell::new(false),
            behind_since: Cell::new(None),
            unfinished: Cell::new(0),
            end: OnceCell::new(),
            driver: Cell::new(None),
            driver_waits: Cell::new(false),
        }
    }

    /// The stream below, for reading.
    #[must_use]
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Queue `frame`. Nothing is sent before a flush; a socket that ends takes nothing more.
    pub fn push(&self, frame: Frame) {
        if self.is_ending() {
            return;
        }
        let mut owed = self.owed.borrow_mut();
        if owed.is_behind() {
            let pieces = if let Frame::Split { .. } = frame { 2 } else { 1 };
            self.share.grow(frame.len() + pieces * PIECE);
        }
        owed.push(frame);
    }

    /// The same for a reply to what the client said.
    pub fn reply(&self, frame: Frame) {
        self.push(frame);
        self.owed.borrow_mut().note_reply();
    }

    /// Are there replies that the client does not take? Until it does, nothing more of what it says is heard: it would only
    /// draw more of them. Many that have come together are sent before.
    pub fn has_refused_replies(&self) -> bool {
        let owed = self.owed.borrow();
        let many = owed.replies() >= MOST_REPLIES && !owed.is_behind();
        drop(owed);
        if many {
            self.flush_owed();
        }
        let owed = self.owed.borrow();
        owed.is_behind() && owed.replies() > 0
    }

    /// Has the kernel refused something of what is queued?
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.owed.borrow().is_behind()
    }

    /// So many bytes are held of messages of the client that are not whole.
    pub fn note_unfinished(&self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let before = self.unfinished.replace(bytes);
        if bytes > before {
            self.share.grow((bytes - before) as usize);
        }
    }

    /// Count what is held for the socket; what it weighs, if it were closed for it.
    pub fn count(&self, count: &mut Count) -> usize {
        let (owed, unfinished) = (self.owed.borrow(), self.unfinished.get() as usize);
        count.own(unfinished);
        let mut weight = unfinished;
        if owed.is_behind() {
            owed.pieces().for_each(|piece| count.piece(piece));
            weight += owed.bytes() + owed.len() * PIECE;
        }
        if self.is_ending() { 0 } else { weight }
    }

    /// End the socket for what it holds, which is given back at once.
    pub fn give_up(&self, cause: CloseCause, count: &mut Count) {
        let mut owed = self.owed.borrow_mut();
        if owed.is_behind() {
            owed.pieces().for_each(|piece| count.forget_piece(piece));
        }
        owed.forget();
        drop(owed);
        // its task, which is woken, lets go of that
        count.forget_own(self.unfinished.replace(0) as usize);
        self.end(SocketEnd { cause, goodbye: None });
    }

    /// Send whole frames at once, if nothing is owed before them: what the kernel refuses is owed. For large pushes, where
    /// every socket gets one piece: neither the piece nor the outbox has to be remembered until a flush.
    pub fn send(&self, frames: &Bytes) {
        if !self.is_clear() {
            self.push(Frame::Whole(frames.clone()));
            self.flush();
            return;
        }
        self.send_now(frames);
    }

    /// The same for an outbox that [`Outbox::is_clear`].
    pub fn send_now(&self, frames: &Bytes) {
        let sent = self.transport.send(frames).unwrap_or(0);
        if sent < frames.len() {
            // an error shows again at the flush, which judges it
            self.push(Frame::Whole(frames.clone()));
            self.owed.borrow_mut().advance(sent);
            self.flush();
        }
    }

    /// Does what is sent leave at once: is nothing owed, and the socket not ending?
    #[must_use]
    pub fn is_clear(&self) -> bool {
        !self.marked.get() && !self.is_ending() && self.owed.borrow().is_empty()
    }

    /// Queue bytes that are no frame: the answer to the handshake.
    pub fn push_raw(&self, bytes: Bytes) {
        self.push(Frame::Whole(bytes));
    }

    /// Put it on a list of outboxes to flush. `false` if it is on one already.
    pub fn mark(&self) -> bool {
        !self.marked.replace(true)
    }

    /// Send what the kernel takes; the driver sees to the rest.
    pub fn flush(&self) -> Flushed {
        self.marked.set(false);
        let flushed = self.flush_owed();
        if flushed == Flushed::Rest && !self.driver_waits.get() {
            self.wake_driver();
        }
        flushed
    }

    /// The driver's own flush: send what the kernel takes, and be called again when it takes more.
    pub fn drive(&self, cx: &mut Context<'_>) {
        self.driver_waits.set(false);
        while self.flush_owed() == Flushed::Rest {
            match self.transport.poll_writable(cx) {
                Poll::Pending => return self.driver_waits.set(true),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return self.end(SocketEnd { cause: CloseCause::ClientGone, goodbye: None }),
            }
        }
    }

    fn flush_owed(&self) -> Flushed {
        if self.is_ending() {
            // what is still owed leaves in the driver's last act, within its time
            return Flushed::All;
        }
        let flushed = self.write();
        match flushed {
            Flushed::All => self.behind_since.set(None),
            Flushed::Rest => {}
            Flushed::TooSlow => self.end(SocketEnd { cause: CloseCause::SlowConsumer, goodbye: None }),
            Flushed::Gone => self.end(SocketEnd { cause: CloseCause::ClientGone, goodbye: None }),
        }
        flushed
    }

    /// Send what the kernel takes, without any judgement of ends.
    fn write(&self) -> Flushed {
        let mut owed = self.owed.borrow_mut();
        while !owed.is_empty() {
            let sent = match owed.only_piece() {
                Some(piece) => self.transport.try_write(piece),
                None => {
                    let mut pieces = [IoSlice::new(&[]); MAX_PIECES];
                    let count = owed.next_pieces(&mut pieces);
                    self.transport.try_write_vectored(&pieces[..count])
                }
            };
            match sent {
                Ok(sent) => {
                    // room after there was none: at the other end somebody reads
                    if owed.is_behind() {
                        self.heard.set(true);
                    }
                    owed.advance(sent);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if owed.refused() {
                        self.share.grow(owed.bytes() + owed.len() * PIECE);
                    }
                    return if owed.debt() > self.share.queue { Flushed::TooSlow } else { Flushed::Rest };
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Flushed::Gone,
            }
        }
        Flushed::All
    }

    /// Flush, and flush again whenever the kernel has room. `Ready` once nothing is owed or the connection is gone.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.write() {
                Flushed::All => return Poll::Ready(Ok(())),
                Flushed::Gone => return Poll::Ready(Err(ErrorKind::ConnectionReset.into())),
                Flushed::Rest | Flushed::TooSlow => match self.transport.poll_writable(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    }

    /// Send everything at once. `false` if the kernel does not take all of it.
    pub fn try_flush(&self) -> bool {
        self.write() == Flushed::All
    }

    /// End the socket. The first reason stands.
    pub fn end(&self, end: SocketEnd) {
        let SocketEnd { cause, goodbye } = end;
        if self.end.set(Box::new(EndingSocket { cause, goodbye: Cell::new(goodbye) })).is_ok() {
            self.wake_driver();
        }
    }

    /// Is it ending?
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.end.get().is_some()
    }

    /// How it ends, once that is decided. The goodbye now stands behind what is owed.
    pub fn take_end(&self) -> Option<CloseCause> {
        let end = self.end.get()?;
        if let Some(goodbye) = end.goodbye.take() {
            self.owed.borrow_mut().push(goodbye);
        }
        // its task is over, and would be kept for it; the one that says goodbye wakes itself
        self.driver.set(None);
        Some(end.cause)
    }

    /// Forget what is owed, as far as no frame was begun, and owe `goodbye` instead. `false` if a frame was begun: then
    /// no other can follow.
    pub fn replace_owed(&self, goodbye: Frame) -> bool {
        let mut owed = self.owed.borrow_mut();
        if owed.has_begun() {
            return false;
        }
        *owed = SendQueue::default();
        owed.push(goodbye);
        true
    }

    /// Bytes that are queued.
    #[must_use]
    pub fn owed_bytes(&self) -> usize {
        self.owed.borrow().bytes()
    }

    /// Note that the client sent something.
    pub fn note_heard(&self) {
        self.heard.set(true);
    }

    /// Did the client send something since the last call?
    pub fn take_heard(&self) -> bool {
        self.heard.replace(false)
    }

    /// A heartbeat: the one since which the reader has been behind without having taken what was owed then, or as much of it
    /// as it may be behind: whoever takes that keeps reading. An idle socket keeps no queue.
    pub fn behind_since(&self, now: Moment) -> Option<Moment> {
        let mut owed = self.owed.borrow_mut();
        let since = if owed.is_empty() {
            owed.shrink();
            None
        } else if owed.measure(self.share.queue) {
            Some(now)
        } else {
            self.behind_since.get().or(Some(now))
        };
        self.behind_since.set(since);
        since
    }

    /// From now on `cx` drives the socket.
    pub fn register_driver(&self, cx: &Context<'_>) {
        let driver = self.driver.take().filter(|driver| driver.will_wake(cx.waker()));
        self.driver.set(driver.or_else(|| Some(cx.waker().clone())));
    }

    fn wake_driver(&self) {
        if let Some(driver) = self.driver.take() {
            driver.wake_by_ref();
            self.driver.set(Some(driver));
        }
    }
}

#[cfg(test)]
mod tests;
