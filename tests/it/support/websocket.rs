//! A WebSocket client that can send anything, right or wrong, and is strict about what it reads (RFC 6455).

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Buf, BytesMut};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    http::{Http, Reply},
    within,
};

pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xA;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The headers of a right handshake.
pub const HANDSHAKE: [(&str, &str); 4] =
    [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", KEY)];

/// One socket.
pub struct WebSocket {
    stream: TcpStream,
    unread: BytesMut,
    /// Pings that came while something else was waited for.
    pub pings: usize,
    pongs: VecDeque<Vec<u8>>,
}

/// A frame of the server's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReceivedFrame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

/// How a socket ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Close {
    pub code: u16,
    pub reason: String,
}

impl WebSocket {
    /// Open one, or hear why not.
    pub async fn open(address: SocketAddr, path: &str, more: &[(&str, &str)]) -> Result<Self, Reply> {
        let mut http = Http::to(address).await;
        let headers: Vec<_> = HANDSHAKE.iter().chain(more).copied().collect();
        let reply = http.call("GET", path, &headers, "").await;
        if reply.status != 101 {
            return Err(reply);
        }
        let digest = aws_lc_rs::digest::digest(
            &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
            format!("{KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes(),
        );
        assert_eq!(reply.header("sec-websocket-accept"), Some(STANDARD.encode(digest).as_str()));
        assert!(reply.header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")), "{reply:?}");
        assert_eq!(reply.header("sec-websocket-extensions"), None, "none was agreed on");
        assert_eq!(reply.header("sec-websocket-protocol"), None, "none was agreed on");
        Ok(Self::of(http))
    }

    /// What a connection becomes once the handshake is over.
    pub fn of(http: Http) -> Self {
        let (stream, unread) = http.into_parts();
        Self { stream, unread, pings: 0, pongs: VecDeque::new() }
    }

    /// Send these very bytes. The server may have stopped reading.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        within("the server takes the bytes", self.stream.write_all(bytes)).await
    }

    /// Send one whole frame.
    pub async fn send(&mut self, opcode: u8, payload: &[u8]) {
        self.send_bytes(&frame(opcode, payload)).await.expect("the socket is open");
    }

    pub async fn send_text(&mut self, text: &str) {
        self.send(TEXT, text.as_bytes()).await;
    }

    /// The next frame, whatever it is; none at an orderly end.
    pub async fn frame(&mut self) -> Option<ReceivedFrame> {
        within("a frame", self.frame_when_it_comes()).await
    }

    async fn frame_when_it_comes(&mut self) -> Option<ReceivedFrame> {
        let frame = self.try_frame().await.unwrap_or_else(|error| panic!("the connection broke: {error}"));
        assert!(frame.is_some() || self.unread.is_empty(), "half a frame at the end: {:?}", self.unread);
        frame
    }

    /// The next frame, whenever it comes; none at the end. May be dropped and called again.
    pub async fn try_frame(&mut self) -> std::io::Result<Option<ReceivedFrame>> {
        loop {
            if let Some(frame) = parse(&mut self.unread) {
                return Ok(Some(frame));
            }
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Send one whole frame; the server may be gone.
    pub async fn try_send(&mut self, opcode: u8, payload: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(&frame(opcode, payload)).await
    }

    /// The next frame that is not a ping (which is answered) or a pong (which is kept).
    pub async fn next(&mut self) -> Option<ReceivedFrame> {
        loop {
            match self.frame().await? {
                ReceivedFrame { opcode: PING, payload } => {
                    self.pings += 1;
                    let _ = self.send_bytes(&frame(PONG, &payload)).await;
                }
                ReceivedFrame { opcode: PONG, payload } => self.pongs.push_back(payload),
                other => return Some(other),
            }
        }
    }

    /// The next text.
    pub async fn text(&mut self) -> String {
        match self.next().await {
            Some(ReceivedFrame { opcode: TEXT, payload }) => String::from_utf8(payload).expect("text frames are UTF-8"),
            other => panic!("wanted a text, got {}", describe(other.as_ref())),
        }
    }

    /// The pong to a ping of ours; nothing else comes before it.
    pub async fn pong(&mut self) -> Vec<u8> {
        if let Some(payload) = self.pongs.pop_front() {
            return payload;
        }
        match self.frame().await {
            Some(ReceivedFrame { opcode: PONG, payload }) => payload,
            other => panic!("wanted a pong, got {}", describe(other.as_ref())),
        }
    }

    /// The close frame, which is next; it is answered and the connection ends in order, without a reset.
    pub async fn closed(&mut self) -> Close {
        let close = match self.next().await {
            Some(ReceivedFrame { opcode: CLOSE, payload }) => Close::from(payload.as_slice()),
            other => panic!("wanted a close, got {}", describe(other.as_ref())),
        };
        let _ = self.send_bytes(&frame(CLOSE, &close.code.to_be_bytes())).await;
        assert_eq!(self.frame().await, None, "nothing follows a close frame");
        close
    }

    /// Read for `time` at most, or to the end. Every frame must be right: a text is a JSON object with an event, a close says
    /// why with a code that may be sent, and nothing follows it. How many frames came.
    pub async fn reads_only_good_frames(&mut self, time: Duration) -> usize {
        let mut frames = 0;
        let read = async {
            while let Some(ReceivedFrame { opcode, payload }) = self.next().await {
                frames += 1;
                match opcode {
                    TEXT => {
                        let text = String::from_utf8(payload).expect("text frames are UTF-8");
                        let said: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
                        assert!(said["event"].is_string(), "{text}");
                    }
                    CLOSE => {
                        let Close { code, reason } = Close::from(payload.as_slice());
                        assert!(matches!(code, 1000..=1003 | 1007..=1011), "{code}: {reason}");
                        let _ = self.try_send(CLOSE, &code.to_be_bytes()).await;
                        assert_eq!(self.frame().await, None, "nothing follows a close frame");
                        return;
                    }
                    other => panic!("opcode {other}: {payload:?}"),
                }
            }
        };
        let _ = tokio::time::timeout(time, read).await;
        frames
    }

    /// Say goodbye and wait for the answer and the end.
    pub async fn leave(mut self) {
        self.send(CLOSE, &1000_u16.to_be_bytes()).await;
        loop {
            match self.next().await {
                Some(ReceivedFrame { opcode: CLOSE, payload }) => {
                    assert_eq!(Close::from(payload.as_slice()).code, 1000)
                }
                Some(_) => {}
                None => return,
            }
        }
    }

    /// The connection beneath.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
}

impl From<&[u8]> for Close {
    fn from(payload: &[u8]) -> Self {
        assert!(payload.len() >= 2, "a close frame of a server says why: {payload:?}");
        let reason = String::from_utf8(payload[2..].to_vec()).expect("a reason is UTF-8");
        Self { code: u16::from_be_bytes([payload[0], payload[1]]), reason }
    }
}

/// A whole frame as a client sends it.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    raw(0x80 | opcode, payload)
}

/// A frame with any first byte, masked.
pub fn raw(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
    let mut bytes = header(first, true, payload.len() as u64);
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The head of a frame up to its mask, with the shortest form of the length.
pub fn header(first: u8, masked: bool, length: u64) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match length {
        0..=125 => bytes.push(mask | length as u8),
        126..=0xFFFF => {
            bytes.push(mask | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(mask | 127);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
    bytes
}

/// The first whole frame of `unread`, which must be right in every way.
fn parse(unread: &mut BytesMut) -> Option<ReceivedFrame> {
    let (first, second) = (*unread.first()?, *unread.get(1)?);
    assert_eq!(first & 0x70, 0, "reserved bits are clear");
    assert_eq!(first & 0x80, 0x80, "servers of ours do not fragment");
    assert_eq!(second & 0x80, 0, "a server does not mask");
    let (length, head) = match second & 0x7F {
        126 => {
            let length = u16::from_be_bytes(unread.get(2..4)?.try_into().expect("two bytes"));
            assert!(length > 125, "the shortest form");
            (usize::from(length), 4)
        }
        127 => {
            let length = u64::from_be_bytes(unread.get(2..10)?.try_into().expect("eight bytes"));
            assert!(length > 0xFFFF, "the shortest form");
            (usize::try_from(length).expect("64 bits"), 10)
        }
        length => (usize::from(length), 2),
    };
    let opcode = first & 0x0F;
    assert!([TEXT, BINARY, CLOSE, PING, PONG].contains(&opcode), "opcode {opcode}");
    assert!(opcode < CLOSE || length <= 125, "control frames are short");
    if unread.len() < head + length {
        unread.reserve(head + length - unread.len());
        return None;
    }
    unread.advance(head);
    Some(ReceivedFrame { opcode, payload: unread.split_to(length).to_vec() })
}

fn describe(frame: Option<&ReceivedFrame>) -> String {
    match frame {
        None => "the end".to_owned(),
        Some(ReceivedFrame { opcode: CLOSE, payload }) => format!("a close: {:?}", Close::from(payload.as_slice())),
        Some(ReceivedFrame { opcode, payload }) => {
            let start = &payload[..payload.len().min(300)];
            format!("opcode {opcode}, {} bytes: {}", payload.len(), String::from_utf8_lossy(start))
        }
    }
}
