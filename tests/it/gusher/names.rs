//! Names of every kind arrive as they are, and a limit is a limit.

use crate::support::{
    client::{Client, ReceivedEvent},
    encoded, quoted,
    server::Server,
};

/// Names that a router, a bus, a glob or a filter could trip over.
const ODD: [&str; 18] = [
    "a/b",
    "%2F",
    "a%2Fb",
    "*",
    "A*A",
    "#GUSHERFUNC-TOUID#",
    "#GUSHERFUNC-RELOADCHANEL#",
    ">",
    "a.>",
    "my.gusher.x",
    "two words",
    "a+b&c=d?e",
    "中文",
    "é\u{301}\u{1F600}",
    "\"quoted\\\"",
    "tab\tand\u{1}",
    "\0",
    "@|:~",
];

#[tokio::test]
async fn channels_and_events_may_have_any_name() {
    let server = Server::start().await;
    let mut ann = server.client("demo", "ann", &["*"]).await;
    let mut backend = server.backend().await;
    for name in ODD {
        ann = ann.subscribed(name).await;
    }
    let mut sorted = ODD.map(ToOwned::to_owned);
    sorted.sort();
    assert_eq!(backend.names("/api/demo/channels").await, sorted);
    for name in ODD {
        let reply = backend.push("demo", name, name, "1").await;
        assert_eq!(reply.json()["channel"], name);
        assert_eq!(ann.next_event().await, ReceivedEvent::new(name, name, "1"));

        let path = format!("/v1/apps/demo/channels/{}/messages", encoded(name));
        let reply = backend.json("POST", &path, &format!(r#"{{"event":{},"data":2}}"#, quoted(name))).await;
        assert_eq!(reply.status, 200, "{name}: {reply:?}");
        assert_eq!(ann.next_event().await, ReceivedEvent::new(name, name, "2"));

        let pattern = escaped(name);
        assert_eq!(backend.push_matching("demo", &pattern, name, "3").await, 1, "{pattern}");
        assert_eq!(ann.next_event().await, ReceivedEvent::new(name, name, "3"));

        let users = backend.names(&format!("/api/demo/online/bychannel/{}", encoded(name))).await;
        assert_eq!(users, ["ann"], "{name}");
        assert_eq!(backend.names(&format!("/v1/apps/demo/channels/{}/users", encoded(name))).await, ["ann"]);
    }
    for name in ODD {
        assert_eq!(ann.unsubscribe(name).await, "gusher.unsubscribe_succeeded");
    }
    assert!(backend.names("/api/demo/channels").await.is_empty());
}

/// A pattern that matches `name` alone.
fn escaped(name: &str) -> String {
    let literal: String = name
        .chars()
        .map(
            |character| if r"\*.+?|^$()[]{}".contains(character) { format!("\\{character}") } else { character.into() },
        )
        .collect();
    format!("^{literal}$")
}

#[tokio::test]
async fn apps_and_users_may_have_any_name() {
    let server = Server::start().await;
    let mut backend = server.backend().await;
    for name in ODD {
        let mut ann = server.client(name, name, &["*"]).await.subscribed("news").await;
        backend.push(name, "news", "e", "1").await;
        assert_eq!(ann.next_event().await, ReceivedEvent::new("news", "e", "1"));
        let reply = backend.push_to_user(name, name, "2").await;
        assert_eq!(reply.json()["user_id"], name);
        assert_eq!(ann.socket.text().await, "2");
        assert_eq!(backend.names(&format!("/api/{}/online", encoded(name))).await, [name]);
        let (app, user) = (encoded(name), encoded(name));
        let reply = backend.accepted(&format!("/api/add/channel/user/{app}/{user}"), &[("data", name)]).await;
        assert_eq!(reply.json()["data"], name);
        assert!(ann.socket.text().await.contains("gusher.addchannel"));
        let reply = backend.json("POST", &format!("/v1/apps/{app}/users/{user}/messages"), r#"{"data":3}"#).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(ann.socket.text().await, "3");
    }
}

#[tokio::test]
async fn names_have_1024_bytes_at_most() {
    let server = Server::start().await;
    let (fits, too_long) = ("x".repeat(1_024), "x".repeat(1_025));
    let wide = "中".repeat(341) + "y";
    assert_eq!(wide.len(), 1_024);
    let mut ann = server.client("demo", &fits, &["*"]).await;
    let mut backend = server.backend().await;
    for name in [&fits, &wide] {
        assert_eq!(ann.subscribe(name).await, "gusher.subscribe_succeeded");
        backend.push("demo", name, name, "1").await;
        assert_eq!(ann.next_event().await, ReceivedEvent::new(name, name, "1"));
    }
    backend.push_to_user("demo", &fits, "1").await;
    assert_eq!(ann.socket.text().await, "1");

    assert_eq!(ann.subscribe(&too_long).await, "gusher.subscribe_error");
    assert_eq!(ann.unsubscribe(&too_long).await, "gusher.unsubscribe_error");
    ann.say("gusher.multi_subscribe", &format!(r#"{{"multi_channel":[{}]}}"#, quoted(&too_long))).await;
    assert_eq!(ann.reply().await.0, "gusher.multi_subscribe_error");
    let data = [("data", "1")];
    for path in [
        format!("/api/push/demo/{too_long}/e"),
        format!("/api/push/demo/c/{too_long}"),
        format!("/api/push/{too_long}/c/e"),
        format!("/api/push/user/demo/{too_long}"),
        format!("/api/reload/channel/user/demo/{too_long}"),
        format!("/api/add/channel/user/demo/{too_long}"),
    ] {
        let reply = backend.form(&path, &data).await;
        assert_eq!(reply.status, 400, "{} {reply:?}", &path[..30]);
    }
    assert_eq!(backend.form("/api/add/channel/user/demo/ann", &[("data", &too_long)]).await.status, 400);
    for path in
        [format!("/v1/apps/demo/channels/{too_long}/messages"), format!("/v1/apps/{too_long}/channels/c/messages")]
    {
        assert_eq!(backend.json("POST", &path, r#"{"event":"e"}"#).await.status, 400);
    }
    let event = format!(r#"{{"event":"{too_long}"}}"#);
    assert_eq!(backend.json("POST", "/v1/apps/demo/channels/c/messages", &event).await.status, 400);
    let jwt = crate::support::keys::signer().jwt("demo", &too_long, &["*"]);
    assert_eq!(server.auth(&jwt).await.status, 401);
    assert_eq!(ann.subscribe("news").await, "gusher.subscribe_succeeded", "all that closed nothing");
}

#[tokio::test]
async fn empty_names_are_answered_and_never_trip_anybody() {
    let server = Server::start().await;
    let mut ann = server.client("demo", "ann", &["*"]).await;
    assert_eq!(ann.subscribe("").await, "gusher.subscribe_error");
    let mut backend = server.backend().await;
    assert_eq!(backend.form("/api/push/demo//e", &[("data", "1")]).await.is(), (400, "empty param"));
    assert_eq!(backend.form("/api/push/demo/c/", &[("data", "1")]).await.is(), (400, "empty param"));
    assert_eq!(backend.json("POST", "/v1/apps/demo/channels/c/messages", r#"{"event":""}"#).await.status, 400);
    for path in ["/api//channels", "/v1/apps//channels", "/api/push//c/e"] {
        let reply =
            if path.contains("push") { backend.form(path, &[("data", "1")]).await } else { backend.get(path).await };
        assert!((400..500).contains(&reply.status), "{path}: {reply:?}");
    }
    for path in ["/api/push/demo/%zz/e", "/api/push/demo/%ff/e", "/api/push/demo/%/e"] {
        assert_eq!(backend.form(path, &[("data", "1")]).await.is(), (400, "400 Bad Request"), "{path}");
    }
    let mut anonymous: Client = server.client("demo", "", &["*"]).await;
    backend.push("demo", "news", "e", "1").await;
    assert_eq!(anonymous.subscribe("news").await, "gusher.subscribe_succeeded");
    assert_eq!(backend.names("/api/demo/online").await, ["ann"], "an anonymous socket is nobody");
}
