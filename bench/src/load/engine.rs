//! The loop of the load generator: which connections have something, those of publishers first.

use std::{
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use mio::{Events, Interest, Poll, Token, unix::SourceFd};

use super::{
    http::{self, LoadHttp},
    job::{Job, TokenSource},
    sockets::{LoadSocket, Stage},
    speech::Speech,
    track::Track,
};
use crate::histogram::Histogram;

/// Readiness of the connections that go first, as seen from the others.
const FIRST: Token = Token(usize::MAX);
/// Sockets that are read before publishers are looked at again.
const ROUND: usize = 64;
/// Handshakes under way.
const OPENING: usize = 128;
/// Exchanges of tokens under way, where each socket needs one.
const EXCHANGES: usize = 16;

/// Sockets, publishers, and what they wait for.
pub struct Engine {
    poll: Poll,
    first: Poll,
    events: Events,
    first_events: Events,
    scratch: Vec<u8>,
    /// The words of the server's protocol.
    pub speech: Box<dyn Speech>,
    /// All sockets.
    pub clients: Vec<LoadSocket>,
    /// Sockets from here on are looked at first.
    urgent_from: usize,
    /// Connections of publishers.
    pub publishers: Vec<LoadHttp>,
    /// What has arrived.
    pub track: Track,
    /// Replies that came since they were taken: publisher, status, body.
    pub replies: Vec<(usize, u16, Vec<u8>)>,
    /// From the exchange of a token, or from connect, to subscribed.
    pub opening: Histogram,
    live: usize,
}

impl Engine {
    /// An engine without connections.
    pub fn new(speech: Box<dyn Speech>, track: Track, urgent_from: usize) -> Result<Self> {
        let (poll, first) = (Poll::new()?, Poll::new()?);
        poll.registry().register(&mut SourceFd(&first.as_raw_fd()), FIRST, Interest::READABLE)?;
        Ok(Self {
            poll,
            first,
            events: Events::with_capacity(ROUND),
            first_events: Events::with_capacity(ROUND),
            scratch: vec![0; 256 << 10],
            speech,
            clients: Vec::new(),
            urgent_from,
            publishers: Vec::new(),
            track,
            replies: Vec::new(),
            opening: Histogram::default(),
            live: 0,
        })
    }

    /// Add a connection for a publisher.
    pub fn add_publisher(&mut self, to: std::net::SocketAddr) -> Result<()> {
        let mut http = LoadHttp::connect(to)?;
        let token = Token(self.publishers.len());
        self.first.registry().register(&mut http.stream, token, Interest::READABLE)?;
        self.publishers.push(http);
        Ok(())
    }

    /// Look at what is ready, waiting for at most `wait`.
    pub fn turn(&mut self, wait: Duration) -> Result<()> {
        self.urgent()?;
        let wait = if self.replies.is_empty() && self.track.done.is_empty() { wait } else { Duration::ZERO };
        retried(self.poll.poll(&mut self.events, Some(wait)))?;
        for event in &self.events {
            if event.token() == FIRST {
                continue;
            }
            let no = event.token().0;
            look_at(
                &*self.speech,
                no,
                event.is_writable(),
                &mut self.clients[no],
                &mut self.scratch,
                &mut self.track,
                &mut self.live,
                &mut self.opening,
            )?;
        }
        self.urgent()
    }

    fn urgent(&mut self) -> Result<()> {
        retried(self.first.poll(&mut self.first_events, Some(Duration::ZERO)))?;
        for event in &self.first_events {
            let no = event.token().0;
            let Some(socket) = no.checked_sub(URGENT) else {
                while let Some((status, body)) = self.publishers[no].reply()? {
                    self.track.answered(no, Instant::now());
                    self.replies.push((no, status, body));
                }
                continue;
            };
            look_at(
                &*self.speech,
                socket,
                event.is_writable(),
                &mut self.clients[socket],
                &mut self.scratch,
                &mut self.track,
                &mut self.live,
                &mut self.opening,
            )?;
        }
        Ok(())
    }

    /// Open all sockets of `job`, which take their channels from `channels`; `tokens` has been exchanged where it is
    /// shared.
    pub fn open(&mut self, job: &Job, token: &str, count: usize, stuck: bool) -> Result<()> {
        let begin = self.clients.len();
        let end = begin + count;
        let each = match &job.tokens {
            TokenSource::Each(jwts) => jwts.as_slice(),
            _ => &[],
        };
        let mut exchanges = Vec::new();
        for _ in 0..EXCHANGES.min(each.len()) {
            let at = self.publishers.len();
            self.add_publisher(job.slaves[0])?;
            exchanges.push((at, None::<Instant>));
        }
        let mut asked = begin;
        let mut ready: Vec<(String, Instant)> = Vec::new();
        let live_at_end = self.live + count;
        let mut progress = Instant::now();
        let mut live_before = self.live;
        while self.live < live_at_end {
            if each.is_empty() {
                while self.clients.len() < end && self.clients.len() - begin < OPENING + self.live + count - live_at_end
                {
                    self.start(job, token, Instant::now(), stuck)?;
                }
            } else {
                for (at, since) in &mut exchanges {
                    if since.is_none() && asked < end {
                        let body = format!("{{\"jwt\":\"{}\"}}", each[asked % each.len()]);
                        self.publishers[*at].ask("POST", "/v1/auth", body.as_bytes())?;
                        *since = Some(Instant::now());
                        asked += 1;
                    }
                }
                for (from, status, body) in std::mem::take(&mut self.replies) {
                    ensure!(status == 200, "no token: {status}");
                    let Some((_, since)) = exchanges.iter_mut().find(|(at, _)| *at == from) else { continue };
                    let began = since.take().unwrap_or_else(Instant::now);
                    ready.push((http::token_of(&body)?, began));
                }
                while let Some((token, since)) = ready.pop() {
                    self.start(job, &token, since, stuck)?;
                }
            }
            self.turn(Duration::from_millis(100))?;
            if self.live > live_before {
                (live_before, progress) = (self.live, Instant::now());
            } else if progress.elapsed() > Duration::from_secs(20) {
                bail!("only {} of {end} sockets could be opened", self.live);
            }
        }
        Ok(())
    }

    fn start(&mut self, job: &Job, token: &str, since: Instant, stuck: bool) -> Result<()> {
        let no = self.clients.len();
        let channels = match job.subscriptions {
            _ if stuck => 0..1,
            0 | 1 => no % job.channels..no % job.channels + 1,
            many => no * many..(no + 1) * many,
        };
        let to = job.slaves[no % job.slaves.len()];
        let mut client = LoadSocket::open(&*self.speech, no, to, token, channels, stuck)?;
        client.since = since;
        let interest = Interest::READABLE | Interest::WRITABLE;
        if no >= self.urgent_from {
            self.first.registry().register(&mut client.stream, Token(URGENT + no), interest)?;
        } else {
            self.poll.registry().register(&mut client.stream, Token(no), interest)?;
        }
        self.clients.push(client);
        Ok(())
    }

    /// Never read the sockets from `no` on again.
    pub fn forget_from(&mut self, no: usize) -> Result<()> {
        for client in &mut self.clients[no..] {
            self.poll.registry().deregister(&mut client.stream)?;
        }
        Ok(())
    }

    /// Close all sockets.
    pub fn close_all(&mut self) {
        self.clients.clear();
        self.live = 0;
    }

    /// How many of the first `count` sockets were closed.
    pub fn gone(&self, count: usize) -> usize {
        self.clients[..count].iter().filter(|client| client.stage == Stage::Gone).count()
    }

    /// How many sockets from `no` on were closed, though nobody looked.
    pub fn gone_unread(&mut self, no: usize) -> usize {
        let (clients, scratch) = (&mut self.clients[no..], &mut self.scratch);
        clients.iter_mut().filter_map(|client| client.was_closed(scratch).then_some(())).count()
    }
}

/// Tokens of sockets among those that go first.
const URGENT: usize = 1 << 32;

#[expect(clippy::too_many_arguments, reason = "the fields of the engine, borrowed one by one")]
fn look_at(
    speech: &dyn Speech,
    no: usize,
    writable: bool,
    client: &mut LoadSocket,
    scratch: &mut [u8],
    track: &mut Track,
    live: &mut usize,
    opening: &mut Histogram,
) -> Result<()> {
    if writable {
        client.writable()?;
    }
    if client.readable(speech, no, scratch, track)? {
        *live += 1;
        opening.note(client.since.elapsed());
    }
    Ok(())
}

fn retried(polled: std::io::Result<()>) -> Result<()> {
    match polled {
        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(()),
        done => Ok(done?),
    }
}
