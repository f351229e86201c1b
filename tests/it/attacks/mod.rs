//! What hostile strangers do to a server, and what it may cost: bounded memory, no time of the processor while they do
//! not read, and nobody else's service. A few of them within `make test`; `make hostile` sends crowds at the optimized
//! binary.

mod bodies;
mod commands;
mod doors;
mod heads;
mod replies;
mod sockets;
mod stops;
mod tokens;

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::support::{client::Client, http::Http, server::Server, within};

/// `few` within `make test`, `many` within `make hostile`.
fn sized(few: usize, many: usize) -> usize {
    let full = std::env::var_os("WELLHEAD_ATTACKS").is_some_and(|size| size == "full");
    // both ends of every connection may be ours
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    if full { many } else { few }
}

/// What an attack has cost; `make hostile` shows it.
#[expect(clippy::print_stdout, reason = "it is what whoever runs the attacks wants to see")]
fn figure(what: &str) {
    println!("  {what}");
}

/// Somebody who listens meanwhile, and whom nothing may disturb.
struct Bystander {
    ann: Client,
}

impl Bystander {
    async fn of(server: &Server) -> Self {
        Self { ann: server.listener_on("demo", "ann", "news").await }
    }

    /// Pushes reach who was there before, and who comes now; every listener answers.
    async fn is_served(&mut self, server: &Server) {
        server.backend().await.push("demo", "news", "e", "1").await;
        assert_eq!(self.ann.next_event().await.data, "1");
        let mut bob = server.listener_on("demo", "bob", "late").await;
        server.backend().await.push("demo", "late", "e", "2").await;
        assert_eq!(bob.next_event().await.data, "2");
        bob.socket.leave().await;
        for address in listeners(server) {
            assert_eq!(Http::to(address).await.get("/healthz").await.is(), (200, "ok"));
        }
    }
}

fn listeners(server: &Server) -> [SocketAddr; 3] {
    [server.slave(), server.master(), server.admin()]
}

/// A connection that takes as little as the kernel allows, and is never read from.
async fn deaf(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("a buffer may be small");
    within("the listener accepts", socket.connect(address)).await.expect("it listens")
}

/// Send `bytes` over and over, until nothing more is taken or `most` bytes are.
async fn pour(stream: &mut TcpStream, bytes: &[u8], most: usize) {
    let mut sent = 0;
    while sent < most {
        match tokio::time::timeout(Duration::from_secs(1), stream.write_all(bytes)).await {
            Ok(Ok(())) => sent += bytes.len(),
            _ => return,
        }
    }
}

/// The server closes the connection, whatever it says before.
async fn is_closed(stream: &mut TcpStream) {
    let mut said = Vec::new();
    let _ = within("the server closes it", stream.read_to_end(&mut said)).await;
}
