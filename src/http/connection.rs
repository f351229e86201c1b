//! One HTTP connection: its requests one after the other. Whatever a client does, it holds bounded memory for a bounded
//! time, and while it does not take its replies, nothing more of it is read.
//!
//! ```text
//! wait ──▶ head ──▶ body ──▶ serve ──▶ write ──▶ wait           each step has its time;
//!            └──▶ a WebSocket                └─▶ linger          who waits longest goes when others need room
//! ```

use std::{
    future::poll_fn,
    net::Shutdown,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use log::debug;
use socket2::SockRef;
use tokio::{
    io::AsyncWrite,
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::io::poll_read_buf;
use wellhead_proto::{
    dialect::contract::ApiReply,
    refusal::Refusal,
    surface::{HttpVersion, text},
};
use wellhead_slave::Rejected;

use super::{
    Site,
    budget::{Reservation, UsedUp},
    chunks::{BadChunks, ChunkDecoder},
    connections::Place,
    door::Door,
    head::{Framing, HeadScanner, RequestHead},
    metrics::Ended,
    reply::{After, CONTINUE, encode},
};

/// How much is read at once of a head, and of small bodies with it, in bytes.
const READ: usize = 4 << 10;
/// How much more of a large body is read at once, in bytes.
const READ_BODY: usize = 64 << 10;
/// How much we read on after our last word, in bytes: a body that was too large, from a client that reads the answer only
/// when it has sent all of it.
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
    /// For reading our last word.
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

/// Why nothing more can be had of a client.
enum Broken {
    /// It closed the connection, or its network did.
    Gone,
    /// Somebody else needs the room, or the server ends.
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

/// What is waited for when something is read.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Waits {
    /// A request, for which nobody waits while the server ends.
    ForRequest,
    /// The rest of a request, or its client's end.
    InExchange,
}

/// What comes after an exchange.
enum Next<Socket> {
    /// Another request.
    Request,
    /// Nothing.
    Close,
    /// Nothing, but the client shall be able to read our last word although it may be sending.
    Linger,
    /// What the handshake opens.
    Open(Socket),
}

/// What of the input a request has used.
enum Used {
    /// So many bytes behind its head.
    Bytes(usize),
    /// All; these came behind it.
    AllBut(BytesMut),
    /// Part of its body has not been read, or is not worth reading.
    NotYetAll,
}

/// Serve the client of `stream` until it goes, or has to.
pub async fn serve<S: Site>(door: Rc<Door<S>>, stream: TcpStream, place: Place) {
    // without it the second of two small frames waits for an acknowledgement; fails if the client is gone
    let _ = stream.set_nodelay(true);
    let deadline = Instant::now() + door.times.head;
    let held = door.budget.reserve_nothing();
    let mut line = Line { stream, place, deadline, clock: Box::pin(sleep_until(deadline)), held, times: door.times };
    let mut input = BytesMut::new();
    let mut is_first = true;
    loop {
        let next = match line.read_head(&mut input, is_first).await {
            Ok(Some(length)) => exchange(&door, &mut line, &mut input, length).await,
            Ok(None) | Err(Incomplete::Silent) => Next::Close,
            Err(Incomplete::Broken(cause)) => {
                door.requests.ended(cause);
                Next::Close
            }
            Err(Incomplete::Refused(reply, cause)) => {
                if let Some(cause) = cause {
                    door.requests.ended(cause);
                }
                door.requests.count("", reply.status, Duration::ZERO);
                line.last_word(&reply).await
            }
        };
        is_first = false;
        match next {
            // who sends many at once lets others have their turn in between
            Next::Request if !input.is_empty() => tokio::task::yield_now().await,
            Next::Request => {}
            Next::Close => return,
            Next::Linger => return line.linger().await,
            Next::Open(socket) => {
                let Line { stream, place, held, .. } = line;
                drop((place, held));
                return door.surface.open(socket, stream, input);
            }
        }
    }
}

/// One request, whose head is the first `length` bytes of `input`, and the reply to it.
async fn exchange<S: Site>(door: &Door<S>, line: &mut Line, input: &mut BytesMut, length: usize) -> Next<S::Socket> {
    let started = Instant::now();
    line.place.set_waiting(None);
    let (head_bytes, behind) = input.split_at(length);
    let request = match RequestHead::parse(head_bytes) {
        Ok(request) => request,
        Err(bad) => {
            let reply = bad.reply();
            door.requests.count("", reply.status, started.elapsed());
            return line.last_word(&reply).await;
        }
    };
    let head = request.head();
    let is_head = head.method == "HEAD";
    if request.asks_for_websocket && head.method == "GET" && door.surface.opens_socket(head) {
        let judged = door.surface.handshake(head).await;
        drop(request);
        return match judged {
            Ok(socket) => {
                input.advance(length);
                Next::Open(socket)
            }
            Err(Rejected::Reply(reply)) => line.last_word(&reply).await,
            Err(Rejected::TurnedAway(words)) => line.last_bytes(&words).await,
        };
    }

    let (reply, used) = match door.admit(head) {
        Err(reply) => (reply, unread(&request, behind)),
        Ok(admitted) => match line.read_body(&request, behind, door.surface.body_limit()).await {
            Ok((body, used)) => {
                line.place.set_waiting(None);
                (door.surface.serve(admitted, head, body).await, used)
            }
            Err(NoBody::Refused(why)) => (door.surface.refuse(&admitted, &why), Used::NotYetAll),
            Err(NoBody::BrokeOff) => (text(400, "the request body broke off"), Used::NotYetAll),
            Err(NoBody::Gone) => return Next::Close,
            Err(NoBody::Dismissed) => {
                door.requests.ended(Ended::Crowded);
                return Next::Close;
            }
        },
    };

    let now = Instant::now();
    let took = now - started;
    door.requests.count(head.method, reply.status, took);
    debug!(
        role = door.requests.role(), method = head.method, path = head.path, status = reply.status,
        duration_us = took.as_micros() as u64;
        "{} {}: {}", head.method, head.path, reply.status
    );
    let lives = request.keep_alive && !matches!(used, Used::NotYetAll) && !line.place.is_ending();
    let after = match request.version {
        _ if !lives => After::Closes,
        HttpVersion::Http10 => After::LivesOn10,
        HttpVersion::Http11 => After::Lives,
    };
    drop(request);
    let mut out = Vec::new();
    encode(&reply, is_head, after, &mut out);
    drop(reply);
    if let Err(broken) = line.write(&out).await {
        match broken {
            Broken::Late => door.requests.ended(Ended::Stalled),
            Broken::NoMemory => door.requests.ended(Ended::NoMemory),
            Broken::Dismissed => door.requests.ended(Ended::Crowded),
            Broken::Gone => {}
        }
        return Next::Close;
    }
    if !lives {
        return Next::Linger;
    }
    match used {
        Used::Bytes(bytes) => input.advance(length + bytes),
        Used::AllBut(rest) => *input = rest,
        Used::NotYetAll => return Next::Linger,
    }
    // holding nothing never fails
    let _ = line.held.hold(0);
    line.set_deadline(now + line.times.idle);
    line.place.set_waiting(Some(now));
    Next::Request
}

/// What a request has used whose body nobody wants: all that it is, if it is here anyway.
fn unread(request: &RequestHead<'_>, behind: &[u8]) -> Used {
    match request.framing {
        Framing::Length(length) if length <= behind.len() as u64 && !request.expects_continue => {
            Used::Bytes(length as usize)
        }
        _ => Used::NotYetAll,
    }
}

/// Why there is no head.
enum Incomplete {
    /// The client said nothing of it.
    Silent,
    /// It cannot be answered.
    Broken(Ended),
    /// It is answered with this.
    Refused(ApiReply, Option<Ended>),
}

/// Why there is no body.
enum NoBody {
    Refused(Refusal),
    BrokeOff,
    Gone,
    /// Somebody else needs the room.
    Dismissed,
}

impl From<Broken> for NoBody {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Gone => Self::Gone,
            Broken::Dismissed => Self::Dismissed,
            Broken::Late => Self::Refused(Refusal::TooSlow),
            Broken::NoMemory => Self::Refused(no_memory()),
        }
    }
}

