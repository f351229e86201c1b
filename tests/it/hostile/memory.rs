//! What many clients together make a process hold is bounded, and those who hold little notice nothing.

use std::time::Duration;

use serde_json::json;
use tokio::{io::AsyncWriteExt, time::timeout};

use crate::support::{
    client::command,
    pusher::{DEMO, PusherClient, PusherMessage, setup},
    quoted, until,
    websocket::{TEXT, WebSocket, frame, header},
};

/// Sockets of each dialect.
const EACH: usize = 60;
/// For `limits.stall`, where a test comes to read only when it has filled all of its sockets: on a busy machine that is late.
const FOR_EVER: &str = "1h";

#[tokio::test]
async fn unfinished_messages_have_a_budget_and_the_largest_go_first() {
    let server = setup().set("limits.memory", "4MiB").start().await;
    let mut ann = server.listener_on("demo", "ann", "news").await;
    let mut bob = PusherClient::connect(server.slave(), DEMO).await.subscribed("news").await;
    // these have begun a message, too, a small one
    let rest = [&mut ann.socket, &mut bob.socket].map(|socket| (socket, frame(TEXT, b"{\"event\":\"x\"}")));
    let mut whole = Vec::new();
    for (socket, bytes) in rest {
        socket.send_bytes(&bytes[..8]).await.expect("it is open");
        whole.push(bytes);
    }
    let mut held: Vec<WebSocket> = Vec::new();
    for _ in 0..EACH {
        held.push(server.client("demo", "eve", &["*"]).await.socket);
        held.push(PusherClient::connect(server.slave(), DEMO).await.socket);
    }
    // one half of each dialect's sends one long frame, the other one in fragments, each all but its end
    for (no, socket) in held.iter_mut().enumerate() {
        let first = if no % 4 < 2 { 0x81 } else { 0x01 };
        let half = [header(first, true, 60_000), vec![b' '; 4 + 59_000]].concat();
        let _ = socket.send_bytes(&half).await;
    }
    let closed = || server.metric("wellhead_connections_closed_total", "memory_unfinished");
    until("some are closed", true, || async { closed().await >= 20.0 }).await;
    until("it is enough", true, || async { server.metric("wellhead_memory_held_bytes", "").await <= 4.2e6 }).await;
    assert_eq!(server.metric("wellhead_memory_limit_bytes", "").await, f64::from(4 << 20));
    let words = "sockets held more than the 4194304 bytes of limits.memory";
    until("the log says so", true, || async { server.said(words) >= 1 }).await;
    let (mut codes, mut open) = (Vec::new(), 0);
    for socket in &mut held {
        match timeout(Duration::from_millis(20), socket.try_frame()).await {
            Ok(Ok(Some(said))) if said.opcode == TEXT => codes.push(4100),
            Ok(Ok(Some(said))) => codes.push(u16::from_be_bytes([said.payload[0], said.payload[1]])),
            Ok(_) => {}
            Err(_) => open += 1,
        }
    }
    assert!(open > 0, "not all of them are closed");
    assert!(codes.contains(&1008) && codes.contains(&4100), "{codes:?}");
    // the two that hold little go on where they were
    let mut backend = server.backend().await;
    backend.push("demo", "news", "e", "1").await;
    assert_eq!(ann.next_event().await.data, "1");
    assert_eq!(bob.next().await, PusherMessage::event("news", "e", "1"));
    bob.socket.send_bytes(&whole[1][8..]).await.expect("it is open");
    assert!(bob.error().await.1.contains("Unsupported event"));
    ann.socket.send_bytes(&whole[0][8..]).await.expect("it is open");
    assert_eq!(ann.closed().await.code, 1008);
}

