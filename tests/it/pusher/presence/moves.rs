//! A member who is away for less than the grace has not left: one who moves to another slave, or loads the page anew.

use std::time::{Duration, Instant};

use super::{ROOM, api, connect, field, join};
use crate::{
    cluster::field::By,
    support::{
        member::{Member, users},
        pusher::{Api, DEMO, Pusher, channel_data, joined, setup},
        until,
    },
};

/// Half of the grace: a move that took longer, on a machine that is too busy, proves nothing.
const SURELY: Duration = Duration::from_millis(250);

/// How one move is made.
#[derive(Clone, Copy)]
enum Move {
    LeaveThenJoin,
    CloseThenJoin,
    JoinThenLeave,
}

/// `old` goes and `new` comes, as one user. `false` if it took too long to count.
async fn moves(user: &str, mut old: Pusher, new: &mut Pusher, how: Move) -> bool {
    let began = Instant::now();
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
    began.elapsed() < SURELY
}

async fn a_hundred_moves_are_no_change(by: By) {
    let field = field(by, 2, "").await;
    let mut watchers = [join(&field, 0, "ann").await, join(&field, 1, "bob").await];
    for watcher in &mut watchers {
        watcher.sees(&users(["ann", "bob"])).await;
        watcher.told.clear();
    }
    let mut moving = join(&field, 0, "mo").await.client;
    for watcher in &mut watchers {
        assert_eq!(watcher.hears().await, "+mo");
    }
    let mut slow = 0;
    for n in 0..100 {
        let mut next = connect(&field, 1 - n % 2).await;
        let how = [Move::LeaveThenJoin, Move::CloseThenJoin, Move::JoinThenLeave][n % 3];
        if !moves("mo", moving, &mut next, how).await {
            slow += 1;
        }
        moving = next;
    }
    assert!(slow < 50, "{slow} of 100 moves took too long");
    // whoever has been told of her has been told of everything before
    let zoe = join(&field, 0, "zoe").await;
    for watcher in &mut watchers {
        while watcher.hears().await != "+zoe" {}
        assert!(watcher.told.len() <= 2 + 2 * slow, "{:?}, {slow} slow moves", watcher.told);
    }
    moving.socket.leave().await;
    zoe.client.socket.leave().await;
    for watcher in &mut watchers {
        watcher.sees(&users(["ann", "bob"])).await;
        watcher.is_quiet().await;
    }
    assert_eq!(api(&field).await.users(ROOM).await, ["ann", "bob"]);
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
    let server = setup().start().await;
    let client = || Pusher::connect(server.slave(), DEMO);
    let counts = || async { Api::of(&server, DEMO).await.counts(ROOM).await };
    let mut ann = Member::join(client().await, ROOM, "ann").await;
    let mut bob = Member::join(client().await, ROOM, "bob").await;
    assert_eq!(ann.hears().await, "+bob");

    // who comes meanwhile is given the member, and told when it is over
    let (left, late) = (Instant::now(), client().await);
    bob.client.unsubscribe(ROOM).await;
    bob.is_quiet().await;
    until("the backend counts sockets", (1, Some(1)), counts).await;
    let mut late = Member::join(late, ROOM, "late").await;
    if late.there == users(["ann", "bob", "late"]) {
        assert_eq!(late.hears().await, "-bob");
    } else {
        assert!(left.elapsed() >= 2 * SURELY && late.there == users(["ann", "late"]), "{:?}", late.there);
    }
    ann.sees(&users(["ann", "late"])).await;
    assert!(left.elapsed() >= 2 * SURELY, "the grace was {:?}", left.elapsed());

    // who comes back as somebody else has left before
    late.client.unsubscribe(ROOM).await;
    let data = r#"{"user_id":"late","user_info":{"name":"another"}}"#;
    let late = Member::join_as(late.client, ROOM, "late", data).await;
    assert_eq!(ann.hears().await, "-late");
    let said = ann.client.next().await;
    assert_eq!(said.inner(), serde_json::from_str::<serde_json::Value>(data).unwrap());
    ann.take(&said);
    late.client.socket.leave().await;
    assert_eq!(ann.hears().await, "-late");
    assert_eq!(counts().await, (1, Some(1)));
}
