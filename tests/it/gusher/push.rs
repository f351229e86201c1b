//! The master's v1 rows that push and grant: what they answer, what arrives.

use serde_json::json;

use crate::support::{client::ReceivedEvent, quoted, server::Server};

#[tokio::test]
async fn a_channel_push_answers_with_what_is_delivered() {
    let server = Server::start().await;
    let mut ann = server.listener_on("demo", "ann", "news").await;
    let mut backend = server.backend().await;
    for (sent, delivered) in [
        ("hello", r#""hello""#),
        ("123", "123"),
        ("true", "true"),
        ("null", "null"),
        (r#""s""#, r#""s""#),
        (" {\"a\":1} \n", r#"{"a":1}"#),
        ("{a:1}", r#""{a:1}""#),
        ("12345678901234567890", "12345678901234567890"),
        ("1.0", "1.0"),
        ("-0.0e+10", "-0.0e+10"),
        (r#"{"z":1,"a":1.0,"z":12345678901234567890}"#, r#"{"z":1,"a":1.0,"z":12345678901234567890}"#),
        (r#"["<>&\u2028\/é","\ud83d\ude00"]"#, r#"["<>&\u2028\/é","\ud83d\ude00"]"#),
        ("<>&\u{2028}\"", &quoted("<>&\u{2028}\"")),
        ("中文 + %2F", r#""中文 + %2F""#),
    ] {
        let reply = backend.push("demo", "news", "hi", sent).await;
        let message = format!(r#"{{"channel":"news","event":"hi","data":{delivered}}}"#);
        assert_eq!(reply.text(), message);
        assert_eq!(reply.header("content-type"), Some("application/json;charset=UTF-8"));
        assert_eq!(ann.socket.text().await, message);
    }
}

#[tokio::test]
async fn json_nested_twenty_thousand_deep_is_json() {
    let server = Server::start().await;
    let mut ann = server.listener_on("demo", "ann", "news").await;
    let deep = "[".repeat(20_000) + &"]".repeat(20_000);
    server.backend().await.push("demo", "news", "hi", &deep).await;
    assert_eq!(ann.socket.text().await, format!(r#"{{"channel":"news","event":"hi","data":{deep}}}"#));
}

#[tokio::test]
async fn parameters_come_from_body_or_query_and_the_first_of_the_body_wins() {
    let server = Server::start().await;
    let mut backend = server.backend().await;
    let data = |reply: crate::support::http::Reply| reply.json()["data"].clone();
    let path = "/api/push/demo/news/hi";
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    assert_eq!(data(backend.http.call("POST", &format!("{path}?data=query"), &[], "").await), "query");
    assert_eq!(data(backend.http.call("POST", &format!("{path}?data=query"), &form, "data=body").await), "body");
    assert_eq!(data(backend.http.call("POST", path, &form, "data=1&data=2").await), 1);
    assert_eq!(data(backend.http.call("POST", path, &form, "x=y&data=a+b%2B").await), "a b+");
    let charset = [("Content-Type", "application/x-www-form-urlencoded; charset=UTF-8")];
    assert_eq!(data(backend.http.call("POST", path, &charset, "data=1").await), 1);
    let kind = [("Content-Type", "text/plain")];
    assert_eq!(backend.http.call("POST", path, &kind, "data=1").await.is(), (400, "empty data"));
}

#[tokio::test]
async fn v1_says_no_in_the_words_of_the_original() {
    let server = Server::start().await;
    let mut backend = server.backend().await;
    let pattern = |pattern, event, data| [("channel_pattern", pattern), ("event", event), ("data", data)];
    for (path, fields, why) in [
        ("/api/push/demo/news/hi", vec![], "empty data"),
        ("/api/push/demo/news/hi", vec![("data", "")], "empty data"),
        ("/api/push/demo", pattern("", "e", "1").to_vec(), "empty param"),
        ("/api/push/demo", pattern("a", "", "1").to_vec(), "empty param"),
        ("/api/push/demo", pattern("*", "e", "1").to_vec(), "channel_pattern cant regex"),
        ("/api/push/demo", pattern("*", "e", "").to_vec(), "channel_pattern cant regex"),
        ("/api/push/demo", pattern("a", "e", "").to_vec(), "empty data"),
        ("/api/push_batch/demo", vec![], "empty batch data"),
        ("/api/push_batch/demo", vec![("batch_data", "{")], "data error"),
        ("/api/push_batch/demo", vec![("batch_data", "{}")], "data error"),
        ("/api/push_batch/demo", vec![("batch_data", r#"[{"channel":1}]"#)], "data error"),
        ("/api/reload/channel/user/demo/ann", vec![("data", "x")], "data unmarshal error"),
        ("/api/reload/channel/user/demo/ann", vec![("data", "[1]")], "data unmarshal error"),
        ("/api/add/channel/user/demo/ann", vec![("data", "")], "data empty error"),
        ("/api/decode", vec![("data", "rubbish")], "data error"),
    ] {
        let reply = backend.form(path, &fields).await;
        assert_eq!(reply.is(), (400, why), "{path} {fields:?}");
        assert!(reply.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{reply:?}");
    }
    let wrong_method = backend.get("/api/push/demo/news/hi").await;
    assert_eq!(wrong_method.is(), (405, ""));
}

#[tokio::test]
async fn a_pattern_push_reaches_what_it_matches_each_under_its_own_name() {
    let server = Server::start().await;
    let mut ann = server.client("demo", "ann", &["*"]).await;
    for channel in ["AA", "Apple", "banana", "room-1", "room-2"] {
        ann = ann.subscribed(channel).await;
    }
    // a second socket on a channel does not count the channel twice
    let mut bob = server.listener_on("demo", "bob", "AA").await;
    let mut backend = server.backend().await;
    for (pattern, matched) in [
        ("A", &["AA", "Apple"][..]),
        ("^room-", &["room-1", "room-2"]),
        ("^banana$", &["banana"]),
        ("^room-[2-9]$", &["room-2"]),
        ("(?i)^a", &["AA", "Apple"]),
        ("^AA$", &["AA"]),
        ("an{1}a", &["banana"]),
        ("(a+)+$", &["banana"]),
        ("nothing", &[]),
    ] {
        let form = [("channel_pattern", pattern), ("event", "hi"), ("data", "1.0")];
        let reply = backend.accepted("/api/push/demo", &form).await;
        assert_eq!(reply.text(), format!(r#"{{"total":{},"pattern":{}}}"#, matched.len(), quoted(pattern)));
        let mut got = Vec::new();
        for _ in matched {
            let ReceivedEvent { channel, event, data } = ann.next_event().await;
            assert_eq!((event.as_str(), data.as_str()), ("hi", "1.0"));
            got.push(channel);
        }
        got.sort();
        assert_eq!(got, matched, "{pattern}");
        if matched.contains(&"AA") {
            assert_eq!(bob.next_event().await, ReceivedEvent::new("AA", "hi", "1.0"));
        }
    }
    assert_eq!(backend.push_matching("nobody-here", ".", "hi", "1").await, 0);
}

#[tokio::test]
async fn a_batch_is_delivered_in_its_order() {
    let server = Server::start().await;
    let mut ann = server.client("demo", "ann", &["*"]).await.subscribed("a").await.subscribed("b").await;
    let mut backend = server.backend().await;
    let items = r#"[{"channel":"a","event":"x","data":1.0},{"EVENT":"y","Channel":"a","extra":[],"data":{"z":1,"a":2}},{"channel":"a"}]"#;
    let reply = backend.accepted("/api/push_batch/demo", &[("batch_data", items)]).await;
    assert_eq!(reply.text(), format!(r#"{{"total":3,"cap":{}}}"#, items.len()));
    assert_eq!(ann.next_event().await, ReceivedEvent::new("a", "x", "1.0"));
    assert_eq!(ann.next_event().await, ReceivedEvent::new("a", "y", r#"{"z":1,"a":2}"#));
    assert_eq!(ann.next_event().await, ReceivedEvent::new("a", "", "null"));
    for (nothing, cap) in [("[]", 2), ("null", 4), (" [] ", 4)] {
        let reply = backend.accepted("/api/push_batch/demo", &[("batch_data", nothing)]).await;
        assert_eq!(reply.text(), format!(r#"{{"total":0,"cap":{cap}}}"#));
    }
}

#[tokio::test]
async fn one_bad_element_rejects_the_whole_batch() {
    let server = Server::start().await;
    let mut ann = server.listener_on("demo", "ann", "a").await;
    let mut backend = server.backend().await;
    let long = quoted(&"x".repeat(1_025));
    for bad in [
        r#"{"channel":1}"#,
        r#"{"channel":"a","event":[]}"#,
        "7",
        r#""text""#,
        "{",
        &format!(r#"{{"channel":{long},"event":"e"}}"#),
        &format!(r#"{{"channel":"a","event":{long}}}"#),
    ] {
        let items = format!(r#"[{{"channel":"a","event":"e","data":1}},{bad}]"#);
        assert_eq!(backend.form("/api/push_batch/demo", &[("batch_data", &items)]).await.is(), (400, "data error"));
        let reply = backend.json("POST", "/v1/apps/demo/messages/batch", &items).await;
        assert_eq!(reply.status, 400, "{items}");
    }
    backend.push("demo", "a", "after", "1").await;
    assert_eq!(ann.next_event().await.event, "after", "nothing of them was sent");
}

#[tokio::test]
async fn a_user_push_and_a_socket_push_are_the_bare_value() {
    let server = Server::start().await;
    let mut one = server.client("demo", "ann", &[]).await;
    let mut two = server.client("demo", "ann", &["*"]).await.subscribed("news").await;
    let mut bob = server.client("demo", "bob", &["*"]).await;
    let mut backend = server.backend().await;
    for (sent, delivered) in
        [(r#"{"k":1.0}"#, r#"{"k":1.0}"#), ("hello", r#""hello""#), ("", r#""""#), (r#"["gg","ff"]"#, r#"["gg","ff"]"#)]
    {
        let reply = backend.push_to_user("demo", "ann", sent).await;
        assert_eq!(reply.text(), format!(r#"{{"user_id":"ann","data":{}}}"#, quoted(sent)));
        assert_eq!(one.socket.text().await, delivered);
        assert_eq!(two.socket.text().await, delivered);
    }
    let missing = backend.accepted("/api/push/user/demo/ann", &[]).await;
    assert_eq!(missing.text(), r#"{"user_id":"ann","data":""}"#);
    assert_eq!(one.socket.text().await, r#""""#);
    assert_eq!(two.socket.text().await, r#""""#);

    let (id, other) = (two.id().await, bob.id().await);
    let reply = backend.push_to_socket("demo", &id, r#"{"only":"you"}"#).await;
    assert_eq!(reply.text(), format!(r#"{{"socket_id":"{id}","data":"{{\"only\":\"you\"}}"}}"#));
    assert_eq!(two.socket.text().await, r#"{"only":"you"}"#);
    backend.push_to_socket("demo", &other, "1").await;
    assert_eq!(bob.socket.text().await, "1", "the others heard nothing of it");
    backend.push_to_user("demo", "ann", "2").await;
    assert_eq!(one.socket.text().await, "2");

    for unknown in ["nobody", "00000000-0000-8000-8000-000000000000", "x", "中文"] {
        backend.push_to_user("demo", unknown, "1").await;
        backend.push_to_socket("demo", unknown, "1").await;
        backend.push("demo", unknown, "e", "1").await;
        backend.push(unknown, "news", "e", "1").await;
    }
}

#[tokio::test]
async fn a_socket_id_cannot_be_guessed_from_another() {
    let server = Server::start().await;
    let mut ann = server.client("demo", "ann", &["*"]).await;
    let id = ann.id().await;
    let mut backend = server.backend().await;
    for at in (0..id.len()).filter(|at| id.as_bytes()[*at] != b'-') {
        let mut forged = id.clone().into_bytes();
        forged[at] = if forged[at] == b'0' { b'1' } else { b'0' };
        let forged = String::from_utf8(forged).expect("ASCII");
        backend.push_to_socket("demo", &forged, "1").await;
    }
    backend.push_to_socket("demo", &id, "2").await;
    assert_eq!(ann.socket.text().await, "2");
}

#[tokio::test]
async fn reload_replaces_what_a_user_may_and_keeps_what_it_still_may() {
    let server = Server::start().await;
    let mut ann = server.client("demo", "ann", &["*"]).await;
    for channel in ["gg", "room-1", "room-2", "gone"] {
        ann = ann.subscribed(channel).await;
    }
    let mut other = server.client("demo", "ann", &["x"]).await;
    let mut backend = server.backend().await;
    let sent = r#"["gg","room-*"]"#;
    let reply = backend.accepted("/api/reload/channel/user/demo/ann", &[("data", sent)]).await;
    assert_eq!(reply.text(), r#"{"user_id":"ann","data":"[\"gg\",\"room-*\"]"}"#);
    for client in [&mut ann, &mut other] {
        let told: serde_json::Value = serde_json::from_str(&client.socket.text().await).expect("JSON");
        let wanted =
            json!({ "event": "gusher.reloadchannel", "socket_id": "", "data": { "channels": ["gg", "room-*"] } });
        assert_eq!(told, wanted);
    }
    assert_eq!(backend.names("/api/demo/channels").await, ["gg", "room-1", "room-2"]);
    for (channel, data) in [("gone", "0"), ("room-2", "1"), ("gg", "2")] {
        backend.push("demo", channel, "e", data).await;
    }
    assert_eq!(ann.next_event().await, ReceivedEvent::new("room-2", "e", "1"));
    assert_eq!(ann.next_event().await, ReceivedEvent::new("gg", "e", "2"));
    assert_eq!(ann.subscribe("gone").await, "gusher.subscribe_error");
    assert_eq!(other.subscribe("x").await, "gusher.subscribe_error");
    assert_eq!(other.subscribe("room-9").await, "gusher.subscribe_succeeded");
    other.say("gusher.querychannel", "0").await;
    assert_eq!(other.reply().await.1, json!({ "channels": ["gg", "room-*"] }));

    // later sockets go by their JWT
    let mut later = server.client("demo", "ann", &["*"]).await;
    assert_eq!(later.subscribe("gone").await, "gusher.subscribe_succeeded");

    backend.accepted("/api/reload/channel/user/demo/ann", &[("data", "null")]).await;
    assert!(ann.socket.text().await.contains("gusher.reloadchannel"));
    assert!(backend.names("/api/demo/channels").await.is_empty());
    assert_eq!(ann.unsubscribe("gg").await, "gusher.unsubscribe_error", "neither on it nor permitted");
}

#[tokio::test]
async fn add_permits_one_more_pattern_and_joins_nothing() {
    let server = Server::start().await;
    let mut ann = server.client("demo", "ann", &["news"]).await;
    let mut backend = server.backend().await;
    let told = |channel| format!(r#"{{"event":"gusher.addchannel","socket_id":"","data":{{"channel":"{channel}"}}}}"#);
    for channel in ["aa", "aa", "room-*"] {
        let reply = backend.accepted("/api/add/channel/user/demo/ann", &[("data", channel)]).await;
        assert_eq!(reply.text(), format!(r#"{{"user_id":"ann","data":"{channel}"}}"#));
        let heard: serde_json::Value = serde_json::from_str(&ann.socket.text().await).expect("JSON");
        assert_eq!(heard, serde_json::from_str::<serde_json::Value>(&told(channel)).expect("JSON"));
    }
    assert!(backend.names("/api/demo/channels").await.is_empty());
    ann.say("gusher.querychannel", "0").await;
    assert_eq!(ann.reply().await.1, json!({ "channels": ["news", "aa", "room-*"] }));
    assert_eq!(ann.subscribe("aa").await, "gusher.subscribe_succeeded");
    assert_eq!(ann.subscribe("room-7").await, "gusher.subscribe_succeeded");
    assert_eq!(ann.subscribe("other").await, "gusher.subscribe_error");
}

#[tokio::test]
async fn one_may_always_leave_what_one_is_on() {
    let server = Server::start().await;
    let mut ann = server.listener_on("demo", "ann", "literal*").await;
    let mut backend = server.backend().await;
    // "literal*" the pattern allows "literal*" the name
    backend.accepted("/api/reload/channel/user/demo/ann", &[("data", r#"["literal*"]"#)]).await;
    assert!(ann.socket.text().await.contains("gusher.reloadchannel"));
    assert_eq!(ann.unsubscribe("literal*").await, "gusher.unsubscribe_succeeded");
}
