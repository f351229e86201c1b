//! What happened can be read off the metrics.

use std::collections::{HashMap, HashSet};

use crate::support::{http::Http, keys::signer, server::Server};

#[tokio::test]
async fn what_happens_is_counted() {
    let server = Server::start().await;
    let ann = server.client("demo", "ann", &["*"]).await.subscribed("a").await.subscribed("b").await;
    let mut bob = server.listener_on("demo", "bob", "a").await;
    let mut backend = server.backend().await;
    backend.push("demo", "a", "e", "1").await;
    backend.push("demo", "nobody-here", "e", "1").await;
    backend.push_matching("demo", "^a$", "e", "2").await;
    let batch = r#"[{"channel":"a","event":"e","data":3},{"channel":"b","event":"e","data":4}]"#;
    backend.accepted("/api/push_batch/demo", &[("batch_data", batch)]).await;
    backend.push_to_user("demo", "bob", "5").await;
    backend.accepted("/api/add/channel/user/demo/bob", &[("data", "x")]).await;
    backend.form("/api/push/demo", &[("channel_pattern", "*"), ("event", "e"), ("data", "1")]).await;
    for _ in 0..5 {
        bob.socket.text().await;
    }
    assert_eq!(server.auth("rubbish").await.status, 401);
    assert_eq!(server.auth(&signer().sign(&serde_json::json!({ "exp": 1 }))).await.status, 401);

    for (name, label, value) in [
        ("wellhead_connections", "", 2.0),
        ("wellhead_connections_opened_total", "", 2.0),
        ("wellhead_subscriptions", "", 3.0),
        ("wellhead_channels", "", 2.0),
        ("wellhead_users", "", 2.0),
        ("wellhead_pushes_total", "kind=\"channel\"", 2.0),
        ("wellhead_pushes_total", "kind=\"batch\"", 1.0),
        ("wellhead_pushes_total", "kind=\"user\"", 1.0),
        ("wellhead_pushes_total", "kind=\"grant\"", 1.0),
        // 2 for the push, 2 for the pattern, 3 for the batch, 1 for the user; a notice is no push
        ("wellhead_deliveries_total", "", 8.0),
        ("wellhead_slave_auth_failures_total", "", 2.0),
        ("wellhead_queue_bytes", "", 0.0),
    ] {
        server.metric_becomes(name, label, value).await;
    }
    assert!(server.metric("wellhead_pushes_total", "kind=\"pattern\"").await >= 1.0);
    assert!(server.metric("wellhead_fan_out_duration_seconds_count", "").await > 0.0);
    assert!(server.metric("wellhead_http_requests_total", "role=\"master\"").await > 5.0);
    assert!(server.metric("process_resident_memory_bytes", "").await > 1e6);
    assert!(server.metric("wellhead_build_info", "version").await > 0.0);

    ann.socket.leave().await;
    server.metric_becomes("wellhead_connections_closed_total", "client_closed", 1.0).await;
    bob.say("gusher.dance", "1").await;
    bob.closed().await;
    server.metric_becomes("wellhead_connections_closed_total", "invalid_message", 1.0).await;
    for name in ["connections", "subscriptions", "channels", "users"] {
        server.metric_becomes(&format!("wellhead_{name}"), "", 0.0).await;
    }
}

#[tokio::test]
async fn a_user_with_many_sockets_is_one_user() {
    let server = Server::start().await;
    let mut sockets = Vec::new();
    // they come to every worker thread
    for _ in 0..8 {
        sockets.push(server.client("demo", "ann", &["*"]).await);
    }
    sockets.push(server.client("other", "ann", &["*"]).await);
    server.metric_becomes("wellhead_connections", "", 9.0).await;
    assert_eq!(server.metric("wellhead_users", "").await, 2.0, "once in each app");
    for socket in sockets.drain(..7) {
        socket.socket.leave().await;
    }
    server.metric_becomes("wellhead_connections", "", 2.0).await;
    assert_eq!(server.metric("wellhead_users", "").await, 2.0);
    for socket in sockets {
        socket.socket.leave().await;
    }
    server.metric_becomes("wellhead_users", "", 0.0).await;
}

#[tokio::test]
async fn metrics_come_in_the_format_that_is_asked_for() {
    let server = Server::start().await;
    let mut http = Http::to(server.admin()).await;
    let old = "text/plain; version=0.0.4; charset=utf-8";
    let open = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    for (accept, kind) in [
        (None, old),
        (Some("*/*"), old),
        (Some("text/plain;version=0.0.4;q=0.9,application/openmetrics-text;version=1.0.0;q=0.5"), old),
        (Some("application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"), open),
    ] {
        let headers: Vec<_> = accept.map(|accept| ("Accept", accept)).into_iter().collect();
        let reply = http.call("GET", "/metrics", &headers, "").await;
        assert_eq!((reply.status, reply.header("Content-Type")), (200, Some(kind)), "{accept:?}");
        assert_eq!(reply.text().ends_with("# EOF\n"), kind == open);
        assert_eq!(reply.text().contains("# TYPE wellhead_deliveries_total counter\n"), kind == old);
    }
}

/// What `promtool check metrics` looks at, on a server that has counted one of everything that is easily counted.
#[tokio::test]
async fn metrics_keep_prometheus_conventions() {
    let server = Server::start().await;
    let _ann = server.listener_on("demo", "ann", "a").await;
    server.backend().await.push("demo", "a", "e", "1").await;
    assert_eq!(server.auth("rubbish").await.status, 401);
    let reply = Http::to(server.admin()).await.get("/metrics").await;
    let text = reply.text();
    let (mut help, mut kinds) = (HashMap::new(), HashMap::new());
    let (mut last, mut families, mut series) = ("", HashSet::new(), HashSet::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, words) = rest.split_once(' ').expect(line);
            assert!(!words.is_empty() && help.insert(name, words).is_none(), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect(line);
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(kinds.insert(name, kind).is_none(), "twice: {line}");
            assert!(help.contains_key(name), "no help: {line}");
            assert!(name.starts_with("wellhead_") || name.starts_with("process_"), "{line}");
            assert!(!name.starts_with("wellhead_process"), "{line}");
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'),
                "{line}"
            );
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            for reserved in ["_count", "_sum", "_bucket", "_info"] {
                assert!(!name.ends_with(reserved) || name == "wellhead_build_info", "{line}");
            }
            for word in name.split('_') {
                let (types, units) =
                    (["gauge", "counter", "histogram"], ["ms", "us", "milliseconds", "kb", "mb", "kib", "min"]);
                assert!(!types.contains(&word) && !units.contains(&word), "{line}");
            }
        } else {
            let (labelled, value) = line.rsplit_once(' ').expect(line);
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(series.insert(labelled), "twice: {line}");
            let name = labelled.split('{').next().expect(line);
            let of_histogram = ["_count", "_sum", "_bucket"].iter().find_map(|end| name.strip_suffix(end));
            let family = of_histogram.filter(|family| kinds.get(family) == Some(&"histogram")).unwrap_or(name);
            assert!(kinds.contains_key(family), "no type: {line}");
            if last != family {
                assert!(families.insert(family), "its family is torn: {line}");
                last = family;
            }
        }
    }
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds"] {
        assert!(kinds.contains_key(name), "{text}");
    }
    assert_eq!(kinds.len(), help.len());
}
