use super::*;

/// The body, and what lies behind it; nothing while it is not whole.
type Decoded = Result<Option<(Vec<u8>, Vec<u8>)>, BadChunks>;

/// What becomes of `bytes`, whole and byte by byte, which must be the same: the body and what lies behind it.
fn decoded(bytes: &[u8]) -> Decoded {
    let whole = decode_in(bytes, bytes.len().max(1));
    assert_eq!(decode_in(bytes, 1), whole, "{:?}", String::from_utf8_lossy(bytes));
    whole
}

fn decode_in(bytes: &[u8], step: usize) -> Decoded {
    let (mut decoder, mut input, mut body) = (ChunkDecoder::default(), BytesMut::new(), BytesMut::new());
    for (at, piece) in bytes.chunks(step).enumerate() {
        input.extend_from_slice(piece);
        if decoder.decode(&mut input, &mut body, 100)? {
            input.extend_from_slice(&bytes[bytes.len().min((at + 1) * step)..]);
            return Ok(Some((body.to_vec(), input.to_vec())));
        }
    }
    Ok(None)
}

fn body(bytes: &str) -> Result<String, BadChunks> {
    let (body, _) = decoded(bytes.as_bytes())?.expect("the body is whole");
    Ok(String::from_utf8(body).unwrap())
}

#[test]
fn chunks_are_joined_and_what_follows_is_left() {
    let (body, rest) = decoded(b"2\r\nab\r\nA\r\n0123456789\r\n0\r\n\r\nGET /").unwrap().unwrap();
    assert_eq!((&body[..], &rest[..]), (&b"ab0123456789"[..], &b"GET /"[..]));
    assert_eq!(decoded(b"2\r\nab\r\n0\r\n"), Ok(None), "the last line has not come");
}

#[test]
fn extensions_and_trailers_are_skipped() {
    assert_eq!(body("2;a=b;c\r\nab\r\n0;last\r\nX-Sum: 1\r\nY: 2\r\n\r\n").as_deref(), Ok("ab"));
}

#[test]
fn what_two_readers_could_take_for_two_bodies_is_refused() {
    for size in [
        "",
        " 2",
        "2 ",
        "2\t",
        "0x2",
        "+2",
        "-2",
        "2;",
        "2; a",
        "2;a;",
        "2 ;a=b",
        "2;=b",
        "2;a=",
        "g",
        "2\r",
        "2\0",
        "1234567890123456",
    ] {
        assert_eq!(body(&format!("{size}\r\nab\r\n0\r\n\r\n")), Err(BadChunks::Malformed), "{size:?}");
    }
    for lines in ["2\nab\r\n0\r\n\r\n", "2\r\nab\n0\r\n\r\n", "2\r\nab\r\n0\n\r\n", "2\r\nabc\r\n0\r\n\r\n", "0\r\n\n"]
    {
        assert_eq!(body(lines), Err(BadChunks::Malformed), "{lines:?}");
    }
    for trailer in ["no colon", ": no name", "A : b", " A: b", "A: b\r\n c: d", "GET http://h/ HTTP/1.1\r\nHost: h"] {
        assert_eq!(body(&format!("0\r\n{trailer}\r\n\r\n")), Err(BadChunks::Malformed), "{trailer:?}");
    }
}

#[test]
fn nothing_grows_without_a_bound() {
    assert_eq!(decode_in(b"64\r\n", 9), Ok(None), "100 bytes may come");
    assert_eq!(decode_in(b"65\r\n", 9), Err(BadChunks::TooLarge));
    assert_eq!(decode_in(b"fffffffffffffff\r\n", 99), Err(BadChunks::TooLarge));
    assert_eq!(decode_in(&[b'1'; 300], 300), Err(BadChunks::Malformed));
    assert_eq!(decode_in(format!("2;a={}\r\n", "b".repeat(300)).as_bytes(), 999), Err(BadChunks::Malformed));
    let trailers = format!("0\r\n{}", "A: 0123456789\r\n".repeat(1_000));
    assert_eq!(decode_in(trailers.as_bytes(), 99_999), Err(BadChunks::Malformed));
}
