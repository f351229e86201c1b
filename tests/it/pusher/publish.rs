//! What the HTTP API does and answers: events, batches, queries, and its words for what is wrong.

use serde_json::{Value, json};

use crate::support::{
    pusher::{Api, DEMO, PusherClient, PusherMessage, setup},
    quoted, until,
};

#[tokio::test]
async fn data_arrives_byte_for_byte() {
    let server = setup().start().await;
    let mut ann = PusherClient::connect(server.slave(), DEMO).await.subscribed("news").await;
    let mut api = Api::of(&server, DEMO).await;
    for data in [
        "",
        "plain text",
        r#"{"n":1}"#,
        r#"{ "b" : 12345678901234567890.10 , "a":"\u00e9" }"#,
        "null",
        "\"",
        "\\",
        "\u{0}\u{1f}\u{7f}\n\r\t",
        "\u{2028}\u{fffd}🎉",
        "</script>",
    ] {
        api.trigger("news", "e", data).await;
        assert_eq!(ann.next().await, PusherMessage::event("news", "e", data));
    }
    // any characters in a name, as Laravel's
    for name in ["App\\Events\\OrderShipped", ".custom", "a b", "ä", "client-like", "pusher:like", "\"", "\n"] {
        api.trigger("news", name, "1").await;
        assert_eq!(ann.next().await, PusherMessage::event("news", name, "1"));
    }
}

#[tokio::test]
async fn one_event_to_several_channels_comes_once_on_each() {
    let server = setup().start().await;
    let mut ann = PusherClient::connect(server.slave(), DEMO).await.subscribed("a").await.subscribed("b").await;
    let mut bob = PusherClient::connect(server.slave(), DEMO).await.subscribed("b").await;
    let mut api = Api::of(&server, DEMO).await;
    let body = json!({ "name": "e", "channels": ["a", "b", "a", "c", "b"], "data": "1", "info": "subscription_count,user_count" });
    let reply = api.post("/events", &body).await;
    let wanted = json!({ "channels": { "a": { "subscription_count": 1 }, "b": { "subscription_count": 2 }, "c": { "subscription_count": 0 } } });
    assert_eq!((reply.status, reply.json()), (200, wanted));
    assert_eq!(ann.next().await, PusherMessage::event("a", "e", "1"));
    assert_eq!(ann.next().await, PusherMessage::event("b", "e", "1"));
    assert_eq!(bob.next().await, PusherMessage::event("b", "e", "1"));
    ann.is_quiet().await;
    bob.is_quiet().await;
}

