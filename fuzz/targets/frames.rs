//! The guard before the WebSocket parser: however the bytes are cut it says the same, and what it lets pass the parser
//! reads without an error and without keeping more than a message.
#![no_main]

use actix_codec::Decoder;
use actix_http::ws::{Codec, Frame};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use wellhead_slave::validator::{FrameValidator, FrameVerdict};

/// The largest message.
const LIMIT: usize = 1_024;

fuzz_target!(|data: &[u8]| {
    let Some((&step, data)) = data.split_first() else { return };
    let whole = FrameValidator::new(LIMIT as u64).check(data);
    assert!(whole.accepted <= data.len());

    let mut guard = FrameValidator::new(LIMIT as u64);
    let (mut accepted, mut frames, mut verdict) = (0, 0, FrameVerdict::Open);
    for piece in data.chunks(usize::from(step).max(1)) {
        let checked = guard.check(piece);
        accepted += checked.accepted;
        frames += checked.frames;
        verdict = checked.verdict;
        if verdict != FrameVerdict::Open {
            break;
        }
    }
    assert_eq!(frames, whole.frames, "cut in pieces of {step}");
    assert_eq!(verdict, whole.verdict, "cut in pieces of {step}");
    // what turns out to be bad, a header or a close frame, has passed in part when it came in pieces
    let excess = if verdict == FrameVerdict::Open { 0 } else { 14 + 125 };
    assert!((whole.accepted..=whole.accepted + excess).contains(&accepted), "{accepted} of {whole:?}");

    let (mut parser, mut bytes) = (Codec::new().max_size(LIMIT), BytesMut::from(&data[..whole.accepted]));
    let mut parsed = 0;
    while let Some(frame) = parser.decode(&mut bytes).expect("what passes the guard is good") {
        parsed += 1;
        let length = match frame {
            Frame::Text(bytes) | Frame::Binary(bytes) | Frame::Ping(bytes) | Frame::Pong(bytes) => bytes.len(),
            Frame::Continuation(_) | Frame::Close(_) => 0,
        };
        assert!(length <= LIMIT);
    }
    assert_eq!(parsed, whole.frames, "both count the same frames");
    assert!(bytes.len() <= LIMIT + 14, "no more than one unfinished frame is kept");
});
