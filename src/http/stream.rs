//! A client's TCP stream as the HTTP server sees it. It ends politely: what we said last is read by the client even if
//! it is still sending, since closing with unread input would reset the connection and take our answer with it. And
//! it gives a proper answer where actix-http has only a bare one for a head that it refused to parse.

use std::{
    io,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use memchr::memchr;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    runtime::Handle,
    time::Sleep,
};

use super::door::HEAD_LIMIT;

/// How long we read on after our last word.
const LINGER_TIME: Duration = Duration::from_secs(2);
/// How much we read on after our last word, in bytes.
const LINGER_BYTES: usize = 256 << 10;
/// How much is read before other connections of the worker have their turn, in bytes. actix-http reads for as long as
/// something comes: a client that sends without end would hold up everybody else.
const TURN_BYTES: usize = 256 << 10;
/// How long a client may take nothing of what we say.
const STALL_TIME: Duration = if cfg!(test) { Duration::from_millis(300) } else { Duration::from_secs(30) };
/// How many streams may linger that the server has let go of; beyond, they are closed at once.
const MAX_DETACHED: usize = 1_024;
static DETACHED: AtomicUsize = AtomicUsize::new(0);

/// How many header lines actix-http parses, whatever their size.
const MAX_HEADERS: usize = 96;
const URI_TOO_LONG: &[u8] = b"HTTP/1.1 414 URI Too Long\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 23\r\nconnection: close\r\n\r\nthe address is too long";
const HEAD_TOO_LARGE: &[u8] = b"HTTP/1.1 431 Request Header Fields Too Large\r\n\
    content-type: text/plain; charset=utf-8\r\ncontent-length: 29\r\nconnection: close\r\n\r\n\
    the request head is too large";

/// The stream.
pub struct Client {
    /// Always there, until it is handed on or lingers by itself.
    tcp: Option<TcpStream>,
    lines: Lines,
    /// What was read since others had their turn, in bytes.
    turn: usize,
    /// When the client has taken nothing for too long; there while it takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    linger: Option<Linger>,
}

struct Linger {
    deadline: Pin<Box<Sleep>>,
    left: usize,
    shut: bool,
}

impl Client {
    /// The client at the other end of `tcp`.
    #[must_use]
    pub fn new(tcp: TcpStream) -> Self {
        Self { tcp: Some(tcp), lines: Lines::default(), turn: 0, stalled: None, linger: None }
    }

    /// The bare stream, for whoever upgrades it.
    ///
    /// # Panics
    ///
    /// Never: only this and `drop` take the stream.
    #[must_use]
    pub fn into_inner(mut self) -> TcpStream {
        self.tcp.take().expect("the stream is taken once, with the wrapper")
    }

    fn tcp(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(self.tcp.as_mut().expect("the stream is taken once, with the wrapper"))
    }
}

impl Linger {
    fn new() -> Self {
        Self { deadline: Box::pin(tokio::time::sleep(LINGER_TIME)), left: LINGER_BYTES, shut: false }
    }

    /// Say that we are done, then read and throw away until the client is done too, or patience is at its end.
    fn poll(&mut self, tcp: &mut TcpStream, cx: &mut Context<'_>) -> Poll<()> {
        if !self.shut {
            // an error means that the client is gone: reading will say so
            let _ = ready!(Pin::new(&mut *tcp).poll_shutdown(cx));
            self.shut = true;
        }
        let mut scratch = [0; 8 << 10];
        while self.left > 0 && self.deadline.as_mut().poll(cx).is_pending() {
            let mut rest = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut *tcp).poll_read(cx, &mut rest)) {
                Ok(()) if !rest.filled().is_empty() => self.left = self.left.saturating_sub(rest.filled().len()),
                _ => break,
            }
        }
        Poll::Ready(())
    }
}

/// actix-http drops a stream without a shutdown when it refused to parse what came; then it lingers by itself.
impl Drop for Client {
    fn drop(&mut self) {
        let (Some(mut tcp), None) = (self.tcp.take(), &self.linger) else {
            return;
        };
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if DETACHED.fetch_add(1, Ordering::Relaxed) >= MAX_DETACHED {
            DETACHED.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        runtime.spawn(async move {
            let mut linger = Linger::new();
            std::future::poll_fn(|cx| linger.poll(&mut tcp, cx)).await;
            DETACHED.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

impl AsyncRead for Client {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.turn >= TURN_BYTES {
            self.turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = self.tcp().poll_read(cx, buf);
        let new = &buf.filled()[before..];
        self.turn = if read.is_pending() { 0 } else { self.turn + new.len() };
        self.lines.read(new);
        read
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(better) = self.lines.better_answer(buf) {
            // the last word on this connection and far smaller than the kernel's buffer: it fits, or nobody reads
            let _ = self.tcp().try_write(better);
            return Poll::Ready(Ok(buf.len()));
        }
        if !buf.starts_with(b"HTTP/1.1 100 ") {
            self.lines = Lines::default();
        }
        match self.tcp().poll_write(cx, buf) {
            Poll::Pending => {
                let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALL_TIME)));
                ready!(stalled.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            written => {
                self.stalled = None;
                written
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.tcp().poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let tcp = this.tcp.as_mut().expect("the stream is taken once, with the wrapper");
        this.linger.get_or_insert_with(Linger::new).poll(tcp, cx).map(Ok)
    }
}

/// What is known of the first request head since our last answer: enough to tell why actix-http refused it.
#[derive(Default)]
struct Lines {
    /// Whole lines of it so far.
    count: usize,
    /// The length of the first of them.
    first: usize,
    /// The length of all of them.
    total: usize,
    /// The length of the line that has not ended.
    open: usize,
    /// It has ended.
    complete: bool,
}

impl Lines {
    fn read(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !self.complete {
            let end = memchr(b'\n', rest);
            let line = &rest[..end.unwrap_or(rest.len())];
            self.open += line.len() - line.iter().filter(|&&byte| byte == b'\r').count();
            let Some(end) = end else { return };
            rest = &rest[end + 1..];
            if self.open == 0 {
                // blank lines may go before a request; after its first line one ends the head
                self.complete = self.count > 0;
                continue;
            }
            if self.count == 0 {
                self.first = self.open;
            }
            self.count += 1;
            self.total += self.open;
            self.open = 0;
        }
    }

    /// What should be said instead of `answer`, if that is how actix-http refuses a head that never became a request.
    fn better_answer(&self, answer: &[u8]) -> Option<&'static [u8]> {
        let too_large = answer.starts_with(b"HTTP/1.1 431 ") && !self.complete;
        // more headers than it parses, or an address or a name longer than its types hold, are just bad to it; and it
        // says so without a body, as the door never does
        let bad = || {
            let bare = |part: &[u8]| part.eq_ignore_ascii_case(b"\r\ncontent-length: 0\r\n");
            answer.starts_with(b"HTTP/1.1 400 ") && answer.windows(21).any(bare)
        };
        let large = || self.count > MAX_HEADERS || self.total + self.open > HEAD_LIMIT;
        if !(too_large || large() && bad()) {
            return None;
        }
        let first = if self.count == 0 { self.open } else { self.first };
        Some(if first > HEAD_LIMIT { URI_TOO_LONG } else { HEAD_TOO_LARGE })
    }
}
