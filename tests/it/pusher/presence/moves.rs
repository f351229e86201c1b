//! A member who is away for less than the grace has not left: one who moves to another slave, or loads the page anew.

use std::time::{Duration, Instant};

use super::{ROOM, api, connect, join};
use crate::{
    cluster::field::{By, Field},
    support::{
        member::{PresenceClient, users},
        pusher::{Api, DEMO, PusherClient, channel_data, joined, setup},
        until,
    },
};

/// For `slave.member_grace`: no machine is so busy that what a test does takes as long.
const FOR_EVER: &str = "1h";

/// How one move is made.
#[derive(Clone, Copy)]
enum Move {
    LeaveThenJoin,
    CloseThenJoin,
    JoinThenLeave,
}

/// `old` goes and `new` comes, as one user.
async fn moves(user: &str, mut old: PusherClient, new: &mut PusherClient, how: Move) {
    match how {
        Move::LeaveThenJoin => {
            old.unsubscribe(ROOM).await;
            new.wish(ROOM, Some(&channel_data(user))).await;
        }
        Move::CloseThenJoin => {
            drop(old);
            new.wish(ROOM, Some(&channel_data(user))).await;
        }
        Move::JoinThenLeave => {
            new.wish(ROOM, Some(&channel_data(user))).await;
            old.unsubscribe(ROOM).await;
        }
    }
    let members = joined(&new.next().await, ROOM);
    assert!(members.contains(&user.to_owned()) && members.len() == 3, "{members:?}");
}

async fn a_hundred_moves_are_no_change(by: By) {
    let listed = DEMO.listed("");
    let field = Field::start_with(by, 1, 2, |setup| setup.toml(&listed).set("slave.member_grace", FOR_EVER)).await;
    let mut watchers = [join(&field, 0, "ann").await, join(&field, 1, "bob").await];
    for watcher in &mut watchers {
        watcher.sees(&users(["ann", "bob"])).await;
        watcher.told.clear();
    }
    let mut moving = join(&field, 0, "mo").await.client;
    for watcher in &mut watchers {
        assert_eq!(watcher.hears().await, "+mo");
    }
    for n in 0..100 {
        let mut next = connect(&field, 1 - n % 2).await;
        let how = [Move::LeaveThenJoin, Move::CloseThenJoin, Move::JoinThenLeave][n % 3];
        moves("mo", moving, &mut next, how).await;
        moving = next;
    }
    // whoever has been told of her has been told of everything before
    let zoe = join(&field, 0, "zoe").await;
    for watcher in &mut watchers {
        assert_eq!(watcher.hears().await, "+zoe");
    }
    // no socket of hers is left behind
    moving.socket.leave().await;
    zoe.client.socket.leave().await;
    let api = || async { api(&field).await };
    until("both have left", (2, Some(2)), || async { api().await.counts(ROOM).await }).await;
    assert_eq!(api().await.users(ROOM).await, ["ann", "bob"]);
    for watcher in &mut watchers {
        watcher.is_quiet().await;
    }
}

#[tokio::test]
async fn a_hundred_moves_are_no_change_on_nats() {
    a_hundred_moves_are_no_change(By::Nats).await;
}

#[tokio::test]
async fn a_hundred_moves_are_no_change_on_one_machine() {
    a_hundred_moves_are_no_change(By::Local).await;
}

#[tokio::test]
async fn a_member_who_is_away_is_a_member_for_the_others_and_no_socket_for_the_backend() {
    let server = setup().set("slave.member_grace", FOR_EVER).start().await;
    let client = || PusherClient::connect(server.slave(), DEMO);
    let counts = || async { Api::of(&server, DEMO).await.counts(ROOM).await };
    let mut ann = PresenceClient::join(client().await, ROOM, "ann").await;
    let mut bob = PresenceClient::join(client().await, ROOM, "bob").await;
    assert_eq!(ann.hears().await, "+bob");
    bob.sees(&users(["ann", "bob"])).await;
    bob.client.unsubscribe(ROOM).await;
    bob.is_quiet().await;
    until("the backend counts sockets", (1, Some(1)), counts).await;
    let mut late = PresenceClient::join(client().await, ROOM, "late").await;
    assert_eq!(late.there, users(["ann", "bob", "late"]));
    assert_eq!(ann.hears().await, "+late", "and nothing of bob");

    // who comes back as somebody else has left before
    late.client.unsubscribe(ROOM).await;
    let data = r#"{"user_id":"late","user_info":{"name":"another"}}"#;
    let late = PresenceClient::join_as(late.client, ROOM, "late", data).await;
    assert_eq!(late.there, users(["ann", "bob", "late"]));
    assert_eq!(ann.hears().await, "-late");
    let said = ann.client.next().await;
    assert_eq!(said.inner(), serde_json::from_str::<serde_json::Value>(data).unwrap());
    ann.take(&said);
    late.client.socket.leave().await;
    until("the backend counts sockets", (1, Some(1)), counts).await;
    ann.is_quiet().await;
}

#[tokio::test]
async fn a_member_who_is_away_for_longer_has_left() {
    for (set, grace) in [(None, 500), (Some("1200ms"), 1_200), (Some("0s"), 0)] {
        let server = match set {
            None => setup().start().await,
            Some(set) => setup().set("slave.member_grace", set).start().await,
        };
        let client = || PusherClient::connect(server.slave(), DEMO);
        let mut ann = PresenceClient::join(client().await, ROOM, "ann").await;
        let mut bob = PresenceClient::join(client().await, ROOM, "bob").await;
        assert_eq!(ann.hears().await, "+bob");
        bob.sees(&users(["ann", "bob"])).await;
        let (left, late) = (Instant::now(), client().await);
        bob.client.unsubscribe(ROOM).await;
        bob.is_quiet().await;
        // who comes meanwhile is given the member, and told when it is over; who comes later is not
        let mut late = PresenceClient::join(late, ROOM, "late").await;
        late.sees(&users(["ann", "late"])).await;
        ann.sees(&users(["ann", "late"])).await;
        assert!(left.elapsed() >= Duration::from_millis(grace), "the grace was {:?}", left.elapsed());
    }
}