#[tokio::test]
async fn what_all_are_behind_has_a_budget() {
    let server = setup().set("limits.memory", "8MiB").start().await;
    let mut backend = server.backend().await;
    let mut deaf = Vec::new();
    for no in 0..12 {
        deaf.push(server.listener_on("demo", "deaf", &format!("c{no}")).await);
    }
    let mut bob = PusherClient::connect(server.slave(), DEMO).await.subscribed("news").await;
    // one large frame makes nobody slow, but for each of them there is another
    for no in 0..12 {
        backend.push("demo", &format!("c{no}"), "e", &"x".repeat(4 << 20)).await;
    }
    let closed = || server.metric("wellhead_connections_closed_total", "memory_owed");
    until("some are closed", true, || async { closed().await >= 6.0 }).await;
    until("it is enough", true, || async { server.metric("wellhead_memory_held_bytes", "").await <= 8.4e6 }).await;
    assert!(closed().await < 12.0, "not all of them");
    backend.push("demo", "news", "e", "1").await;
    assert_eq!(bob.next().await, PusherMessage::event("news", "e", "1"));
}

#[tokio::test]
async fn a_large_push_to_many_readers_is_one_piece_of_memory() {
    /// Each thread has one for each dialect.
    const LARGE: usize = 4 << 20;
    let server = setup().set("limits.memory", "96MiB").set("limits.stall", FOR_EVER).start().await;
    let mut readers = Vec::new();
    for _ in 0..40 {
        let ann = server.listener_on("demo", "ann", "news").await;
        readers.push((ann, PusherClient::connect(server.slave(), DEMO).await.subscribed("news").await));
    }
    server.backend().await.push("demo", "news", "e", &"x".repeat(LARGE)).await;
    server.metric_becomes("wellhead_deliveries_total", "", 80.0).await;
    for (ann, bob) in &mut readers {
        assert_eq!(ann.next_event().await.data.len(), LARGE + 2);
        assert_eq!(bob.next().await.data.as_str().map(str::len), Some(LARGE));
    }
    assert_eq!(server.metric("wellhead_connections_closed_total", "memory_owed").await, 0.0);
}

#[tokio::test]
async fn who_does_not_read_its_errors_is_not_heard_until_it_does() {
    const MOST: usize = 400;
    let server = setup().set("limits.stall", FOR_EVER).start().await;
    let long = "x".repeat(60_000);
    let errors = [
        command("gusher.subscribe", &format!(r#"{{"channel":{}}}"#, quoted(&long))),
        json!({ "event": "pusher:subscribe", "data": { "channel": long } }).to_string(),
    ]
    .map(|error| frame(TEXT, error.as_bytes()));
    let mut sockets = Vec::new();
    for no in 0..2 * EACH {
        sockets.push(match no % 2 {
            0 => server.client("demo", "eve", &["*"]).await.socket,
            _ => PusherClient::connect(server.slave(), DEMO).await.socket,
        });
    }
    let before = server.resident();
    let mut sent = vec![0; sockets.len()];
    for (no, socket) in sockets.iter_mut().enumerate() {
        while sent[no] < MOST {
            // a message that is cut off by the timeout is not whole; nothing is sent behind it
            let sending = socket.stream().write_all(&errors[no % 2]);
            match timeout(Duration::from_millis(50), sending).await {
                Ok(result) => result.expect("it is open"),
                Err(_) => break,
            }
            sent[no] += 1;
        }
    }
    assert!(sent.iter().all(|&sent| sent < MOST), "the kernel does not take 24 MB: {sent:?}");
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 2 * EACH as u64 * (400 << 10), "{} KiB for each", (grown / (2 * EACH as u64)) >> 10);
    // nothing is lost: who reads after all gets an answer to everything that was whole
    for no in [0, 1] {
        for _ in 0..sent[no] {
            let said = sockets[no].text().await;
            assert!(said.contains("error"), "{}", &said[..100]);
            if no == 1 {
                assert!(sockets[no].text().await.contains("pusher:subscription_error"));
            }
        }
    }
    assert_eq!(server.metric("wellhead_connections_closed_total", "").await, 0.0, "whoever does not waits");
}
