//! A process that stood still, as in a suspended machine or a paused container.

use std::time::Duration;

use futures_util::future::join_all;

use super::sized;
use crate::support::{client::Client, server::Setup};

#[tokio::test]
async fn a_process_that_stood_still_closes_nobody() {
    let server = Setup::keyed().set("slave.ping_interval", "1s").set("slave.pong_timeout", "1s").start().await;
    let token = server.token("demo", "ann", &["*"]).await;
    let mut clients: Vec<Client> =
        join_all((0..sized(50, 500)).map(|_| Client::connect(server.slave(), "demo", &token))).await;
    for _ in 0..sized(1, 5) {
        server.signal("STOP");
        // longer than interval and timeout together, by several beats
        tokio::time::sleep(Duration::from_secs(5)).await;
        server.signal("CONT");
        // each of them reads and answers pings, for as long as somebody could still be closed for the silence
        let reads = join_all(clients.iter_mut().map(|client| async {
            let pings = client.socket.pings;
            while client.socket.pings < pings + 4 {
                client.say("gusher.ping", "0").await;
                assert_eq!(client.reply().await.0, "gusher.pong_succeeded", "it is there");
                // a pause: the pings of the server are what is waited for
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }));
        reads.await;
    }
    assert_eq!(server.metric("wellhead_connections_closed_total", "").await, 0.0, "nobody was closed");
}
