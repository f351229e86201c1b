//! Requests that mean one thing to us and another to somebody on the way.

use super::listeners;
use crate::support::{
    http::{Http, Reply},
    pusher::{Api, DEMO, setup},
    server::Server,
    websocket::HANDSHAKE,
};

async fn exchange(address: std::net::SocketAddr, request: &str) -> Reply {
    Http::to(address).await.exchange(request.as_bytes()).await
}

#[tokio::test]
async fn a_keyless_master_takes_nothing_from_a_proxy() {
    let server = Server::start().await;
    let mut ann = server.listener_on("demo", "ann", "news").await;
    let kind = "Content-Type: application/x-www-form-urlencoded";
    for (version, more) in [("1.0", ""), ("1.1", "Via: 1.1 proxy\r\n"), ("1.1", "via: 1.0 fred, 1.1 p.example\r\n")] {
        for path in ["/api/push/demo/news/e", "/api/push/user/demo/ann", "/v1/apps/demo/channels/news/messages"] {
            let request = format!(
                "POST {path} HTTP/{version}\r\nHost: 127.0.0.1\r\n{more}{kind}\r\nContent-Length: 6\r\n\r\ndata=1"
            );
            let reply = exchange(server.master(), &request).await;
            assert_eq!(reply.status, 403, "HTTP/{version} {more:?} {path}: {reply:?}");
            assert!(reply.text().contains("key"), "it says what to do: {reply:?}");
        }
        let request = format!("GET /api/demo/online HTTP/{version}\r\nHost: 127.0.0.1\r\n{more}\r\n");
        assert_eq!(exchange(server.master(), &request).await.status, 403, "HTTP/{version} {more:?}");
    }
    server.backend().await.push("demo", "news", "e", "2").await;
    assert_eq!(ann.next_event().await.data, "2", "and nothing of the refused came");
}

#[tokio::test]
async fn the_page_to_try_is_not_for_whom_a_proxy_lets_in() {
    let server = crate::support::server::Setup::development().start().await;
    let get = |version, more| format!("GET /try HTTP/{version}\r\nHost: 127.0.0.1\r\n{more}\r\n");
    let master = server.master();
    let served = exchange(master, &get("1.1", "")).await;
    assert_eq!(served.status, 200, "{served:?}");
    for (version, more) in [("1.0", ""), ("1.1", "Via: 1.1 proxy\r\n")] {
        let reply = exchange(master, &get(version, more)).await;
        assert!([403, 404].contains(&reply.status), "HTTP/{version} {more:?}: {}", reply.status);
        assert!(!reply.text().contains("eyJ"), "no token in it");
    }
}

#[tokio::test]
async fn a_host_that_is_none_is_refused() {
    let server = Server::start().await;
    for address in listeners(&server) {
        for host in ["user@h", "h/x", "a b", "<x>", "a,b", "h:x", "[::1", "h\u{1}", "h?x", "h#x", "h\\x", "\"h\""] {
            let reply = exchange(address, &format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            assert_eq!(reply.status, 400, "{host:?}");
        }
        for host in ["h", "h.example:8888", "127.0.0.1", "[::1]:8888", "xn--bcher-kva.example", "a_b", ""] {
            let reply = exchange(address, &format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            assert_eq!(reply.status, 200, "{host:?}");
        }
    }
}

#[tokio::test]
async fn chunks_that_two_readers_could_read_differently_are_refused() {
    let server = Server::start().await;
    let mut ann = server.listener_on("demo", "ann", "news").await;
    let head = "POST /api/push/demo/news/e HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\
        Content-Type: application/x-www-form-urlencoded\r\n\r\n";
    for chunks in [
        "6 \r\ndata=1\r\n0\r\n\r\n",
        " 6\r\ndata=1\r\n0\r\n\r\n",
        "6\t\r\ndata=1\r\n0\r\n\r\n",
        "6;\r\ndata=1\r\n0\r\n\r\n",
        "6\ndata=1\r\n0\r\n\r\n",
        "6\r\ndata=1\n0\r\n\r\n",
        "6\r\ndata=1\r\n0\n\n",
        "+6\r\ndata=1\r\n0\r\n\r\n",
        "0x6\r\ndata=1\r\n0\r\n\r\n",
        "-1\r\ndata=1\r\n0\r\n\r\n",
        "\r\ndata=1\r\n0\r\n\r\n",
        "6\r\ndata=1x\r\n0\r\n\r\n",
        "fffffffffffffffff\r\ndata=1\r\n0\r\n\r\n",
    ] {
        let reply = exchange(server.master(), &format!("{head}{chunks}")).await;
        assert_eq!(reply.status, 400, "{chunks:?}: {reply:?}");
    }
    for chunks in
        ["6\r\ndata=2\r\n0\r\n\r\n", "5\r\ndata=\r\n01\r\n2\r\n0\r\n\r\n", "6;a=b\r\ndata=2\r\n0\r\nX: y\r\n\r\n"]
    {
        let reply = exchange(server.master(), &format!("{head}{chunks}")).await;
        assert_eq!(reply.status, 200, "{chunks:?}: {reply:?}");
        assert_eq!(ann.next_event().await.data, "2", "and nothing of the refused came");
    }
}

#[tokio::test]
async fn an_offer_to_upgrade_that_nobody_takes_up_changes_nothing() {
    let server = setup().start().await;
    let mut ann = server.listener_on("demo", "ann", "news").await;
    for address in listeners(&server) {
        let reply = Http::to(address).await.call("GET", "/healthz", &HANDSHAKE, "").await;
        assert_eq!(reply.is(), (200, "ok"));
    }
    let mut headers = HANDSHAKE.to_vec();
    headers.push(("Content-Type", "application/x-www-form-urlencoded"));
    let reply = Http::to(server.master()).await.call("POST", "/api/push/demo/news/e", &headers, "data=1").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(ann.next_event().await.data, "1");
    let reply = Http::to(server.slave()).await.call("POST", "/gcs/auth", &headers, "jwt=x").await;
    assert!(reply.status == 401 && !reply.text().is_empty(), "its body was read: {reply:?}");

    let api = Api::of(&server, DEMO).await;
    let path = format!("/apps/{}/events", DEMO.id);
    let body = r#"{"name":"e","channel":"news","data":"x"}"#;
    let query = DEMO.signed("POST", &path, &[], body, crate::support::keys::now());
    let reply = Http::to(server.master()).await.call("POST", &format!("{path}?{query}"), &HANDSHAKE, body).await;
    assert_eq!(reply.is(), (200, "{}"));
    drop(api);
}
