//! The task of one socket: lets its session run, sends what the kernel refused before, and ends it so that the client
//! really reads why.

use std::{
    cell::RefCell,
    future::poll_fn,
    io::ErrorKind,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::Error;
use bytes::Bytes;
use futures_util::Stream;
use log::debug;
use tokio::time::timeout;
use wellhead_proto::{ids::SocketId, refusal::CloseCause};

use crate::{
    Pass,
    outbox::{End, Outbox},
    registry::Hall,
};

/// How long what is owed may hold back the close frame.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long, and over how many bytes, the client may take to read the close frame and go: closing with unread input
/// would reset the connection, and the close frame with it.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 << 10;

thread_local! {
    static DISCARD: RefCell<Vec<u8>> = RefCell::new(vec![0; 16 << 10]);
}

/// Run a session until its socket ends.
pub async fn drive(
    mut session: Pin<Box<impl Stream<Item = Result<Bytes, Error>>>>,
    outbox: Rc<Outbox>,
    hall: Rc<Hall>,
    id: SocketId,
    voice: u8,
    pass: Pass,
) {
    let cause = poll_fn(|cx| poll_session(session.as_mut(), &outbox, cx)).await;
    // from here on nobody finds the socket any more: presence is exact
    hall.floor.borrow_mut().exit(id);
    drop(session);
    pass.closed(cause);
    debug!(socket_id:% = id, cause = cause.label(); "socket {id} ends: {}", cause.label());
    match cause {
        CloseCause::ClientGone => {}
        CloseCause::SlowConsumer => {
            // its queue is full: a close frame goes out only if the kernel takes it at once
            let goodbye = pass.goodbye(voice, cause);
            if outbox.replace_owed(goodbye) && outbox.try_finish() {
                linger(&outbox).await;
            }
            outbox.transport().reset_on_drop();
        }
        _ => match timeout(GOODBYE, poll_fn(|cx| outbox.poll_flush(cx))).await {
            Ok(Ok(())) => {
                outbox.transport().finish_writing();
                linger(&outbox).await;
            }
            Ok(Err(_)) | Err(_) => outbox.transport().reset_on_drop(),
        },
    }
}

fn poll_session(
    mut session: Pin<&mut impl Stream<Item = Result<Bytes, Error>>>,
    outbox: &Outbox,
    cx: &mut Context<'_>,
) -> Poll<CloseCause> {
    outbox.register_driver(cx);
    loop {
        match session.as_mut().poll_next(cx) {
            // the session speaks through the outbox; what its context writes by itself goes the same way
            Poll::Ready(Some(Ok(bytes))) => outbox.push_raw(bytes),
            Poll::Ready(Some(Err(_)) | None) => {
                outbox.end(End { cause: CloseCause::Internal, goodbye: None });
                break;
            }
            Poll::Pending => break,
        }
    }
    // one write for the replies to everything that one read brought
    outbox.drive(cx);
    match outbox.take_end() {
        Some(cause) => Poll::Ready(cause),
        None => Poll::Pending,
    }
}

/// Read and discard until the client goes, for a while.
async fn linger(outbox: &Outbox) {
    let mut left = LINGER_BYTES;
    let discard = poll_fn(|cx| {
        loop {
            match outbox.transport().poll_readable(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) => {}
            }
            match DISCARD.with_borrow_mut(|buffer| outbox.transport().try_read(buffer)) {
                Ok(read) if read > 0 && read < left => left -= read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ => return Poll::Ready(()),
            }
        }
    });
    // whoever is still there after that reads nothing
    let _ = timeout(LINGER, discard).await;
}
