//! The WebSocket protocol: commands, their replies, and the order of these.

use serde_json::json;

use crate::support::{
    client::command,
    keys::now,
    quoted,
    server::{Server, Setup},
    until,
    websocket::{PING, PONG},
    within,
};

#[tokio::test]
async fn a_ping_is_answered_with_what_it_carried() {
    let server = Server::start().await;
    let mut ann = server.client("demo", "ann", &["*"]).await;
    let id = ann.id().await;
    let groups: Vec<_> = id.split('-').map(str::len).collect();
    assert_eq!(groups, [8, 4, 4, 4, 12], "{id} is a UUID");
    assert_eq!(id, id.to_lowercase());
    assert_eq!(id.as_bytes()[14], b'8', "version 8: {id}");
    for data in ["1", r#""x""#, r#"{"b":[1.0,null],"a":12345678901234567890}"#, "null", r#""\u4e2d\"""#] {
        let reply = ann.ask("gusher.ping", data).await;
        let start = format!(r#"{{"event":"gusher.pong_succeeded","socket_id":"{id}","data":{data},"time":"#);
        let time = reply.strip_prefix(&start).unwrap_or_else(|| panic!("{reply}")).trim_end_matches('}');
        assert!(time.parse::<u64>().expect("seconds").abs_diff(now()) < 60, "{reply}");
    }
    let mut bob = server.client("demo", "ann", &["*"]).await;
    assert_ne!(bob.id().await, id);
}

#[tokio::test]
async fn each_command_is_answered_in_its_exact_words() {
    let server = Server::start().await;
    let mut ann = server.client("demo", "ann", &["news", "room-*"]).await;
    let id = ann.id().await;
    for (event, data, reply, told) in [
        ("gusher.subscribe", r#"{"channel":"news"}"#, "gusher.subscribe_succeeded", r#"{"channel":"news"}"#),
        // again: it stays as it is
        ("gusher.subscribe", r#"{"channel":"news"}"#, "gusher.subscribe_succeeded", r#"{"channel":"news"}"#),
        ("gusher.subscribe", r#"{"channel":"secret"}"#, "gusher.subscribe_error", r#"{"channel":"secret"}"#),
        ("gusher.subscribe", r#"{"channel":""}"#, "gusher.subscribe_error", r#"{"channel":""}"#),
        (
            "gusher.multi_subscribe",
            r#"{"multi_channel":["room-2","news","room-1"]}"#,
            "gusher.multi_subscribe_succeeded",
            r#"{"channel":["room-2","news","room-1"]}"#,
        ),
        (
            "gusher.multi_subscribe",
            r#"{"multi_channel":["room-3","secret"]}"#,
            "gusher.multi_subscribe_error",
            r#"{"channel":["room-3","secret"]}"#,
        ),
        ("gusher.multi_subscribe", r#"{"multi_channel":[]}"#, "gusher.multi_subscribe_error", r#"{"channel":[]}"#),
        ("gusher.multi_subscribe", "{}", "gusher.multi_subscribe_error", r#"{"channel":[]}"#),
        ("gusher.multi_subscribe", r#"{"multi_channel":"news"}"#, "gusher.multi_subscribe_error", r#"{"channel":[]}"#),
        (
            "gusher.multi_subscribe",
            r#"{"multi_channel":["room-\u4e2d","room-\""]}"#,
            "gusher.multi_subscribe_succeeded",
            r#"{"channel":["room-中","room-\""]}"#,
        ),
        ("gusher.unsubscribe", r#"{"channel":"news"}"#, "gusher.unsubscribe_succeeded", r#"{"channel":"news"}"#),
        // permitted, and not on it
        ("gusher.unsubscribe", r#"{"channel":"news"}"#, "gusher.unsubscribe_succeeded", r#"{"channel":"news"}"#),
        ("gusher.unsubscribe", r#"{"channel":"secret"}"#, "gusher.unsubscribe_error", r#"{"channel":"secret"}"#),
        ("gusher.querychannel", "0", "gusher.querychannel_succeeded", r#"{"channels":["news","room-*"]}"#),
        (
            "gusher.remote",
            r#"{"remote":"cmd","uid":"x","payload":{"a":1}}"#,
            "gusher.remote_error",
            r#"{"remote":"cmd","msg":null}"#,
        ),
    ] {
        let wanted = format!(r#"{{"event":"{reply}","socket_id":"{id}","data":{told}}}"#);
        assert_eq!(ann.ask(event, data).await, wanted, "{event} {data}");
    }
}

#[tokio::test]
async fn the_list_of_grants_is_never_null() {
    let server = Server::start().await;
    let mut nobody = server.client("demo", "", &[]).await;
    nobody.say("gusher.querychannel", "{}").await;
    assert_eq!(nobody.reply().await, ("gusher.querychannel_succeeded".to_owned(), json!({ "channels": [] })));
    assert_eq!(nobody.subscribe("news").await, "gusher.subscribe_error");
}

#[tokio::test]
async fn a_channel_asked_for_twice_is_joined_once() {
    let server = Server::start().await;
    let mut ann = server.client("demo", "ann", &["*"]).await;
    ann.say("gusher.multi_subscribe", r#"{"multi_channel":["a","b","a"]}"#).await;
    let (event, data) = ann.reply().await;
    assert_eq!((event.as_str(), data), ("gusher.multi_subscribe_succeeded", json!({ "channel": ["a", "b", "a"] })));
    server.metric_becomes("wellhead_subscriptions", "", 2.0).await;
    let mut backend = server.backend().await;
    backend.push("demo", "a", "e", "1").await;
    backend.push("demo", "b", "e", "2").await;
    assert_eq!(ann.next_event().await.data, "1");
    assert_eq!(ann.next_event().await.data, "2", "the first came once");
    assert_eq!(ann.unsubscribe("a").await, "gusher.unsubscribe_succeeded");
    assert_eq!(backend.names("/api/demo/channels").await, ["b"]);
}

#[tokio::test]
async fn a_thousand_subscriptions_are_the_limit_unless_set() {
    let server = Server::start().await;
    let mut ann = server.client("demo", "ann", &["*"]).await;
    let names: Vec<_> = (0..1_000).map(|number| format!("\"c{number}\"")).collect();
    ann.say("gusher.multi_subscribe", &format!(r#"{{"multi_channel":[{}]}}"#, names.join(","))).await;
    assert_eq!(ann.reply().await.0, "gusher.multi_subscribe_succeeded");
    assert_eq!(ann.subscribe("one-more").await, "gusher.subscribe_error");
    assert_eq!(server.backend().await.ask("/api/demo/channels/count").await["count"], 1_000);
}

#[tokio::test]
async fn all_or_nothing_means_nothing() {
    let server = Server::start().await;
    let mut ann = server.client("demo", "ann", &["a", "b"]).await;
    ann.say("gusher.multi_subscribe", r#"{"multi_channel":["a","c","b"]}"#).await;
    assert_eq!(ann.reply().await.0, "gusher.multi_subscribe_error");
    assert!(server.backend().await.names("/api/demo/channels").await.is_empty());
}

#[tokio::test]
async fn a_star_stands_for_one_or_more_characters_in_every_command() {
    let server = Server::start().await;
    for (entry, allowed, refused) in [
        ("t*st", &["test", "toast", "t*st", "t中st"][..], &["tst", "Test", "test2", "atest", "t\nst"][..]),
        ("app*", &["apple", "app*", "app-"], &["app", "anapple", "app\n"]),
        ("*mid*", &["amidb"], &["mid", "amid", "midb"]),
        ("a*b*c", &["a1b2c"], &["abc", "a1bc"]),
        ("*", &["anything", "*", "two\nlines"], &[""]),
        ("a.c", &["a.c"], &["abc"]),
    ] {
        let mut ann = server.client("demo", "ann", &[entry]).await;
        for (channels, ending) in [(allowed, "succeeded"), (refused, "error")] {
            for channel in channels {
                let one = format!(r#"{{"channel":{}}}"#, quoted(channel));
                let many = format!(r#"{{"multi_channel":[{}]}}"#, quoted(channel));
                for (command, data) in [("subscribe", &one), ("multi_subscribe", &many), ("unsubscribe", &one)] {
                    ann.say(&format!("gusher.{command}"), data).await;
                    let (told, _) = ann.reply().await;
                    assert_eq!(told, format!("gusher.{command}_{ending}"), "{entry:?} and {channel:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_pattern_of_many_stars_costs_nothing() {
    let server = Server::start().await;
    let pattern = "*a".repeat(400) + "*b";
    let mut ann = server.client("demo", "ann", &[&pattern]).await;
    let started = std::time::Instant::now();
    assert_eq!(ann.subscribe(&"a".repeat(1_024)).await, "gusher.subscribe_error");
    assert_eq!(ann.subscribe(&("a".repeat(1_000) + "bb")).await, "gusher.subscribe_succeeded");
    assert!(started.elapsed().as_secs() < 3, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_wildcard_is_a_permission_and_no_subscription() {
    let server = Server::start().await;
    let mut ann = server.client("demo", "ann", &["*"]).await.subscribed("app*").await.subscribed("*").await;
    let mut backend = server.backend().await;
    backend.push("demo", "apple", "e", "1").await;
    backend.push("demo", "app*", "e", "2").await;
    backend.push("demo", "*", "e", "3").await;
    assert_eq!(ann.next_event().await.data, "2");
    assert_eq!(ann.next_event().await.data, "3");
}

#[tokio::test]
async fn commands_in_one_write_are_answered_in_their_order() {
    let server = Server::start().await;
    let mut ann = server.client("demo", "ann", &["*"]).await;
    let mut bytes = Vec::new();
    let mut wanted = Vec::new();
    for round in 0..100 {
        for (event, data, reply) in [
            ("gusher.subscribe", format!(r#"{{"channel":"c{round}"}}"#), "gusher.subscribe_succeeded"),
            ("gusher.ping", format!(r#"{{"channel":"c{round}"}}"#), "gusher.pong_succeeded"),
            ("gusher.subscribe", r#"{"channel":""}"#.to_owned(), "gusher.subscribe_error"),
            ("gusher.multi_subscribe", r#"{"multi_channel":["x","y"]}"#.to_owned(), "gusher.multi_subscribe_succeeded"),
            ("gusher.unsubscribe", format!(r#"{{"channel":"c{round}"}}"#), "gusher.unsubscribe_succeeded"),
        ] {
            bytes.extend(crate::support::websocket::frame(1, command(event, &data).as_bytes()));
            let data = data.replace("multi_channel", "channel");
            wanted.push((reply.to_owned(), serde_json::from_str::<serde_json::Value>(&data).expect("JSON")));
        }
    }
    ann.socket.send_bytes(&bytes).await.expect("it is open");
    for wanted in wanted {
        assert_eq!(ann.reply().await, wanted);
    }
}

#[tokio::test]
async fn a_message_may_come_in_fragments_with_control_frames_between() {
    use crate::support::websocket::{CONTINUATION, frame, raw};
    let server = Server::start().await;
    let mut ann = server.client("demo", "ann", &["*"]).await;
    let text = command("gusher.subscribe", r#"{"channel":"中文"}"#);
    // one byte a frame: characters are split, too
    let mut bytes = Vec::new();
    for (at, byte) in text.bytes().enumerate() {
        let last = if at + 1 == text.len() { 0x80 } else { 0 };
        bytes.extend(raw(last | if at == 0 { 1 } else { CONTINUATION }, &[byte]));
        if at == 5 {
            bytes.extend(frame(PING, b"between"));
        }
    }
    ann.socket.send_bytes(&bytes).await.expect("it is open");
    assert_eq!(ann.socket.frame().await.map(|frame| (frame.opcode, frame.payload)), Some((PONG, b"between".to_vec())));
    assert_eq!(ann.reply().await, ("gusher.subscribe_succeeded".to_owned(), json!({ "channel": "中文" })));
}

#[tokio::test]
async fn a_message_of_64_kib_is_heard_and_the_limit_can_be_set() {
    let server = Server::start().await;
    let mut ann = server.client("demo", "ann", &["*"]).await;
    let room = (64 << 10) - command("gusher.ping", r#""""#).len();
    let data = quoted(&"x".repeat(room));
    assert!(ann.ask("gusher.ping", &data).await.contains(&data));

    let server = Setup::keyed().set("limits.message", "512B").start().await;
    let mut ann = server.client("demo", "ann", &["*"]).await;
    let room = 512 - command("gusher.ping", r#""""#).len();
    assert!(ann.ask("gusher.ping", &quoted(&"x".repeat(room))).await.contains("pong_succeeded"));
    ann.say("gusher.ping", &quoted(&"x".repeat(room + 1))).await;
    assert_eq!(ann.closed().await.code, 1009);
}

#[tokio::test]
async fn a_socket_holds_so_many_subscriptions_and_no_more() {
    let server = Setup::keyed().set("limits.subscriptions", "3").start().await;
    let mut ann = server.client("demo", "ann", &["*"]).await;
    for channel in ["a", "b", "c", "a"] {
        assert_eq!(ann.subscribe(channel).await, "gusher.subscribe_succeeded");
    }
    assert_eq!(ann.subscribe("d").await, "gusher.subscribe_error");
    ann.say("gusher.multi_subscribe", r#"{"multi_channel":["a","d"]}"#).await;
    assert_eq!(ann.reply().await.0, "gusher.multi_subscribe_error");
    assert_eq!(ann.unsubscribe("a").await, "gusher.unsubscribe_succeeded");
    assert_eq!(ann.subscribe("d").await, "gusher.subscribe_succeeded");
}

#[tokio::test]
async fn the_server_pings_keeps_who_answers_and_closes_who_does_not() {
    let server = Setup::keyed().set("slave.ping_interval", "200ms").set("slave.pong_timeout", "400ms").start().await;
    // no subscription: it is not closed early for that
    let mut alive = server.client("demo", "ann", &["*"]).await;
    let mut dead = server.client("demo", "bob", &["*"]).await;
    within("pings", async {
        while alive.socket.pings < 10 {
            if let Some(crate::support::websocket::ReceivedFrame { opcode: PING, payload }) = alive.socket.frame().await
            {
                assert!(payload.is_empty(), "as in the original");
                alive.socket.send(PONG, &payload).await;
                alive.socket.pings += 1;
            }
        }
    })
    .await;
    until("the dead one is gone", vec!["ann".to_owned()], || async {
        server.backend().await.names("/api/demo/online").await
    })
    .await;
    let close = within("a close frame", async {
        loop {
            match dead.socket.frame().await {
                Some(frame) if frame.opcode == PING => {}
                Some(frame) => break crate::support::websocket::Close::from(frame.payload.as_slice()),
                None => panic!("no close frame"),
            }
        }
    });
    assert_eq!(close.await.code, 1008);
    server.metric_becomes("wellhead_connections_closed_total", "pong_timeout", 1.0).await;
}

#[tokio::test]
async fn an_idle_socket_is_closed_only_if_the_operator_says_so() {
    let server = Setup::keyed().set("slave.idle_timeout", "500ms").set("slave.ping_interval", "100ms").start().await;
    let mut idle = server.client("demo", "ann", &["*"]).await;
    let mut busy = server.listener_on("demo", "bob", "news").await;
    let close = idle.closed().await;
    assert_eq!((close.code, close.reason.as_str()), (1008, "idle"));
    server.backend().await.push("demo", "news", "e", "1").await;
    assert_eq!(busy.next_event().await.data, "1");
}
