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
    assert_eq!(
        ann.reply().await.1,
        json!({ "channels": ["news", "room-1", "room-*"] }),
        "news is not the key's to take"
    );
}

#[tokio::test]
async fn a_key_of_some_channels_replaces_only_what_lies_inside_them() {
    let keys = [
        key("all", "key-of-all", ""),
        key("some", "key-of-some", "channels = [\"a*\", \"news\"]\nrights = [\"grant\"]"),
        key("none", "key-of-none", "channels = []\nrights = [\"grant\"]"),
    ];
    let server = Setup::keyed().toml(&keys.concat()).start().await;
    // two sockets of one user that may do different things, and one of somebody else
    let mut one = server.client("demo", "ann", &["a1", "ab*", "b", "*z", "news"]).await;
    for channel in ["a1", "abc", "b", "az", "news"] {
        one = one.subscribed(channel).await;
    }
    let mut other = server.client("demo", "ann", &["a2", "c", "*"]).await;
    for channel in ["a2", "c", "d"] {
        other = other.subscribed(channel).await;
    }
    let mut bob = server.client("demo", "bob", &["a1"]).await.subscribed("a1").await;
    let mut some = with(&server, "key-of-some").await;
    let (v1, v3) = ("/api/reload/channel/user/demo/ann", "/v1/apps/demo/users/ann/channels");

    for (channels, status) in [(r#"["b"]"#, 403), (r#"["a7","*"]"#, 403), (r#"["news*"]"#, 403)] {
        let reply = some.json("PUT", v3, &format!("{{\"channels\":{channels}}}")).await;
        assert_eq!(reply.status, status, "{channels}: {reply:?}");
    }
    let reply = some.json("PUT", v3, r#"{"channels":[]}"#).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.json(), json!({ "user_id": "ann", "data": ["*", "*z", "b", "c"] }), "what is in force");
    assert_eq!(one.socket.text().await, notice(r#"["b","*z"]"#));
    assert_eq!(other.socket.text().await, notice(r#"["c","*"]"#));
    // what was given by a pattern that stays is kept, and nothing else of the scope
    one.say("gusher.querychannel", "0").await;
    assert_eq!(one.reply().await.1, json!({ "channels": ["b", "*z"] }));
    let mut all = with(&server, "key-of-all").await;
    assert_eq!(all.names("/api/demo/online/bychannel/az").await, ["ann"]);
    assert_eq!(all.names("/api/demo/online/bychannel/a2").await, ["ann"], "by *");
    assert_eq!(all.names("/api/demo/online/bychannel/a1").await, ["bob"]);
    assert_eq!(all.names("/api/demo/channels").await, ["a1", "a2", "az", "b", "c", "d"]);

    let reply = some.form(v1, &[("data", r#"["a7", "news"]"#)]).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let data = reply.json()["data"].as_str().expect("v1 shows text").to_owned();
    assert_eq!(data, r#"["*","*z","a7","b","c","news"]"#);
    assert_eq!(one.socket.text().await, notice(r#"["b","*z","a7","news"]"#));
    // nobody is there, and nothing is in force
    let reply = some.json("PUT", "/v1/apps/demo/users/eve/channels", r#"{"channels":["a7"]}"#).await;
    assert_eq!(reply.json(), json!({ "user_id": "eve", "data": [] }));
    // a key for nothing changes and learns nothing
    let mut none = with(&server, "key-of-none").await;
    assert_eq!(none.json("PUT", v3, r#"{"channels":["a7"]}"#).await.status, 403);
    let reply = none.json("PUT", v3, r#"{"channels":[]}"#).await;
    assert_eq!(reply.json(), json!({ "user_id": "ann", "data": [] }));
    assert_eq!(one.socket.text().await, notice(r#"["b","*z","a7","news"]"#));
    // and one for everything everything, as before
    assert_eq!(all.json("PUT", v3, r#"{"channels":["b"]}"#).await.json()["data"], json!(["b"]));
    assert_eq!(one.socket.text().await, notice(r#"["b"]"#));
    assert_eq!(all.names("/api/demo/channels").await, ["a1", "b"]);
    bob.say("gusher.querychannel", "0").await;
    assert_eq!(bob.reply().await.1, json!({ "channels": ["a1"] }));
}

/// What a socket is told about its new permissions.
fn notice(channels: &str) -> String {
    format!(r#"{{"event":"gusher.reloadchannel","socket_id":"","data":{{"channels":{channels}}}}}"#)
}

#[tokio::test]
async fn a_key_for_no_channel_sees_nobody_and_one_for_some_sees_who_is_there() {
    let keys = [
        key("all", "key-of-all", ""),
        key("none", "key-of-none", "channels = []\nrights = [\"query\"]"),
        key("rooms", "key-of-rooms", "channels = [\"room-*\"]\nrights = [\"query\"]"),
    ];
    let server = Setup::keyed().toml(&keys.concat()).start().await;
    let _ann = server.client("demo", "ann", &["*"]).await.subscribed("news").await.subscribed("room-1").await;
    let _bob = server.listener_on("demo", "bob", "news").await;
    let _nobody = server.listener_on("demo", "", "room-1").await;
    let mut asker = with(&server, "key-of-none").await;
    for list in ["/api/demo/channels", "/demo/channels", "/v1/apps/demo/channels", "/v1/apps"] {
        assert_eq!(asker.ask(list).await, json!([]), "{list}");
    }
    for list in ["/api/demo/online", "/demo/online", "/v1/apps/demo/users"] {
        assert_eq!(asker.ask(list).await, json!([]), "{list}");
        assert_eq!(asker.ask(&format!("{list}/count")).await, json!({ "count": 0 }), "{list}");
    }
    for count in ["/api/demo/channels/count", "/v1/apps/demo/channels/count"] {
        assert_eq!(asker.ask(count).await, json!({ "count": 0 }), "{count}");
    }
    for channel in ["/api/demo/online/bychannel/news", "/v1/apps/demo/channels/news/users"] {
        assert_eq!(asker.get(channel).await.status, 403, "{channel}");
        assert_eq!(asker.get(&format!("{channel}/count")).await.status, 403, "{channel}");
    }
    assert_eq!(asker.ask("/v1/stats").await, json!({ "apps": 0, "connections": 0, "users": 0 }));
    let mut rooms = with(&server, "key-of-rooms").await;
    assert_eq!(rooms.names("/v1/apps/demo/users").await, ["ann"]);
    assert_eq!(rooms.ask("/api/demo/online/count").await, json!({ "count": 1 }));
    assert_eq!(with(&server, "key-of-all").await.names("/v1/apps/demo/users").await, ["ann", "bob"]);
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
