//! Clients that do not read cost themselves, nobody else.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::support::{client::Client, server::Setup, within};

const PUSHES: usize = 2_000;
/// How many pushes a reader may be behind: on a machine that is busy elsewhere, it must not be slow itself.
const AHEAD: usize = 10;

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
    let (mut tasks, mut windows) = (Vec::new(), Vec::new());
    for mut reader in readers {
        let (text, window) = (text.clone(), Arc::new(Semaphore::new(AHEAD)));
        windows.push(Arc::clone(&window));
        tasks.push(tokio::spawn(async move {
            for number in 0..PUSHES {
                let event = reader.next_event().await;
                assert_eq!(event.data, format!("\"{number}-{text}\""), "nothing is left out");
                window.add_permits(1);
            }
            reader
        }));
    }
    for number in 0..PUSHES {
        for window in &windows {
            within("every reader keeps up", window.acquire()).await.expect("never closed").forget();
        }
        backend.push("demo", "news", "e", &format!("{number}-{text}")).await;
        if number % 100 == 0 {
            most = most.max(server.resident());
        }
    }
    let mut heard = Vec::new();
    for task in tasks {
        heard.push(task.await.expect("each of them heard everything"));
    }
    assert!(most - before < 24 << 20, "{} KiB more while two did not read", (most - before) >> 10);
    server.metric_becomes("wellhead_connections_closed_total", "slow_consumer", 2.0).await;
    assert_eq!(backend.names("/api/demo/online").await, ["ann", "bob", "eve", "joe"]);
}

#[tokio::test]
async fn who_stays_behind_for_too_long_is_closed_however_little_it_is() {
    let server = Setup::keyed().set("limits.stall", "4s").set("limits.send_buffer", "16KiB").start().await;
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
