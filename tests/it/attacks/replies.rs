//! Clients that ask and ask and do not read: nothing more is read of them while the kernel refuses their replies.

use futures_util::future::join_all;

use super::{Bystander, deaf, figure, listeners, pour, sized};
use crate::support::server::Server;

#[tokio::test]
async fn who_does_not_read_is_not_read() {
    let server = Server::start().await;
    let mut bystander = Bystander::of(&server).await;
    bystander.is_served(&server).await;
    let before = server.resident();
    let each = sized(4, 334);
    // several at once, and each of them already waits when it is sent
    let requests = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".repeat(100);
    let attackers = join_all(listeners(&server).iter().flat_map(|&address| {
        let requests = requests.as_bytes();
        (0..each).map(move |_| async move {
            let mut attacker = deaf(address).await;
            pour(&mut attacker, requests, 16 << 20).await;
            attacker
        })
    }))
    .await;
    server.idles().await;
    let grown = server.grown(before);
    figure(&format!("{} clients that do not read: {grown} MiB, and an idle processor", attackers.len()));
    assert!(grown < 64, "{} of them cost {grown} MiB", attackers.len());
    bystander.is_served(&server).await;
    drop(attackers);
    bystander.is_served(&server).await;
}
