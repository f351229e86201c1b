//! The master's v1 rows that ask: who is there, on what, and what a JWT says.

use serde_json::json;

use crate::support::{
    keys::{claims, signer, stranger},
    server::Server,
};

#[tokio::test]
async fn queries_answer_under_the_prefix_and_bare() {
    let server = Server::start().await;
    let _ann = server.client("demo", "ann", &["*"]).await.subscribed("a").await.subscribed("b").await;
    let _more_ann = server.listener_on("demo", "ann", "a").await;
    let _bob = server.listener_on("demo", "bob", "a").await;
    let _idle = server.client("demo", "eve", &["*"]).await;
    let _nobody = server.listener_on("demo", "", "b").await;
    let mut backend = server.backend().await;
    for prefix in ["/api", ""] {
        assert_eq!(backend.names(&format!("{prefix}/demo/channels")).await, ["a", "b"]);
        assert_eq!(backend.get(&format!("{prefix}/demo/channels/count")).await.is(), (200, r#"{"count":2}"#));
        assert_eq!(backend.names(&format!("{prefix}/demo/online")).await, ["ann", "bob", "eve"]);
        assert_eq!(backend.get(&format!("{prefix}/demo/online/count")).await.is(), (200, r#"{"count":3}"#));
        assert_eq!(backend.names(&format!("{prefix}/demo/online/bychannel/a")).await, ["ann", "bob"]);
        assert_eq!(backend.names(&format!("{prefix}/demo/online/bychannel/b")).await, ["", "ann"]);
        let count = backend.get(&format!("{prefix}/demo/online/bychannel/a/count")).await;
        assert_eq!(count.is(), (200, r#"{"count":2}"#));
        for (unknown, empty) in
            [("channels", "[]"), ("channels/count", r#"{"count":0}"#), ("online", "[]"), ("online/bychannel/x", "[]")]
        {
            let reply = backend.get(&format!("{prefix}/nobody/{unknown}")).await;
            assert_eq!(reply.is(), (200, empty));
            assert_eq!(reply.header("content-type"), Some("application/json;charset=UTF-8"));
        }
    }
}

#[tokio::test]
async fn an_app_named_like_a_route_is_still_an_app() {
    let server = Server::start().await;
    let _ann = server.listener_on("v1", "ann", "a").await;
    let _bob = server.listener_on("api", "bob", "b").await;
    let _eve = server.listener_on("*", "eve", "c").await;
    let mut backend = server.backend().await;
    assert_eq!(backend.names("/api/v1/channels").await, ["a"]);
    assert_eq!(backend.names("/api/api/channels").await, ["b"]);
    assert_eq!(backend.names("/api/*/channels").await, ["c"], "a star is not a glob over apps");
    assert_eq!(backend.names("/v1/apps/v1/channels").await, ["a"]);
    assert_eq!(backend.get("/healthz").await.is(), (200, "ok"));
}

#[tokio::test]
async fn decode_shows_what_a_jwt_says() {
    let server = Server::start().await;
    let mut backend = server.backend().await;
    let mut all = claims("demo", "ann", &["a", "b*"]);
    all["gusher"]["remotes"] = json!({ "cmd": true });
    for (name, value) in [
        ("sub", json!("s")),
        ("nbf", json!(1.5)),
        ("iss", json!("i")),
        ("iat", json!(2)),
        ("jti", json!("j")),
        ("exp", json!(4_102_444_800_u64)),
        ("aud", json!(["x", "y"])),
        ("unknown", json!(1)),
    ] {
        all[name] = value;
    }
    let gusher = r#"{"gusher":{"channels":["a","b*"],"user_id":"ann","app_key":"demo","remotes":{"cmd":true}},"#;
    let rest = r#""aud":["x","y"],"exp":4102444800,"jti":"j","iat":2,"iss":"i","nbf":1.5,"sub":"s"}"#;
    let wanted = format!("{gusher}{rest}");
    let jwt = signer().sign(&all);
    for reply in [
        backend.form("/api/decode", &[("data", &jwt)]).await,
        backend.http.call("POST", &format!("/api/decode?data={jwt}"), &[], "").await,
    ] {
        assert_eq!(reply.is(), (200, format!("{wanted}\n").as_str()));
        assert!(reply.header("content-type").is_some_and(|kind| kind.starts_with("application/json")), "{reply:?}");
    }
    let v3 = backend.json("POST", "/v1/auth/decode", &json!({ "jwt": jwt }).to_string()).await;
    assert_eq!(v3.is(), (200, wanted.as_str()));

    let bare = signer().sign(&json!({ "gusher": { "user_id": "ann", "app_key": "demo" } }));
    let reply = backend.form("/api/decode", &[("data", &bare)]).await;
    assert_eq!(
        reply.text(),
        "{\"gusher\":{\"channels\":[],\"user_id\":\"ann\",\"app_key\":\"demo\",\"remotes\":null}}\n"
    );
    let forged = stranger().jwt("demo", "ann", &["*"]);
    assert_eq!(backend.form("/api/decode", &[("data", &forged)]).await.is(), (400, "data error"));
    let ours = server.token("demo", "ann", &["*"]).await;
    let reply = backend.form("/api/decode", &[("data", &ours)]).await;
    assert_eq!(reply.is(), (400, "data error"), "a connection token is no JWT");
}
