//! The WebSocket protocol: actions, who gets what, presence, acknowledgments, and what other dialects see.

use serde_json::{Value, json};

use crate::support::{
    client::ReceivedEvent,
    conveyor::{ConveyorBackend, ConveyorClient, TOKEN, setup},
    http::Http,
    keys::signer,
    pusher::{DEMO, PusherClient, PusherMessage},
    websocket::{BINARY, HANDSHAKE, PING},
};

fn broadcast(data: &Value) -> Value {
    json!({ "action": "broadcast-action", "data": data })
}

#[tokio::test]
async fn a_broadcast_reaches_the_channel_with_its_sender_and_outside_of_channels_who_is_on_none() {
    let server = setup().start().await;
    let mut ann = ConveyorClient::on(server.slave(), "room").await;
    let mut bob = ConveyorClient::on(server.slave(), "room").await;
    let mut eve = ConveyorClient::on(server.slave(), "other").await;
    let mut kim = ConveyorClient::connect(server.slave()).await;
    let mut lee = ConveyorClient::connect(server.slave()).await;
    for data in [json!("hi"), json!({ "n": 1 }), json!([1, null]), json!(0), json!(false)] {
        ann.say(&broadcast(&data)).await;
        let wanted = json!({ "action": "broadcast-action", "data": data, "fd": ann.fd });
        assert_eq!((ann.next().await, bob.next().await), (wanted.clone(), wanted));
    }
    kim.say(&broadcast(&json!("out here"))).await;
    let wanted = format!(r#"{{"action":"broadcast-action","data":"out here","fd":{}}}"#, kim.fd);
    assert_eq!((kim.socket.text().await, lee.socket.text().await), (wanted.clone(), wanted));
    for client in [&mut ann, &mut bob, &mut eve] {
        client.is_quiet().await;
    }
    // one channel at a time: the other replaces the first
    bob.join("other", TOKEN).await;
    ann.say(&broadcast(&json!("still there?"))).await;
    assert_eq!(ann.next().await["data"], "still there?");
    bob.is_quiet().await;
    eve.say(&broadcast(&json!("welcome"))).await;
    assert_eq!((eve.next().await["fd"].clone(), bob.next().await["data"].clone()), (eve.fd.into(), json!("welcome")));
    bob.say(&json!({ "action": "channel-disconnect" })).await;
    bob.say(&json!({ "action": "channel-disconnect" })).await;
    bob.is_quiet().await;
    lee.say(&broadcast(&json!("and now?"))).await;
    for client in [&mut lee, &mut kim, &mut bob] {
        assert_eq!(client.next().await["data"], "and now?");
    }
}

#[tokio::test]
async fn a_fan_out_reaches_every_socket_of_the_dialect_and_no_other() {
    let server = setup().toml(&DEMO.listed("client_events = true")).start().await;
    let mut ann = ConveyorClient::on(server.slave(), "news").await;
    let mut kim = ConveyorClient::connect(server.slave()).await;
    let mut pusher = PusherClient::connect(server.slave(), DEMO).await.subscribed("news").await;
    let mut gusher = server.listener_on("demo", "gus", "news").await;
    ann.say(&json!({ "action": "fanout-action", "data": { "n": 1 }, "auth": TOKEN })).await;
    let wanted = json!({ "action": "fanout-action", "data": { "n": 1 }, "fd": ann.fd });
    assert_eq!((ann.next().await, kim.next().await), (wanted.clone(), wanted));
    kim.say(&broadcast(&json!("nobody else"))).await;
    assert_eq!(kim.next().await["data"], "nobody else");
    pusher.is_quiet().await;
    ann.is_quiet().await;
    server.backend().await.push("demo", "news", "e", "1").await;
    assert_eq!(gusher.next_event().await, ReceivedEvent::new("news", "e", "1"), "nothing came before");
}

#[tokio::test]
async fn other_dialects_share_the_channel() {
    let server = setup().toml(&DEMO.listed("client_events = true")).start().await;
    let mut ann = ConveyorClient::on(server.slave(), "news").await;
    let mut pusher = PusherClient::connect(server.slave(), DEMO).await.subscribed("news").await;
    let mut gusher = server.listener_on("demo", "gus", "news").await;
    let mut elsewhere = server.listener_on("another", "gus", "news").await;
    let mut conveyor = ConveyorBackend::of(server.master()).await;
    let mut backend = server.backend().await;
    for (message, gushers) in [("hello", r#""hello""#), (r#"{"n":1.0}"#, r#"{"n":1.0}"#)] {
        conveyor.send("news", message).await;
        assert_eq!(ann.next().await, json!({ "action": "broadcast-action", "data": message }));
        assert_eq!(pusher.next().await, PusherMessage::event("news", "message", message));
        assert_eq!(gusher.next_event().await, ReceivedEvent::new("news", "message", gushers));
    }
    // a client's broadcast, too
    ann.say(&broadcast(&json!({ "n": 2 }))).await;
    assert_eq!(ann.next().await["fd"], ann.fd);
    assert_eq!(pusher.next().await, PusherMessage::event("news", "message", r#"{"n":2}"#));
    assert_eq!(gusher.next_event().await, ReceivedEvent::new("news", "message", r#"{"n":2}"#));
    // and what they publish is a broadcast
    backend.push("demo", "news", "e", r#"{"n":3}"#).await;
    assert_eq!(pusher.next().await, PusherMessage::event("news", "e", r#"{"n":3}"#));
    assert_eq!(ann.socket.text().await, r#"{"action":"broadcast-action","data":{"n":3}}"#);
    let mut api = crate::support::pusher::Api::of(&server, DEMO).await;
    api.trigger("news", "e", r#"{"n":4}"#).await;
    assert_eq!(ann.socket.text().await, r#"{"action":"broadcast-action","data":"{\"n\":4}"}"#);
    // a socket of any dialect makes the channel be found
    drop(ann);
    conveyor.send("news", "still").await;
    // another app's hear nothing of it
    backend.push("another", "news", "e", "1").await;
    assert_eq!(elsewhere.next_event().await, ReceivedEvent::new("news", "e", "1"));
}

#[tokio::test]
async fn a_user_that_nobody_has_proved_is_no_user() {
    let server = setup().start().await;
    let mut ann = ConveyorClient::connect(server.slave()).await;
    ann.say(&json!({ "action": "assoc-user-to-fd-action", "userId": 7 })).await;
    ann.join("news", TOKEN).await;
    let mut seven = server.client("demo", "7", &["*"]).await;
    let mut backend = server.backend().await;
    assert_eq!(backend.ask("/v1/apps/demo/users").await, json!(["7"]), "the user of a token is one");
    backend.push_to_user("demo", "7", r#"{"secret":1}"#).await;
    assert_eq!(seven.socket.text().await, r#"{"secret":1}"#);
    ann.is_quiet().await;
    assert_eq!(backend.ask("/v1/apps/demo/channels/news/users").await, json!([""]), "it is anonymous");
    drop(seven);
    crate::support::until("nobody is online", json!([]), async || {
        server.backend().await.ask("/v1/apps/demo/users").await
    })
    .await;
    // permissions of that user do not concern it
    backend.accepted("/api/reload/channel/user/demo/7", &[("data", "[]")]).await;
    ann.say(&broadcast(&json!("here"))).await;
    assert_eq!(ann.next().await["data"], "here");
}

#[tokio::test]
async fn presence_tells_who_is_there() {
    let server = setup().set("conveyor.presence", "true").start().await;
    let data =
        |said: &Value| -> Value { serde_json::from_str(said["data"].as_str().expect("a string")).expect("JSON") };
    let mut ann = ConveyorClient::connect(server.slave()).await;
    ann.say(&json!({ "action": "assoc-user-to-fd-action", "userId": 7 })).await;
    ann.wish("room", TOKEN).await;
    let said = ann.socket.text().await;
    let wanted = format!(
        r#"{{\"fd\":{0},\"event\":\"channel-presence\",\"channel\":\"room\",\"fds\":[{0}],\"userIds\":{{\"{0}\":7}}}}"#,
        ann.fd
    );
    assert_eq!(said, format!(r#"{{"action":"channel-connect","data":"{wanted}"}}"#));
    let mut bob = ConveyorClient::connect(server.slave()).await;
    bob.wish("room", TOKEN).await;
    let mut there = vec![ann.fd, bob.fd];
    there.sort_unstable();
    let both = json!({ "fd": bob.fd, "event": "channel-presence", "channel": "room", "fds": there, "userIds": { ann.fd.to_string(): 7 } });
    for client in [&mut ann, &mut bob] {
        let said = client.next().await;
        assert_eq!((&said["action"], &said["fd"]), (&json!("channel-connect"), &Value::Null));
        assert_eq!(data(&said), both);
    }
    bob.say(&json!({ "action": "channel-disconnect" })).await;
    let said = ann.next().await;
    assert_eq!(said["action"], "channel-disconnect");
    let wanted = json!({ "fd": bob.fd, "event": "channel-presence", "channel": "room", "fds": [ann.fd], "userIds": { ann.fd.to_string(): 7 } });
    assert_eq!(data(&said), wanted);
    bob.is_quiet().await;
    // a socket that closes leaves without a word, and is not named any more
    bob.wish("room", TOKEN).await;
    assert_eq!(ann.next().await["action"], "channel-connect");
    drop(bob);
    server.metric_becomes("wellhead_connections", "", 1.0).await;
    ann.is_quiet().await;
    let mut kim = ConveyorClient::connect(server.slave()).await;
    kim.wish("room", TOKEN).await;
    let mut there = vec![ann.fd, kim.fd];
    there.sort_unstable();
    assert_eq!(data(&kim.next().await)["fds"], json!(there));
}

#[tokio::test]
async fn acknowledgments_come_first_and_every_frame_has_an_id() {
    let server = setup().set("conveyor.acknowledgment", "true").start().await;
    let mut socket = crate::support::websocket::WebSocket::open(
        server.slave(),
        &format!("/?token={}", crate::support::encoded(TOKEN)),
        &[],
    )
    .await
    .expect("let in");
    let id = |text: &str| {
        let (_, id) = text.rsplit_once(r#","id":""#).unwrap_or_else(|| panic!("an id at the end: {text}"));
        assert!(id.len() == 34 && id.ends_with("\"}"), "{text}");
        id.to_owned()
    };
    let mut ids = vec![id(&socket.text().await)];
    for (said, action) in [
        (json!({ "action": "base-action", "data": 1, "id": "i-1" }), "base-action"),
        (json!({ "action": "broadcast-action", "data": 1, "id": "i-1" }), "broadcast-action"),
    ] {
        socket.send_text(&said.to_string()).await;
        assert_eq!(socket.text().await, r#"{"action":"acknowledge-action","data":"i-1"}"#);
        let answer = socket.text().await;
        assert!(answer.starts_with(&format!(r#"{{"action":"{action}","data":1,"fd":"#)), "{answer}");
        ids.push(id(&answer));
    }
    socket.send_text(&json!({ "action": "acknowledge-action", "data": ids[0] }).to_string()).await;
    socket.send_text("hello").await;
    ids.push(id(&socket.text().await));
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4, "each has its own");
}

#[tokio::test]
async fn the_heartbeat_of_the_javascript_client_and_pings_are_harmless() {
    let server = setup().start().await;
    let mut ann = ConveyorClient::on(server.slave(), "room").await;
    for _ in 0..3 {
        ann.socket.send(BINARY, &[0x89, 0x00]).await;
    }
    ann.socket.send(PING, b"here").await;
    assert_eq!(ann.socket.pong().await, b"here");
    ann.is_quiet().await;
    ann.socket.send(BINARY, br#"{"action":"base-action","data":"text all the same"}"#).await;
    assert_eq!(ann.next().await["data"], "text all the same");
}

#[tokio::test]
async fn a_subprotocol_is_echoed() {
    let server = setup().start().await;
    for (offered, named) in
        [("socketconveyor.com", Some("socketconveyor.com")), ("mine", Some("mine")), ("a, b", None), ("a b", None)]
    {
        let mut http = Http::to(server.slave()).await;
        let headers: Vec<_> = HANDSHAKE.into_iter().chain([("Sec-WebSocket-Protocol", offered)]).collect();
        let reply = http.call("GET", &format!("/?token={}", crate::support::encoded(TOKEN)), &headers, "").await;
        assert_eq!((reply.status, reply.header("sec-websocket-protocol")), (101, named), "{offered}");
    }
    let jwt = signer().jwt("demo", "ann", &["*"]);
    assert_eq!(ConveyorClient::open(server.slave(), &jwt).await.err().map(|reply| reply.status), Some(401));
}
