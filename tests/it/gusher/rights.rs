//! Push keys: who may push, ask and grant, in which apps, on which channels.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::json;

use crate::support::{
    backend::Backend,
    http::Http,
    keys::signer,
    server::{Server, Setup},
};

fn key(name: &str, key: &str, rest: &str) -> String {
    let hash: String = digest(&SHA256, key.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("[[push_keys]]\nname = \"{name}\"\nsha256 = \"{hash}\"\n{rest}\n")
}

async fn server() -> Server {
    let keys = [
        key("all", "key-of-all", ""),
        key("pusher", "key-of-pusher", "apps = [\"demo\"]\nchannels = [\"news\", \"room-*\"]\nrights = [\"push\"]"),
        key("asker", "key-of-asker", "apps = [\"demo\"]\nchannels = [\"room-*\"]\nrights = [\"query\"]"),
        key("granter", "key-of-granter", "apps = [\"demo\"]\nchannels = [\"room-*\"]\nrights = [\"grant\"]"),
    ];
    Setup::keyed().toml(&keys.concat()).start().await
}

async fn with(server: &Server, key: &str) -> Backend {
    server.backend().await.with_key(key)
}

#[tokio::test]
async fn a_message_that_names_more_channels_than_a_socket_may_have_is_refused_and_the_socket_stays() {
    let server = Server::start().await;
    let grants: Vec<_> = (0..2_000).map(|no| format!("g{no:05}")).collect();
    let mut ann = server.client("demo", "ann", &grants.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for (many, expected) in [(1_001, "gusher.multi_subscribe_error"), (1_000, "gusher.multi_subscribe_succeeded")] {
        let data = json!({ "multi_channel": grants[..many] }).to_string();
        ann.say("gusher.multi_subscribe", &data).await;
        assert_eq!(ann.reply().await.0, expected, "{many} channels");
    }
}

#[tokio::test]
async fn a_reload_beyond_the_limit_is_413_and_changes_nothing() {
    let server = Setup::keyed().toml("[limits]\ngrants = \"100B\"").start().await;
    let mut ann = server.client("demo", "ann", &["*"]).await;
    let mut backend = server.backend().await;
    let names: Vec<_> = (0..11).map(|no| format!("room-{no:02}")).collect();
    let path = "/api/reload/channel/user/demo/ann";
    let refused = backend.form(path, &[("data", &json!(names).to_string())]).await;
    assert_eq!(refused.status, 413, "{refused:?}");
    assert!(refused.text().contains("limits.grants"), "{refused:?}");
    assert_eq!(ann.subscribe("news").await, "gusher.subscribe_succeeded");
    assert_eq!(backend.form(path, &[("data", &json!(names[..10]).to_string())]).await.status, 200);
    assert_eq!(ann.reply().await.0, "gusher.reloadchannel");
    assert_eq!(ann.subscribe("room-09").await, "gusher.subscribe_succeeded");
    assert_eq!(ann.subscribe("news").await, "gusher.subscribe_error");
}

#[tokio::test]
async fn without_a_known_key_nothing_is_done() {
    let server = server().await;
    let mut ann = server.listener_on("demo", "ann", "news").await;
    for key in [None, Some("wrong"), Some(""), Some("key-of-al"), Some("key-of-all2")] {
        let mut backend = server.backend().await;
        if let Some(key) = key {
            backend = backend.with_key(key);
        }
        for (path, data) in [
            ("/api/push/demo/news/e", "data"),
            ("/api/push/demo", "channel_pattern"),
            ("/api/push_batch/demo", "batch_data"),
            ("/api/push/user/demo/ann", "data"),
            ("/api/push/socket/demo/x", "data"),
            ("/api/reload/channel/user/demo/ann", "data"),
            ("/api/add/channel/user/demo/ann", "data"),
            ("/api/decode", "data"),
            ("/v1/apps/demo/channels/news/messages", "data"),
        ] {
            let reply = backend.form(path, &[(data, "1")]).await;
            assert_eq!(reply.status, 401, "{path} with {key:?}: {reply:?}");
            assert!(reply.header("www-authenticate").is_some_and(|how| how.starts_with("Bearer")), "{reply:?}");
        }
        for path in ["/api/demo/channels", "/demo/channels", "/api/demo/online/count", "/v1/stats", "/v1/apps"] {
            assert_eq!(backend.get(path).await.status, 401, "{path} with {key:?}");
        }
        assert_eq!(backend.get("/api/ping").await.is(), (200, "pong"));
        assert_eq!(backend.get("/healthz").await.is(), (200, "ok"));
    }
    let basic = [("Authorization", "Basic key-of-all")];
    assert_eq!(Http::to(server.master()).await.call("GET", "/api/demo/channels", &basic, "").await.status, 401);
    with(&server, "key-of-all").await.push("demo", "news", "e", "1").await;
    assert_eq!(ann.next_event().await.data, "1", "nothing came before");
}

#[tokio::test]
async fn a_key_pushes_only_where_it_may() {
    let server = server().await;
    let mut ann = server.client("demo", "ann", &["*"]).await;
    for channel in ["news", "room-1", "secret"] {
        ann = ann.subscribed(channel).await;
    }
    let socket = format!("/api/push/socket/demo/{}", ann.id().await);
    let mut pusher = with(&server, "key-of-pusher").await;
    let data = [("data", "1")];
    for (path, status) in [
        ("/api/push/demo/news/e", 200),
        ("/api/push/demo/room-1/e", 200),
        ("/api/push/demo/secret/e", 403),
        ("/api/push/other/news/e", 403),
        ("/api/push/user/demo/ann", 403),
        (&socket, 403),
        ("/api/add/channel/user/demo/ann", 403),
        ("/api/reload/channel/user/demo/ann", 403),
        ("/api/decode", 403),
    ] {
        assert_eq!(pusher.form(path, &data).await.status, status, "{path}");
    }
    assert_eq!(pusher.get("/api/demo/channels").await.status, 403);
    let batch = r#"[{"channel":"news","event":"e"},{"channel":"secret","event":"e"}]"#;
    assert_eq!(pusher.form("/api/push_batch/demo", &[("batch_data", batch)]).await.status, 403);
    assert_eq!(pusher.push_matching("demo", ".", "p", "2").await, 2, "a pattern reaches the intersection");
    let mut heard = Vec::new();
    for _ in 0..4 {
        let event = ann.next_event().await;
        heard.push((event.channel, event.data));
    }
    heard[2..].sort();
    let wanted = [("news", "1"), ("room-1", "1"), ("news", "2"), ("room-1", "2")];
    assert_eq!(heard, wanted.map(|(channel, data)| (channel.to_owned(), data.to_owned())));
    with(&server, "key-of-all").await.push_to_user("demo", "ann", "3").await;
    assert_eq!(ann.socket.text().await, "3");
}

#[tokio::test]
async fn a_key_sees_only_what_it_may() {
    let server = server().await;
    let _ann = server.client("demo", "ann", &["*"]).await.subscribed("news").await.subscribed("room-1").await;
    let _bob = server.listener_on("other", "bob", "room-1").await;
    let mut asker = with(&server, "key-of-asker").await;
    assert_eq!(asker.names("/api/demo/channels").await, ["room-1"]);
    assert_eq!(asker.ask("/api/demo/channels/count").await["count"], 1);
    assert_eq!(asker.names("/api/demo/online/bychannel/room-1").await, ["ann"]);
    assert_eq!(asker.get("/api/demo/online/bychannel/news").await.status, 403);
    assert_eq!(asker.get("/api/other/channels").await.status, 403);
    assert_eq!(asker.form("/api/push/demo/room-1/e", &[("data", "1")]).await.status, 403);
    assert_eq!(asker.ask("/v1/apps").await, json!([{ "app": "demo", "connections": 1, "users": 1 }]));
    assert_eq!(asker.ask("/v1/stats").await, json!({ "apps": 1, "connections": 1, "users": 1 }));
    let mut decode = async |app| asker.form("/api/decode", &[("data", &signer().jwt(app, "ann", &["*"]))]).await.status;
    assert_eq!(decode("demo").await, 200);
    assert_eq!(decode("other").await, 403);
}

#[tokio::test]
async fn a_key_grants_only_what_it_may() {
    let server = server().await;
    let mut ann = server.client("demo", "ann", &["news"]).await;
    let mut granter = with(&server, "key-of-granter").await;
    let add = "/api/add/channel/user/demo/ann";
    let reload = "/api/reload/channel/user/demo/ann";
    for (path, data, status) in [
        (add, "room-1", 200),
        (add, "room-a*", 200),
        (add, "*", 403),
        (add, "room*", 403),
        (add, "news", 403),
        (reload, r#"["room-1","*"]"#, 403),
        (reload, r#"["room-1","room-*"]"#, 200),
    ] {
        assert_eq!(granter.form(path, &[("data", data)]).await.status, status, "{path} {data}");
    }
    assert_eq!(granter.form("/api/push/demo/room-1/e", &[("data", "1")]).await.status, 403);
    assert_eq!(granter.get("/api/demo/channels").await.status, 403);
    for event in ["addchannel", "addchannel", "reloadchannel"] {
        assert!(ann.socket.text().await.contains(event));
    }
    ann.say("gusher.querychannel", "0").await;
    assert_eq!(ann.reply().await.1, json!({ "channels": ["room-1", "room-*"] }));
}

#[tokio::test]
async fn v3_rows_say_no_in_json() {
    let server = server().await;
    let mut nobody = server.backend().await;
    let reply = nobody.json("POST", "/v1/apps/demo/channels/news/messages", r#"{"event":"e"}"#).await;
    assert_eq!(reply.status, 401);
    assert!(reply.json()["error"].is_string(), "{reply:?}");
    let mut pusher = with(&server, "key-of-pusher").await;
    let reply = pusher.json("POST", "/v1/apps/demo/channels/secret/messages", r#"{"event":"e"}"#).await;
    assert_eq!(reply.status, 403);
    assert!(reply.json()["error"].is_string(), "{reply:?}");
}
