//! What comes from a client, as a stream of bytes that the guard let pass. Reads only when the actor has handled every
//! frame that was passed on, so that the parser's buffer never holds more than one read and one unfinished frame.

use std::{
    cell::{Cell, RefCell},
    io::ErrorKind,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_web::error::PayloadError;
use bytes::Bytes;
use futures_util::Stream;
use wellhead_proto::refusal::CloseCause;

use super::guard::{Guard, Verdict};
use crate::outbox::Outbox;

/// One read, in bytes. The buffer is shared by all sockets of a thread.
const READ: usize = 64 << 10;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// What the stream and the actor that reads it tell each other.
#[derive(Default)]
pub struct Gate {
    /// Frames passed on and not handled.
    unhandled: Cell<usize>,
    /// Why the stream ended, if the client broke a rule.
    broken: Cell<Option<CloseCause>>,
}

impl Gate {
    /// The actor has handled a frame.
    pub fn handled(&self) {
        self.unhandled.set(self.unhandled.get().saturating_sub(1));
    }

    /// The rule that the client broke.
    pub fn broken(&self) -> Option<CloseCause> {
        self.broken.get()
    }
}

/// The stream.
pub struct Inbound {
    outbox: Rc<Outbox>,
    gate: Rc<Gate>,
    guard: Guard,
    /// Came with the handshake.
    early: Bytes,
    ended: bool,
}

impl Inbound {
    /// What comes through `outbox`'s transport, after `early`; messages of at most `limit` bytes.
    pub fn new(outbox: Rc<Outbox>, gate: Rc<Gate>, early: &[u8], limit: usize) -> Self {
        // a copy of its own length: the buffer that the handshake was read into holds 8 KiB
        let early = Bytes::copy_from_slice(early);
        Self { outbox, gate, guard: Guard::new(limit as u64), early, ended: false }
    }

    /// Let the guard see `bytes`; what it lets pass.
    fn check(&mut self, bytes: &[u8]) -> Bytes {
        let checked = self.guard.check(bytes);
        self.gate.unhandled.set(self.gate.unhandled.get() + checked.frames);
        match checked.verdict {
            Verdict::Open => {}
            Verdict::Closed => self.ended = true,
            Verdict::Broken(cause) => {
                self.gate.broken.set(Some(cause));
                self.ended = true;
            }
        }
        Bytes::copy_from_slice(&bytes[..checked.accepted])
    }
}

impl Stream for Inbound {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        if this.gate.unhandled.get() > 0 {
            // no wake-up is lost: the actor comes back after each frame that it handles
            return Poll::Pending;
        }
        if !this.early.is_empty() {
            let early = std::mem::take(&mut this.early);
            return Poll::Ready(Some(Ok(this.check(&early))));
        }
        loop {
            match this.outbox.transport().poll_readable(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => {
                    this.ended = true;
                    return Poll::Ready(None);
                }
                Poll::Ready(Ok(())) => {}
            }
            let read = SCRATCH.with_borrow_mut(|scratch| match this.outbox.transport().try_read(scratch) {
                Ok(0) => Ok(None),
                Ok(read) => Ok(Some(this.check(&scratch[..read]))),
                Err(error) => Err(error.kind()),
            });
            match read {
                Ok(Some(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                Err(ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Ok(None) | Err(_) => {
                    this.ended = true;
                    return Poll::Ready(None);
                }
            }
        }
    }
}
