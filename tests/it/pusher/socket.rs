//! Protocol 7: coming in, joining, leaving, speaking, going.

use serde_json::{Value, json};

use crate::support::{
    http::Http,
    member::{PresenceClient, users},
    pusher::{Api, DEMO, OTHER, PusherClient, PusherMessage, TestApp, channel_data, joined, said, setup},
    server::{Server, Setup},
    websocket::{HANDSHAKE, WebSocket},
};

/// What a client hears that is let in only to hear why not.
async fn turned_away(server: &Server, path: &str) -> (u16, String) {
    let mut socket =
        WebSocket::open(server.slave(), path, &[]).await.unwrap_or_else(|reply| panic!("{path}: {reply:?}"));
    let said = said(&socket.text().await);
    assert_eq!(said.event, "pusher:error", "{said:?}");
    let close = socket.closed().await;
    assert_eq!(said.data, json!({ "code": close.code, "message": close.reason }), "the same in both");
    (close.code, close.reason)
}

#[tokio::test]
async fn who_may_not_come_in_hears_it_over_the_socket() {
    let server = setup().start().await;
    for (path, code, words) in [
        ("/app/nobody?protocol=7", 4001, "App key nobody not in this cluster. Did you forget to specify the cluster?"),
        ("/app/17?protocol=7", 4001, "App key 17 not in"),
        ("/app/Demo?protocol=7", 4001, "App key Demo not in"),
        ("/app/n%C3%A4%22?protocol=7", 4001, "App key nä\" not in"),
        ("/app/demo", 4008, ""),
        ("/app/demo?client=js&version=8.6.0", 4008, ""),
        ("/app/demo?protocol=", 4008, ""),
        ("/app/demo?protocol=4", 4007, ""),
        ("/app/demo?protocol=8", 4007, ""),
        ("/app/demo?protocol=99999999999999999999999", 4007, ""),
        ("/app/demo?protocol=seven", 4006, ""),
        ("/app/demo?protocol=7.0", 4006, ""),
        ("/app/demo?protocol=-7", 4006, ""),
    ] {
        let (given, reason) = turned_away(&server, path).await;
        assert_eq!(given, code, "{path}: {reason}");
        assert!(reason.starts_with(words), "{path}: {reason}");
    }
    // a key of any length: the reason of a close frame has 123 bytes, and is cut between characters
    for key in ["x".repeat(4_000), "%C3%A4".repeat(500)] {
        let mut socket = WebSocket::open(server.slave(), &format!("/app/{key}?protocol=7"), &[]).await.expect("101");
        assert_eq!(said(&socket.text().await).data["code"], 4001);
        assert_eq!(socket.closed().await.code, 4001);
    }
    for protocol in [5, 6, 7] {
        let path = format!("/app/demo?client=test&protocol={protocol}");
        let mut socket = WebSocket::open(server.slave(), &path, &[]).await.expect("101");
        assert_eq!(said(&socket.text().await).event, "pusher:connection_established");
    }
}

