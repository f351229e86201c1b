//! What an operator finds in the log when a client complains: whose socket it was, in the client's own words, and why.

use serde_json::{Value, json};

use crate::support::{
    keys::now,
    pusher::{Api, DEMO, PusherClient, setup},
    server::Server,
    websocket::WebSocket,
    within,
};

/// The line of the log whose message contains `words`, now or later.
async fn line(server: &Server, words: &str) -> Value {
    let found = server.log.find(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        line["message"].as_str()?.contains(words).then_some(line)
    });
    within(words, found).await
}

/// Does `line` have these fields?
fn has(line: &Value, fields: &Value) {
    for (name, value) in fields.as_object().expect("an object") {
        assert_eq!(&line[name], value, "{name}: {line}");
    }
}

#[tokio::test]
async fn a_gusher_socket_is_called_as_its_client_knows_it() {
    let server = setup().set("log.level", "debug").set("limits.subscriptions", "1").start().await;
    let mut ann = server.client("demo", "ann", &["news", "more"]).await;
    let id = ann.id().await;
    let who = |more: Value| {
        let mut who = json!({ "socket_id": id, "app_id": "demo", "user_id": "ann" });
        who.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("an object"));
        who
    };
    let opens = line(&server, "opens in demo").await;
    has(&opens, &who(json!({})));
    assert!(opens["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{opens}");

    assert_eq!(ann.subscribe("secret").await, "gusher.subscribe_error");
    let refused = line(&server, "may not subscribe to secret").await;
    has(&refused, &who(json!({ "channel": "secret", "reason": "not_permitted", "level": "debug" })));
    assert_eq!(ann.subscribe("").await, "gusher.subscribe_error");
    has(&line(&server, "bad_name").await, &who(json!({ "channel": "", "reason": "bad_name" })));
    assert_eq!(ann.subscribe("news").await, "gusher.subscribe_succeeded");
    assert_eq!(ann.subscribe("more").await, "gusher.subscribe_error");
    has(&line(&server, "may not subscribe to more").await, &who(json!({ "reason": "too_many_subscriptions" })));
    // leaving is no subscribe
    assert_eq!(ann.unsubscribe("elsewhere").await, "gusher.unsubscribe_error");
    for reason in ["not_permitted", "bad_name", "too_many_subscriptions"] {
        let label = format!("reason=\"{reason}\"");
        assert_eq!(server.metric("wellhead_subscribes_rejected_total", &label).await, 1.0, "{reason}");
    }
    assert_eq!(server.metric("wellhead_subscribes_rejected_total", "").await, 3.0);

    ann.socket.leave().await;
    has(&line(&server, "ends: ").await, &who(json!({ "reason": "client_closed" })));
}

#[tokio::test]
async fn so_is_a_pusher_socket_and_a_refused_request_says_why_without_its_query() {
    let server = setup().set("log.level", "debug").start().await;
    let mut ann = PusherClient::connect(server.slave(), DEMO).await;
    let who = json!({ "socket_id": ann.id, "app_id": "demo", "user_id": "" });
    has(&line(&server, "opens in demo").await, &who);
    for (auth, reason) in
        [("", "unknown_key"), ("demo:", "unsigned"), ("demo:0123", "bad_signature"), ("other:0123", "unknown_key")]
    {
        let data = json!({ "channel": format!("private-{reason}"), "auth": auth });
        ann.socket.send_text(&json!({ "event": "pusher:subscribe", "data": data }).to_string()).await;
        let refused = line(&server, &format!("may not subscribe to private-{reason}: {reason}")).await;
        has(&refused, &who);
        has(&refused, &json!({ "reason": reason }));
    }
    server.metric_becomes("wellhead_subscribes_rejected_total", "reason=\"unknown_key\"", 2.0).await;
    server.metric_becomes("wellhead_subscribes_rejected_total", "reason=\"bad_signature\"", 1.0).await;

    let mut api = Api::of(&server, DEMO).await;
    let path = "/apps/17/channels";
    for (query, words, reason) in [
        (DEMO.signed("GET", path, &[], "", now() - 3_600), "Timestamp expired", "expired"),
        (DEMO.signed("POST", path, &[], "", now()), "Invalid signature", "bad_signature"),
        (String::new(), "Parameter auth_key is missing", "unsigned"),
    ] {
        assert_eq!(api.http.get(&format!("{path}?{query}")).await.status, 401);
        let refused = line(&server, words).await;
        has(&refused, &json!({ "path": path, "dialect": "pusher", "reason": reason, "level": "debug" }));
        let label = format!("dialect=\"pusher\",reason=\"{reason}\"");
        assert_eq!(server.metric("wellhead_requests_rejected_total", &label).await, 1.0, "{reason}");
    }
    let queries = server.log.collect(|line| line.contains("auth_signature=").then(|| line.to_owned()));
    assert!(queries.is_empty(), "{queries:?}");
}

#[tokio::test]
async fn a_refused_handshake_says_whose_it_was_and_why() {
    let server = setup().set("log.level", "debug").start().await;
    let refused = WebSocket::open(server.slave(), "/gcs/ws/demo?token=forged", &[]).await;
    assert_eq!(refused.err().map(|reply| reply.status), Some(401));
    let said = line(&server, "401: credentials_invalid").await;
    has(&said, &json!({ "path": "/gcs/ws/demo", "status": 401, "reason": "credentials_invalid", "level": "debug" }));
    assert!(said["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{said}");
    assert!(!said.to_string().contains("forged"), "{said}");
}
