//! What comes from a client, as a stream of frames. The validator sees each byte before the parser does. Reads only
//! when every frame of the last read has been handled, so that no more is kept than one read and one unfinished frame.
//! The buffer is freed when all of it has been handled: an idle socket has none. As long as the client does not take
//! its replies, nothing is read.

use std::{
    cell::RefCell,
    io::ErrorKind,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_codec::Decoder;
use actix_http::ws::{Codec, Frame};
use bytes::BytesMut;
use futures_util::Stream;
use wellhead_proto::refusal::CloseCause;

use super::validator::{FrameValidator, FrameVerdict};
use crate::outbox::Outbox;

/// One read, in bytes. The buffer is shared by all sockets of a thread.
const READ: usize = 64 << 10;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// The stream. Ends when the client is gone or has said goodbye; before that, perhaps, with the rule that it broke.
pub struct FrameReader {
    outbox: Rc<Outbox>,
    /// The largest message, in bytes.
    limit: usize,
    /// What was read and not handled, and frames and messages that are not whole.
    under_way: Option<Box<Unhandled>>,
    ended: bool,
    /// Nothing was read because the client does not take its replies.
    withheld: bool,
}

struct Unhandled {
    validator: FrameValidator,
    parser: Codec,
    /// What the validator let pass.
    bytes: BytesMut,
    /// What it said about what follows.
    verdict: FrameVerdict,
}

impl FrameReader {
    /// What comes through `outbox`'s transport, after `early`; messages of at most `limit` bytes.
    pub fn new(outbox: Rc<Outbox>, early: &[u8], limit: usize) -> Self {
        let mut frame_reader = Self { outbox, limit, under_way: None, ended: false, withheld: false };
        if !early.is_empty() {
            frame_reader.take(early);
        }
        frame_reader
    }

    /// Bytes that are held of what was read.
    pub fn held(&self) -> usize {
        self.under_way.as_ref().map_or(0, |under_way| size_of::<Unhandled>() + under_way.bytes.capacity())
    }

    /// Was nothing read because the client does not take its replies?
    pub fn is_withheld(&self) -> bool {
        self.withheld
    }

    /// Validate what came, and keep what is valid.
    fn take(&mut self, bytes: &[u8]) {
        let under_way = self.under_way.get_or_insert_with(|| Box::new(Unhandled::new(self.limit)));
        let checked = under_way.validator.check(bytes);
        under_way.bytes.extend_from_slice(&bytes[..checked.accepted]);
        under_way.verdict = checked.verdict;
    }

    /// The next frame of what was read.
    fn next_kept(&mut self) -> Option<Result<Frame, CloseCause>> {
        let under_way = self.under_way.as_mut()?;
        match under_way.parser.decode(&mut under_way.bytes) {
            Ok(Some(frame)) => return Some(Ok(frame)),
            Ok(None) => {}
            // the validator lets only good frames pass
            Err(_) => under_way.verdict = FrameVerdict::Broken(CloseCause::ProtocolError),
        }
        match under_way.verdict {
            FrameVerdict::Open if !under_way.validator.is_between_messages() => None,
            FrameVerdict::Open => {
                self.under_way = None;
                None
            }
            FrameVerdict::Closed => {
                self.end();
                None
            }
            FrameVerdict::Broken(cause) => {
                self.end();
                Some(Err(cause))
            }
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.under_way = None;
    }
}

impl Unhandled {
    fn new(limit: usize) -> Self {
        let validator = FrameValidator::new(limit as u64);
        Self { validator, parser: Codec::new().max_size(limit), bytes: BytesMut::new(), verdict: FrameVerdict::Open }
    }
}

impl Stream for FrameReader {
    type Item = Result<Frame, CloseCause>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        this.withheld = this.outbox.has_refused_replies();
        if this.withheld {
            return Poll::Pending;
        }
        loop {
            if let Some(frame) = this.next_kept() {
                return Poll::Ready(Some(frame));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            let outbox = this.outbox.clone();
            match outbox.transport().poll_readable(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => {
                    this.end();
                    continue;
                }
                Poll::Ready(Ok(())) => {}
            }
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let read = outbox.transport().try_read(scratch)?;
                if read > 0 {
                    this.take(&scratch[..read]);
                }
                Ok::<_, std::io::Error>(read)
            });
            match read {
                Ok(0) => this.end(),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => this.end(),
            }
        }
    }
}