impl From<UsedUp> for NoBody {
    fn from(used_up: UsedUp) -> Self {
        Broken::from(used_up).into()
    }
}

fn no_memory() -> Refusal {
    Refusal::unavailable("too many unfinished requests (limits.http_memory)")
}

/// The connection, and what it may have.
struct Line {
    stream: TcpStream,
    place: Place,
    /// When what it waits for is late.
    deadline: Instant,
    /// Wakes at the deadline, or before it.
    clock: Pin<Box<Sleep>>,
    held: Reservation,
    times: Times,
}

impl Line {
    /// The length of the next head, once all of it is in `input`; nothing if the client has gone without one.
    async fn read_head(&mut self, input: &mut BytesMut, is_first: bool) -> Result<Option<usize>, Incomplete> {
        let mut scanner = HeadScanner::default();
        // the first head has had its time since the connection was accepted
        let mut is_begun = is_first;
        loop {
            if scanner.is_new() {
                // blank lines may go before a request (RFC 9112 §2.2)
                let blank = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
                input.advance(blank);
            }
            if !input.is_empty() {
                match scanner.find_end(input) {
                    Ok(None) => {}
                    Ok(end) => return Ok(end),
                    Err(bad) => return Err(Incomplete::Refused(bad.reply(), None)),
                }
                if !is_begun {
                    is_begun = true;
                    self.set_deadline(Instant::now() + self.times.head);
                }
                if self.held.hold(input.capacity()).is_err() {
                    return Err(Incomplete::Refused(text(503, "too many unfinished requests"), Some(Ended::NoMemory)));
                }
            }
            match self.read(input, READ, Waits::ForRequest).await {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(Broken::Late) if input.is_empty() && is_first => return Err(Incomplete::Broken(Ended::HeadLate)),
                Err(Broken::Late) if input.is_empty() => return Err(Incomplete::Broken(Ended::Idle)),
                Err(Broken::Late) => {
                    return Err(Incomplete::Refused(
                        text(408, "the request head took too long"),
                        Some(Ended::HeadLate),
                    ));
                }
                Err(Broken::Dismissed) if self.place.is_ending() => return Err(Incomplete::Silent),
                Err(Broken::Dismissed) => return Err(Incomplete::Broken(Ended::Crowded)),
                Err(Broken::Gone | Broken::NoMemory) => return Err(Incomplete::Silent),
            }
        }
    }

