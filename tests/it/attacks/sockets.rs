//! Sockets that send halves, or draw answers and do not read them: all of them together have one budget.

use futures_util::future::join_all;
use tokio::net::TcpStream;

use super::{Bystander, deaf, figure, pour, sized};
use crate::support::{
    client::path,
    pusher::{DEMO, setup},
    server::{Server, Setup},
    websocket::{CONTINUATION, HANDSHAKE, TEXT, frame, header, raw},
};

/// What all sockets may hold together, in MiB.
const BUDGET: usize = 8;

async fn start() -> (Server, Bystander, String) {
    let limited = |setup: Setup| setup.set("limits.memory", &format!("{BUDGET}MiB"));
    let server = limited(setup()).start().await;
    let mut bystander = Bystander::of(&server).await;
    bystander.is_served(&server).await;
    let token = server.token("demo", "mallory", &["*"]).await;
    (server, bystander, token)
}

/// A handshake, sent and not waited for, since its answer is not read either.
async fn knock(server: &Server, path: &str) -> TcpStream {
    let mut stream = deaf(server.slave()).await;
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n");
    for (name, value) in HANDSHAKE {
        request += &format!("{name}: {value}\r\n");
    }
    pour(&mut stream, format!("{request}\r\n").as_bytes(), 1).await;
    stream
}

/// Many sockets that each send `piece` up to `times` times.
async fn flood(server: &Server, path: &str, piece: &[u8], times: usize) {
    let before = server.resident();
    let count = sized(1_000, 2_000);
    let attackers = join_all((0..count).map(|_| async {
        let mut attacker = knock(server, path).await;
        pour(&mut attacker, piece, times * piece.len()).await;
        attacker
    }))
    .await;
    server.idles().await;
    let grown = server.grown(before) as usize;
    figure(&format!("{count} sockets that share {BUDGET} MiB: {grown} MiB"));
    // beside the budget: what the sockets are themselves, and what the allocator rounds up to and has not given back yet
    assert!(grown < BUDGET + 64 + count / 20, "{count} sockets cost {grown} MiB");
    drop(attackers);
    server.metric_becomes("wellhead_connections", "", 1.0).await;
}

#[tokio::test]
async fn half_sent_messages_share_one_budget() {
    let (server, mut bystander, token) = start().await;
    // 64 KiB are allowed, and all but a few bytes of them come
    let mut half = header(0x80 | TEXT, true, 64 << 10);
    half.resize((64 << 10) - 10, b'x');
    flood(&server, &path("demo", &token), &half, 1).await;
    bystander.is_served(&server).await;
    // the same in fragments
    let mut fragments = raw(TEXT, &[b'x'; 1_000]);
    for _ in 0..62 {
        fragments.extend(raw(CONTINUATION, &[b'x'; 1_000]));
    }
    flood(&server, &path("demo", &token), &fragments, 1).await;
    bystander.is_served(&server).await;
}

#[tokio::test]
async fn answers_that_nobody_reads_share_one_budget() {
    let (server, mut bystander, token) = start().await;
    // each draws an error that repeats it
    let long = "x".repeat(60_000);
    let unknown = frame(TEXT, format!(r#"{{"event":"{long}","data":{{}}}}"#).as_bytes());
    flood(&server, &DEMO.path(), &unknown, 20).await;
    bystander.is_served(&server).await;
    let refused = frame(TEXT, format!(r#"{{"event":"gusher.ping","data":"{long}"}}"#).as_bytes());
    flood(&server, &path("demo", &token), &refused, 20).await;
    bystander.is_served(&server).await;
}
