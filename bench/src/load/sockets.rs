//! WebSockets by the thousand: opened a window at a time, then read.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use super::{speech::Speech, track::Track};
use crate::wire;

/// Sockets from one address of this machine: the kernel has some 28,000 ports for each.
const FROM_ONE_ADDRESS: usize = 15_000;
/// What a socket that never reads lets the kernel keep for it.
const STUCK_BUFFER: usize = 4096;

/// How far a socket is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// TCP.
    Connecting,
    /// The request for an upgrade is out.
    Upgrading,
    /// The server has the first word.
    Waiting,
    /// The subscription is out.
    Joining,
    /// It gets pushes.
    Live,
    /// It was closed.
    Gone,
}

/// A socket.
pub struct LoadSocket {
    /// The stream below.
    pub stream: TcpStream,
    /// How far it is.
    pub stage: Stage,
    /// The channels that it is on.
    pub channels: Range<usize>,
    request: Vec<u8>,
    /// What it says to join, and how many answers that gets.
    joins: Vec<u8>,
    unanswered: usize,
    partial: Vec<u8>,
    /// When it, or the exchange of its token, began.
    pub since: Instant,
}

impl LoadSocket {
    /// Socket `no`, on its way to `to`.
    pub fn open(
        speech: &dyn Speech,
        no: usize,
        to: SocketAddr,
        token: &str,
        channels: Range<usize>,
        stuck: bool,
    ) -> Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        if let Ok(further @ 1..) = u8::try_from(no / FROM_ONE_ADDRESS) {
            socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, 1 + further), 0)).into())?;
        }
        // reset at the end: thousands of ports are not to stay in TIME_WAIT for the next job
        socket.set_linger(Some(Duration::ZERO))?;
        if stuck {
            socket.set_recv_buffer_size(STUCK_BUFFER)?;
        }
        socket.set_nonblocking(true)?;
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => bail!(error),
            _ => {}
        }
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {to}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            speech.path(token, &channels)
        );
        let joins = speech.joins(&channels)?;
        Ok(Self {
            stream: TcpStream::from_std(socket.into()),
            stage: Stage::Connecting,
            channels,
            request: request.into_bytes(),
            unanswered: speech.answers(joins.len()),
            joins: joins.iter().flat_map(|join| wire::masked(1, join.as_bytes())).collect(),
            partial: Vec::new(),
            since: Instant::now(),
        })
    }

    /// It may be written to.
    pub fn writable(&mut self) -> Result<()> {
        if self.stage == Stage::Connecting && self.stream.peer_addr().is_ok() {
            self.stage = Stage::Upgrading;
            let request = std::mem::take(&mut self.request);
            self.stream.write_all(&request)?;
        }
        Ok(())
    }

    /// Read what is there. `true` if it became live by it.
    pub fn readable(&mut self, speech: &dyn Speech, no: usize, scratch: &mut [u8], track: &mut Track) -> Result<bool> {
        if self.stage == Stage::Gone {
            return Ok(false);
        }
        let before = self.stage;
        loop {
            match self.stream.read(scratch) {
                Ok(0) => self.stage = Stage::Gone,
                Ok(read) => {
                    let now = Instant::now();
                    if self.partial.is_empty() {
                        let taken = self.take(speech, no, &scratch[..read], track, now)?;
                        self.partial.extend_from_slice(&scratch[taken..read]);
                    } else {
                        let mut bytes = std::mem::take(&mut self.partial);
                        bytes.extend_from_slice(&scratch[..read]);
                        let taken = self.take(speech, no, &bytes, track, now)?;
                        self.partial.extend_from_slice(&bytes[taken..]);
                    }
                    if read == scratch.len() {
                        continue;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => self.stage = Stage::Gone,
            }
            return Ok(self.stage == Stage::Live && before != Stage::Live);
        }
    }

    fn take(&mut self, speech: &dyn Speech, no: usize, bytes: &[u8], track: &mut Track, now: Instant) -> Result<usize> {
        let mut taken = 0;
        if self.stage == Stage::Upgrading {
            let Some(head) = wire::head_end(bytes) else { return Ok(0) };
            if !bytes.starts_with(b"HTTP/1.1 101") {
                bail!("socket {no} was refused: {}", String::from_utf8_lossy(bytes));
            }
            taken = head;
            if speech.greets() {
                self.stage = Stage::Waiting;
            } else {
                self.join()?;
            }
        }
        while let Some(frame) = wire::frame(&bytes[taken..]) {
            taken += frame.length;
            match (frame.opcode, self.stage) {
                (1, Stage::Waiting) => self.join()?,
                (1, Stage::Joining) => {
                    if !speech.is_joined(frame.payload) {
                        bail!("socket {no} may not subscribe: {}", String::from_utf8_lossy(frame.payload));
                    }
                    self.unanswered -= 1;
                    if self.unanswered == 0 {
                        self.stage = Stage::Live;
                    }
                }
                (1, _) => track.note(no, &self.channels, frame.payload, now),
                (9, _) => {
                    track.pings += 1;
                    self.stream.write_all(&wire::masked(10, frame.payload))?;
                }
                (8, _) => {
                    self.stage = Stage::Gone;
                    return Ok(bytes.len());
                }
                _ => {}
            }
        }
        Ok(taken)
    }

    fn join(&mut self) -> Result<()> {
        let joins = std::mem::take(&mut self.joins);
        self.stage = if joins.is_empty() { Stage::Live } else { Stage::Joining };
        Ok(self.stream.write_all(&joins)?)
    }

    /// Is it closed, now that someone looks at last?
    pub fn was_closed(&mut self, scratch: &mut [u8]) -> bool {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            }
        }
    }
}
