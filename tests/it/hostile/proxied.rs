//! A proxy before a master without push keys: a real nginx that is told where to pass requests on and nothing else.

use crate::support::{
    http::Http,
    nginx::Nginx,
    server::{Server, Setup},
};

const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// HTTP/1.0, or what a proxy adds when it is told to speak HTTP/1.1.
const PROXIES: [&str; 4] = [
    "",
    "proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Via $server_protocol;",
    "proxy_http_version 1.1; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
    "proxy_http_version 1.1; proxy_set_header Host $http_host;",
];

#[tokio::test]
async fn what_nginx_passes_on_is_refused_though_it_adds_nothing() {
    let server = Server::start().await;
    let mut ann = server.listener_on("demo", "ann", "news").await;
    for more in PROXIES {
        let nginx = Nginx::before(server.master(), more);
        // who comes over the network gives the proxy a name of its own
        let headers = [FORM, ("Host", "push.example")];
        for path in ["/api/push/demo/news/e", "/api/push/user/demo/ann", "/v1/apps/demo/channels/news/messages"] {
            let reply = Http::to(nginx.address).await.call("POST", path, &headers, "data=1").await;
            assert_eq!(reply.status, 403, "{more} {path}: {reply:?}");
            assert!(reply.text().contains("configure [[push_keys]]"), "{reply:?}");
        }
        for path in ["/api/demo/online", "/v1/stats"] {
            let reply = Http::to(nginx.address).await.call("GET", path, &headers, "").await;
            assert_eq!(reply.status, 403, "{more} {path}: {reply:?}");
        }
        // these never ask for a key
        for path in ["/api/ping", "/healthz"] {
            assert_eq!(Http::to(nginx.address).await.call("GET", path, &headers, "").await.status, 200, "{path}");
        }
    }
    server.backend().await.push("demo", "news", "e", "2").await;
    assert_eq!(ann.next_event().await.data, "2", "nothing came before");
}

#[tokio::test]
async fn the_page_with_a_token_on_it_is_not_passed_on() {
    let server = Setup::development().start().await;
    let here = Http::to(server.master()).await.get("/try").await;
    assert!(here.status == 200 && here.text().contains("eyJ"), "{here:?}");
    for more in PROXIES {
        let nginx = Nginx::before(server.master(), more);
        let reply = Http::to(nginx.address).await.call("GET", "/try", &[("Host", "push.example")], "").await;
        assert_eq!(reply.status, 403, "{more}: {reply:?}");
        assert!(reply.text().contains("[[push_keys]]") && !reply.text().contains("eyJ"), "{reply:?}");
    }
}

#[tokio::test]
async fn with_push_keys_a_proxy_may_stand_before_the_master() {
    let key = "wh_a-key-for-this-test";
    let hash: String = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes())
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let keys = format!("[[push_keys]]\nname = \"a\"\nsha256 = \"{hash}\"\n");
    let server = Setup::keyed().toml(&keys).start().await;
    let mut ann = server.listener_on("demo", "ann", "news").await;
    let nginx = Nginx::before(server.master(), "");
    let bearer = format!("Bearer {key}");
    for (authorization, status) in [("Bearer wrong", 401), (bearer.as_str(), 200)] {
        let headers = [FORM, ("Authorization", authorization)];
        let reply = Http::to(nginx.address).await.call("POST", "/api/push/demo/news/e", &headers, "data=1").await;
        assert_eq!(reply.status, status, "{reply:?}");
    }
    assert_eq!(ann.next_event().await.data, "1");
}

#[tokio::test]
async fn http_1_0_and_via_are_refused_on_every_row_that_needs_a_key() {
    let server = Server::start().await;
    let host = server.master();
    let body = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 6\r\n\r\ndata=1";
    for (version, header) in [("1.0", ""), ("1.1", "Via: 1.1 proxy\r\n"), ("1.0", "Via: 1.0 proxy\r\n")] {
        for line in
            ["POST /api/push/demo/news/e", "POST /v1/apps/demo/channels/news/messages", "GET /api/demo/channels"]
        {
            let body = if line.starts_with("GET") { "\r\n" } else { body };
            let request = format!("{line} HTTP/{version}\r\nHost: {host}\r\n{header}{body}");
            let reply = Http::to(host).await.exchange(request.as_bytes()).await;
            assert_eq!(reply.status, 403, "{line} {version} {header}: {reply:?}");
            assert!(reply.text().contains("configure [[push_keys]]"), "{reply:?}");
        }
        let request = format!("GET /api/ping HTTP/{version}\r\nHost: {host}\r\n{header}\r\n");
        assert_eq!(Http::to(host).await.exchange(request.as_bytes()).await.is(), (200, "pong"));
    }
}
