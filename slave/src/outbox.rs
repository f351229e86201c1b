//! The one way out of a socket. Replies and pushed frames pass the same outbox, so their order is the order in which
//! we decided it. Nobody waits for a reader: a flush sends what the kernel takes and keeps the rest, counted.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io::{self, ErrorKind, IoSlice},
    iter,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use wellhead_proto::{frame::Frame, refusal::CloseCause};

use crate::{pulse::Moment, transport::Transport};

/// Pieces that one `writev` takes.
const MAX_PIECES: usize = 64;

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
pub struct End {
    /// Why.
    pub cause: CloseCause,
    /// The close frame that goes out behind what is owed; without one the connection is simply dropped.
    pub goodbye: Option<Frame>,
}

/// What is owed to one socket.
pub struct Outbox {
    transport: Transport,
    /// The largest number of bytes that may be owed before the last frame.
    budget: usize,
    owed: RefCell<Owed>,
    /// Stands on a list of outboxes to flush.
    marked: Cell<bool>,
    /// Something came from the client since the heart last beat.
    heard: Cell<bool>,
    /// The heartbeat since which something has been owed without a break.
    behind_since: Cell<Option<Moment>>,
    end: RefCell<Option<Box<End>>>,
    /// The task that drives the socket.
    driver: Cell<Option<Waker>>,
    /// It waits for room to write, and needs no further call.
    driver_waits: Cell<bool>,
}

#[derive(Default)]
struct Owed {
    /// The next piece; empty if nothing is owed. Beside the others, since there is seldom more than one.
    first: Bytes,
    /// Those behind it, each with whether it goes on with the frame before it. An idle socket keeps no room for them.
    #[expect(clippy::box_collection, reason = "a pointer is a quarter of an empty queue")]
    rest: Option<Box<VecDeque<(Bytes, bool)>>>,
    bytes: usize,
    /// Bytes of the last frame: one large frame never makes a slow consumer.
    last: u32,
    /// A part of the frame that the first piece belongs to is sent: what follows it must follow.
    begun: bool,
}

impl Outbox {
    /// An outbox that may be `budget` bytes behind.
    #[must_use]
    pub fn new(transport: Transport, budget: usize) -> Self {
        Self {
            transport,
            budget,
            owed: RefCell::default(),
            marked: Cell::new(false),
            heard: Cell::new(false),
            behind_since: Cell::new(None),
            end: RefCell::new(None),
            driver: Cell::new(None),
            driver_waits: Cell::new(false),
        }
    }

    /// The stream below, for reading.
    #[must_use]
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Owe `frame`. Nothing is sent before a flush; a socket that ends takes nothing more.
    pub fn push(&self, frame: Frame) {
        if self.end.borrow().is_some() {
            return;
        }
        self.owed.borrow_mut().push(frame);
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

    /// Owe bytes that are no frame: the answer to the handshake.
    pub fn push_raw(&self, bytes: Bytes) {
        self.push(Frame::Whole(bytes));
    }

    /// Put it on a list of outboxes to flush. `false` if it stands on one already.
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
                Poll::Ready(Err(_)) => return self.end(End { cause: CloseCause::ClientGone, goodbye: None }),
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
            Flushed::TooSlow => self.end(End { cause: CloseCause::SlowConsumer, goodbye: None }),
            Flushed::Gone => self.end(End { cause: CloseCause::ClientGone, goodbye: None }),
        }
        flushed
    }

    /// Send what the kernel takes, without any judgement of ends.
    fn write(&self) -> Flushed {
        let mut owed = self.owed.borrow_mut();
        while !owed.is_empty() {
            let sent = match &owed.rest {
                Some(rest) if !rest.is_empty() => {
                    let mut pieces = [IoSlice::new(&[]); MAX_PIECES];
                    let count = MAX_PIECES.min(1 + rest.len());
                    for (piece, bytes) in
                        pieces.iter_mut().zip(iter::once(&owed.first).chain(rest.iter().map(|(piece, _)| piece)))
                    {
                        *piece = IoSlice::new(bytes);
                    }
                    self.transport.try_write_vectored(&pieces[..count])
                }
                _ => self.transport.try_write(&owed.first),
            };
            match sent {
                Ok(sent) => owed.advance(sent),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let before_last = owed.bytes.saturating_sub(owed.last as usize);
                    return if before_last > self.budget { Flushed::TooSlow } else { Flushed::Rest };
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

    /// Send everything at once and say that nothing more will come. `false` if the kernel does not take all of it.
    pub fn try_finish(&self) -> bool {
        let all = self.write() == Flushed::All;
        if all {
            self.transport.finish_writing();
        }
        all
    }

    /// End the socket. The first reason stands.
    pub fn end(&self, end: End) {
        let mut current = self.end.borrow_mut();
        if current.is_none() {
            *current = Some(Box::new(end));
            drop(current);
            self.wake_driver();
        }
    }

    /// Is it ending?
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// How it ends, once that is decided. The goodbye now stands behind what is owed.
    pub fn take_end(&self) -> Option<CloseCause> {
        let mut end = self.end.borrow_mut();
        let end = end.as_mut()?;
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
        if owed.begun {
            return false;
        }
        *owed = Owed::default();
        owed.push(goodbye);
        true
    }

    /// Forget what is owed.
    pub fn clear(&self) {
        *self.owed.borrow_mut() = Owed::default();
    }

    /// Bytes that are owed.
    #[must_use]
    pub fn owed_bytes(&self) -> usize {
        self.owed.borrow().bytes
    }

    /// Note that the client sent something.
    pub fn note_heard(&self) {
        self.heard.set(true);
    }

    /// Did the client send something since the last call?
    pub fn take_heard(&self) -> bool {
        self.heard.replace(false)
    }

    /// A heartbeat: the one since which something has been owed without a break. An idle socket keeps no queue.
    pub fn behind_since(&self, now: Moment) -> Option<Moment> {
        let mut owed = self.owed.borrow_mut();
        let since = if owed.is_empty() {
            owed.rest = None;
            None
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

impl Owed {
    fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    fn push(&mut self, frame: Frame) {
        // the longest frame that fits a bus and a body is far from that long
        self.last = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        self.bytes += frame.len();
        match frame {
            Frame::Whole(bytes) => self.push_piece(bytes, false),
            Frame::Split { head, tail } => {
                self.push_piece(head, false);
                self.push_piece(tail, true);
            }
        }
    }

    fn push_piece(&mut self, piece: Bytes, goes_on: bool) {
        if self.first.is_empty() {
            self.first = piece;
        } else if !piece.is_empty() {
            self.rest.get_or_insert_default().push_back((piece, goes_on));
        }
    }

    fn advance(&mut self, mut sent: usize) {
        self.bytes -= sent;
        while !self.first.is_empty() {
            if sent < self.first.len() {
                self.first.advance(sent);
                self.begun |= sent > 0;
                return;
            }
            sent -= self.first.len();
            (self.first, self.begun) = self.rest.as_mut().and_then(|rest| rest.pop_front()).unwrap_or_default();
        }
        // nothing is owed: give back what a burst made it grow to
        self.last = 0;
        if let Some(rest) = &mut self.rest {
            rest.shrink_to(8);
        }
    }
}

#[cfg(test)]
mod tests;
