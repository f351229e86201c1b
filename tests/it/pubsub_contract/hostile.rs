//! Whatever bytes pass the socket: nobody panics, nobody else is disturbed.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};
use wellhead::bus::{local::VERSION, pubsub::Subject::Slot};

use super::{PubSubCarrier, local::ClientList};
use crate::support::within;

/// A process that speaks bytes of its own on the socket.
pub struct Raw(UnixStream);

fn frame(kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(1 + rest.len()).unwrap().to_be_bytes().to_vec();
    frame.push(kind);
    frame.extend_from_slice(rest);
    frame
}

fn hello(version: u16, node: u32) -> Vec<u8> {
    frame(0, &[&version.to_be_bytes()[..], &node.to_be_bytes()].concat())
}

/// Numbers that look random and are the same in every run.
fn noise(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

impl Raw {
    async fn connected(links: &ClientList) -> Self {
        Self(UnixStream::connect(links.path()).await.expect("the exchange is there"))
    }

    pub async fn said_hello(links: &ClientList, node: u32) -> Self {
        let mut raw = Self::connected(links).await;
        raw.says(&hello(VERSION, node)).await;
        let welcome = raw.hears().await;
        assert_eq!(welcome[..3], [0, 0, 1], "{welcome:?}");
        raw
    }

    async fn says(&mut self, bytes: &[u8]) {
        // it may have been hung up on
        let _ = self.0.write_all(bytes).await;
    }

    async fn hears(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        within("a frame", self.0.read_exact(&mut length)).await.expect("a frame");
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        within("a frame", self.0.read_exact(&mut frame)).await.expect("a frame");
        frame
    }

    pub async fn pings(&mut self) {
        self.says(&frame(4, &7_u64.to_be_bytes())).await;
        assert_eq!(self.hears().await, [&[2][..], &7_u64.to_be_bytes()].concat());
    }

    async fn is_hung_up_on(&mut self) {
        let mut rest = Vec::new();
        let ended = within("the end", self.0.read_to_end(&mut rest)).await;
        assert!(ended.is_ok() || rest.is_empty());
    }
}

#[tokio::test]
async fn what_is_no_frame_ends_its_link_and_no_other() {
    let mut links = ClientList::started();
    let ann = links.node().up().await.listens(&[Slot(1)]).await;
    let cases: [&[u8]; 12] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &u32::MAX.to_be_bytes(),
        &(100_u32 << 20).to_be_bytes(),
        &frame(99, b""),
        &frame(0, b"x"),
        &frame(1, &[9, 0, 0, 0, 0]),
        &frame(1, &[0, 0, 1, 0, 0]),
        &frame(3, &[1, 0, 0, 0, 0, 1]),
        &frame(3, &[3, 255, 255, 255, 255, 1]),
        &frame(4, b"short"),
        &hello(VERSION, 5),
        &0_u32.to_be_bytes(),
    ];
    for case in cases {
        let mut raw = Raw::said_hello(&links, 5).await;
        raw.says(case).await;
        raw.is_hung_up_on().await;
        if !case.starts_with(&hello(VERSION, 5)) {
            let mut raw = Raw::connected(&links).await;
            raw.says(case).await;
            raw.is_hung_up_on().await;
        }
    }
    let mut raw = Raw::connected(&links).await;
    raw.says(&hello(VERSION, 1 << 21)).await;
    raw.is_hung_up_on().await;
    ann.send(Slot(1), "undisturbed").await;
    ann.hears(Slot(1), "undisturbed").await;
}

#[tokio::test]
async fn a_greeting_is_small() {
    let links = ClientList::started();
    let mut raw = Raw::connected(&links).await;
    // a message of that size is fine later; before the greeting nobody is known
    raw.says(&(1_u32 << 20).to_be_bytes()).await;
    raw.is_hung_up_on().await;
}

#[tokio::test]
async fn another_version_is_told_ours() {
    let links = ClientList::started();
    let mut raw = Raw::connected(&links).await;
    raw.says(&hello(VERSION + 1, 5)).await;
    assert_eq!(raw.hears().await, [0, 0, 1]);
    raw.is_hung_up_on().await;
    links.porter.says(&[]).await;
}

