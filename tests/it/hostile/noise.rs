//! Random bytes on every listener, from a fixed seed: whatever they do, it serves on.

use std::time::Duration;

use crate::support::{
    client::{Client, command},
    http::Http,
    server::Server,
    websocket::{HANDSHAKE, TEXT, frame, raw},
};

/// A small generator (xorshift); the tests need variety, not secrecy.
struct NoiseRandom(u64);

impl NoiseRandom {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most) + 1).map(|_| self.next() as u8).collect()
    }

    /// `bytes` with a few of them changed, left out or doubled.
    fn damaged(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        for _ in 0..self.below(4) + 1 {
            if bytes.is_empty() {
                break;
            }
            let at = self.below(bytes.len());
            match self.below(3) {
                0 => bytes[at] = self.next() as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, bytes[at]),
            }
        }
        bytes
    }
}

async fn serves_on(server: &Server) {
    let mut ann = server.listener_on("demo", "ann", "news").await;
    server.backend().await.push("demo", "news", "e", "1").await;
    assert_eq!(ann.next_event().await.data, "1");
    assert_eq!(Http::to(server.admin()).await.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn noise_instead_of_http() {
    let server = Server::start().await;
    let mut random = NoiseRandom(0x5EED);
    for round in 0..300 {
        let address = [server.master(), server.slave(), server.admin()][round % 3];
        let mut http = Http::to(address).await;
        let path = ["/gcs/auth", "/api/push/demo/news/e", "/gcs/ws/demo?token=x", "/v1/apps/demo/messages"][round % 4];
        let whole = match round % 2 {
            0 => http.request("POST", path, &[("Content-Type", "application/x-www-form-urlencoded")], "data=1&jwt=2"),
            _ => http.request("GET", path, &HANDSHAKE, ""),
        };
        let bytes = if round % 5 == 0 { random.bytes(2_000) } else { random.damaged(whole.into_bytes()) };
        let _ = http.send(&bytes).await;
        // some hang up at once, some stay a moment
        if round % 7 == 0 {
            let (mut stream, _) = http.into_parts();
            let mut answer = [0; 64];
            let read = tokio::io::AsyncReadExt::read(&mut stream, &mut answer);
            let _ = tokio::time::timeout(Duration::from_millis(50), read).await;
        }
    }
    serves_on(&server).await;
}

#[tokio::test]
async fn noise_instead_of_frames() {
    let server = Server::start().await;
    let token = server.token("demo", "noise", &["*"]).await;
    let (mut random, mut read) = (NoiseRandom(0xF4A3), 0);
    for round in 0..300 {
        let mut client = Client::connect(server.slave(), "demo", &token).await;
        let good = [
            command("gusher.subscribe", r#"{"channel":"noise"}"#),
            command("gusher.multi_subscribe", r#"{"multi_channel":["a","b"]}"#),
            command("gusher.ping", r#"{"x":[1,2,3]}"#),
        ];
        let mut bytes = Vec::new();
        for _ in 0..random.below(5) + 1 {
            let text = good[random.below(good.len())].clone().into_bytes();
            bytes.extend(match random.below(5) {
                0 => random.bytes(300),
                1 => frame(TEXT, &random.damaged(text)),
                2 => random.damaged(frame(TEXT, &text)),
                3 => raw(random.next() as u8, &text),
                _ => frame(TEXT, &text),
            });
        }
        let _ = client.socket.send_bytes(&bytes).await;
        if round % 3 == 0 {
            // the server may wait for the rest of a frame, so it is read for a while, not to its end
            read += client.socket.reads_only_good_frames(Duration::from_millis(30)).await;
        }
    }
    assert!(read > 0, "some of it was answered");
    serves_on(&server).await;
    server.metric_becomes("wellhead_connections", "", 0.0).await;
}
