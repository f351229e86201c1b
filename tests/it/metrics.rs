//! What happened can be read off the metrics.

use crate::support::{keys::signer, server::Server};

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
    assert!(server.metric("wellhead_process_resident_memory_bytes", "").await > 1e6);
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
