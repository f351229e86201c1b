//! Who is there is told exactly and at once.

use crate::support::{
    client::{Client, path},
    server::Server,
    until,
    websocket::WebSocket,
};

async fn online_becomes(server: &Server, users: &[&str]) {
    let wanted: Vec<_> = users.iter().map(|&user| user.to_owned()).collect();
    until("who is online", wanted, || async { server.backend().await.names("/api/demo/online").await }).await;
}

#[tokio::test]
async fn a_user_is_online_from_connect_to_disconnect() {
    let server = Server::start().await;
    let token = server.token("demo", "ann", &["*"]).await;
    let mut backend = server.backend().await;
    for _ in 0..20 {
        let socket = WebSocket::open(server.slave(), &path("demo", &token), &[]).await.expect("it opens");
        assert_eq!(backend.names("/api/demo/online").await, ["ann"], "before it says anything");
        socket.leave().await;
        online_becomes(&server, &[]).await;
    }
}

#[tokio::test]
async fn a_user_can_be_reached_from_connect_on() {
    let server = Server::start().await;
    let token = server.token("demo", "ann", &[]).await;
    let mut backend = server.backend().await;
    for number in 0..50 {
        let mut socket = WebSocket::open(server.slave(), &path("demo", &token), &[]).await.expect("it opens");
        backend.push_to_user("demo", "ann", &number.to_string()).await;
        assert_eq!(socket.text().await, number.to_string(), "before it says anything");
    }
}

#[tokio::test]
async fn a_user_is_online_as_long_as_one_of_its_sockets_is() {
    let server = Server::start().await;
    let one = server.listener_on("demo", "ann", "news").await;
    let two = server.listener_on("demo", "ann", "news").await;
    let mut backend = server.backend().await;
    one.socket.leave().await;
    until("one socket is left", 1, || server.connections()).await;
    assert_eq!(backend.names("/api/demo/online").await, ["ann"]);
    assert_eq!(backend.names("/api/demo/channels").await, ["news"]);
    two.socket.leave().await;
    online_becomes(&server, &[]).await;
    assert!(backend.names("/api/demo/channels").await.is_empty());
}

#[tokio::test]
async fn a_client_that_vanishes_without_a_word_is_gone_too() {
    let server = Server::start().await;
    let client = server.listener_on("demo", "ann", "news").await;
    online_becomes(&server, &["ann"]).await;
    drop(client);
    online_becomes(&server, &[]).await;
    server.metric_becomes("wellhead_connections", "", 0.0).await;
}

#[tokio::test]
async fn thousands_who_come_and_go_leave_nothing_behind() {
    let server = Server::start().await;
    let token = server.token("demo", "ann", &["*"]).await;
    let pass = async |rounds: usize| {
        for round in 0..rounds {
            let channel = format!("channel-{}", round % 97);
            let client = Client::connect(server.slave(), "demo", &token).await.subscribed(&channel).await;
            if round % 2 == 0 {
                client.socket.leave().await;
            }
        }
        server.metric_becomes("wellhead_connections", "", 0.0).await;
        server.metric_becomes("wellhead_channels", "", 0.0).await;
        server.resident()
    };
    let before = pass(500).await;
    let after = pass(2_500).await;
    assert!(after.saturating_sub(before) < 4 << 20, "{} KiB more", (after - before) >> 10);
    assert!(server.backend().await.names("/api/demo/online").await.is_empty());
}

#[tokio::test]
async fn channels_come_with_the_first_and_go_with_the_last_who_is_on_them() {
    let server = Server::start().await;
    let mut ann: Client = server.client("demo", "ann", &["*"]).await;
    let mut bob: Client = server.client("demo", "bob", &["*"]).await;
    let mut backend = server.backend().await;
    for _ in 0..20 {
        assert_eq!(ann.subscribe("news").await, "gusher.subscribe_succeeded");
        assert_eq!(backend.names("/api/demo/online/bychannel/news").await, ["ann"]);
        assert_eq!(bob.subscribe("news").await, "gusher.subscribe_succeeded");
        assert_eq!(backend.names("/api/demo/online/bychannel/news").await, ["ann", "bob"]);
        assert_eq!(backend.names("/api/demo/channels").await, ["news"]);
        assert_eq!(ann.unsubscribe("news").await, "gusher.unsubscribe_succeeded");
        assert_eq!(backend.names("/api/demo/online/bychannel/news").await, ["bob"]);
        assert_eq!(bob.unsubscribe("news").await, "gusher.unsubscribe_succeeded");
        assert!(backend.names("/api/demo/channels").await.is_empty());
        assert_eq!(backend.names("/api/demo/online").await, ["ann", "bob"]);
    }
}
