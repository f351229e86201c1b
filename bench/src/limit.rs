//! The baseline `limit`: one thread, bare epoll, one write of a prepared frame for each socket and message; or, with
//! `coalesce`, one for each socket and round. It understands just enough to be driven like Wellhead: a GET opens a
//! socket, the first frame on it names a channel, a POST to a channel goes out to its sockets as it came in, and
//! of any other POST each line to the channel that it names.

use std::io::{ErrorKind, Read, Write};

use anyhow::Result;
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};
use rustc_hash::FxHashMap;

use crate::{child, wire};

const LISTENER: Token = Token(usize::MAX);
const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// `"channel":"` in a command and `/channels/` in a path stand before a name of this length.
const NAME: usize = 8;

struct LimitPeer {
    stream: TcpStream,
    unread: Vec<u8>,
    is_socket: bool,
    /// What the kernel did not take.
    owed: Vec<u8>,
}

impl LimitPeer {
    fn send(&mut self, bytes: &[u8]) {
        let sent = if self.owed.is_empty() { self.stream.write(bytes).unwrap_or(0) } else { 0 };
        self.owed.extend_from_slice(&bytes[sent..]);
    }

    fn send_owed(&mut self) {
        while !self.owed.is_empty() {
            match self.stream.write(&self.owed) {
                Ok(sent) => drop(self.owed.drain(..sent)),
                Err(_) => return,
            }
        }
    }
}

struct Limit {
    coalesce: bool,
    peers: Vec<Option<LimitPeer>>,
    channels: FxHashMap<[u8; NAME], Vec<usize>>,
    /// With `coalesce`: the frames of this round, by channel.
    round: Vec<([u8; NAME], Vec<u8>)>,
}

/// Serve until the process is ended.
pub fn serve(coalesce: bool) -> Result<()> {
    let mut listener = TcpListener::from_std(child::listener()?);
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    child::announce("limit", listener.local_addr()?)?;
    let mut limit = Limit { coalesce, peers: Vec::new(), channels: FxHashMap::default(), round: Vec::new() };
    let mut events = Events::with_capacity(1024);
    let mut scratch = vec![0; 64 << 10];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            done => done?,
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    let token = Token(limit.peers.len());
                    poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
                    limit.peers.push(Some(LimitPeer {
                        stream,
                        unread: Vec::new(),
                        is_socket: false,
                        owed: Vec::new(),
                    }));
                }
                continue;
            }
            if event.is_writable()
                && let Some(peer) = &mut limit.peers[event.token().0]
            {
                peer.send_owed();
            }
            if event.is_readable() {
                limit.read(event.token().0, &mut scratch);
            }
        }
        limit.end_round();
    }
}

impl Limit {
    fn read(&mut self, no: usize, scratch: &mut [u8]) {
        loop {
            let Some(peer) = &mut self.peers[no] else { return };
            match peer.stream.read(scratch) {
                Ok(0) => return self.peers[no] = None,
                Ok(read) => {
                    peer.unread.extend_from_slice(&scratch[..read]);
                    self.take(no);
                    if read < scratch.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.peers[no] = None,
            }
        }
    }

    fn take(&mut self, no: usize) {
        let Some(peer) = &mut self.peers[no] else { return };
        let mut unread = std::mem::take(&mut peer.unread);
        let mut taken = 0;
        while let Some(length) = self.take_one(no, &unread[taken..]) {
            taken += length;
        }
        unread.drain(..taken);
        if let Some(peer) = &mut self.peers[no] {
            // an empty one gives its room back: the limit of memory, too
            peer.unread = if unread.is_empty() { Vec::new() } else { unread };
        }
    }

    /// The first thing in `bytes`, carried out; how long it was.
    fn take_one(&mut self, no: usize, bytes: &[u8]) -> Option<usize> {
        let peer = self.peers[no].as_mut()?;
        if peer.is_socket {
            let frame = wire::frame(bytes)?;
            if let Some(channel) = name_behind(frame.payload, b"\"channel\":\"") {
                self.channels.entry(channel).or_default().push(no);
                peer.send(&wire::text(b"{\"event\":\"gusher.subscribe_succeeded\"}"));
            }
            return Some(frame.length);
        }
        let head = wire::head_end(bytes)?;
        if bytes.starts_with(b"GET ") {
            peer.is_socket = true;
            peer.send(SWITCH);
            return Some(head);
        }
        let length = head + wire::content_length(&bytes[..head]);
        let body = bytes.get(head..length)?;
        let channel = name_behind(&bytes[..head], b"/channels/");
        peer.send(OK);
        match channel {
            Some(channel) => self.publish(channel, wire::text(body)),
            None => {
                for line in body.split(|&byte| byte == b'\n') {
                    if let Some(channel) = name_behind(line, b"\"channel\":\"") {
                        self.publish(channel, wire::text(line));
                    }
                }
            }
        }
        Some(length)
    }

    fn publish(&mut self, channel: [u8; NAME], frame: Vec<u8>) {
        if !self.coalesce {
            return self.send(channel, &frame);
        }
        match self.round.iter_mut().find(|(other, _)| *other == channel) {
            Some((_, frames)) => frames.extend_from_slice(&frame),
            None => self.round.push((channel, frame)),
        }
    }

    fn end_round(&mut self) {
        for (channel, frames) in std::mem::take(&mut self.round) {
            self.send(channel, &frames);
        }
    }

    fn send(&mut self, channel: [u8; NAME], bytes: &[u8]) {
        for &no in self.channels.get(&channel).into_iter().flatten() {
            if let Some(peer) = &mut self.peers[no] {
                peer.send(bytes);
            }
        }
    }
}

fn name_behind(bytes: &[u8], mark: &[u8]) -> Option<[u8; NAME]> {
    let at = bytes.windows(mark.len()).position(|part| part == mark)? + mark.len();
    bytes.get(at..at + NAME)?.try_into().ok()
}
