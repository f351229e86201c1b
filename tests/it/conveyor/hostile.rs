//! What hostile clients and callers do: they get a clear answer, and nobody else notices.

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{
    conveyor::{ConveyorBackend, ConveyorClient, TOKEN, setup},
    websocket::{BINARY, CONTINUATION, Close, TEXT},
};

#[tokio::test]
async fn what_is_no_action_disturbs_nobody() {
    let server = setup().start().await;
    let mut bystander = ConveyorClient::on(server.slave(), "room").await;
    let mut mallory = ConveyorClient::on(server.slave(), "room").await;
    for said in [
        r#"{"action":"no-such-action","data":1}"#,
        r#"{"action":{"$ne":1},"data":1}"#,
        r#"{"action":"__construct"}"#,
        "[]",
        "{}",
        r#"{"action":null}"#,
    ] {
        mallory.socket.send_text(said).await;
    }
    mallory.is_quiet().await;
    let deep = "[".repeat(15_000) + &"]".repeat(15_000);
    mallory.socket.send_text(&deep).await;
    mallory.socket.send_text(&format!(r#"{{"action":"channel-connect","channel":{deep},"auth":{deep}}}"#)).await;
    assert_eq!(mallory.error("channel-connect").await, r#"Channel connection must specify "channel"!"#);
    mallory.socket.send(BINARY, &[0xFF; 1_000]).await;
    for channel in [json!("x".repeat(1_025)), json!("x".repeat(60_000))] {
        mallory.say(&json!({ "action": "channel-connect", "channel": channel, "auth": TOKEN })).await;
        assert_eq!(mallory.error("channel-connect").await, "Failed to connect to channel");
    }
    mallory.is_quiet().await;
    bystander.is_quiet().await;
}

#[tokio::test]
async fn frames_that_break_the_protocol_close_their_own_socket() {
    let server = setup().start().await;
    let mut bystander = ConveyorClient::on(server.slave(), "room").await;
    for (opcode, payload, code) in
        [(TEXT, &b"\xff\xfe"[..], 1007), (CONTINUATION, b"x", 1002), (TEXT, &[b'x'; 70_000], 1009)]
    {
        let mut mallory = ConveyorClient::on(server.slave(), "room").await;
        let _ = mallory.socket.try_send(opcode, payload).await;
        let Close { code: closed, .. } = mallory.socket.closed().await;
        assert_eq!(closed, code);
    }
    bystander.is_quiet().await;
}

#[tokio::test]
async fn a_flood_of_one_socket_reaches_the_others_ten_times_a_second() {
    let server = setup().start().await;
    let mut bystander = ConveyorClient::on(server.slave(), "room").await;
    let mut mallory = ConveyorClient::on(server.slave(), "room").await;
    for _ in 0..500 {
        mallory.say(&json!({ "action": "broadcast-action", "data": "flood" })).await;
        mallory.say(&json!({ "action": "fanout-action", "data": "flood", "auth": TOKEN })).await;
    }
    mallory.say(&json!({ "action": "base-action", "data": "over" })).await;
    let (mut sent, mut refused) = (0, 0);
    loop {
        let said = mallory.next().await;
        match said["data"].as_str().expect("text") {
            "over" => break,
            "flood" => sent += 1,
            words => {
                assert_eq!(words, "Too many messages: at most 10 per second");
                refused += 1;
            }
        }
    }
    assert_eq!(sent + refused, 1_000);
    // it joined, and joining counts: the rest of the allowance, and what of it came back meanwhile
    assert!(refused >= 500, "{refused} of 1,000 were refused");
    let mut heard = 0;
    bystander.say(&json!({ "action": "base-action", "data": "over" })).await;
    while bystander.next().await["data"] == "flood" {
        heard += 1;
    }
    assert!(heard <= sent, "{heard} of {sent}");
}

#[tokio::test]
async fn forged_tokens_open_nothing_and_cost_nobody() {
    let server = setup().start().await;
    let mut backend = ConveyorBackend::of(server.master()).await;
    let right = backend.mint(Some("room")).await;
    let mut mallory = ConveyorClient::connect(server.slave()).await;
    let forged = (0..32).map(|at| {
        let digit = if right.as_bytes()[at] == b'0' { "1" } else { "0" };
        [&right[..at], digit, &right[at + 1..]].concat()
    });
    let mut forged: Vec<_> = forged.collect();
    forged.extend(["0".repeat(32), "f".repeat(32), right.to_uppercase() + "G", format!("{right}0")]);
    let opened = join_all(forged.iter().map(|token| ConveyorClient::open(server.slave(), token))).await;
    assert!(opened.iter().all(|opened| opened.as_ref().is_err_and(|reply| reply.status == 401)));
    for token in forged.iter().take(8) {
        mallory.wish("room", token).await;
        assert_eq!(mallory.error("channel-connect").await, "Failed to connect to channel");
    }
    let mut ann = ConveyorClient::open(server.slave(), &right).await.expect("nothing of it spent the right one");
    ann.join("room", &right).await;
}

#[tokio::test]
async fn tokens_are_in_no_log() {
    let server = setup().set("log.level", "debug").start().await;
    let mut backend = ConveyorBackend::of(server.master()).await;
    let token = backend.mint(Some("room")).await;
    let mut client = ConveyorClient::open(server.slave(), &token).await.expect("it is valid");
    client.wish("other", &token).await;
    client.error("channel-connect").await;
    backend.post("auth", "a wrong token", "{}").await;
    client.join("room", &token).await;
    drop(client);
    server.metric_becomes("wellhead_connections", "", 0.0).await;
    let told =
        server.log.collect(|line| (line.contains(&token) || line.contains("server token")).then(|| line.to_owned()));
    assert!(told.is_empty(), "{told:?}");
}
