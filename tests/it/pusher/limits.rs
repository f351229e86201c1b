//! Every limit, at its edge and one beyond; and that each app has its own.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{
    member::PresenceClient,
    pusher::{Api, DEMO, OTHER, PusherClient, PusherMessage, channel_data, joined, setup},
    quoted,
    server::Setup,
};

/// An event with these fields instead of the usual ones.
fn event(fields: Value) -> Value {
    let mut event = json!({ "name": "e", "channel": "news", "data": "1" });
    for (name, value) in fields.as_object().expect("fields") {
        event[name] = value.clone();
    }
    event
}

#[tokio::test]
async fn of_what_is_published() {
    let server = setup().start().await;
    let mut ann = PusherClient::connect(server.slave(), DEMO).await.subscribed("news").await;
    let mut api = Api::of(&server, DEMO).await;
    let name = |length: usize| "c".repeat(length);
    let names = |count: usize| (0..count).map(|n| format!("c{n}")).collect::<Vec<_>>();
    let batch = |count: usize| json!({ "batch": vec![event(json!({})); count] });
    for (what, below, fits, beyond, status) in [
        ("channel", "/events", event(json!({ "channel": name(200) })), event(json!({ "channel": name(201) })), 400),
        (
            "channels",
            "/events",
            event(json!({ "channels": names(100) })),
            event(json!({ "channels": names(101) })),
            400,
        ),
        (
            "one of them",
            "/events",
            event(json!({ "channels": [name(200)] })),
            event(json!({ "channels": ["a", name(201)] })),
            400,
        ),
        ("the event's name", "/events", event(json!({ "name": name(200) })), event(json!({ "name": name(201) })), 400),
        (
            "characters of it",
            "/events",
            event(json!({ "name": "ä".repeat(200) })),
            event(json!({ "name": "ä".repeat(201) })),
            400,
        ),
        ("the data", "/events", event(json!({ "data": name(10_240) })), event(json!({ "data": name(10_241) })), 413),
        (
            "bytes of it",
            "/events",
            event(json!({ "data": "ä".repeat(5_120) })),
            event(json!({ "data": "ä".repeat(5_121) })),
            413,
        ),
        ("the batch", "/batch_events", batch(10), batch(11), 400),
    ] {
        assert_eq!(api.post(below, &fits).await.is(), (200, "{}"), "{what}");
        let reply = api.post(below, &beyond).await;
        assert_eq!(reply.status, status, "{what}: {reply:?}");
        if status == 413 {
            let words = "The data content of this event exceeds the allowed maximum (10240 bytes)";
            assert!(reply.text().starts_with(words), "{reply:?}");
        }
    }
    // what fitted arrived, and nothing else: those that went to this channel
    for (name, data) in [
        ("c".repeat(200), "1".to_owned()),
        ("ä".repeat(200), "1".to_owned()),
        ("e".to_owned(), name(10_240)),
        ("e".to_owned(), "ä".repeat(5_120)),
    ] {
        assert_eq!(ann.next().await, PusherMessage::event("news", &name, data));
    }
    for _ in 0..10 {
        assert_eq!(ann.next().await, PusherMessage::event("news", "e", "1"));
    }
    ann.is_quiet().await;
}

#[tokio::test]
async fn of_names_that_are_subscribed_to() {
    let server = setup().start().await;
    let mut ann = PusherClient::connect(server.slave(), DEMO).await;
    for prefix in ["", "private-", "presence-"] {
        for (length, fits) in [(200, true), (201, false), (60_000, false)] {
            let name = format!("{prefix}{}", "x".repeat(length - prefix.len()));
            match (prefix, fits) {
                ("presence-", true) => assert_eq!(ann.join(&name, "ann").await, ["ann"]),
                (_, true) => ann.subscribe(&name).await,
                (_, false) => {
                    ann.wish(&name, (prefix == "presence-").then(|| channel_data("ann")).as_deref()).await;
                    assert_eq!(ann.barred(&name).await.0, 400);
                }
            }
        }
    }
    ann.is_quiet().await;
}

