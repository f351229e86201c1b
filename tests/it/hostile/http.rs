//! Requests that are too large, too many, too slow or malformed. The client must be able to read the refusal.

use std::fmt::Write as _;

use crate::support::{
    http::Http,
    server::{Server, Setup},
    within,
};

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_and_the_client_reads_it() {
    let server = Server::start().await;
    for address in [server.master(), server.slave(), server.admin()] {
        let mut many = String::from("GET /healthz HTTP/1.1\r\nHost: x\r\n");
        for number in 0..10_000 {
            let _ = write!(many, "X-{number}: y\r\n");
        }
        many += "\r\n";
        let long_header = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(256 << 10));
        let long_url = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "y".repeat(256 << 10));
        let long_query = format!("GET /healthz?{} HTTP/1.1\r\nHost: x\r\n\r\n", "y".repeat(256 << 10));
        let header_17 = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(17 << 10));
        let url_17 = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "y".repeat(17 << 10));
        for (what, request, statuses) in [
            ("10,000 headers", &many, &[431][..]),
            ("256 KiB header", &long_header, &[431]),
            ("256 KiB URL", &long_url, &[414, 431]),
            ("256 KiB query", &long_query, &[414, 431]),
            ("17 KiB header", &header_17, &[431]),
            ("17 KiB URL", &url_17, &[414, 431]),
        ] {
            let mut http = Http::to(address).await;
            let reply = http.exchange(request.as_bytes()).await;
            assert!(statuses.contains(&reply.status), "{what}: {reply:?}");
        }
        assert_eq!(Http::to(address).await.get("/healthz").await.is(), (200, "ok"));
    }
}

#[tokio::test]
async fn a_head_of_15_kib_is_fine() {
    let server = Server::start().await;
    let padding = "y".repeat(15 << 10);
    let mut http = Http::to(server.master()).await;
    assert_eq!(http.call("GET", "/healthz", &[("X", &padding)], "").await.status, 200);
    let fields: Vec<_> = (0..80).map(|number| (format!("X-{number}"), "y")).collect();
    let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(http.call("GET", "/healthz", &fields, "").await.status, 200);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_the_client_reads_it() {
    let server = Setup::keyed().set("limits.body", "64KiB").start().await;
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    for (address, path) in [(server.master(), "/api/push/demo/news/e"), (server.slave(), "/gcs/auth")] {
        let fits = format!("data={}", "x".repeat((64 << 10) - 5));
        let status = Http::to(address).await.call("POST", path, &form, &fits).await.status;
        assert_ne!(status, 413);
        for size in [(64 << 10) - 4, 10 << 20] {
            let body = format!("data={}", "x".repeat(size));
            let reply = Http::to(address).await.call("POST", path, &form, &body).await;
            assert_eq!(reply.status, 413, "declared, {size}");
        }
        let mut http = Http::to(address).await;
        let mut chunked = format!("POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n");
        chunked += "Content-Type: application/x-www-form-urlencoded\r\n\r\n";
        for _ in 0..200 {
            let _ = write!(chunked, "400\r\n{}\r\n", "x".repeat(1_024));
        }
        chunked += "0\r\n\r\n";
        assert_eq!(http.exchange(chunked.as_bytes()).await.status, 413, "chunked");
    }
}

#[tokio::test]
async fn malformed_requests_are_refused() {
    let server = Server::start().await;
    for (what, request) in [
        ("rubbish", "\u{1}\u{2}\u{3}\r\n\r\n".to_owned()),
        ("no version", "GET /healthz\r\n\r\n".to_owned()),
        ("a wrong version", "GET /healthz HTTP/3.0\r\nHost: x\r\n\r\n".to_owned()),
        ("a wrong header", "GET /healthz HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n".to_owned()),
        (
            "two lengths",
            "POST /api/push/a/b/c HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxy".to_owned(),
        ),
        (
            "a negative length",
            "POST /api/push/a/b/c HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n".to_owned(),
        ),
        (
            "length and chunks",
            "POST /api/push/a/b/c HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                .to_owned(),
        ),
        (
            "a length of chunk that is none",
            "POST /api/push/a/b/c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n".to_owned(),
        ),
    ] {
        for address in [server.master(), server.slave()] {
            let reply = Http::to(address).await.exchange(request.as_bytes()).await;
            assert!((400..500).contains(&reply.status), "{what}: {reply:?}");
        }
    }
    for (method, path) in [("BREW", "/healthz"), ("TRACE", "/healthz"), ("PUT", "/gcs/ping"), ("POST", "/gcs/ping")] {
        let reply = Http::to(server.slave()).await.call(method, path, &[], "").await;
        assert!([404, 405, 501].contains(&reply.status), "{method}: {reply:?}");
    }
    let star = Http::to(server.slave()).await.call("OPTIONS", "*", &[], "").await;
    assert!((200..500).contains(&star.status), "{star:?}");
    let absolute = Http::to(server.slave()).await.call("GET", "http://x/healthz", &[], "").await;
    assert!((200..500).contains(&absolute.status), "{absolute:?}");
    assert_eq!(Http::to(server.slave()).await.get("/gcs/ping").await.is(), (200, "pong"));
}

#[tokio::test]
async fn a_head_that_never_ends_is_given_up() {
    let server = Server::start().await;
    let mut http = Http::to(server.slave()).await;
    http.send(b"GET /gcs/ping HTTP/1.1\r\nHost: x\r\n").await.expect("it listens");
    let (mut stream, _) = http.into_parts();
    let mut answer = Vec::new();
    let read = within("it is given up", tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer)).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(read.is_err() || answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn a_hundred_half_open_handshakes_keep_nobody_out() {
    let server = Server::start().await;
    let mut half_open = Vec::new();
    for number in 0..100 {
        let mut http = Http::to(server.slave()).await;
        let start: &[u8] = match number % 4 {
            0 => b"",
            1 => b"GET /gcs/ws/demo?tok",
            2 => b"GET /gcs/ws/demo HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
            _ => b"POST /gcs/auth HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\njwt=",
        };
        if !start.is_empty() {
            http.send(start).await.expect("it listens");
        }
        half_open.push(http);
    }
    let mut ann = server.listener_on("demo", "ann", "news").await;
    server.backend().await.push("demo", "news", "e", "1").await;
    assert_eq!(ann.next_event().await.data, "1");
    assert_eq!(server.metric("wellhead_connections", "").await, 1.0, "half a handshake is no socket");
    for (number, http) in half_open.into_iter().enumerate() {
        // a body has thirty seconds (proved beside the door, with a shorter limit); a head has five
        if number % 4 == 1 || number % 4 == 2 {
            let (mut stream, _) = http.into_parts();
            let mut answer = Vec::new();
            let _ = within("it is given up", tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer)).await;
        }
    }
}

#[tokio::test]
async fn a_herd_that_comes_back_at_once_is_let_in() {
    let server = Setup::keyed().descriptors(1_024).start().await;
    let token = server.token("demo", "ann", &["*"]).await;
    // half of the descriptors, all in the same moment, as after a restart
    let herd = (0..500).map(|_| crate::support::client::Client::connect(server.slave(), "demo", &token));
    let herd = futures_util::future::join_all(herd).await;
    server.metric_becomes("wellhead_connections", "", 500.0).await;
    drop(herd);
}
