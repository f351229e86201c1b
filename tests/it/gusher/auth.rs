//! The slave over HTTP: a JWT for a token, a token for a socket, and the small rows.

use serde_json::json;

use crate::support::{
    client::{Client, path},
    encoded,
    http::{Http, Reply},
    keys::{claims, now, signer},
    server::{Server, Setup},
    websocket::WebSocket,
};

fn token_of(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    assert!(reply.header("content-type").is_some_and(|kind| kind.starts_with("application/json")), "{reply:?}");
    assert!(reply.text().starts_with(r#"{"token":""#) && reply.text().ends_with("\"}\n"), "{reply:?}");
    reply.json()["token"].as_str().expect("text").to_owned()
}

#[tokio::test]
async fn a_jwt_is_exchanged_for_a_token_however_it_is_sent() {
    let server = Server::start().await;
    let mut http = Http::to(server.slave()).await;
    let jwt = signer().jwt("demo", "ann", &["*"]);
    let in_json = json!({ "jwt": jwt }).to_string();

    let form = http.form("/gcs/auth", &[("jwt", &jwt)]).await;
    assert_eq!(form.header("content-type"), Some("application/json;charset=UTF-8"));
    let query = http.call("POST", &format!("/gcs/auth?jwt={jwt}"), &[], "").await;
    let body_wins = http.form("/gcs/auth?jwt=rubbish", &[("jwt", &jwt)]).await;
    let json = http.json("POST", "/gcs/auth", &in_json).await;
    let v3 = http.json("POST", "/v1/auth", &in_json).await;
    for reply in [form, query, body_wins, json, v3] {
        let token = token_of(&reply);
        assert_ne!(token, jwt, "a token is not the JWT itself");
        let mut ann = Client::connect(server.slave(), "demo", &token).await;
        assert_eq!(ann.subscribe("news").await, "gusher.subscribe_succeeded");
    }
}

#[tokio::test]
async fn whatever_is_no_valid_jwt_is_refused_in_the_words_of_the_original() {
    let server = Server::start().await;
    let mut http = Http::to(server.slave()).await;
    let refused = |reply: Reply, status, text| {
        assert_eq!(reply.is(), (status, text));
        assert!(reply.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{reply:?}");
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"), "a page must be able to read it");
    };
    refused(http.form("/gcs/auth", &[]).await, 401, "jwt decode fail\n");
    refused(http.form("/gcs/auth", &[("jwt", "")]).await, 401, "jwt decode fail\n");
    refused(http.form("/gcs/auth", &[("jwt", "a.b.c")]).await, 401, "jwt decode fail\n");
    refused(http.call("POST", "/gcs/auth", &[], "").await, 401, "jwt decode fail\n");
    refused(http.json("POST", "/v1/auth", r#"{"jwt":"a.b.c"}"#).await, 401, "jwt decode fail\n");
    refused(http.json("POST", "/v1/auth", "jwt=a").await, 400, "body decode fail\n");
}

#[tokio::test]
async fn a_page_of_another_origin_may_ask_for_a_token() {
    let server = Server::start().await;
    let mut http = Http::to(server.slave()).await;
    for path in ["/gcs/auth", "/v1/auth"] {
        let asked = [
            ("Origin", "https://example.com"),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "content-type"),
        ];
        let reply = http.call("OPTIONS", path, &asked, "").await;
        assert_eq!(reply.status, 204, "{reply:?}");
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
        assert!(reply.header("access-control-allow-methods").is_some_and(|methods| methods.contains("POST")));
        let headers = reply.header("access-control-allow-headers").expect("JSON needs a content type");
        assert!(headers.to_lowercase().contains("content-type"), "{headers}");
    }
}

#[tokio::test]
async fn small_rows_answer_as_documented() {
    let server = Server::start().await;
    for (address, prefix) in [(server.slave(), "gcs"), (server.master(), "api")] {
        let mut http = Http::to(address).await;
        let ping = http.get(&format!("/{prefix}/ping")).await;
        assert_eq!(ping.is(), (200, "pong"));
        assert!(ping.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{ping:?}");
        assert_eq!(http.get("/healthz").await.is(), (200, "ok"));
        assert_eq!(http.get("/readyz").await.is(), (200, "ready"));
        assert_eq!(http.get("/version").await.status, 200);
        assert_eq!(http.get("/nowhere").await.is(), (404, "404 page not found\n"));
        assert_eq!(http.get(&format!("/{prefix}/ping/")).await.is(), (404, "404 page not found\n"));
        assert_eq!(http.call("DELETE", &format!("/{prefix}/ping"), &[], "").await.is(), (405, ""));
    }
    let mut slave = Http::to(server.slave()).await;
    assert_eq!(slave.get("/gcs/auth").await.is(), (405, ""));
    let wrong = slave.get("/v1/auth").await;
    assert_eq!(wrong.status, 405);
    assert!(wrong.header("allow").is_some_and(|allow| allow.contains("POST")), "{wrong:?}");
    let old = Http::to(server.slave()).await.exchange(b"GET /gcs/ping HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.is(), (200, "pong"));
    let mut head = Http::to(server.slave()).await;
    let request = head.request("HEAD", "/gcs/ping", &[("Connection", "close")], "");
    head.send(request.as_bytes()).await.expect("it listens");
    let (mut stream, _) = head.into_parts();
    let mut all = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut all).await.expect("an orderly end");
    let text = String::from_utf8(all).expect("text");
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("\r\n\r\n"), "a HEAD has no body: {text:?}");
}

#[tokio::test]
async fn prefixes_can_be_set_and_a_slash_at_their_end_does_no_harm() {
    let server = Setup::keyed().set("slave.prefix", "/live/").set("master.prefix", "/admin/").start().await;
    let jwt = signer().jwt("demo", "ann", &["*"]);
    let token = token_of(&Http::to(server.slave()).await.form("/live/auth", &[("jwt", &jwt)]).await);
    assert!(WebSocket::open(server.slave(), &format!("/live/ws/demo?token={token}"), &[]).await.is_ok());
    assert_eq!(Http::to(server.slave()).await.get("/gcs/ping").await.status, 404);
    assert_eq!(Http::to(server.master()).await.get("/admin/ping").await.is(), (200, "pong"));
    assert_eq!(Http::to(server.master()).await.get("/api/ping").await.status, 404);
}

#[tokio::test]
async fn a_socket_opens_at_each_of_its_paths_with_token_or_jwt_more_than_once() {
    let server = Server::start().await;
    let jwt = signer().jwt("demo", "ann", &["*"]);
    let token = server.token("demo", "ann", &["*"]).await;
    for credential in [&jwt, &token, &token] {
        for path in [
            format!("/gcs/ws/demo?token={credential}"),
            format!("/gcs/wtf/demo?token={credential}"),
            format!("/v1/apps/demo/ws?token={credential}"),
        ] {
            let offered = [("Sec-WebSocket-Extensions", "permessage-deflate"), ("Origin", "https://example.com")];
            let mut socket = WebSocket::open(server.slave(), &path, &offered).await.expect("it opens");
            socket.send_text(r#"{"event":"gusher.ping","data":1}"#).await;
            assert!(socket.text().await.contains("gusher.pong_succeeded"), "there is no greeting before the reply");
        }
    }
}

#[tokio::test]
async fn a_handshake_is_refused_in_the_words_of_the_original() {
    let server = Server::start().await;
    let token = server.token("demo", "ann", &["*"]).await;
    let expired = signer().sign(&{
        let mut claims = claims("demo", "ann", &["*"]);
        claims["exp"] = json!(now() - 1);
        claims
    });
    for (path, why) in [
        ("/gcs/ws/demo".to_owned(), "app_key is nil\n"),
        ("/gcs/ws/demo?token=".to_owned(), "app_key is nil\n"),
        ("/v1/apps/demo/ws".to_owned(), "app_key is nil\n"),
        ("/gcs/ws/demo?token=rubbish".to_owned(), "token error\n"),
        (path("demo", &expired), "token error\n"),
        (path("other", &token), "appkey error\n"),
        (format!("/v1/apps/other/ws?token={}", encoded(&token)), "appkey error\n"),
    ] {
        let reply = WebSocket::open(server.slave(), &path, &[]).await.err().expect("refused");
        assert_eq!(reply.is(), (401, why), "{path}");
        assert!(reply.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{reply:?}");
    }
    let plain = Http::to(server.slave()).await.get(&path("demo", &token)).await;
    assert_eq!(plain.is(), (400, "Bad Request\n"), "no handshake at all");
}

#[tokio::test]
async fn a_token_dies_with_its_time_and_with_its_jwt() {
    let server = Setup::keyed().set("jwt.token_ttl", "1s").set("jwt.accept_jwt_as_token", "false").start().await;
    let token = server.token("demo", "ann", &["*"]).await;
    let jwt = signer().jwt("demo", "ann", &["*"]);
    assert!(WebSocket::open(server.slave(), &path("demo", &token), &[]).await.is_ok());
    let refused = WebSocket::open(server.slave(), &path("demo", &jwt), &[]).await.err().expect("refused");
    assert_eq!(refused.is(), (401, "token error\n"), "the JWT itself is not accepted");
    let dead = || async { WebSocket::open(server.slave(), &path("demo", &token), &[]).await.err().map(|no| no.status) };
    crate::support::until("the token expires", Some(401), dead).await;

    let server = Server::start().await;
    let mut short = claims("demo", "ann", &["*"]);
    short["exp"] = json!(now() + 2);
    let reply = server.auth(&signer().sign(&short)).await;
    let token = token_of(&reply);
    let dead = || async { WebSocket::open(server.slave(), &path("demo", &token), &[]).await.err().map(|no| no.status) };
    crate::support::until("a token never outlives its JWT", Some(401), dead).await;
}
