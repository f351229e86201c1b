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
use wellhead_proto::refusal::CloseCause;

use super::{Session, desk::Desk, inbound::Inbound};
use crate::{
    Pass,
    outbox::{End, Outbox},
};

/// How long what is owed may hold back the close frame.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long, and over how many bytes, the client may take to read the close frame and go.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 << 10;

/// Runs a session until its socket ends. A future of its own making, and its last act a task of its own: thousands of idle
/// sockets would hold the room for its timers, too.
pub struct Drive {
    session: Session,
    desk: Desk<Session>,
    inbound: Inbound,
    pass: Option<Pass>,
}

impl Drive {
    /// Of `session`, which hears `inbound`.
    pub fn new(session: Session, inbound: Inbound, pass: Pass) -> Self {
        Self { session, desk: Desk::new(), inbound, pass: Some(pass) }
    }
}

impl Future for Drive {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { session, desk, inbound, pass } = &mut *self;
        session.outbox.register_driver(cx);
        if session.outbox.is_behind() {
            // whether the client takes its replies decides whether it is heard
            session.outbox.drive(cx);
        }
        if desk.poll(session, inbound, cx).is_ready() {
            // when its stream ends it says why; else it is our fault
            session.outbox.end(End { cause: CloseCause::Internal, goodbye: None });
        }
        // one write for the replies to everything that one read brought
        session.outbox.drive(cx);
        session.outbox.note_unfinished(inbound.held() + session.unfinished());
        if inbound.is_withheld() && !session.outbox.has_refused_replies() {
            // taken meanwhile; nobody else would say so
            cx.waker().wake_by_ref();
        }
        session.hall.look_after();
        let Some(cause) = session.outbox.take_end() else { return Poll::Pending };
        let id = session.id;
        let names = log_enabled!(Level::Debug).then(|| session.names());
        // from here on nobody finds the socket any more: presence is exact
        session.hall.floor.borrow_mut().exit(id);
        desk.leave(session);
        if let Some(pass) = pass.take() {
            pass.closed(cause);
            if let Some((app_id, user_id)) = names {
                let (socket_id, reason) = (session.conversation.socket_id(), cause.label());
                debug!(socket_id, app_id, user_id, reason; "socket {socket_id} ends: {reason}");
            }
            if cause != CloseCause::ClientGone {
                actix_rt::spawn(farewell(session.outbox.clone(), session.voice, cause, pass));
            }
        }
        Poll::Ready(())
    }
}

/// A session that panics must not keep its seat: its user would be there for ever.
impl Drop for Drive {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            pass.closed(CloseCause::Internal);
            if let Ok(mut floor) = self.session.hall.floor.try_borrow_mut() {
                floor.exit(self.session.id);
            }
        }
    }
}

/// Send what is owed and the close frame behind it, and see that the client reads them.
async fn farewell(outbox: Rc<Outbox>, voice: u8, cause: CloseCause, pass: Pass) {
    let is_sent = if cause.is_for_room() {
        // what it holds is wanted back: a close frame goes out only if the kernel takes it at once
        let goodbye = pass.goodbye(voice, cause);
        outbox.replace_owed(goodbye) && outbox.try_flush()
    } else {
        matches!(timeout(GOODBYE, poll_fn(|cx| outbox.poll_flush(cx))).await, Ok(Ok(())))
    };
    let transport = outbox.transport();
    if is_sent {
        // whoever is still there after that reads nothing
        let _ = timeout(LINGER, transport.close_lingering(LINGER_BYTES, |_| false)).await;
    }
    if !is_sent || cause.is_for_room() {
        transport.reset_on_drop();
    }
}