    /// The body of `request`, of which `behind` has come with its head, and what that has used.
    async fn read_body(
        &mut self,
        request: &RequestHead<'_>,
        behind: &[u8],
        limit: usize,
    ) -> Result<(Bytes, Used), NoBody> {
        let too_large = || NoBody::Refused(Refusal::TooLarge { what: "a request body", limit: limit as u64 });
        match request.framing {
            Framing::Length(0) => Ok((Bytes::new(), Used::Bytes(0))),
            Framing::Length(length) => {
                let length = usize::try_from(length).ok().filter(|length| *length <= limit).ok_or_else(too_large)?;
                if let Some(body) = behind.get(..length) {
                    return Ok((Bytes::copy_from_slice(body), Used::Bytes(length)));
                }
                let mut body = BytesMut::new();
                self.hold_body(&mut body, behind.len().max(READ).min(length))?;
                body.extend_from_slice(behind);
                self.begin_body(request).await?;
                while body.len() < length {
                    // as it grows, so that a length that was only declared takes no room
                    let left = length - body.len();
                    if body.capacity() == body.len() {
                        let more = left.min(body.len().max(READ_BODY));
                        self.hold_body(&mut body, more)?;
                    }
                    if self.read(&mut body, left, Waits::InExchange).await? == 0 {
                        return Err(NoBody::BrokeOff);
                    }
                }
                Ok((body.freeze(), Used::Bytes(behind.len())))
            }
            Framing::Chunked => {
                let (mut input, mut body) = (BytesMut::from(behind), BytesMut::new());
                let mut decoder = ChunkDecoder::default();
                let mut is_begun = false;
                loop {
                    match decoder.decode(&mut input, &mut body, limit) {
                        Ok(true) => return Ok((body.freeze(), Used::AllBut(input))),
                        Ok(false) => {}
                        Err(BadChunks::TooLarge) => return Err(too_large()),
                        Err(BadChunks::Malformed) => {
                            return Err(NoBody::Refused(Refusal::Malformed(
                                "the chunks of the body are malformed".into(),
                            )));
                        }
                    }
                    if !is_begun {
                        is_begun = true;
                        self.begin_body(request).await?;
                    }
                    self.held.hold(body.capacity() + READ)?;
                    if self.read(&mut input, READ, Waits::InExchange).await? == 0 {
                        return Err(NoBody::BrokeOff);
                    }
                }
            }
        }
    }