#[tokio::test]
async fn who_finds_no_room_is_told_to_come_back_later() {
    let server = setup().set("slave.max_connections", "1").start().await;
    let mut first = WebSocket::open(server.slave(), &DEMO.path(), &[]).await.expect("101");
    assert_eq!(said(&first.text().await).event, "pusher:connection_established");
    assert_eq!(turned_away(&server, &DEMO.path()).await.0, 4100);
    first.send_text(r#"{"event":"pusher:ping","data":{}}"#).await;
    assert_eq!(said(&first.text().await).event, "pusher:pong", "who is there stays");
}

#[tokio::test]
async fn a_page_of_another_origin_is_told_not_to_come_back() {
    let server = Setup::keyed().toml(&DEMO.listed("allowed_origins = [\"*.app.example.com\"]")).start().await;
    for (origin, welcome) in [("https://www.app.example.com", true), ("https://evil.example.com", false)] {
        let mut socket = WebSocket::open(server.slave(), &DEMO.path(), &[("Origin", origin)]).await.expect("101");
        let first = said(&socket.text().await);
        if welcome {
            assert_eq!(first.event, "pusher:connection_established", "{origin}");
        } else {
            assert_eq!((first.event.as_str(), &first.data["code"]), ("pusher:error", &json!(4009)), "{origin}");
            assert!(first.data.to_string().contains("allowed_origins of the app demo"), "{:?}", first.data);
            assert_eq!(socket.closed().await.code, 4009);
        }
    }
}

#[tokio::test]
async fn what_is_no_handshake_is_refused_over_http() {
    let server = setup().start().await;
    let mut http = Http::to(server.slave()).await;
    assert_eq!(http.get(&DEMO.path()).await.status, 400);
    assert_eq!(http.call("POST", &DEMO.path(), &[], "").await.status, 405);
    assert_eq!(http.get("/app").await.status, 404);
    assert_eq!(http.get("/app/demo/more?protocol=7").await.status, 404);
    for (header, value, status) in
        [("Sec-WebSocket-Version", "8", 426), ("Sec-WebSocket-Key", "short", 400), ("Upgrade", "h2c", 400)]
    {
        let headers: Vec<_> =
            HANDSHAKE.iter().map(|&(name, was)| (name, if name == header { value } else { was })).collect();
        let reply = Http::to(server.slave()).await.call("GET", &DEMO.path(), &headers, "").await;
        assert_eq!(reply.status, status, "{header}: {value}: {reply:?}");
        // nothing is opened to say that the key is wrong, either
        let reply = Http::to(server.slave()).await.call("GET", "/app/nobody?protocol=7", &headers, "").await;
        assert_eq!(reply.status / 100, 4, "{header}: {value}: {reply:?}");
    }
}

#[tokio::test]
async fn public_private_and_encrypted_channels() {
    let server = setup().start().await;
    let mut ann = PusherClient::connect(server.slave(), DEMO).await;
    let mut api = Api::of(&server, DEMO).await;
    // pusher-js sends an empty auth for a public channel, and whatever it is, it is ignored
    for (channel, auth) in [("a", json!("")), ("b", json!("nonsense"))] {
        ann.say("pusher:subscribe", &json!({ "channel": channel, "auth": auth })).await;
        assert_eq!(ann.next().await, PusherMessage::event(channel, "pusher_internal:subscription_succeeded", "{}"));
    }
    for channel in ["news", "private-desk", "private-encrypted-safe", "private", "Presence-a", "a_b-c=d@e,f.g;h"] {
        ann.subscribe(channel).await;
        api.trigger(channel, "e", r#"{"nonce":"bm9uY2U=","ciphertext":"Y2lwaGVy"}"#).await;
        assert_eq!(
            ann.next().await,
            PusherMessage::event(channel, "e", r#"{"nonce":"bm9uY2U=","ciphertext":"Y2lwaGVy"}"#)
        );
    }
    // the data of a command may be a string of JSON, as servers write it
    let wish = json!({ "channel": "private-again", "auth": DEMO.auth(&ann.id, "private-again", None) });
    ann.say("pusher:subscribe", &wish.to_string().into()).await;
    assert_eq!(ann.next().await.event, "pusher_internal:subscription_succeeded");
    // channel_data on a private channel takes part in the signature
    let auth = DEMO.auth(&ann.id, "private-data", Some("{\"x\":1}"));
    ann.say("pusher:subscribe", &json!({ "channel": "private-data", "auth": auth, "channel_data": "{\"x\":1}" })).await;
    assert_eq!(ann.next().await.event, "pusher_internal:subscription_succeeded");
    ann.say("pusher:unsubscribe", &json!({ "channel": "news" }).to_string().into()).await;
    ann.is_quiet().await;
    api.trigger("news", "e", "late").await;
    ann.is_quiet().await;
    // twice is once, and one leave ends it
    ann.wish("a", None).await;
    assert_eq!(ann.error().await, (None, "Existing subscription to channel a".to_owned()));
    api.trigger("a", "e", "1").await;
    assert_eq!(ann.next().await, PusherMessage::event("a", "e", "1"));
    ann.unsubscribe("a").await;
    ann.unsubscribe("a").await;
    let words = "No current subscription to channel a, or subscription in progress";
    assert_eq!(ann.error().await, (None, words.to_owned()));
    for name in ["nowhere", "", "a b", &"x".repeat(3_000)] {
        ann.unsubscribe(name).await;
        assert!(ann.error().await.1.starts_with("No current subscription to channel"), "{name}");
    }
    ann.is_quiet().await;
}

#[tokio::test]
async fn a_bad_auth_is_told_to_the_socket_and_to_the_channel() {
    let server = setup().start().await;
    let mut ann = PusherClient::connect(server.slave(), DEMO).await.subscribed("news").await;
    let id = ann.id.clone();
    let good = DEMO.auth(&id, "private-a", None);
    let forged = |app: TestApp, signed: &str| format!("{}:{}", app.key, app.sign(signed));
    let elsewhere = format!("{id}:private-b");
    for (auth, words) in [
        (json!(forged(DEMO, &elsewhere)), "Invalid signature: Expected HMAC SHA256 hex digest of"),
        (json!(forged(DEMO, "1.1:private-a")), "Invalid signature: "),
        (json!(good.to_uppercase().replace("DEMO", "demo")), "Invalid signature: "),
        (json!(good[..good.len() - 1]), "Invalid signature: "),
        (json!(format!("{good}0")), "Invalid signature: "),
        (json!("demo:"), "Invalid signature: "),
        (json!("demo"), "Invalid signature: "),
        (json!(forged(OTHER, &format!("{id}:private-a"))), "Invalid key in subscription auth data: 'other'"),
        (json!(good.replace("demo:", "")), "Invalid key in subscription auth data: "),
        (json!(""), "Invalid key in subscription auth data: ''"),
        (Value::Null, "Invalid key in subscription auth data: ''"),
    ] {
        ann.say("pusher:subscribe", &json!({ "channel": "private-a", "auth": auth })).await;
        let (status, said) = ann.barred("private-a").await;
        assert_eq!(status, 401, "{auth}");
        assert!(said.starts_with(words), "{auth}: {said}");
        // what the client sent is echoed, and nothing better
        let sent = auth.as_str().and_then(|auth| auth.rsplit(':').next()).unwrap_or_default();
        let right = DEMO.sign(&format!("{id}:private-a"));
        assert!(!said.replace(sent, "").contains(&right), "the right one is not told: {said}");
    }
    ann.say("pusher:subscribe", &json!({ "channel": "private-a", "auth": good })).await;
    assert_eq!(ann.next().await.event, "pusher_internal:subscription_succeeded");
    // what was signed for one socket is nothing to another
    let mut bob = PusherClient::connect(server.slave(), DEMO).await;
    bob.say("pusher:subscribe", &json!({ "channel": "private-a", "auth": good })).await;
    assert_eq!(bob.barred("private-a").await.0, 401);
    for name in ["a b", "a/b", "ä", "#server-to-7", "#a", "", "a:b", "a\n"] {
        ann.wish(name, None).await;
        assert_eq!(ann.barred(name).await.0, 400, "{name:?}");
    }
    ann.is_quiet().await;
    assert_eq!(Api::of(&server, DEMO).await.counts("private-a").await, (1, None));
}

#[tokio::test]
async fn members_are_who_their_backend_says() {
    let server = setup().start().await;
    let mut ann = PusherClient::connect(server.slave(), DEMO).await;
    for (n, data, id, info) in [
        (0, r#"{"user_id":"7","user_info":{"name":"Ann"}}"#, "7", json!({ "name": "Ann" })),
        (1, r#"{"user_id": "7", "user_info": {"name": "Ann"}}"#, "7", json!({ "name": "Ann" })),
        (2, r#"{"user_id":7}"#, "7", json!({})),
        (3, r#"{"user_info":{},"user_id":"a\"b\\ü\u00e9"}"#, "a\"b\\üé", json!({})),
        (4, r#"{"user_id":"7","user_info":null}"#, "7", json!({})),
        (
            5,
            r#"{"user_id":"7","user_info":{"deep":[{"x":[null,1.50]}]},"more":1}"#,
            "7",
            json!({ "deep": [{ "x": [null, 1.5] }] }),
        ),
        (6, r#"{"user_id":9007199254740993}"#, "9007199254740993", json!({})),
    ] {
        let channel = format!("presence-{n}");
        ann.wish(&channel, Some(data)).await;
        let said = ann.next().await;
        assert_eq!(joined(&said, &channel), [id], "{data}");
        assert_eq!(said.inner()["presence"]["hash"][id], info, "{data}");
    }
    // numbers arrive as they were written
    ann.wish("presence-n", Some(r#"{"user_id":1,"user_info":{"n":12345678901234567890.10}}"#)).await;
    assert!(ann.next().await.data.as_str().expect("text").contains("12345678901234567890.10"));

    let mut bob = PusherClient::connect(server.slave(), DEMO).await;
    for data in [
        "",
        "{",
        "7",
        "[]",
        "null",
        "{}",
        r#"{"user_id":null}"#,
        r#"{"user_id":""}"#,
        r#"{"user_id":true}"#,
        r#"{"user_id":{"a":1}}"#,
        r#"{"user_id":["7"]}"#,
        r#"{"user_id":"\ud800"}"#,
        r#"{"user_id":"7","user_info":"Ann"}"#,
        r#"{"user_id":"7","user_info":[1]}"#,
        r#"{"user_id":"7","user_info":7}"#,
        r#"{"user_id":"7","user_id":"8"}"#,
        r#"{"user_id":"7"} "#,
    ] {
        bob.wish("presence-x", Some(data)).await;
        if data == r#"{"user_id":"7"} "# {
            assert_eq!(joined(&bob.next().await, "presence-x"), ["7"], "blanks do not matter");
        } else {
            let (status, words) = bob.barred("presence-x").await;
            assert_eq!(status, 400, "{data}: {words}");
        }
    }
    let mut eve = PusherClient::connect(server.slave(), DEMO).await;
    // signed, but not sent; or sent otherwise than signed
    let auth = DEMO.auth(&eve.id, "presence-x", Some(&channel_data("eve")));
    eve.say("pusher:subscribe", &json!({ "channel": "presence-x", "auth": auth })).await;
    assert_eq!(eve.barred("presence-x").await.0, 401);
    eve.wish("presence-x", None).await;
    assert_eq!(eve.barred("presence-x").await.0, 400);
    let auth = DEMO.auth(&eve.id, "presence-x", Some(&channel_data("eve")));
    eve.say(
        "pusher:subscribe",
        &json!({ "channel": "presence-x", "auth": auth, "channel_data": channel_data("root") }),
    )
    .await;
    assert_eq!(eve.barred("presence-x").await.0, 401);
    bob.is_quiet().await;
}

#[tokio::test]
async fn clients_speak_to_each_other() {
    let server = setup().start().await;
    let ann = PusherClient::connect(server.slave(), DEMO).await.subscribed("private-desk").await;
    let bob = PusherClient::connect(server.slave(), DEMO).await.subscribed("private-desk").await;
    let mut members = [
        PresenceClient::join(ann, "presence-room", "ann").await,
        PresenceClient::join(bob, "presence-room", "bob").await,
    ];
    for member in &mut members {
        member.sees(&users(["ann", "bob"])).await;
    }
    let [mut ann, mut bob] = members.map(|member| member.client);
    // what is no string stays what it is; at most ten of them
    for data in [json!({ "x": 1 }), json!("text"), json!("{\"x\":1}"), json!(null), json!([1]), json!(1.5)] {
        ann.whisper("private-desk", "client-e", &data).await;
        assert_eq!(bob.next().await, PusherMessage::event("private-desk", "client-e", data));
    }
    // who says nothing is not said to have said null
    bob.socket.send_text(r#"{"event":"client-e","channel":"private-desk"}"#).await;
    assert_eq!(ann.socket.text().await, r#"{"event":"client-e","channel":"private-desk"}"#);
    bob.whisper("presence-room", "client-e", &json!({ "x": 1 })).await;
    assert_eq!(ann.next().await, PusherMessage::event("presence-room", "client-e", json!({ "x": 1 })).by("bob"));
    // a backend has no user id
    Api::of(&server, DEMO).await.trigger("presence-room", "client-e", "1").await;
    assert_eq!(ann.next().await, PusherMessage::event("presence-room", "client-e", "1"));
    assert_eq!(bob.next().await, PusherMessage::event("presence-room", "client-e", "1"));

    ann.subscribe("news").await;
    for (event, channel, words) in [
        ("client-e", "private-other", "not subscribed to channel private-other"),
        ("client-e", "presence-other", "not subscribed to channel presence-other"),
        ("client-e", "news", "private and presence channels"),
        ("cliente", "private-desk", "Unsupported event received on socket: 'cliente'"),
        ("pusher:nope", "private-desk", "Unsupported event received on socket: 'pusher:nope'"),
        ("pusher_internal:member_added", "presence-room", "Unsupported event"),
    ] {
        ann.whisper(channel, event, &json!(1)).await;
        let (code, said) = ann.error().await;
        assert_eq!(code, None, "{event} {channel}: {said}");
        assert!(said.contains(words), "{event} {channel}: {said}");
    }
    ann.unsubscribe("private-desk").await;
    ann.whisper("private-desk", "client-e", &json!(1)).await;
    assert!(ann.error().await.1.contains("not subscribed"));
    ann.is_quiet().await;
    bob.is_quiet().await;
    // an app that has not switched it on
    let mut eve = PusherClient::connect(server.slave(), OTHER).await.subscribed("private-desk").await;
    eve.whisper("private-desk", "client-e", &json!(1)).await;
    let words = "To send client events, you must enable this feature in the Settings page of your dashboard.";
    assert_eq!(eve.error().await, (None, words.to_owned()));
}

#[tokio::test]
async fn a_shutdown_says_come_back_in_a_moment_where_nobody_else_is() {
    let mut server = setup().start().await;
    let mut crowd = Vec::new();
    for user in ["ann", "bob", "eve"] {
        let mut one = PusherClient::connect(server.slave(), DEMO).await.subscribed("news").await;
        one.join(&format!("presence-{user}"), user).await;
        crowd.push(one);
    }
    Api::of(&server, DEMO).await.trigger("news", "last", "1").await;
    server.signal("TERM");
    for one in &mut crowd {
        assert_eq!(one.next().await, PusherMessage::event("news", "last", "1"), "what was accepted is delivered first");
        let (code, words) = one.error().await;
        let close = one.closed().await;
        assert_eq!((code, close.code, close.reason), (Some(4100), 4100, words));
    }
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test]
async fn who_does_not_answer_a_ping_is_told_so() {
    let server = setup().set("slave.ping_interval", "1s").set("slave.pong_timeout", "1s").start().await;
    let mut ann = PusherClient::connect(server.slave(), DEMO).await;
    let mut bob = PusherClient::connect(server.slave(), DEMO).await.subscribed("news").await;
    // bob reads all the time, so that his pings are answered
    let bob = tokio::spawn(async move { bob.next().await });
    let frame = loop {
        let frame = ann.socket.frame().await.expect("no end yet");
        if frame.opcode != crate::support::websocket::PING {
            break frame;
        }
    };
    let said = said(std::str::from_utf8(&frame.payload).expect("UTF-8"));
    assert_eq!((&*said.event, &said.data["code"]), ("pusher:error", &json!(4201)), "{said:?}");
    assert_eq!(ann.closed().await.code, 4201);
    Api::of(&server, DEMO).await.trigger("news", "e", "1").await;
    assert_eq!(bob.await.expect("he is connected"), PusherMessage::event("news", "e", "1"));
}
