//! A body in chunks: however the bytes are cut it is the same body, and never larger than it may be.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use wellhead::http::chunks::{BadChunks, ChunkDecoder};

/// The largest body.
const LIMIT: usize = 200;

fuzz_target!(|data: &[u8]| {
    let Some((&step, data)) = data.split_first() else { return };
    assert_eq!(decode(data, usize::from(step).max(1)), decode(data, data.len().max(1)), "cut in pieces of {step}");
});

/// The body, if it is whole, and what is left behind it; `data` comes in pieces of `step`.
fn decode(data: &[u8], step: usize) -> Result<Option<(BytesMut, Vec<u8>)>, BadChunks> {
    let (mut decoder, mut input, mut body) = (ChunkDecoder::default(), BytesMut::new(), BytesMut::new());
    let mut pieces = data.chunks(step);
    for piece in &mut pieces {
        input.extend_from_slice(piece);
        let is_whole = decoder.decode(&mut input, &mut body, LIMIT);
        assert!(body.len() <= LIMIT);
        if is_whole? {
            let rest = pieces.flatten();
            return Ok(Some((body, input.iter().chain(rest).copied().collect())));
        }
    }
    Ok(None)
}