    /// From now on the body has its time; who waits to be asked for it is.
    async fn begin_body(&mut self, request: &RequestHead<'_>) -> Result<(), NoBody> {
        self.place.set_waiting(Some(Instant::now()));
        self.set_deadline(Instant::now() + self.times.body);
        if request.expects_continue {
            self.write(CONTINUE).await?;
            self.set_deadline(Instant::now() + self.times.body);
        }
        Ok(())
    }

    /// Make room for `more` bytes of a body, if there is.
    fn hold_body(&mut self, body: &mut BytesMut, more: usize) -> Result<(), UsedUp> {
        self.held.hold(body.len() + more)?;
        body.reserve(more);
        Ok(())
    }

    fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
        if self.deadline < self.clock.deadline() {
            self.clock.as_mut().reset(self.deadline);
        }
    }

    /// Is it late? The clock may go off too early: setting it anew for each request would cost more than to look.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.clock.as_mut().poll(cx));
            if Instant::now() >= self.deadline {
                return Poll::Ready(());
            }
            self.clock.as_mut().reset(self.deadline);
        }
    }

    /// Read what comes, at most `most` bytes, to the end of `into`; 0 at the end of the stream.
    async fn read(&mut self, into: &mut BytesMut, most: usize, waits: Waits) -> Result<usize, Broken> {
        poll_fn(|cx| {
            if self.place.poll_dismissed(waits == Waits::ForRequest, cx) {
                return Poll::Ready(Err(Broken::Dismissed));
            }
            // who says nothing needs no room for it
            if let Poll::Ready(ready) = self.stream.poll_read_ready(cx) {
                if ready.is_err() {
                    return Poll::Ready(Err(Broken::Gone));
                }
                if into.capacity() == into.len() {
                    into.reserve(most.min(READ));
                }
                let read = poll_read_buf(Pin::new(&mut self.stream), cx, &mut (&mut *into).limit(most));
                if let Poll::Ready(read) = read {
                    return Poll::Ready(read.map_err(|_| Broken::Gone));
                }
            }
            if into.is_empty() && waits == Waits::ForRequest {
                *into = BytesMut::new();
            }
            self.poll_late(cx).map(|()| Err(Broken::Late))
        })
        .await
    }

    /// Write all of `bytes`. Meanwhile nothing is read.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let mut rest = bytes;
        let mut is_stalled = false;
        let mut waits_since = None;
        let before = self.held.bytes();
        poll_fn(|cx| {
            while !rest.is_empty() {
                match Pin::new(&mut self.stream).poll_write(cx, rest) {
                    Poll::Ready(Ok(written)) if written > 0 => {
                        rest = &rest[written..];
                        is_stalled = false;
                    }
                    Poll::Ready(_) => return Poll::Ready(Err(Broken::Gone)),
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
                        return self.poll_late(cx).map(|()| Err(Broken::Late));
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// The last reply on this connection.
    async fn last_word<Socket>(&mut self, reply: &ApiReply) -> Next<Socket> {
        let mut out = Vec::new();
        encode(reply, false, After::Closes, &mut out);
        self.last_bytes(&out).await
    }

    /// The last that is said on this connection.
    async fn last_bytes<Socket>(&mut self, bytes: &[u8]) -> Next<Socket> {
        if self.write(bytes).await.is_ok() { Next::Linger } else { Next::Close }
    }

    /// Say that we are done, then read and throw away until the client is done too, or patience is at its end: closing
    /// with unread input would reset the connection and take our last word with it.
    async fn linger(mut self) {
        // fails only if the client is gone
        let _ = SockRef::from(&self.stream).shutdown(Shutdown::Write);
        let _ = self.held.hold(0);
        self.set_deadline(Instant::now() + self.times.linger);
        self.place.set_waiting(Some(Instant::now()));
        let mut left = LINGER_BYTES;
        let mut scratch = BytesMut::new();
        while left > 0 {
            // no reason to keep a server from its end, unless that is what the last word tells
            let waits = if self.place.is_ending() { Waits::InExchange } else { Waits::ForRequest };
            match self.read(&mut scratch, READ, waits).await {
                Ok(read) if read > 0 => left = left.saturating_sub(read),
                _ => return,
            }
            scratch.clear();
        }
    }
}
