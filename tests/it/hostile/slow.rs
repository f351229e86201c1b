//! Clients that do not read cost themselves, nobody else.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::AsyncReadExt,
    sync::Semaphore,
    time::{Instant, sleep},
};

use crate::support::{
    client::Client,
    pusher::{DEMO, PusherClient, setup},
    server::Setup,
    within,
};

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

/// As much as a body may have, and more than the kernel takes for who does not read.
const LARGE: usize = 9 << 20;

/// The frame under way is far over `limits.queue` when the next ones come.
#[tokio::test]
async fn a_large_frame_and_what_follows_it_reach_whoever_reads() {
    let server = setup().start().await;
    let mut ann = server.listener_on("demo", "ann", "news").await;
    let mut bob = PusherClient::connect(server.slave(), DEMO).await.subscribed("news").await;
    let mut backend = server.backend().await;
    let large = "x".repeat(LARGE);
    for data in [&large, "small", &large, "small"] {
        backend.push("demo", "news", "e", data).await;
    }
    server.metric_becomes("wellhead_deliveries_total", "", 8.0).await;
    for length in [LARGE, 5, LARGE, 5] {
        assert_eq!(ann.next_event().await.data.len(), length + 2);
        assert_eq!(bob.next().await.data.as_str().map(str::len), Some(length));
    }
    backend.push("demo", "news", "e", "again").await;
    assert_eq!(ann.next_event().await.data, "\"again\"");
    assert_eq!(bob.next().await.data, "again");
    assert_eq!(server.metric("wellhead_connections_closed_total", "slow_consumer").await, 0.0);
}

#[tokio::test]
async fn a_large_frame_saves_nobody_who_never_reads() {
    let server = setup().start().await;
    let mut bob = server.listener_on("demo", "bob", "news").await;
    let _deaf = server.listener_on("demo", "deaf", "news").await;
    let _deaf_too = PusherClient::connect(server.slave(), DEMO).await.subscribed("news").await;
    let mut backend = server.backend().await;
    backend.push("demo", "news", "e", &"x".repeat(LARGE)).await;
    bob.next_event().await;
    // twice `limits.queue`
    for _ in 0..20 {
        backend.push("demo", "news", "e", &"x".repeat(100 << 10)).await;
        bob.next_event().await;
    }
    server.metric_becomes("wellhead_connections_closed_total", "slow_consumer", 2.0).await;
    server.metric_becomes("wellhead_queue_bytes", "", 0.0).await;
}

#[tokio::test]
async fn who_keeps_reading_may_take_longer_than_the_stall_and_who_drips_may_not() {
    let limits = [("limits.stall", "2s"), ("limits.queue", "64KiB"), ("limits.send_buffer", "16KiB")];
    let setup = limits.iter().fold(setup(), |setup, (key, value)| setup.set(key, value));
    let server = setup.start().await;
    let mut steady = server.listener_on("demo", "steady", "news").await;
    let mut steady_too = PusherClient::connect(server.slave(), DEMO).await.subscribed("news").await;
    let mut drip = server.listener_on("demo", "drip", "news").await;
    server.backend().await.push("demo", "news", "e", &"x".repeat(LARGE)).await;
    // it goes on after its end: what its kernel has is left to it
    let dripping = tokio::spawn(async move {
        let mut byte = [0];
        while drip.socket.stream().read_exact(&mut byte).await.is_ok() {
            // the attack is its pace
            sleep(Duration::from_millis(100)).await;
        }
    });
    let (mut buffer, mut taken, began) = (vec![0; 1 << 20], 0, Instant::now());
    while taken < LARGE {
        for socket in [&mut steady.socket, &mut steady_too.socket] {
            within("a part of it", socket.stream().read_exact(&mut buffer)).await.expect("it is not closed");
        }
        taken += buffer.len();
        if taken < LARGE {
            // slower than the stall over all, faster than it for a part
            sleep(Duration::from_millis(500)).await;
        }
    }
    assert!(began.elapsed() > Duration::from_secs(3), "this took longer than a stall");
    server.metric_becomes("wellhead_connections_closed_total", "slow_consumer", 1.0).await;
    dripping.abort();
}