/// A `channel_data` whose `user_info` has so many bytes.
fn with_info(user: &str, bytes: usize) -> String {
    let info = format!(r#"{{"x":"{}"}}"#, "i".repeat(bytes - 8));
    assert_eq!(info.len(), bytes);
    format!(r#"{{"user_id":{},"user_info":{info}}}"#, quoted(user))
}

#[tokio::test]
async fn of_members() {
    let server = setup().start().await;
    let connect = || PusherClient::connect(server.slave(), DEMO);
    let mut first = PresenceClient::join(connect().await, "presence-hall", "user-00").await;
    let mut others = Vec::new();
    for n in 1..100 {
        others.push(PresenceClient::join(connect().await, "presence-hall", &format!("user-{n:02}")).await);
    }
    let mut all: BTreeSet<_> = (0..100).map(|n| format!("user-{n:02}")).collect();
    first.sees(&all).await;
    // no 101st; but somebody who is there may come once more
    let mut late = connect().await;
    late.wish("presence-hall", Some(&channel_data("late"))).await;
    let (status, words) = late.barred("presence-hall").await;
    assert_eq!((status, words.contains("100")), (403, true), "{words}");
    let mut again = PresenceClient::join(connect().await, "presence-hall", "user-50").await;
    again.sees(&all).await;
    // room again
    others.pop().expect("some").client.unsubscribe("presence-hall").await;
    assert_eq!(first.hears().await, "-user-99");
    let mut late = PresenceClient::join(late, "presence-hall", "late").await;
    all.remove("user-99");
    all.insert("late".to_owned());
    for member in [&mut first, &mut again, &mut late] {
        member.sees(&all).await;
        member.is_quiet().await;
    }
    let mut late = late.client;

    let (longest, too_long) = ("ü".repeat(128), "ü".repeat(129));
    for (channel, data, fits) in [
        ("presence-a", channel_data(&longest), true),
        ("presence-b", channel_data(&too_long), false),
        ("presence-c", with_info("ann", 1_024), true),
        ("presence-d", with_info("ann", 1_025), false),
    ] {
        late.wish(channel, Some(&data)).await;
        if fits {
            assert_eq!(joined(&late.next().await, channel).len(), 1);
        } else {
            assert_eq!(late.barred(channel).await.0, 403, "{channel}");
        }
    }
}

#[tokio::test]
async fn of_what_clients_say() {
    // more than ten of them, to come to the other limits
    let generous = DEMO.listed("client_events = true\nlimits = { client_events = 1000 }");
    let server = Setup::keyed().toml(&generous).start().await;
    let mut ann = PusherClient::connect(server.slave(), DEMO).await.subscribed("private-desk").await;
    let mut bob = PusherClient::connect(server.slave(), DEMO).await.subscribed("private-desk").await;
    let name = |length: usize| format!("client-{}", "n".repeat(length - 7));
    for (what, event, data, fits) in [
        ("a name", name(200), json!(1), true),
        ("a long name", name(201), json!(1), false),
        ("a text", name(10), json!("x".repeat(10_240)), true),
        ("a large text", name(10), json!("x".repeat(10_241)), false),
        ("an object", name(10), json!({ "x": "y".repeat(10_232) }), true),
        ("a large object", name(10), json!({ "x": "y".repeat(10_233) }), false),
    ] {
        ann.whisper("private-desk", &event, &data).await;
        if fits {
            assert_eq!(bob.next().await, PusherMessage::event("private-desk", &event, data), "{what}");
        } else {
            assert_eq!(ann.error().await.0, None, "{what}");
        }
    }
    bob.is_quiet().await;
}

#[tokio::test]
async fn of_how_often_clients_say_it() {
    let server = setup().start().await;
    let mut ann = PusherClient::connect(server.slave(), DEMO).await.subscribed("private-desk").await;
    let mut bob = PusherClient::connect(server.slave(), DEMO).await.subscribed("private-desk").await;
    // all at once, in one write
    let say = |n: usize| json!({ "event": "client-n", "channel": "private-desk", "data": n }).to_string();
    let bytes: Vec<_> = (0..30)
        .flat_map(|n| crate::support::websocket::frame(crate::support::websocket::TEXT, say(n).as_bytes()))
        .collect();
    ann.socket.send_bytes(&bytes).await.expect("open");
    for n in 0..10 {
        assert_eq!(bob.next().await, PusherMessage::event("private-desk", "client-n", n));
    }
    // while they were read a tenth of a second may have passed, but not a whole one
    let mut refused = 0;
    ann.say("pusher:ping", &json!({})).await;
    loop {
        let said = ann.next().await;
        if said.event == "pusher:pong" {
            break;
        }
        assert_eq!((&*said.event, &said.data["code"]), ("pusher:error", &json!(4301)), "{said:?}");
        refused += 1;
    }
    assert!((10..=20).contains(&refused), "{refused} of 30");
    // another socket has an allowance of its own, and this one gets more
    bob.whisper("private-desk", "client-b", &json!(1)).await;
    assert_eq!(ann.next().await, PusherMessage::event("private-desk", "client-b", 1));
    crate::support::within("it may speak again", async {
        loop {
            ann.whisper("private-desk", "client-again", &json!(1)).await;
            ann.say("pusher:ping", &json!({})).await;
            match ann.next().await {
                said if said.event == "pusher:pong" => return,
                _ => assert_eq!(ann.next().await.event, "pusher:pong"),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn each_app_has_its_own() {
    let small = "client_events = true\nlimits = { event_data = \"16B\", channel_name = \"10B\", channels_per_event = 2, batch = 1, \
                 presence_members = 1, client_events = 1, event_name = 10 }";
    let large = "limits = { event_data = \"100KiB\", presence_members = 200 }";
    let server = Setup::keyed().toml(&DEMO.listed(small)).toml(&OTHER.listed(large)).start().await;
    let data = |bytes: usize| json!({ "data": "x".repeat(bytes) });
    for (app, fields, status) in [
        (DEMO, data(16), 200),
        (DEMO, data(17), 413),
        (OTHER, data(100 << 10), 200),
        (OTHER, data((100 << 10) + 1), 413),
        (DEMO, json!({ "channel": "0123456789" }), 200),
        (DEMO, json!({ "channel": "0123456789a" }), 400),
        (OTHER, json!({ "channel": "0123456789a" }), 200),
        (DEMO, json!({ "channels": ["a", "b"] }), 200),
        (DEMO, json!({ "channels": ["a", "b", "c"] }), 400),
        (OTHER, json!({ "channels": ["a", "b", "c"] }), 200),
        (DEMO, json!({ "name": "0123456789" }), 200),
        (DEMO, json!({ "name": "0123456789a" }), 400),
    ] {
        let reply = Api::of(&server, app).await.post("/events", &event(fields)).await;
        assert_eq!(reply.status, status, "{app:?}: {reply:?}");
    }
    let two = json!({ "batch": [event(json!({})), event(json!({}))] });
    assert_eq!(Api::of(&server, DEMO).await.post("/batch_events", &two).await.status, 400);
    assert_eq!(Api::of(&server, OTHER).await.post("/batch_events", &two).await.status, 200);
    for (app, second) in [(DEMO, false), (OTHER, true)] {
        let mut ann = PusherClient::connect(server.slave(), app).await;
        assert_eq!(ann.join("presence-a", "ann").await, ["ann"]);
        let mut bob = PusherClient::connect(server.slave(), app).await;
        bob.wish("presence-a", Some(&channel_data("bob"))).await;
        if second {
            assert!(joined(&bob.next().await, "presence-a").contains(&"bob".to_owned()));
        } else {
            assert_eq!(bob.barred("presence-a").await.0, 403);
        }
    }
}

#[tokio::test]
async fn of_an_activity_timeout() {
    let patient = DEMO.listed("limits = { activity_timeout = \"30s\" }");
    let server = Setup::keyed().toml(&patient).start().await;
    let mut socket = crate::support::websocket::WebSocket::open(server.slave(), &DEMO.path(), &[]).await.expect("101");
    assert_eq!(crate::support::pusher::said(&socket.text().await).inner()["activity_timeout"], 30);
}
