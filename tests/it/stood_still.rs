//! A process that stood still for a while: nobody is closed for what it did not read meanwhile.

use std::time::Duration;

use tokio::sync::watch;

use crate::support::{
    client::Client,
    server::Setup,
    websocket::{CLOSE, PING, PONG, WebSocket},
    within,
};

/// How a client fares that answers every ping.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Life {
    pings: usize,
    closed: bool,
}

/// Answer every ping until the end.
fn answering(mut socket: WebSocket) -> watch::Receiver<Life> {
    let (tell, life) = watch::channel(Life::default());
    tokio::spawn(async move {
        while let Ok(Some(frame)) = socket.try_frame().await {
            match frame.opcode {
                PING if socket.try_send(PONG, &frame.payload).await.is_ok() => tell.send_modify(|life| life.pings += 1),
                PING | CLOSE => break,
                _ => {}
            }
        }
        tell.send_modify(|life| life.closed = true);
    });
    life
}

#[tokio::test]
async fn a_process_that_stood_still_closes_nobody_who_answers() {
    const STILL: Duration = Duration::from_secs(7);
    let server = Setup::keyed().set("slave.ping_interval", "3s").set("slave.pong_timeout", "3s").start().await;
    let token = server.token("demo", "ann", &["*"]).await;
    let mut clients = Vec::new();
    for _ in 0..200 {
        clients.push(answering(Client::connect(server.slave(), "demo", &token).await.socket));
    }
    for client in &mut clients {
        within("the first ping", client.wait_for(|life| life.pings > 0)).await.expect("it stays");
    }
    let mute = Client::connect(server.slave(), "demo", &token).await;
    server.signal("STOP");
    // how long it stands still is what is tried
    tokio::time::sleep(STILL).await;
    server.signal("CONT");
    let before: Vec<_> = clients.iter().map(|client| client.borrow().pings).collect();
    for (client, before) in clients.iter_mut().zip(before) {
        let later = within("two more pings", client.wait_for(|life| life.closed || life.pings >= before + 2)).await;
        assert!(!later.expect("its task tells its end").closed, "who answers stays");
    }
    server.metric_becomes("wellhead_connections_closed_total", "cause=\"pong_timeout\"", 1.0).await;
    // who does not answer, and reads no close frame either, is let go of a little later; and nobody else is
    server.metric_becomes("wellhead_connections", "", 200.0).await;
    assert_eq!(server.metric("wellhead_connections_closed_total", "").await, 1.0);
    drop(mute);
}
