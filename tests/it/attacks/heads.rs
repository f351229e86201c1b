//! Heads that do not end, that come too late, or that are too large; and crowds that wait.

use std::{net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Bystander, deaf, figure, is_closed, listeners, pour, sized};
use crate::support::{
    http::Http,
    server::{Server, Setup},
    within,
};

/// A connection that has been served once already.
async fn served_once(address: SocketAddr) -> TcpStream {
    let mut http = Http::to(address).await;
    assert_eq!(http.get("/healthz").await.status, 200);
    http.into_parts().0
}

/// Send a byte now and then, until the server has enough of it.
async fn dribbles(mut stream: TcpStream) {
    let head = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ".iter().chain([b'y'].iter().cycle());
    let (mut reader, mut writer) = stream.split();
    let mut said = Vec::new();
    let dribble = async {
        for byte in head {
            if writer.write_all(&[*byte]).await.is_err() {
                return;
            }
            // the attack is its pace
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within("the server closes it", async {
        tokio::select! {
            _ = reader.read_to_end(&mut said) => {}
            () = dribble => {}
        }
    })
    .await;
}

#[tokio::test]
async fn every_head_has_its_time_not_only_the_first() {
    let server = Server::start().await;
    let mut bystander = Bystander::of(&server).await;
    // three times as many have room together with the bystander at the admin listener, too: nobody is to go for another
    let each = sized(2, 20);
    let addresses = listeners(&server).into_iter().flat_map(|address| vec![address; each]);
    let silent = join_all(addresses.clone().map(|address| async move {
        let mut stream = served_once(address).await;
        stream.write_all(b"GET /heal").await.expect("it is open");
        is_closed(&mut stream).await;
    }));
    let slow = join_all(addresses.clone().map(|address| async move { dribbles(served_once(address).await).await }));
    let slow_at_once = join_all(addresses.map(|address| async move {
        dribbles(TcpStream::connect(address).await.expect("it listens")).await;
    }));
    tokio::join!(silent, slow, slow_at_once, bystander.is_served(&server));
}

#[tokio::test]
async fn a_crowd_that_waits_keeps_nobody_out() {
    let descriptors = sized(256, 1_024);
    let server = Setup::keyed().descriptors(descriptors).start().await;
    let mut bystander = Bystander::of(&server).await;
    let mut crowd = Vec::new();
    for address in listeners(&server) {
        // whose body is wanted whoever sends it
        let path = if address == server.slave() { "/gcs/auth" } else { "/api/push/demo/news/e" };
        let post = |lines| format!("POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n\r\n").into_bytes();
        let half = [&post("Content-Length: 100")[..], b"jwt="].concat();
        let half_chunk = [&post("Transfer-Encoding: chunked")[..], b"9\r\njwt="].concat();
        for number in 0..descriptors + 50 {
            let mut stream = within("it connects", TcpStream::connect(address)).await.expect("it listens");
            let start: &[u8] = match number % 5 {
                // nothing; a head that goes on; a request and then one that goes on; halves of bodies
                0 => b"",
                1 => b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n",
                2 => b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /hea",
                3 => &half[..],
                _ => &half_chunk[..],
            };
            // it may have been sent away
            let _ = stream.write_all(start).await;
            crowd.push(stream);
        }
        bystander.is_served(&server).await;
    }
    let lines = server.log.collect(|line| (line.contains("WARN") || line.contains("ERROR")).then_some(())).len();
    assert!(lines < 20, "{lines} lines of log");
    drop(crowd);
    bystander.is_served(&server).await;
}

#[tokio::test]
async fn a_head_is_refused_before_it_ends() {
    let server = Server::start().await;
    let long = "y".repeat(17 << 10);
    for address in listeners(&server) {
        for (what, head, status) in [
            ("header", format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX: {long}"), 431),
            ("name", format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{long}"), 431),
            ("many", format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{}", "X: y\r\n".repeat(3_000)), 431),
            ("method", long.clone(), 431),
            ("target", format!("GET /{long}"), 414),
            ("query", format!("GET /healthz?{long}"), 414),
        ] {
            let mut http = Http::to(address).await;
            let _ = http.send(head.as_bytes()).await;
            assert_eq!(http.reply().await.status, status, "{what} on {address}");
        }
    }
}

#[tokio::test]
async fn large_heads_cost_neither_memory_nor_lines_of_log() {
    let server = Server::start().await;
    let mut bystander = Bystander::of(&server).await;
    bystander.is_served(&server).await;
    let (before, lines) = (server.resident(), server.log.collect(|_| Some(())).len());
    let each = sized(50, 500);
    let beginnings = [
        "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ",
        "",
        "GET /",
        // what httparse allows in 16 bits
        "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n",
    ];
    let text = "y".repeat(65_536);
    let attackers = join_all((0..each).flat_map(|number| {
        let (server, text, beginning) = (&server, text.as_bytes(), beginnings[number % beginnings.len()]);
        listeners(server).into_iter().map(move |address| async move {
            let mut attacker = deaf(address).await;
            // it may have been sent away
            let _ = attacker.write_all(beginning.as_bytes()).await;
            pour(&mut attacker, text, 1).await;
            let _ = attacker.write_all(b": y\r\n\r\n").await;
            attacker
        })
    }))
    .await;
    server.idles().await;
    let (grown, most) = (server.grown(before), sized(16, 48) as u64);
    figure(&format!("{} heads without an end: {grown} MiB", attackers.len()));
    assert!(grown < most, "{} of them cost {grown} MiB", attackers.len());
    let lines = server.log.collect(|_| Some(())).len() - lines;
    assert!(lines < 10, "{lines} lines of log");
    bystander.is_served(&server).await;
}