#[tokio::test]
async fn noise_after_a_greeting_disturbs_nobody() {
    let mut links = ClientList::started();
    let ann = links.node().up().await.listens(&[Slot(1)]).await;
    for seed in 1..200 {
        let mut random = noise(seed);
        let mut raw = Raw::said_hello(&links, 5).await;
        let mut bytes = Vec::new();
        for _ in 0..50 {
            let rest: Vec<u8> = (0..random() % 12).map(|_| random() as u8).collect();
            bytes.extend(frame((random() % 6) as u8, &rest));
        }
        raw.says(&bytes).await;
    }
    ann.send(Slot(1), "undisturbed").await;
    within("ann hears herself", async { while ann.handler.next().await.1 != "undisturbed" {} }).await;
}

#[tokio::test]
async fn who_pings_without_reading_is_cut_off() {
    let mut links = ClientList::started();
    let ann = links.node().up().await.listens(&[Slot(1)]).await;
    let mut raw = Raw::said_hello(&links, 5).await;
    let pings = frame(4, &[0; 8]).repeat(500_000);
    within("the exchange has it all", raw.0.write_all(&pings)).await.unwrap();
    let mut last = raw.hears().await;
    let mut pongs = 0;
    while last[0] == 2 {
        pongs += 1;
        last = raw.hears().await;
    }
    assert_eq!(last, [3], "it is told why");
    assert!(pongs < 500_000);
    ann.send(Slot(1), "undisturbed").await;
    ann.hears(Slot(1), "undisturbed").await;
}

#[tokio::test]
async fn a_link_survives_a_master_that_speaks_nonsense() {
    let mut links = ClientList::prepared();
    std::fs::create_dir_all(links.path().parent().unwrap()).unwrap();
    let master = UnixListener::bind(links.path()).unwrap();
    let ann = links.node();
    ann.pubsub.listen(Slot(1));
    let welcome = frame(0, &VERSION.to_be_bytes());
    let mut cases = vec![
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        u32::MAX.to_be_bytes().to_vec(),
        0_u32.to_be_bytes().to_vec(),
        frame(0, &(VERSION + 1).to_be_bytes()),
        frame(2, &[0; 8]),
        [welcome.clone(), frame(99, b"")].concat(),
        [welcome.clone(), frame(1, b"")].concat(),
        [welcome.clone(), welcome.clone()].concat(),
        [welcome.clone(), frame(1, &[0, 0, 0, 0, 1])[..6].to_vec()].concat(),
    ];
    for seed in 1..8 {
        let mut random = noise(seed);
        cases.push([welcome.clone(), frame((random() % 5) as u8, &random().to_be_bytes())].concat());
    }
    for case in cases {
        let (mut stream, _) = within("the link tries again", master.accept()).await.unwrap();
        let _ = stream.write_all(&case).await;
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let _ = within("the link hangs up", stream.read_to_end(&mut rest)).await;
        ann.takes_nothing().await;
    }
    drop(master);
    links.start();
    ann.is(true).await;
    ann.send(Slot(1), "at last").await;
    ann.hears(Slot(1), "at last").await;
}

#[tokio::test]
async fn a_master_that_is_silent_is_left() {
    let links = ClientList::prepared();
    std::fs::create_dir_all(links.path().parent().unwrap()).unwrap();
    let master = UnixListener::bind(links.path()).unwrap();
    let (ann, _) = links.link(1);
    // it says nothing at all
    let (silent, _) = within("the link tries", master.accept()).await.unwrap();
    let (mut stream, _) = within("the link tries again", master.accept()).await.unwrap();
    drop(silent);
    // or it answers one ping, and then no more
    stream.write_all(&frame(0, &VERSION.to_be_bytes())).await.unwrap();
    let mut raw = Raw(stream);
    loop {
        let said = raw.hears().await;
        if said[0] == 4 {
            raw.says(&frame(2, &said[1..])).await;
            break;
        }
    }
    ann.is(true).await;
    let since = std::time::Instant::now();
    // nor is anybody made to wait longer by a queue that is full
    let message = vec![0; 1 << 20];
    while ann.pubsub.send(Slot(1), message.clone().into()).await.is_ok() {}
    ann.is(false).await;
    assert!(since.elapsed() < Duration::from_secs(6), "{:?}", since.elapsed());
    ann.takes_nothing().await;
}
