//! Clients that do not read cost themselves, nobody else.

use crate::support::{client::Client, server::Setup};

const PUSHES: usize = 2_000;

#[tokio::test]
async fn two_clients_that_never_read_go_unnoticed_by_the_others() {
    let server = Setup::keyed().set("limits.queue", "256KiB").set("limits.send_buffer", "64KiB").start().await;
    let mut readers = Vec::new();
    for user in ["ann", "bob", "eve", "joe"] {
        readers.push(server.listener_on("demo", user, "news").await);
    }
    let _deaf =
        [server.listener_on("demo", "deaf-1", "news").await, server.listener_on("demo", "deaf-2", "news").await];
    let before = server.resident();
    let mut backend = server.backend().await;
    let text = "x".repeat(10_000);
    let mut most = before;
    let readers: Vec<_> = readers
        .into_iter()
        .map(|mut reader| {
            let text = text.clone();
            tokio::spawn(async move {
                for number in 0..PUSHES {
                    let event = reader.next_event().await;
                    assert_eq!(event.data, format!("\"{number}-{text}\""), "nothing is left out");
                }
                reader
            })
        })
        .collect();
    for number in 0..PUSHES {
        backend.push("demo", "news", "e", &format!("{number}-{text}")).await;
        if number % 100 == 0 {
            most = most.max(server.resident());
        }
    }
    let mut heard = Vec::new();
    for reader in readers {
        heard.push(reader.await.expect("each of them heard everything"));
    }
    assert!(most - before < 24 << 20, "{} KiB more while two did not read", (most - before) >> 10);
    server.metric_becomes("wellhead_connections_closed_total", "slow_consumer", 2.0).await;
    assert_eq!(backend.names("/api/demo/online").await, ["ann", "bob", "eve", "joe"]);
}

#[tokio::test]
async fn who_stays_behind_for_too_long_is_closed_however_little_it_is() {
    let server = Setup::keyed().set("limits.stall", "2s").set("limits.send_buffer", "16KiB").start().await;
    let deaf: Client = server.listener_on("demo", "deaf", "news").await;
    let mut ann = server.listener_on("demo", "ann", "news").await;
    let mut backend = server.backend().await;
    // one large frame makes nobody slow by itself, time does
    let text = "x".repeat(2 << 20);
    backend.push("demo", "news", "e", &text).await;
    assert_eq!(ann.next_event().await.data.len(), text.len() + 2);
    server.metric_becomes("wellhead_connections_closed_total", "slow_consumer", 1.0).await;
    assert_eq!(backend.names("/api/demo/online").await, ["ann"]);
    drop(deaf);
}
