//! The body of a reply to a request whose own body was not read.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use actix_http::{
    BoxedPayloadStream,
    body::{BodySize, MessageBody},
};
use bytes::Bytes;

/// Bytes that go out, holding on to what of the request did not come in.
pub struct HoldingBody {
    bytes: Option<Bytes>,
    size: u64,
    _unread: BoxedPayloadStream,
}

impl HoldingBody {
    /// `bytes` go out; `unread` is dropped when they are out.
    pub fn new(bytes: Bytes, unread: BoxedPayloadStream) -> Self {
        Self { size: bytes.len() as u64, bytes: Some(bytes).filter(|bytes| !bytes.is_empty()), _unread: unread }
    }
}

impl MessageBody for HoldingBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.size)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        Poll::Ready(self.bytes.take().map(Ok))
    }
}
