//! Conveyor in a cluster of real processes: one channel space, tokens that are spent once, and a truthful 404.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::field::{By, Field};
use crate::support::{
    conveyor::{ConveyorBackend, ConveyorClient, TOKEN},
    until,
};

async fn field(by: By) -> Field {
    Field::start_with(by, 1, 2, |setup| setup.set("conveyor.token", TOKEN).set("conveyor.presence", "true")).await
}

async fn a_channel_is_one_over_all_slaves(by: By) {
    let field = field(by).await;
    let mut backend = ConveyorBackend::of(field.masters[0].master()).await;
    for round in 0..10 {
        let channel = format!("room-{round}");
        let not_found = (404, r#"{"error":"Channel not found!"}"#.to_owned());
        // slaves that have just come may not answer yet
        until("nobody is there", not_found.clone(), async || {
            ConveyorBackend::of(field.masters[0].master()).await.message(&channel, &json!("x")).await
        })
        .await;
        // at once after the first came, on either slave
        let mut ann = ConveyorClient::connect(field.slaves[round % 2].slave()).await;
        ann.wish(&channel, TOKEN).await;
        assert_eq!(ann.next().await["action"], "channel-connect");
        backend.send(&channel, "hello").await;
        assert_eq!(ann.next().await, json!({ "action": "broadcast-action", "data": "hello" }));
        let mut bob = ConveyorClient::connect(field.slaves[(round + 1) % 2].slave()).await;
        bob.wish(&channel, TOKEN).await;
        // presence names those of both slaves
        let there: BTreeSet<_> = [ann.fd, bob.fd].into();
        let joiner = bob.fd;
        for client in [&mut ann, &mut bob] {
            let said = client.next().await;
            let data: Value = serde_json::from_str(said["data"].as_str().expect("a string")).expect("JSON");
            let fds: BTreeSet<u64> = serde_json::from_value(data["fds"].clone()).expect("numbers");
            assert_eq!((&data["fd"], fds), (&json!(joiner), there.clone()));
        }
        bob.say(&json!({ "action": "broadcast-action", "data": "to both" })).await;
        let wanted = json!({ "action": "broadcast-action", "data": "to both", "fd": bob.fd });
        assert_eq!((ann.next().await, bob.next().await), (wanted.clone(), wanted));
        bob.say(&json!({ "action": "fanout-action", "data": 1, "auth": TOKEN })).await;
        assert_eq!(
            (ann.next().await["action"].clone(), bob.next().await["fd"].clone()),
            (json!("fanout-action"), json!(bob.fd))
        );
        bob.say(&json!({ "action": "channel-disconnect" })).await;
        assert_eq!(ann.next().await["action"], "channel-disconnect");
        bob.say(&json!({ "action": "broadcast-action", "data": "outside" })).await;
        assert_eq!(bob.next().await["data"], "outside");
        ann.is_quiet().await;
        drop((ann, bob));
        until("nobody is there any more", not_found, async || {
            ConveyorBackend::of(field.masters[0].master()).await.message(&channel, &json!("x")).await
        })
        .await;
    }
}

#[tokio::test]
async fn a_channel_is_one_over_all_slaves_on_nats() {
    a_channel_is_one_over_all_slaves(By::Nats).await;
}

#[tokio::test]
async fn a_channel_is_one_over_all_slaves_on_one_machine() {
    a_channel_is_one_over_all_slaves(By::Local).await;
}

async fn a_temporary_token_is_spent_once_in_the_cluster(by: By) {
    let field = Field::start_with(by, 1, 2, |setup| setup.set("conveyor.token", TOKEN)).await;
    let mut backend = ConveyorBackend::of(field.masters[0].master()).await;
    for round in 0..10 {
        // slaves issue them in turn
        let token = backend.mint(Some("room")).await;
        let clients = join_all((0..10).map(|n| ConveyorClient::open(field.slaves[n % 2].slave(), &token))).await;
        let joined = join_all(clients.into_iter().map(async |client| {
            let mut client = client.expect("a handshake spends nothing");
            client.wish("elsewhere", &token).await;
            assert_eq!(client.error("channel-connect").await, "Failed to connect to channel");
            client.wish("room", &token).await;
            client.say(&json!({ "action": "base-action", "data": "done" })).await;
            let joined = client.next().await["action"] == "base-action";
            (joined, client)
        }))
        .await;
        assert_eq!(joined.iter().filter(|(joined, _)| *joined).count(), 1, "round {round}: one of ten at once");
        for slave in &field.slaves {
            let refused = ConveyorClient::open(slave.slave(), &token).await.err().expect("it is used up");
            assert_eq!(refused.is(), (401, r#"{"error":"Unauthorized!"}"#));
        }
    }
}

#[tokio::test]
async fn a_temporary_token_is_spent_once_in_the_cluster_on_nats() {
    a_temporary_token_is_spent_once_in_the_cluster(By::Nats).await;
}

#[tokio::test]
async fn a_temporary_token_is_spent_once_in_the_cluster_on_one_machine() {
    a_temporary_token_is_spent_once_in_the_cluster(By::Local).await;
}

/// Which slave a token's bits name: the one that is asked about it.
fn issuer(token: &str) -> u32 {
    u32::from_str_radix(&token[..6], 16).expect("hexadecimal digits") >> 3
}

async fn tokens_of_a_slave_that_has_gone_open_nothing(by: By) {
    let mut field = Field::start_with(by, 1, 2, |setup| setup.set("conveyor.token", TOKEN)).await;
    let mut backend = ConveyorBackend::of(field.masters[0].master()).await;
    let tokens = [backend.mint(Some("room")).await, backend.mint(Some("room")).await];
    assert_ne!(issuer(&tokens[0]), issuer(&tokens[1]), "in turn");
    let mut witness = ConveyorClient::connect(field.slaves[0].slave()).await;
    field.slaves[1].signal("KILL");
    field.slaves[1].ended().await;
    field.masters[0].metric_becomes("wellhead_roster_nodes", "", 2.0).await;
    field.slaves[0].metric_becomes("wellhead_roster_nodes", "", 2.0).await;
    let mut valid = 0;
    for token in &tokens {
        match ConveyorClient::open(field.slaves[0].slave(), token).await {
            Ok(_) => {
                witness.join("room", token).await;
                valid += 1;
            }
            Err(reply) => {
                assert_eq!(reply.status, 401, "nobody knows whether it was used");
                witness.wish("room", token).await;
                assert_eq!(witness.error("channel-connect").await, "Failed to connect to channel");
            }
        }
    }
    assert_eq!(valid, 1, "that of the slave that is there");
    // and there are new ones at once
    let token = backend.mint(Some("room")).await;
    assert!(ConveyorClient::open(field.slaves[0].slave(), &token).await.is_ok());
    backend.send("room", "still here").await;
    assert_eq!(witness.next().await["data"], "still here");
}

#[tokio::test]
async fn tokens_of_a_slave_that_has_gone_open_nothing_on_nats() {
    tokens_of_a_slave_that_has_gone_open_nothing(By::Nats).await;
}

#[tokio::test]
async fn tokens_of_a_slave_that_has_gone_open_nothing_on_one_machine() {
    tokens_of_a_slave_that_has_gone_open_nothing(By::Local).await;
}

#[tokio::test]
async fn a_slave_that_does_not_answer_makes_no_404() {
    let field = Field::start_with(By::Nats, 1, 2, |setup| setup.set("conveyor.token", TOKEN)).await;
    let mut backend = ConveyorBackend::of(field.masters[0].master()).await;
    let _ann = ConveyorClient::on(field.slaves[1].slave(), "room").await;
    backend.send("room", "hello").await;
    field.slaves[1].signal("STOP");
    // nobody else is there, and the one who knows is silent: whoever is the channel's coordinator
    let (status, words) = backend.message("room", &json!("hello")).await;
    field.slaves[1].signal("CONT");
    assert!(status == 503 || (status == 404 && words.contains("Channel not found!")), "{status} {words}");
    assert_eq!(status, 503, "on the roster it still is: {words}");
}
