//! The task of one socket: lets its session run, sends what the kernel refused before, and ends it so that the client
//! really reads why.

use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use log::{Level, debug, log_enabled};
use tokio::time::timeout;
use wellhead_proto::{frame::Frame, refusal::CloseCause};

use super::{actor::Session, context::SessionContext, frame_reader::FrameReader};
use crate::{
    admission::ConnectionPermit,
    outbox::{Outbox, SocketEnd},
};

/// How long queued frames may hold back the close frame.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long, and over how many bytes, the client may take to read the close frame and go.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 << 10;

/// Runs a session until its socket ends. A hand-written future. The end of the socket, with its timers, is a task of
/// its own: otherwise thousands of idle sockets would hold memory for those timers.
pub struct SessionTask {
    session: Session,
    context: SessionContext<Session>,
    frame_reader: FrameReader,
    permit: Option<ConnectionPermit>,
}

impl SessionTask {
    /// The task of `session`, which handles the frames of `frame_reader`.
    pub fn new(session: Session, frame_reader: FrameReader, permit: ConnectionPermit) -> Self {
        Self { session, context: SessionContext::new(), frame_reader, permit: Some(permit) }
    }
}

impl Future for SessionTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { session, context, frame_reader, permit } = &mut *self;
        session.outbox.register_driver(cx);
        if session.outbox.is_behind() {
            // frames are read only while the client takes its replies
            session.outbox.drive(cx);
        }
        if context.poll(session, frame_reader, cx).is_ready() {
            // when its stream ends it says why; else it is our fault
            session.outbox.end(SocketEnd { cause: CloseCause::Internal, goodbye: None });
        }
        // one write for the replies to everything that one read brought
        session.outbox.drive(cx);
        session.outbox.note_unfinished(frame_reader.held() + session.unfinished());
        if frame_reader.is_withheld() && !session.outbox.has_refused_replies() {
            // the kernel took everything meanwhile, and nobody else would report it
            cx.waker().wake_by_ref();
        }
        session.socket.look_after();
        let Some(cause) = session.outbox.take_end() else { return Poll::Pending };
        let names = log_enabled!(Level::Debug).then(|| session.socket.names());
        // from here on no query finds the socket: presence is exact
        session.socket.close();
        context.leave(session);
        if let Some(permit) = permit.take() {
            permit.closed(cause);
            if let Some((app_id, user_id)) = names {
                let (socket_id, reason) = (session.protocol.socket_id(), cause.label());
                debug!(socket_id, app_id, user_id, reason; "socket {socket_id} ends: {reason}");
            }
            if cause != CloseCause::ClientGone {
                // the socket's memory is needed: its queue is dropped, and the close frame sent instead
                let instead = cause.is_for_room().then(|| session.goodbye(cause));
                actix_rt::spawn(farewell(session.outbox.clone(), instead, permit));
            }
        }
        Poll::Ready(())
    }
}

/// A session that panics must not stay in the index: its user would be online for ever.
impl Drop for SessionTask {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            permit.closed(CloseCause::Internal);
            self.session.socket.close_after_panic();
        }
    }
}

/// Send what is queued and the close frame behind it, and wait until the client has read them. With `instead` the queue
/// is dropped, and that is sent if the kernel takes it at once. The permit is kept until the connection has ended.
async fn farewell(outbox: Rc<Outbox>, instead: Option<Frame>, _permit: ConnectionPermit) {
    let is_for_room = instead.is_some();
    let is_sent = match instead {
        Some(goodbye) => outbox.replace_owed(goodbye) && outbox.try_flush(),
        None => matches!(timeout(GOODBYE, poll_fn(|cx| outbox.poll_flush(cx))).await, Ok(Ok(()))),
    };
    let transport = outbox.transport();
    if is_sent {
        // a client that is still there after that reads nothing
        let _ = timeout(LINGER, transport.close_lingering(LINGER_BYTES, |_| false)).await;
    }
    if !is_sent || is_for_room {
        transport.reset_on_drop();
    }
}
