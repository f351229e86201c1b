//! Presence over a cluster: a member is there from the first connection to the last, wherever they are; everybody is told
//! exactly once; who dies with a slave is gone within the lease.

mod crowds;
mod faults;
mod moves;

use serde_json::json;

use crate::{
    cluster::field::{By, Field},
    support::{
        member::{PresenceClient, users},
        pusher::{Api, DEMO, PusherClient, PusherMessage, channel_data},
        until,
    },
};

const ROOM: &str = "presence-room";

async fn field(by: By, slaves: usize, more: &str) -> Field {
    let listed = DEMO.listed(&format!("client_events = true\n{more}"));
    Field::start_with(by, 1, slaves, |setup| setup.toml(&listed)).await
}

async fn connect(field: &Field, slave: usize) -> PusherClient {
    PusherClient::connect(field.slaves[slave].slave(), DEMO).await
}

async fn join(field: &Field, slave: usize, user: &str) -> PresenceClient {
    PresenceClient::join(connect(field, slave).await, ROOM, user).await
}

async fn api(field: &Field) -> Api {
    Api::of(&field.masters[0], DEMO).await
}

async fn a_member_is_there_from_the_first_connection_to_the_last(by: By) {
    let field = field(by, 2, "").await;
    let mut api = api(&field).await;
    let mut ann = join(&field, 0, "ann").await;
    assert_eq!(ann.there, users(["ann"]));
    let mut bob = join(&field, 1, "bob").await;
    assert_eq!(ann.hears().await, "+bob");
    assert_eq!(api.users(ROOM).await, ["ann", "bob"]);
    assert_eq!(api.counts(ROOM).await, (2, Some(2)));
    // one more beside each, so that all four being seen by all four means that both slaves know of all
    let mut amy = join(&field, 0, "amy").await;
    let mut ben = join(&field, 1, "ben").await;
    let all = users(["amy", "ann", "ben", "bob"]);
    for member in [&mut ann, &mut amy, &mut bob, &mut ben] {
        member.sees(&all).await;
    }

    // once more on both slaves: nobody is told, the list is whole, the first info stays
    let mut more = Vec::new();
    for slave in [0, 1, 1] {
        let mut again = connect(&field, slave).await;
        again.wish(ROOM, Some(r#"{"user_id":"bob","user_info":{"name":"somebody else"}}"#)).await;
        let said = again.next().await;
        let presence = &said.inner()["presence"];
        assert_eq!(presence["ids"], json!(["amy", "ann", "ben", "bob"]));
        assert_eq!(presence["count"], 4);
        assert_eq!(presence["hash"]["bob"], json!({ "name": "BOB" }));
        more.push(again);
    }
    assert_eq!(api.counts(ROOM).await, (7, Some(4)));
    // they go one by one, the first one first: by leaving, by closing, by vanishing
    bob.client.unsubscribe(ROOM).await;
    bob.is_quiet().await;
    more.remove(0).socket.leave().await;
    drop(more.remove(0));
    until("one is left", (4, Some(4)), || async { Api::of(&field.masters[0], DEMO).await.counts(ROOM).await }).await;
    ann.is_quiet().await;
    more.remove(0).unsubscribe(ROOM).await;
    for member in [&mut ann, &mut amy, &mut ben] {
        assert_eq!(member.hears().await, "-bob");
    }
    assert_eq!(api.counts(ROOM).await, (3, Some(3)));
    assert_eq!(api.users(ROOM).await, ["amy", "ann", "ben"]);

    // a number is a name; another channel and other kinds of channels play no part
    let data = r#"{"user_id":7,"user_info":{"name":"7"}}"#;
    let mut seven = PresenceClient::join_as(connect(&field, 1).await, ROOM, "7", data).await;
    assert_eq!(seven.there, users(["7", "amy", "ann", "ben"]));
    assert_eq!(ann.hears().await, "+7");
    seven.client.join("presence-other", "ann").await;
    seven.client.subscribe("private-room").await;
    // what a member says carries its name to the other slave
    seven.client.whisper(ROOM, "client-e", &json!({ "x": 1 })).await;
    assert_eq!(ann.client.next().await, PusherMessage::event(ROOM, "client-e", json!({ "x": 1 })).by("7"));
    seven.client.socket.leave().await;
    assert_eq!(ann.hears().await, "-7");
    ann.is_quiet().await;
    // the last one out
    for member in [ann, amy, bob, ben] {
        member.client.socket.leave().await;
    }
    until("nobody is there", (0, Some(0)), || async { Api::of(&field.masters[0], DEMO).await.counts(ROOM).await })
        .await;
    assert_eq!(api.users(ROOM).await, Vec::<String>::new());
    assert_eq!(api.ask("/channels", &[]).await, json!({ "channels": {} }));
}

#[tokio::test]
async fn a_member_is_there_from_the_first_connection_to_the_last_on_nats() {
    a_member_is_there_from_the_first_connection_to_the_last(By::Nats).await;
}

#[tokio::test]
async fn a_member_is_there_from_the_first_connection_to_the_last_on_one_machine() {
    a_member_is_there_from_the_first_connection_to_the_last(By::Local).await;
}

#[tokio::test]
async fn the_limit_of_members_counts_the_whole_cluster() {
    let field = field(By::Nats, 2, "limits = { presence_members = 3 }").await;
    let mut ann = join(&field, 0, "ann").await;
    let mut bob = join(&field, 1, "bob").await;
    let mut eve = join(&field, 0, "eve").await;
    let all = users(["ann", "bob", "eve"]);
    for member in [&mut ann, &mut bob, &mut eve] {
        member.sees(&all).await;
    }
    for slave in [0, 1] {
        let mut late = connect(&field, slave).await;
        late.wish(ROOM, Some(&channel_data("late"))).await;
        assert_eq!(late.barred(ROOM).await.0, 403);
        // who is there already may come once more
        PresenceClient::join(late, ROOM, "eve").await.sees(&all).await;
    }
    bob.client.socket.leave().await;
    assert_eq!(ann.hears().await, "-bob");
    join(&field, 0, "late").await.sees(&users(["ann", "eve", "late"])).await;
    assert_eq!(ann.hears().await, "+late");
    assert_eq!(eve.hears().await, "-bob");
}
