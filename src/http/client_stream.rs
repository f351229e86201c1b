//! The stream of one HTTP client, read and written within bounds: each wait has its deadline, and what is held for the
//! client counts against the budget of all.

use std::{
    future::poll_fn,
    io::ErrorKind,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use log::{Level, log_enabled};
use tokio::time::{Instant, Sleep, sleep_until};
use wellhead_slave::Transport;

use super::{
    budget::{Reservation, UsedUp},
    connections::ConnectionPlace,
};

/// How much is read at once of a head, and of small bodies with it, in bytes.
pub(super) const READ: usize = 4 << 10;
/// How much is read and discarded after the last reply, in bytes: the rest of a body that was too large, from a client that
/// reads the reply only when it has sent all of it.
const LINGER_BYTES: usize = 16 << 20;

/// How long a connection may take for what.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// For a whole head; also for the first byte of the first one.
    pub head: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// For a body.
    pub body: Duration,
    /// Without taking anything of a reply.
    pub stall: Duration,
    /// For reading the last reply.
    pub linger: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(5),
            idle: Duration::from_secs(75),
            body: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            linger: Duration::from_secs(2),
        }
    }
}

/// What a read waits for.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Waits {
    /// A request, for which nobody waits while the server ends.
    ForRequest,
    /// The rest of a request, or its client's end.
    InExchange,
}

/// Why a client cannot be read from or written to any more.
pub(super) enum Broken {
    /// It closed the connection, or its network did.
    Gone,
    /// Another connection needs the room, or the server shuts down.
    Dismissed,
    /// It took too long.
    Late,
    /// It would need more memory than there is for all.
    NoMemory,
}

impl From<UsedUp> for Broken {
    fn from(UsedUp: UsedUp) -> Self {
        Self::NoMemory
    }
}

/// The connection, and what it may have.
pub(super) struct ClientStream {
    pub(super) transport: Transport,
    pub(super) place: ConnectionPlace,
    deadline: Deadline,
    pub(super) held: Reservation,
    pub(super) times: Times,
}

/// When what a connection waits for is late.
struct Deadline {
    at: Instant,
    /// Wakes at the deadline, or before it.
    clock: Pin<Box<Sleep>>,
}

impl Deadline {
    fn new(at: Instant) -> Self {
        Self { at, clock: Box::pin(sleep_until(at)) }
    }

    fn set(&mut self, at: Instant) {
        self.at = at;
        if at < self.clock.deadline() {
            self.clock.as_mut().reset(at);
        }
    }

    /// Is it late? The clock may go off too early: setting it anew for each request would cost more than to look.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.clock.as_mut().poll(cx));
            if Instant::now() >= self.at {
                return Poll::Ready(());
            }
            self.clock.as_mut().reset(self.at);
        }
    }
}

impl ClientStream {
    /// A client that has just come; the time for its first head begins.
    pub(super) fn new(transport: Transport, place: ConnectionPlace, held: Reservation, times: Times) -> Self {
        Self { transport, place, deadline: Deadline::new(Instant::now() + times.head), held, times }
    }

    /// Where the client is, if somebody debugs: for anybody else it is not worth a call to the kernel.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        if log_enabled!(Level::Debug) { self.transport.peer() } else { None }
    }

    /// From now on it is late at `deadline`.
    pub(super) fn set_deadline(&mut self, deadline: Instant) {
        self.deadline.set(deadline);
    }

    /// Read what comes, at most `most` bytes, to the end of `into`; 0 at the end of the stream.
    pub(super) async fn read(&mut self, into: &mut BytesMut, most: usize, waits: Waits) -> Result<usize, Broken> {
        poll_fn(|cx| {
            if self.place.poll_dismissed(waits == Waits::ForRequest, cx) {
                return Poll::Ready(Err(Broken::Dismissed));
            }
            // who says nothing needs no room for it
            while let Poll::Ready(ready) = self.transport.poll_readable(cx) {
                if ready.is_err() {
                    return Poll::Ready(Err(Broken::Gone));
                }
                if into.capacity() == into.len() {
                    into.reserve(most.min(READ));
                }
                match self.transport.try_read_buf(into, most) {
                    Ok(read) => return Poll::Ready(Ok(read)),
                    Err(error) if is_passing(&error) => {}
                    Err(_) => return Poll::Ready(Err(Broken::Gone)),
                }
            }
            if into.is_empty() && waits == Waits::ForRequest {
                *into = BytesMut::new();
            }
            self.deadline.poll_late(cx).map(|()| Err(Broken::Late))
        })
        .await
    }

    /// Write all of `bytes`. Meanwhile nothing is read.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let mut rest = bytes;
        let mut is_stalled = false;
        let mut waits_since = None;
        let before = self.held.bytes();
        poll_fn(|cx| {
            while !rest.is_empty() {
                match self.transport.poll_writable(cx) {
                    Poll::Ready(Ok(())) => match self.transport.try_write(rest) {
                        Ok(written) if written > 0 => {
                            rest = &rest[written..];
                            is_stalled = false;
                        }
                        Err(error) if is_passing(&error) => {}
                        _ => return Poll::Ready(Err(Broken::Gone)),
                    },
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Gone)),
                    Poll::Pending => {
                        if waits_since.is_none() {
                            waits_since = Some(Instant::now());
                            self.place.set_waiting(waits_since);
                        }
                        if self.place.poll_dismissed(false, cx) {
                            return Poll::Ready(Err(Broken::Dismissed));
                        }
                        if !is_stalled {
                            is_stalled = true;
                            self.set_deadline(Instant::now() + self.times.stall);
                            self.held.hold(before + rest.len() + READ)?;
                        }
                        return self.deadline.poll_late(cx).map(|()| Err(Broken::Late));
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// End the connection behind our last word, once the client is done too, or patience is at its end.
    pub(super) async fn linger(mut self) {
        let _ = self.held.hold(0);
        self.set_deadline(Instant::now() + self.times.linger);
        self.place.set_waiting(Some(Instant::now()));
        // no reason to keep a server from its end, unless that is what the last word tells
        let is_idle = !self.place.is_ending();
        let Self { transport, place, deadline, .. } = &mut self;
        let is_over = |cx: &mut Context<'_>| place.poll_dismissed(is_idle, cx) || deadline.poll_late(cx).is_ready();
        transport.close_lingering(LINGER_BYTES, is_over).await;
    }
}

/// Is the connection as good as before that error?
fn is_passing(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
