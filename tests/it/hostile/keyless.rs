//! A master without push keys serves programs on its own machine, and nothing that a browser or a proxy passes on.

use crate::support::{http::Http, server::Server};

#[tokio::test]
async fn what_a_browser_or_a_proxy_passes_on_is_refused() {
    let server = Server::start().await;
    let mut ann = server.listener_on("demo", "ann", "news").await;
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let own = format!("http://{}", server.master());
    let port = server.master().port();
    let other_port = format!("http://127.0.0.1:{}", port.wrapping_add(1));
    let rebound = format!("evil.example:{port}");
    for (name, value) in [
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Origin", other_port.as_str()),
        ("Sec-Fetch-Site", "cross-site"),
        ("Forwarded", "for=192.0.2.1"),
        ("X-Forwarded-For", "192.0.2.1"),
        ("Via", "1.1 proxy"),
        ("Host", rebound.as_str()),
        ("Host", "evil.example"),
        ("Host", "127.0.0.1.evil.example"),
        ("Host", "192.0.2.1:7777"),
    ] {
        for path in ["/api/push/demo/news/e", "/api/push/user/demo/ann", "/v1/apps/demo/channels/news/messages"] {
            let reply = Http::to(server.master()).await.call("POST", path, &[form, (name, value)], "data=1").await;
            assert_eq!(reply.status, 403, "{name}: {value} on {path}: {reply:?}");
            assert!(reply.text().contains("key"), "it says what to do: {reply:?}");
        }
        let reply = Http::to(server.master()).await.call("GET", "/api/demo/online", &[(name, value)], "").await;
        assert_eq!(reply.status, 403, "{name}: {value}");
        // these never ask for a key
        for open in ["/api/ping", "/healthz"] {
            let reply = Http::to(server.master()).await.call("GET", open, &[(name, value)], "").await;
            assert_eq!(reply.status, 200, "{name}: {value} on {open}");
        }
    }
    let local = format!("localhost:{port}");
    let six = format!("[::1]:{port}");
    for (name, value) in [
        ("Origin", own.as_str()),
        ("Host", &local),
        ("Host", &six),
        ("Host", "127.0.0.1"),
        ("Sec-Fetch-Site", "same-origin"),
    ] {
        let path = "/api/push/demo/news/e";
        let reply = Http::to(server.master()).await.call("POST", path, &[form, (name, value)], "data=2").await;
        assert_eq!(reply.status, 200, "{name}: {value}: {reply:?}");
        assert_eq!(ann.next_event().await.data, "2", "and nothing of the refused came");
    }
}

#[tokio::test]
async fn two_hosts_do_not_fool_it() {
    let server = Server::start().await;
    for hosts in ["Host: 127.0.0.1\r\nHost: evil.example\r\n", "Host: evil.example\r\nHost: 127.0.0.1\r\n", ""] {
        let request = format!("GET /api/demo/online HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
        let reply = Http::to(server.master()).await.exchange(request.as_bytes()).await;
        assert!([400, 403].contains(&reply.status), "{hosts:?}: {reply:?}");
    }
    let absolute = "GET http://evil.example/api/demo/online HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    let reply = Http::to(server.master()).await.exchange(absolute.as_bytes()).await;
    assert!((400..500).contains(&reply.status), "{reply:?}");
}
