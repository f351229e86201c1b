//! Finished WebSocket frames, as the server sends them: unmasked, never fragmented (RFC 6455 §5.2).

use bytes::{BufMut, Bytes, BytesMut};

/// The longest header of a frame that a server sends, in bytes.
const MAX_HEADER: usize = 10;

/// Kinds of frame that we send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Opcode {
    /// UTF-8 text.
    Text = 0x1,
    /// Any bytes.
    Binary = 0x2,
    /// The end of the connection.
    Close = 0x8,
    /// Asks whether the peer is there.
    Ping = 0x9,
    /// Answers a ping.
    Pong = 0xA,
}

/// What is queued in an outbox: one whole frame (or several that must stay together), or a head for this socket before a
/// tail that many sockets share.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Frame {
    /// The frame, or frames.
    Whole(Bytes),
    /// The frame's header and its first bytes, and the rest of it.
    Split {
        /// Header and the receiver's own part.
        head: Bytes,
        /// What all receivers share.
        tail: Bytes,
    },
}

impl Frame {
    /// A text frame.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Whole(encode(Opcode::Text, text.as_bytes()))
    }

    /// A text frame whose text is all of `pieces`, one behind the other.
    #[must_use]
    pub fn text_of(pieces: &[&str]) -> Bytes {
        let length = pieces.iter().map(|piece| piece.len()).sum();
        let mut frame = BytesMut::with_capacity(header_bytes(length) + length);
        put_header(&mut frame, Opcode::Text, length);
        for piece in pieces {
            frame.put_slice(piece.as_bytes());
        }
        frame.freeze()
    }

    /// A text frame whose text begins with `head` and ends with the shared `tail`.
    #[must_use]
    pub fn text_with_tail(head: &str, tail: Bytes) -> Self {
        let mut frame = BytesMut::with_capacity(MAX_HEADER + head.len());
        put_header(&mut frame, Opcode::Text, head.len() + tail.len());
        frame.put_slice(head.as_bytes());
        Self::Split { head: frame.freeze(), tail }
    }

    /// Text frames, one behind the other, whose texts all begin with `head` and end each with one of `tails`.
    #[must_use]
    pub fn texts_with_tails(head: &str, tails: &[Bytes]) -> Bytes {
        let length = |tail: &Bytes| head.len() + tail.len();
        let whole = tails.iter().map(|tail| header_bytes(length(tail)) + length(tail)).sum();
        let mut frames = BytesMut::with_capacity(whole);
        for tail in tails {
            put_header(&mut frames, Opcode::Text, length(tail));
            frames.put_slice(head.as_bytes());
            frames.put_slice(tail);
        }
        frames.freeze()
    }

    /// A frame of any kind. The payload of a control frame must not be longer than 125 bytes.
    #[must_use]
    pub fn of(opcode: Opcode, payload: &[u8]) -> Self {
        Self::Whole(encode(opcode, payload))
    }

    /// A close frame; a reason longer than the 123 bytes that fit is cut at a character.
    #[must_use]
    pub fn close(code: u16, reason: &str) -> Self {
        let reason = &reason[..reason.floor_char_boundary(123)];
        let mut payload = Vec::with_capacity(2 + reason.len());
        payload.put_u16(code);
        payload.put_slice(reason.as_bytes());
        Self::of(Opcode::Close, &payload)
    }

    /// Both, one right after the other.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        Self::Whole([self, next].map(Self::into_bytes).concat().into())
    }

    /// The bytes to send.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Whole(bytes) => bytes,
            Self::Split { head, tail } => [head, tail].concat().into(),
        }
    }

    /// Its length in bytes, as sent.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Split { head, tail } => head.len() + tail.len(),
        }
    }

    /// Never: a frame has a header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A frame that is encoded once for many sockets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SharedFrame {
    /// The whole frame, the same for everyone.
    Whole(Bytes),
    /// The end of a text; each receiver's own head goes before it.
    Tail(Bytes),
}

impl SharedFrame {
    /// The frame of one of these sockets; `head` is called only if its own head goes before what is shared.
    #[must_use]
    pub fn of_socket(self, head: impl FnOnce() -> String) -> Frame {
        match self {
            Self::Whole(bytes) => Frame::Whole(bytes),
            Self::Tail(tail) => Frame::text_with_tail(&head(), tail),
        }
    }
}

/// A frame of one socket is the same for everyone, too.
impl From<Frame> for SharedFrame {
    fn from(frame: Frame) -> Self {
        Self::Whole(frame.into_bytes())
    }
}

fn encode(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(header_bytes(payload.len()) + payload.len());
    put_header(&mut frame, opcode, payload.len());
    frame.put_slice(payload);
    frame.freeze()
}

/// How long the header of a frame is.
fn header_bytes(length: usize) -> usize {
    match length {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => MAX_HEADER,
    }
}

fn put_header(frame: &mut BytesMut, opcode: Opcode, length: usize) {
    frame.put_u8(0x80 | opcode as u8);
    match length {
        0..=125 => frame.put_u8(length as u8),
        126..=0xFFFF => {
            frame.put_u8(126);
            frame.put_u16(length as u16);
        }
        _ => {
            frame.put_u8(127);
            frame.put_u64(length as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_grows_with_the_payload() {
        for (length, header) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_535, vec![0x81, 126, 0xFF, 0xFF]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let Frame::Whole(frame) = Frame::text(&"x".repeat(length)) else { unreachable!() };
            assert_eq!(frame[..header.len()], header);
            assert_eq!(frame.len(), header.len() + length);
            assert_eq!(header_bytes(length), header.len());
            let (begin, end) = (length / 3, length - length / 3);
            assert_eq!(Frame::text_of(&[&"x".repeat(begin), "", &"x".repeat(end)]), frame);
        }
    }

    #[test]
    fn head_and_tail_are_one_frame() {
        let Frame::Split { head, tail } = Frame::text_with_tail("[1,", "2]".into()) else { unreachable!() };
        assert_eq!(Frame::text("[1,2]"), Frame::Whole([head, tail].concat().into()));
    }

    #[test]
    fn heads_and_tails_are_frames_one_behind_the_other() {
        let (short, long) = (Bytes::from_static(b"2]"), Bytes::from(vec![b'x'; 200]));
        let one_by_one = [&short, &long].map(|tail| Frame::text_with_tail("[1,", tail.clone()).into_bytes()).concat();
        assert_eq!(Frame::texts_with_tails("[1,", &[short, long]), one_by_one);
        assert_eq!(Frame::texts_with_tails("[1,", &[]), Bytes::new());
    }

    #[test]
    fn a_shared_frame_asks_for_a_head_only_where_it_needs_one() {
        let whole = SharedFrame::from(Frame::text("a"));
        assert_eq!(whole.of_socket(|| unreachable!("it is whole")), Frame::text("a"));
        let tail = SharedFrame::Tail("2]".into());
        assert_eq!(tail.of_socket(|| "[1,".to_owned()), Frame::text_with_tail("[1,", "2]".into()));
    }

    #[test]
    fn two_frames_keep_their_headers() {
        let both = Frame::text("ab").then(Frame::text_with_tail("c", "d".into()));
        assert_eq!(both, Frame::Whole(Bytes::from_static(b"\x81\x02ab\x81\x02cd")));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let Frame::Whole(frame) = Frame::close(1008, &"中".repeat(50)) else { unreachable!() };
        assert_eq!(frame[..4], [0x88, 125, 0x03, 0xF0]);
        assert_eq!(std::str::from_utf8(&frame[4..]).unwrap(), "中".repeat(41));
    }
}
