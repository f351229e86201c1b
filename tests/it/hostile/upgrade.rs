//! Handshakes that RFC 6455 §4.2 does not allow.

use crate::support::{
    client::path,
    http::{Http, Reply},
    server::Server,
};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
const HOST: &str = "Host: 127.0.0.1\r\n";

async fn attempt(server: &Server, line: &str, headers: &[&str], body: &str) -> Reply {
    let request = format!("{line}\r\n{}\r\n{body}", headers.concat());
    Http::to(server.slave()).await.exchange(request.as_bytes()).await
}

#[tokio::test]
async fn wrong_handshakes_are_refused_each_with_its_status() {
    let server = Server::start().await;
    let token = server.token("demo", "ann", &["*"]).await;
    let path = path("demo", &token);
    let get = format!("GET {path} HTTP/1.1");
    let short = "Sec-WebSocket-Key: c2hvcnQ=\r\n";
    let no_base64 = "Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!==\r\n";
    let empty_key = "Sec-WebSocket-Key: \r\n";
    for (what, line, headers, body, status) in [
        ("right", get.clone(), &[HOST, UPGRADE, VERSION, KEY][..], "", 101),
        ("POST", format!("POST {path} HTTP/1.1"), &[HOST, UPGRADE, VERSION, KEY, "Content-Length: 0\r\n"], "", 405),
        ("HTTP/1.0", format!("GET {path} HTTP/1.0"), &[HOST, UPGRADE, VERSION, KEY], "", 400),
        ("no Host", get.clone(), &[UPGRADE, VERSION, KEY], "", 400),
        ("an empty Host", get.clone(), &["Host: \r\n", UPGRADE, VERSION, KEY], "", 400),
        ("no key", get.clone(), &[HOST, UPGRADE, VERSION], "", 400),
        ("two keys", get.clone(), &[HOST, UPGRADE, VERSION, KEY, KEY], "", 400),
        ("an empty key", get.clone(), &[HOST, UPGRADE, VERSION, empty_key], "", 400),
        ("a short key", get.clone(), &[HOST, UPGRADE, VERSION, short], "", 400),
        ("a key that is no base64", get.clone(), &[HOST, UPGRADE, VERSION, no_base64], "", 400),
        ("version 12", get.clone(), &[HOST, UPGRADE, KEY, "Sec-WebSocket-Version: 12\r\n"], "", 426),
        ("version 8", get.clone(), &[HOST, UPGRADE, KEY, "Sec-WebSocket-Version: 8\r\n"], "", 426),
        ("a version that is none", get.clone(), &[HOST, UPGRADE, KEY, "Sec-WebSocket-Version: x\r\n"], "", 426),
        ("a body", get.clone(), &[HOST, UPGRADE, VERSION, KEY, "Content-Length: 5\r\n"], "hello", 400),
        ("chunks", get.clone(), &[HOST, UPGRADE, VERSION, KEY, "Transfer-Encoding: chunked\r\n"], "0\r\n\r\n", 400),
        ("no Upgrade", get.clone(), &[HOST, VERSION, KEY], "", 400),
        ("another Upgrade", get.clone(), &[HOST, "Connection: Upgrade\r\nUpgrade: h2c\r\n", VERSION, KEY], "", 400),
        ("no Connection", get.clone(), &[HOST, "Upgrade: websocket\r\n", VERSION, KEY], "", 400),
        ("an unknown path", "GET /nowhere HTTP/1.1".to_owned(), &[HOST, UPGRADE, VERSION, KEY], "", 404),
        ("a path of HTTP", "GET /gcs/ping HTTP/1.1".to_owned(), &[HOST, UPGRADE, VERSION, KEY], "", 404),
        (
            "an upgrade with POST",
            "POST /gcs/auth HTTP/1.1".to_owned(),
            &[HOST, UPGRADE, VERSION, KEY, "Content-Length: 0\r\n"],
            "",
            405,
        ),
    ] {
        let reply = attempt(&server, &line, headers, body).await;
        let one_of = match what {
            // any refusal will do where the request belongs to no socket
            "a path of HTTP" => (200..500).contains(&reply.status) && reply.status != 101,
            "an upgrade with POST" => (400..500).contains(&reply.status),
            "POST" => [400, 405].contains(&reply.status),
            _ => reply.status == status,
        };
        assert!(one_of, "{what}: wanted {status}: {reply:?}");
        if reply.status == 426 {
            assert_eq!(reply.header("sec-websocket-version"), Some("13"), "{what}");
        }
    }
    server.metric_becomes("wellhead_connections", "", 0.0).await;
}

#[tokio::test]
async fn a_version_is_required() {
    let server = Server::start().await;
    let token = server.token("demo", "ann", &["*"]).await;
    let line = format!("GET {} HTTP/1.1", path("demo", &token));
    let reply = attempt(&server, &line, &[HOST, UPGRADE, KEY], "").await;
    assert_eq!((reply.status, reply.header("sec-websocket-version")), (426, Some("13")));
    let reply = attempt(&server, &line, &[HOST, UPGRADE, KEY, VERSION, VERSION], "").await;
    assert!([400, 426].contains(&reply.status), "{reply:?}");
}

#[tokio::test]
async fn nobody_tunnels_through() {
    let server = Server::start().await;
    for address in [server.slave(), server.master(), server.admin()] {
        let request = "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n";
        let reply = Http::to(address).await.exchange(request.as_bytes()).await;
        assert!((400..500).contains(&reply.status), "{reply:?}");
    }
    let request = format!("GET /gcs/ws/demo HTTP/1.1\r\n{HOST}{UPGRADE}{VERSION}{KEY}\r\n");
    let reply = Http::to(server.master()).await.exchange(request.as_bytes()).await;
    assert!((400..500).contains(&reply.status), "the master opens no sockets: {reply:?}");
}

#[tokio::test]
async fn header_names_and_values_match_in_any_case() {
    let server = Server::start().await;
    let token = server.token("demo", "ann", &["*"]).await;
    let line = format!("GET {} HTTP/1.1", path("demo", &token));
    let odd = "connection: keep-alive, UPGRADE\r\nUPGRADE: websocket\r\nsec-websocket-VERSION: 13\r\n";
    assert_eq!(attempt(&server, &line, &[HOST, odd, KEY], "").await.status, 101);
}

#[tokio::test]
async fn sockets_beyond_the_limit_are_told_to_come_back() {
    let server = crate::support::server::Setup::keyed().set("slave.max_connections", "2").start().await;
    let token = server.token("demo", "ann", &["*"]).await;
    let open = async || crate::support::websocket::WebSocket::open(server.slave(), &path("demo", &token), &[]).await;
    let one = open().await.expect("room");
    let _two = open().await.expect("room");
    let refused = open().await.err().expect("no room");
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    one.leave().await;
    crate::support::until("there is room again", true, async || open().await.is_ok()).await;
}