#[tokio::test]
async fn a_batch_is_all_or_nothing_and_in_order() {
    let server = setup().start().await;
    let mut ann = PusherClient::connect(server.slave(), DEMO).await.subscribed("a").await.subscribed("b").await;
    let mut api = Api::of(&server, DEMO).await;
    let event = |channel: &str, n: usize| json!({ "name": "e", "channel": channel, "data": n.to_string() });
    for bad in [
        json!({ "name": "e", "channel": "bad name", "data": "1" }),
        json!({ "name": "e", "channel": "a" }),
        json!({ "channel": "a", "data": "1" }),
        json!({ "name": "e", "channel": "a", "data": { "raw": true } }),
        json!({ "name": "e", "channel": "a", "data": "1", "socket_id": "me" }),
        json!(null),
        json!([]),
    ] {
        let reply = api.post("/batch_events", &json!({ "batch": [event("a", 1), bad, event("b", 2)] })).await;
        assert_eq!(reply.status, 400, "{bad}: {reply:?}");
        assert!(reply.text().contains("Event 2 of the batch"), "{reply:?}");
    }
    let large = json!({ "name": "e", "channel": "a", "data": "x".repeat(10_241) });
    assert_eq!(api.post("/batch_events", &json!({ "batch": [event("a", 1), large] })).await.status, 413);
    ann.is_quiet().await;

    let batch: Vec<_> = (0..10).map(|n| event(["a", "b"][n % 2], n)).collect();
    assert_eq!(api.post("/batch_events", &json!({ "batch": batch })).await.is(), (200, "{}"));
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        let said = ann.next().await;
        let n: usize = said.data.as_str().expect("text").parse().expect("a number");
        if said.channel.as_deref() == Some("a") { a.push(n) } else { b.push(n) }
    }
    assert_eq!((a, b), (vec![0, 2, 4, 6, 8], vec![1, 3, 5, 7, 9]));
    assert_eq!(api.post("/batch_events", &json!({ "batch": [] })).await.is(), (200, "{}"));
    let mut asking = event("a", 1);
    asking["info"] = "subscription_count".into();
    let reply = api.post("/batch_events", &json!({ "batch": [event("b", 0), asking] })).await;
    assert_eq!(reply.is(), (200, r#"{"batch":[{},{"subscription_count":1}]}"#));
}

#[tokio::test]
async fn one_socket_can_be_left_out() {
    let server = setup().start().await;
    let mut ann = PusherClient::connect(server.slave(), DEMO).await.subscribed("a").await;
    let mut bob = PusherClient::connect(server.slave(), DEMO).await.subscribed("a").await;
    let mut api = Api::of(&server, DEMO).await;
    for (id, reach_ann) in [(json!(ann.id), false), (json!("123.456"), true), (json!("0.0"), true), (Value::Null, true)]
    {
        let body = json!({ "name": "e", "channel": "a", "data": "1", "socket_id": id });
        assert_eq!(api.post("/events", &body).await.is(), (200, "{}"), "{id}");
        assert_eq!(bob.next().await, PusherMessage::event("a", "e", "1"));
        if reach_ann {
            assert_eq!(ann.next().await, PusherMessage::event("a", "e", "1"), "{id}");
        }
        ann.is_quiet().await;
    }
    for id in ["", "1", ".", "1.", ".1", "a.b", "1.2.3", "-1.2", " 1.2", "1.2\n", "١.٢"] {
        let body = json!({ "name": "e", "channel": "a", "data": "1", "socket_id": id });
        let reply = api.post("/events", &body).await;
        assert_eq!((reply.status, reply.text().starts_with("Invalid socket id")), (400, true), "{id:?}: {reply:?}");
    }
    let body = json!({ "name": "e", "channel": "a", "data": "1", "socket_id": 1.5 });
    assert_eq!(api.post("/events", &body).await.status, 400);
    bob.is_quiet().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_body_is_said_in_plain_text() {
    let server = setup().start().await;
    let mut api = Api::of(&server, DEMO).await;
    for body in [
        "",
        "{",
        "[]",
        "null",
        "hello",
        "{}",
        r#"{"name":"e"}"#,
        r#"{"name":"e","data":"1"}"#,
        r#"{"name":"e","channel":"a"}"#,
        r#"{"name":"e","channel":"a","data":null}"#,
        r#"{"name":"e","channel":"a","data":1}"#,
        r#"{"name":"e","channel":"a","data":{"raw":"object"}}"#,
        r#"{"channel":"a","data":"1"}"#,
        r#"{"name":"","channel":"a","data":"1"}"#,
        r#"{"name":null,"channel":"a","data":"1"}"#,
        r#"{"name":7,"channel":"a","data":"1"}"#,
        r#"{"name":"e","channel":"","data":"1"}"#,
        r#"{"name":"e","channel":7,"data":"1"}"#,
        r#"{"name":"e","channels":[],"data":"1"}"#,
        r#"{"name":"e","channels":"a","data":"1"}"#,
        r#"{"name":"e","channels":{"a":1},"data":"1"}"#,
        r#"{"name":"e","channels":["a",7],"data":"1"}"#,
        r#"{"name":"e","channels":["a",null],"data":"1"}"#,
        r##"{"name":"e","channels":["a","#b"],"data":"1"}"##,
        r#"{"name":"e","channel":"a b","data":"1"}"#,
        r#"{"name":"e","channel":"ä","data":"1"}"#,
        r#"{"name":"e","channel":"a/b","data":"1"}"#,
        r#"{"name":"e","channel":"a:b","data":"1"}"#,
        r#"{"name":"e","channel":"a","data":"\ud800"}"#,
        r#"{"name":"e","channel":"a","data":"1"} trailing"#,
    ] {
        let reply = api.call("POST", "/events", &[], body).await;
        assert_eq!(reply.status, 400, "{body}: {reply:?}");
        assert!(reply.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{reply:?}");
        assert!(!reply.text().is_empty(), "{body}");
    }
    let deep = format!(r#"{{"name":"e","channel":"a","data":{}1{}}}"#, "[".repeat(50_000), "]".repeat(50_000));
    assert_eq!(api.call("POST", "/events", &[], &deep).await.status, 400);
    let invalid = api.http.request("POST", "/apps/17/events?x", &[], "{\"name\":\"\u{1}\"}");
    assert_eq!(api.http.exchange(invalid.as_bytes()).await.status, 401);
    for body in ["{}", r#"{"batch":{}}"#, r#"{"batch":null}"#, r#"{"batch":"x"}"#, "[]"] {
        assert_eq!(api.call("POST", "/batch_events", &[], body).await.status, 400, "{body}");
    }
    // what nobody asked for is ignored
    let reply =
        api.call("POST", "/events", &[], r#"{"name":"e","channel":"a","data":"1","more":{"x":[1]},"tags":null}"#).await;
    assert_eq!(reply.is(), (200, "{}"));
    assert_eq!(api.get("/events", &[]).await.status, 405);
    assert_eq!(api.get("/nothing", &[]).await.status, 404);
}

#[tokio::test]
async fn queries_say_how_it_stands() {
    let server = setup().start().await;
    let mut ann = PusherClient::connect(server.slave(), DEMO).await.subscribed("news").await;
    ann.join("presence-a", "ann").await;
    let mut bob = PusherClient::connect(server.slave(), DEMO).await;
    bob.join("presence-a", "ann").await;
    bob.join("presence-b", "bob").await;
    let mut api = Api::of(&server, DEMO).await;

    let all = json!({ "channels": { "news": {}, "presence-a": {}, "presence-b": {} } });
    assert_eq!(api.ask("/channels", &[]).await, all);
    let some = json!({ "channels": { "presence-a": {}, "presence-b": {} } });
    assert_eq!(api.ask("/channels", &[("filter_by_prefix", "presence-")]).await, some);
    assert_eq!(api.ask("/channels", &[("filter_by_prefix", "nothing")]).await, json!({ "channels": {} }));
    let counted = [("filter_by_prefix", "presence-a"), ("info", "user_count,subscription_count")];
    let wanted = json!({ "channels": { "presence-a": { "user_count": 1, "subscription_count": 2 } } });
    assert_eq!(api.ask("/channels", &counted).await, wanted);
    for params in [&[("info", "user_count")][..], &[("info", "user_count"), ("filter_by_prefix", "presence")]] {
        let reply = api.get("/channels", params).await;
        assert_eq!((reply.status, reply.text().contains("user_count")), (400, true), "{reply:?}");
    }

    let both = [("info", "user_count,subscription_count")];
    let wanted = json!({ "occupied": true, "user_count": 1, "subscription_count": 2 });
    assert_eq!(api.ask("/channels/presence-a", &both).await, wanted);
    assert_eq!(api.ask("/channels/news", &[("info", "subscription_count")]).await["subscription_count"], 1);
    assert_eq!(api.ask("/channels/nobody", &[]).await, json!({ "occupied": false }));
    assert_eq!(api.ask("/channels/presence-nobody", &both).await["user_count"], 0);
    assert_eq!(api.get("/channels/news", &both).await.status, 400);
    assert_eq!(api.get("/channels/news", &[("info", "cache")]).await.status, 400);

    assert_eq!(api.ask("/channels/presence-a/users", &[]).await, json!({ "users": [{ "id": "ann" }] }));
    assert_eq!(api.ask("/channels/presence-nobody/users", &[]).await, json!({ "users": [] }));
    assert_eq!(api.get("/channels/news/users", &[]).await.status, 400);
    let reply = api.get("/channels/presence-a/users", &[("info", "user_count")]).await;
    assert_eq!(reply.is(), (400, "The following query string parameters are extraneous: info"));
    for name in ["a%20b", "%23a", "%00", &"x".repeat(201)] {
        let path = format!("/channels/{name}");
        let signed = DEMO.signed("GET", &format!("/apps/17{path}"), &[], "", crate::support::keys::now());
        assert_eq!(api.http.get(&format!("/apps/17{path}?{signed}")).await.status, 400, "{name}");
    }

    // leaving shows
    ann.unsubscribe("presence-a").await;
    bob.socket.leave().await;
    until("they have left", (0, Some(0)), async || Api::of(&server, DEMO).await.counts("presence-a").await).await;
    assert_eq!(api.ask("/channels", &[]).await, json!({ "channels": { "news": {} } }));
    let quotes = api.ask("/channels", &[("filter_by_prefix", &quoted("x"))]).await;
    assert_eq!(quotes, json!({ "channels": {} }));
}
