//! `POST /api/push`, byte by byte.

use aws_lc_rs::digest::{SHA256, digest};

use super::{post, push};
use crate::{
    cluster::field::{By, Field},
    support::{
        http::Http,
        keys::signer,
        phoenix::PhoenixClient,
        server::{Server, Setup},
        until,
    },
};

const INVALID: &str = r#"{"error":"Invalid push arguments: channel, data, event are required."}"#;
const FORBIDDEN: &str = r#"{"error":"Access forbidden"}"#;
const JSON: (&str, &str) = ("content-type", "application/json");
const GOOD: &str = r#"{"channel":"news","data":1,"event":"e"}"#;

fn key(name: &str, rest: &str) -> String {
    let hash: String = digest(&SHA256, name.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("[[push_keys]]\nname = \"{name}\"\nsha256 = \"{hash}\"\n{rest}\n")
}

#[tokio::test]
async fn the_example_of_the_documentation_is_answered_byte_for_byte() {
    let server = Setup::development().start().await;
    // as curl sends it
    let body =
        "{\n    \"channel\": [\"test\", \"test2\", \"test\"],\n    \"data\": \"data\",\n    \"event\": \"woohoo\"\n  }";
    let mut http = Http::to(server.master()).await;
    let headers = [("User-Agent", "curl/7.54.0"), ("Accept", "*/*"), JSON];
    let request = http.request("POST", "/api/push", &headers, body);
    let reply = http.exchange(request.as_bytes()).await;
    assert_eq!(reply.is(), (200, r#"{"channel":["test","test2"],"data":"data","event":"woohoo"}"#));
    for (name, value) in [
        ("cache-control", "max-age=0, private, must-revalidate"),
        ("content-length", "59"),
        ("content-type", "application/json; charset=utf-8"),
    ] {
        assert_eq!(reply.header(name), Some(value), "{reply:?}");
    }
    assert!(reply.header("date").is_some(), "{reply:?}");
    assert!(reply.header("x-request-id").is_some_and(|id| (20..=200).contains(&id.len())), "{reply:?}");
}

#[tokio::test]
async fn every_reply_has_its_headers_and_large_bodies_are_read_alike() {
    let toml = format!("[pushex]\nkey_header = \"X-Key\"\n{}", key("one", "apps = [\"shop\"]"));
    let server = Setup::keyed().set("limits.body", "1MiB").toml(&toml).start().await;
    let mut http = Http::to(server.master()).await;
    let id = "2llo21pptuh5gla7cg0002v4";
    let large = format!(r#"{{"channel":"news","data":"{}","event":"e"}}"#, "x".repeat(200 << 10));
    let huge = "x".repeat((1 << 20) + 1);
    for (headers, body, status) in [
        (vec![("x-key", "one")], GOOD, 200),
        (vec![("x-key", "one")], &large, 200),
        (vec![("authorization", "bearer one")], &large, 200),
        (vec![("x-key", "one"), ("accept", "text/html")], &large, 406),
        (vec![("x-key", "one")], "{}", 422),
        (vec![("x-key", "one")], "{", 400),
        (vec![("x-key", "two")], GOOD, 403),
        (vec![], GOOD, 403),
        (vec![("x-key", "one")], &huge, 413),
    ] {
        let headers = [&headers[..], &[JSON, ("X-Request-Id", id)]].concat();
        let reply = http.call("POST", "/api/push", &headers, body).await;
        assert_eq!(reply.status, status, "{headers:?}: {reply:?}");
        assert_eq!(reply.header("x-request-id"), Some(id), "{status}");
        assert_eq!(reply.header("cache-control"), Some("max-age=0, private, must-revalidate"), "{status}");
        assert_eq!(reply.header("content-type"), Some("application/json; charset=utf-8"), "{status}");
        if reply.header("connection") == Some("close") {
            http = Http::to(server.master()).await;
        }
    }
}

#[tokio::test]
async fn who_may_not_push_hears_so_before_its_body_is_read() {
    let toml = [
        "[pushex]\napp = \"demo\"\nkey_parameter = \"key\"\n",
        &key("all", ""),
        &key("news", "apps = [\"shop\"]\nchannels = [\"news\"]\nrights = [\"push\"]"),
        &key("asks", "rights = [\"query\"]"),
        &key("two", "apps = [\"shop\", \"mart\"]"),
    ];
    let server = Setup::keyed().toml(&toml.concat()).start().await;
    let mut http = Http::to(server.master()).await;
    // the body of the request never comes
    let head = "POST /api/push HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer wrong\r\nContent-Length: 100\r\n\r\n";
    let reply = http.exchange(head.as_bytes()).await;
    assert_eq!(reply.is(), (403, FORBIDDEN));

    let bad = "{";
    for (key, body, expected) in [
        ("Bearer all", GOOD, 200),
        ("Bearer news", GOOD, 200),
        ("Bearer two", GOOD, 403),
        ("Bearer asks", GOOD, 403),
        ("Bearer wrong", GOOD, 403),
        // unlike the original, which reads the body first
        ("Bearer wrong", bad, 403),
        ("Basic all", GOOD, 403),
        ("", GOOD, 403),
        ("Bearer wrong", "{}", 403),
        ("Bearer news", r#"{"channel":["news","other"],"data":1,"event":"e"}"#, 403),
        ("Bearer all", "{}", 422),
    ] {
        let (status, text) = post(&server, &[JSON, ("authorization", key)], body).await;
        assert_eq!(status, expected, "{key} {body}: {text}");
        match status {
            403 => assert_eq!(text, FORBIDDEN),
            422 => assert_eq!(text, INVALID),
            _ => {}
        }
    }
    let mut http = Http::to(server.master()).await;
    let reply = http.call("POST", "/api/push?key=news", &[JSON], GOOD).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    // the key's app, and that of the settings
    let shop = PhoenixClient::connect(server.slave(), 2, &signer().jwt("shop", "ann", &["*"])).await;
    let demo = PhoenixClient::connect(server.slave(), 2, &signer().jwt("demo", "ann", &["*"])).await;
    let (mut shop, mut demo) = (shop.joined("news").await, demo.joined("news").await);
    for (key, channel) in [("Bearer all", &mut demo), ("Bearer news", &mut shop)] {
        let body = format!(r#"{{"channel":"news","data":"{key}","event":"e"}}"#);
        assert_eq!(post(&server, &[JSON, ("authorization", key)], &body).await.0, 200);
        assert_eq!(channel.next_push().await.payload, format!(r#"{{"data":"{key}","event":"e"}}"#));
    }
    shop.beats().await;
    demo.beats().await;
}

#[tokio::test]
async fn without_keys_programs_of_this_machine_push_and_pages_do_not() {
    let server = Server::start().await;
    assert_eq!(post(&server, &[JSON], GOOD).await.0, 200);
    let page = ("origin", "https://elsewhere.example");
    assert_eq!(post(&server, &[JSON, page], GOOD).await, (403, FORBIDDEN.to_owned()));
    assert_eq!(post(&server, &[JSON, ("x-forwarded-for", "1.2.3.4")], GOOD).await, (403, FORBIDDEN.to_owned()));
}

#[tokio::test]
async fn its_path_stands_beside_those_of_gusher() {
    let server = Server::start().await;
    let mut ann = server.listener_on("push", "ann", "news").await;
    let mut bob = server.listener_on("demo", "bob", "news").await;
    let mut http = Http::to(server.master()).await;
    // gusher's own app `push`, and its routes with PushEx' name in front
    let reply = http.form("/api/push/push/news/e", &[("data", "1")]).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(ann.next_event().await.data, "1");
    for path in ["/api/push", "/api/push/"] {
        let reply = http.json("POST", path, r#"{"channel":"news","data":2,"event":"e"}"#).await;
        assert_eq!(reply.is(), (200, r#"{"channel":["news"],"data":2,"event":"e"}"#), "{path}");
        assert_eq!(bob.next_event().await.data, "2");
        for method in ["GET", "PUT", "DELETE"] {
            let reply = http.call(method, path, &[], "").await;
            assert_eq!(reply.is(), (404, r#"{"errors":{"detail":"Not Found"}}"#), "{method} {path}");
            assert_eq!(reply.header("allow"), None);
        }
    }
    assert_eq!(http.get("/api/push/a/b/c").await.status, 405);
    assert_eq!(http.get("/api/push/channels").await.json(), serde_json::json!(["news"]));

    let one = Setup::development().set("standalone.listen", "127.0.0.1:0").start().await;
    push(&one, GOOD).await;
}

#[tokio::test]
async fn what_cannot_be_queued_is_503() {
    let mut field = Field::start(By::Nats, 1, 1).await;
    push(&field.masters[0], GOOD).await;
    field.nats.as_mut().expect("it is joined by NATS").kill();
    let unavailable = (503, r#"{"errors":{"detail":"Service Unavailable"}}"#.to_owned());
    until("nothing is queued", unavailable, || post(&field.masters[0], &[JSON], GOOD)).await;
}
