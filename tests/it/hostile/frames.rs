//! Frames that break RFC 6455 or the protocol: each ends its socket with the right code, after what was owed before.

use std::time::Duration;

use crate::support::{
    client::{Client, command},
    server::Server,
    until,
    websocket::{BINARY, CLOSE, CONTINUATION, Close, PING, PONG, TEXT, WebSocket, frame, header, raw},
    within,
};

/// What a socket is sent and with which code it ends.
fn bad_frames() -> Vec<(&'static str, Vec<u8>, u16)> {
    let ping = command("gusher.ping", "1");
    let text = ping.as_bytes();
    let unmasked = [header(0x81, false, text.len() as u64), text.to_vec()].concat();
    let first = |opcode, payload: &[u8]| raw(opcode, payload);
    let mut all = vec![
        ("unmasked", unmasked, 1002),
        ("RSV1", raw(0xC1, text), 1002),
        ("RSV2", raw(0xA1, text), 1002),
        ("RSV3", raw(0x91, text), 1002),
        ("RSV1 on a ping", raw(0xC9, b""), 1002),
        ("a fragmented ping", raw(PING, b"x"), 1002),
        ("a fragmented close", raw(CLOSE, b""), 1002),
        ("a ping of 126 bytes", frame(PING, &[0; 126]), 1002),
        ("a close of 126 bytes", frame(CLOSE, &[0x03; 126]), 1002),
        ("a continuation of nothing", frame(CONTINUATION, b"x"), 1002),
        ("an open continuation of nothing", raw(CONTINUATION, b"x"), 1002),
        ("a text within a text", [first(TEXT, b"{"), frame(TEXT, text)].concat(), 1002),
        ("a binary within a text", [first(TEXT, b"{"), frame(BINARY, text)].concat(), 1002),
        ("binary", frame(BINARY, text), 1003),
        ("bad UTF-8", frame(TEXT, b"{\"event\":\"\xff\"}"), 1007),
        ("an overlong NUL", frame(TEXT, b"\xc0\x80"), 1007),
        ("a surrogate", frame(TEXT, b"\xed\xa0\x80"), 1007),
        ("half a character", frame(TEXT, b"\"\xe4\xb8"), 1007),
        ("bad UTF-8 over two fragments", [first(TEXT, b"\"\xe4"), frame(CONTINUATION, b"x\"")].concat(), 1007),
        ("a message over the limit", frame(TEXT, &vec![b' '; (64 << 10) + 1]), 1009),
        (
            "fragments over the limit",
            [first(TEXT, &vec![b' '; 40 << 10]), frame(CONTINUATION, &vec![b' '; 40 << 10])].concat(),
            1009,
        ),
        ("a length of 2^40", [header(0x81, true, 1 << 40), vec![0; 4]].concat(), 1009),
        ("a length of 2^63", [header(0x81, true, 1 << 63), vec![0; 4]].concat(), 1002),
        ("a close with one byte", frame(CLOSE, b"\x03"), 1002),
        ("a close with a bad reason", frame(CLOSE, b"\x03\xe8\xff"), 1007),
        ("1 MiB of nested JSON", frame(TEXT, &[b'['; 1 << 20]), 1009),
        ("nested JSON", frame(TEXT, "[".repeat(60_000).as_bytes()), 1008),
        ("no JSON", frame(TEXT, b"hello"), 1008),
        ("an empty text", frame(TEXT, b""), 1008),
        ("an array", frame(TEXT, b"[]"), 1008),
        ("no event", frame(TEXT, br#"{"data":1}"#), 1008),
        ("no data", frame(TEXT, br#"{"event":"gusher.ping"}"#), 1008),
        ("an event that is no text", frame(TEXT, br#"{"event":1,"data":1}"#), 1008),
        ("an unknown event", frame(TEXT, br#"{"event":"gusher.dance","data":1}"#), 1008),
        ("an event of the client's own", frame(TEXT, br#"{"event":"hi","data":1,"channel":"news"}"#), 1008),
        ("no channel", frame(TEXT, br#"{"event":"gusher.subscribe","data":{}}"#), 1008),
        ("a channel that is a number", frame(TEXT, br#"{"event":"gusher.subscribe","data":{"channel":1}}"#), 1008),
        ("data that is no object", frame(TEXT, br#"{"event":"gusher.unsubscribe","data":"news"}"#), 1008),
        ("half a remote command", frame(TEXT, br#"{"event":"gusher.remote","data":{"remote":"x"}}"#), 1008),
    ];
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF] {
        all.push(("a reserved opcode", frame(opcode, b""), 1002));
    }
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        all.push(("a close with a code that nobody may send", frame(CLOSE, &code.to_be_bytes()), 1002));
    }
    all
}

#[tokio::test]
async fn each_bad_frame_ends_its_socket_with_its_code() {
    let server = Server::start().await;
    let token = server.token("demo", "ann", &["*"]).await;
    let mut other = server.listener_on("demo", "bob", "news").await;
    for (what, bytes, code) in bad_frames() {
        let mut client = Client::connect(server.slave(), "demo", &token).await;
        // the server may stop reading before all is sent
        let _ = client.socket.send_bytes(&bytes).await;
        let close = client.closed().await;
        assert_eq!(close.code, code, "{what}: {close:?}");
        assert!(!close.reason.is_empty(), "{what}: it says why");
    }
    server.backend().await.push("demo", "news", "e", "1").await;
    assert_eq!(other.next_event().await.data, "1", "nobody else noticed");
}

#[tokio::test]
async fn what_was_asked_before_is_answered_before_the_close() {
    let server = Server::start().await;
    let token = server.token("demo", "ann", &["*"]).await;
    for (what, bad, code) in bad_frames() {
        let mut client = Client::connect(server.slave(), "demo", &token).await;
        let subscribe = command("gusher.subscribe", r#"{"channel":"news"}"#);
        let bytes = [frame(TEXT, subscribe.as_bytes()), frame(TEXT, command("gusher.ping", "7").as_bytes()), bad];
        let _ = client.socket.send_bytes(&bytes.concat()).await;
        assert_eq!(client.reply().await.0, "gusher.subscribe_succeeded", "{what}");
        assert_eq!(client.reply().await, ("gusher.pong_succeeded".to_owned(), 7.into()), "{what}");
        assert_eq!(client.closed().await.code, code, "{what}");
    }
    until("nobody is left", Vec::<String>::new(), || async { server.backend().await.names("/api/demo/online").await })
        .await;
}

#[tokio::test]
async fn a_close_is_echoed_with_the_code_it_gave() {
    let server = Server::start().await;
    let token = server.token("demo", "ann", &["*"]).await;
    for code in [1000_u16, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        let mut client = Client::connect(server.slave(), "demo", &token).await;
        let payload = [&code.to_be_bytes()[..], "bye 中".as_bytes()].concat();
        client.socket.send(CLOSE, &payload).await;
        let answer = client.socket.frame().await.expect("an echo");
        assert_eq!(answer.opcode, CLOSE);
        assert_eq!(Close::from(answer.payload.as_slice()).code, code);
        assert_eq!(client.socket.frame().await, None, "the server ends the connection");
    }
    let mut client = Client::connect(server.slave(), "demo", &token).await;
    client.socket.send(CLOSE, b"").await;
    let answer = client.socket.frame().await.expect("an echo");
    assert_eq!(answer.opcode, CLOSE);
    assert!(answer.payload.is_empty() || Close::from(answer.payload.as_slice()).code == 1000, "{answer:?}");
    assert_eq!(client.socket.frame().await, None);
}

#[tokio::test]
async fn pings_and_pongs_of_a_client_are_taken_as_they_are() {
    let server = Server::start().await;
    let mut ann = server.client("demo", "ann", &["*"]).await;
    for payload in [&b""[..], b"hello", &[0xFF; 125]] {
        ann.socket.send(PONG, payload).await;
        ann.socket.send(PING, payload).await;
        assert_eq!(ann.socket.pong().await, payload);
    }
    let mut many = Vec::new();
    for number in 0..1_000_u32 {
        many.extend(frame(PING, &number.to_be_bytes()));
    }
    ann.socket.send_bytes(&many).await.expect("it is open");
    for number in 0..1_000_u32 {
        assert_eq!(ann.socket.pong().await, number.to_be_bytes());
    }
    assert_eq!(ann.subscribe("news").await, "gusher.subscribe_succeeded");
}

/// Bytes that the server takes before the connection ends, up to `most`.
async fn pour(socket: &mut WebSocket, chunk: &[u8], most: usize) -> usize {
    use tokio::io::AsyncWriteExt;
    let mut poured = 0;
    while poured < most {
        match tokio::time::timeout(Duration::from_secs(5), socket.stream().write_all(chunk)).await {
            Ok(Ok(())) => poured += chunk.len(),
            // it reads no more, or the connection is gone
            Ok(Err(_)) | Err(_) => break,
        }
    }
    poured
}

#[tokio::test]
async fn a_claimed_length_takes_no_memory() {
    const STREAM: usize = 50 << 20;
    let server = Server::start().await;
    let token = server.token("demo", "ann", &["*"]).await;
    let before = server.resident();
    for (what, start) in [
        ("one frame of 2^40", [header(0x81, true, 1 << 40), vec![0; 4]].concat()),
        ("one frame of 2^62", [header(0x81, true, 1 << 62), vec![0; 4]].concat()),
    ] {
        let mut client = Client::connect(server.slave(), "demo", &token).await;
        client.socket.send_bytes(&start).await.expect("it is open");
        pour(&mut client.socket, &[b'x'; 64 << 10], STREAM).await;
        let grown = server.resident().saturating_sub(before);
        assert!(grown < 8 << 20, "{what}: {} KiB more", grown >> 10);
    }
}

#[tokio::test]
async fn endless_fragments_take_no_memory() {
    const STREAM: usize = 50 << 20;
    let server = Server::start().await;
    let token = server.token("demo", "ann", &["*"]).await;
    let before = server.resident();
    for (what, chunk) in [
        ("fragments of 1 KiB", raw(CONTINUATION, &[b' '; 1_024]).repeat(64)),
        ("fragments of nothing", raw(CONTINUATION, b"").repeat(8_192)),
        ("fragments of one byte", raw(CONTINUATION, b" ").repeat(8_192)),
    ] {
        let mut client = Client::connect(server.slave(), "demo", &token).await;
        client.socket.send_bytes(&raw(TEXT, b"")).await.expect("it is open");
        pour(&mut client.socket, &chunk, STREAM).await;
        let grown = server.resident().saturating_sub(before);
        assert!(grown < 8 << 20, "{what}: {} KiB more", grown >> 10);
        drop(client);
        let mut next = Client::connect(server.slave(), "demo", &token).await;
        assert_eq!(next.subscribe("news").await, "gusher.subscribe_succeeded", "{what}");
    }
}

#[tokio::test]
async fn a_frame_may_come_byte_by_byte() {
    let server = Server::start().await;
    let mut ann = server.client("demo", "ann", &["*"]).await;
    for byte in frame(TEXT, command("gusher.ping", &format!("\"{}\"", "x".repeat(200))).as_bytes()) {
        ann.socket.send_bytes(&[byte]).await.expect("it is open");
        tokio::task::yield_now().await;
    }
    assert_eq!(within("the reply", ann.reply()).await.0, "gusher.pong_succeeded");
}
