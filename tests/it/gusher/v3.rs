//! The v3 JSON rows of the master.

use serde_json::json;

use crate::support::{client::ReceivedEvent, http::Reply, server::Server};

#[track_caller]
fn answers(reply: &Reply, body: &str) {
    assert_eq!(reply.is(), (200, body));
    assert!(reply.header("content-type").is_some_and(|kind| kind.starts_with("application/json")), "{reply:?}");
}

#[track_caller]
fn refuses(reply: &Reply, why: &str) {
    assert_eq!((reply.status, reply.json()), (400, json!({ "error": why })));
    assert!(reply.header("content-type").is_some_and(|kind| kind.starts_with("application/json")), "{reply:?}");
}

#[tokio::test]
async fn channel_pushes() {
    let server = Server::start().await;
    let mut ann = server.listener_on("demo", "ann", "news").await;
    let mut backend = server.backend().await;
    let path = "/v1/apps/demo/channels/news/messages";
    for (body, delivered) in [
        (r#"{"event":"e","data":{"z":12345678901234567890,"a":1.0}}"#, r#"{"z":12345678901234567890,"a":1.0}"#),
        (r#"{"data":"\u4e2d\/","event":"e"}"#, r#""\u4e2d\/""#),
        (r#"{"EVENT":"e","Data":1,"other":2}"#, "1"),
        (r#"{"event":"e"}"#, "null"),
        (r#"{"event":"e","data":"1"} trailing"#, r#""1""#),
        (r#" {"event":"e","data":"{\"a\":1}"}"#, r#""{\"a\":1}""#),
    ] {
        let reply = backend.json("POST", path, body).await;
        answers(&reply, &format!(r#"{{"channel":"news","event":"e","data":{delivered}}}"#));
        assert_eq!(ann.next_event().await, ReceivedEvent::new("news", "e", delivered));
    }
    refuses(&backend.json("POST", path, "").await, "body decode error");
    refuses(&backend.json("POST", path, "event=e").await, "body decode error");
    refuses(&backend.json("POST", path, r#"{"event":1}"#).await, "body decode error");
    refuses(&backend.json("POST", path, "{}").await, "empty event");
    let wrong = backend.get(path).await;
    assert_eq!(wrong.is(), (405, "Method Not Allowed\n"));
    assert_eq!(wrong.header("allow"), Some("POST"));
}

#[tokio::test]
async fn pattern_and_batch_pushes() {
    let server = Server::start().await;
    let mut ann = server.client("demo", "ann", &["*"]).await.subscribed("a1").await.subscribed("a2").await;
    let mut backend = server.backend().await;
    let path = "/v1/apps/demo/messages";
    let reply = backend.json("POST", path, r#"{"channel_pattern":"^a1$","event":"e","data":1.0}"#).await;
    answers(&reply, r#"{"total":1,"pattern":"^a1$"}"#);
    assert_eq!(ann.next_event().await, ReceivedEvent::new("a1", "e", "1.0"));
    answers(
        &backend.json("POST", path, r#"{"channel_pattern":"2","event":"e"}"#).await,
        r#"{"total":1,"pattern":"2"}"#,
    );
    assert_eq!(ann.next_event().await, ReceivedEvent::new("a2", "e", "null"));
    refuses(&backend.json("POST", path, r#"{"event":"e"}"#).await, "empty param");
    refuses(&backend.json("POST", path, r#"{"channel_pattern":"a"}"#).await, "empty param");
    let pattern = r#"{"channel_pattern":"(","event":"e"}"#;
    refuses(&backend.json("POST", path, pattern).await, "channel_pattern cant regex");
    refuses(&backend.json("POST", path, "[]").await, "body decode error");

    let path = "/v1/apps/demo/messages/batch";
    let items = r#"[{"channel":"a1","event":"e","data":1.0},{"channel":"a2","event":"f"}]"#;
    answers(&backend.json("POST", path, items).await, r#"{"total":2}"#);
    assert_eq!(ann.next_event().await, ReceivedEvent::new("a1", "e", "1.0"));
    assert_eq!(ann.next_event().await, ReceivedEvent::new("a2", "f", "null"));
    answers(&backend.json("POST", path, "[]").await, r#"{"total":0}"#);
    assert_eq!(backend.json("POST", path, r#"[{"channel":1}]"#).await.status, 400);
}

#[tokio::test]
async fn users_and_sockets() {
    let server = Server::start().await;
    let mut ann = server.client("demo", "ann", &["news"]).await;
    let id = ann.id().await;
    let mut backend = server.backend().await;
    let reply = backend.json("POST", "/v1/apps/demo/users/ann/messages", r#"{"data":{"z":1.0,"a":[]}}"#).await;
    answers(&reply, r#"{"user_id":"ann","data":{"z":1.0,"a":[]}}"#);
    assert_eq!(ann.socket.text().await, r#"{"z":1.0,"a":[]}"#);
    let path = format!("/v1/apps/demo/sockets/{id}/messages");
    let reply = backend.json("POST", &path, r#"{"data":"text"}"#).await;
    answers(&reply, &format!(r#"{{"socket_id":"{id}","data":"text"}}"#));
    assert_eq!(ann.socket.text().await, r#""text""#);
    let reply = backend.json("POST", "/v1/apps/demo/sockets/unknown/messages", r#"{"data":1}"#).await;
    answers(&reply, r#"{"socket_id":"unknown","data":1}"#);

    let path = "/v1/apps/demo/users/ann/channels";
    let reply = backend.json("PUT", path, r#"{"channels":["gg","ff"]}"#).await;
    answers(&reply, r#"{"user_id":"ann","data":["gg","ff"]}"#);
    assert!(ann.socket.text().await.contains(r#""channels":["gg","ff"]"#));
    let reply = backend.json("POST", path, r#"{"channel":"aa"}"#).await;
    answers(&reply, r#"{"user_id":"ann","data":"aa"}"#);
    assert!(ann.socket.text().await.contains(r#""channel":"aa""#));
    ann.say("gusher.querychannel", "0").await;
    assert_eq!(ann.reply().await.1, json!({ "channels": ["gg", "ff", "aa"] }));
    refuses(&backend.json("POST", path, "{}").await, "channel empty error");
    refuses(&backend.json("POST", path, r#"{"channel":""}"#).await, "channel empty error");
    assert_eq!(backend.json("PUT", path, r#"{"channels":"gg"}"#).await.status, 400);
    assert_eq!(backend.json("PUT", path, "{}").await.status, 200);
    assert!(ann.socket.text().await.contains(r#""channels":[]"#), "a missing key clears all");
}

#[tokio::test]
async fn queries_and_sizes() {
    let server = Server::start().await;
    let _ann = server.client("b-app", "ann", &["*"]).await.subscribed("x").await.subscribed("y").await;
    let _bob = server.listener_on("b-app", "bob", "x").await;
    let _bob_again = server.listener_on("b-app", "bob", "x").await;
    let _eve = server.client("a-app", "eve", &["*"]).await;
    let mut backend = server.backend().await;
    assert_eq!(backend.names("/v1/apps/b-app/channels").await, ["x", "y"]);
    answers(&backend.get("/v1/apps/b-app/channels/count").await, r#"{"count":2}"#);
    assert_eq!(backend.names("/v1/apps/b-app/users").await, ["ann", "bob"]);
    answers(&backend.get("/v1/apps/b-app/users/count").await, r#"{"count":2}"#);
    assert_eq!(backend.names("/v1/apps/b-app/channels/x/users").await, ["ann", "bob"]);
    answers(&backend.get("/v1/apps/b-app/channels/x/users/count").await, r#"{"count":2}"#);
    answers(&backend.get("/v1/apps/nobody/users").await, "[]");
    answers(&backend.get("/v1/stats").await, r#"{"apps":2,"connections":4,"users":3}"#);
    answers(
        &backend.get("/v1/apps").await,
        r#"[{"app":"a-app","connections":1,"users":1},{"app":"b-app","connections":3,"users":2}]"#,
    );
    assert_eq!(backend.get("/v1/nothing").await.status, 404);
    refuses(&backend.json("POST", "/v1/auth/decode", r#"{"jwt":"x"}"#).await, "data error");
    refuses(&backend.json("POST", "/v1/auth/decode", "jwt=x").await, "body decode error");
}
