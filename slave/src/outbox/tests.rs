//! Outboxes against a real socket.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::*;

async fn pair(budget: usize) -> (Outbox, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (Outbox::new(Transport::plain(server, 4_096).unwrap(), budget), client)
}

async fn read(client: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; bytes];
    timeout(Duration::from_secs(5), client.read_exact(&mut buffer)).await.unwrap().unwrap();
    buffer
}

/// Push until the kernel refuses something.
fn fill(outbox: &Outbox, frame: &Bytes) -> usize {
    (1..).find(|_| (outbox.push(Frame::Whole(frame.clone())), outbox.flush()).1 != Flushed::All).unwrap()
}

#[tokio::test]
async fn whole_and_split_frames_leave_in_order_in_one_piece() {
    let (outbox, mut client) = pair(0).await;
    outbox.push(Frame::text("one"));
    outbox.push(Frame::text_with_tail("[7,", Bytes::from_static(b"\"tail\"]")));
    outbox.push(Frame::text("three"));
    assert!(outbox.mark());
    assert!(!outbox.mark());
    assert_eq!(outbox.flush(), Flushed::All);
    assert!(outbox.mark(), "a flush takes it off the list");
    assert_eq!(read(&mut client, 5 + 12 + 7).await, b"\x81\x03one\x81\x0a[7,\"tail\"]\x81\x05three");
}

#[tokio::test]
async fn more_pieces_than_one_writev_takes_all_leave() {
    let (outbox, mut client) = pair(0).await;
    let expected: Vec<u8> = (0..200u8).collect();
    for byte in &expected {
        outbox.push_raw(Bytes::copy_from_slice(&[*byte]));
    }
    assert_eq!(outbox.flush(), Flushed::All);
    assert_eq!(read(&mut client, 200).await, expected);
}

#[tokio::test]
async fn what_the_kernel_refuses_stays_and_leaves_later() {
    let (outbox, mut client) = pair(usize::MAX).await;
    let frame = Bytes::from(vec![7; 100_000]);
    let frames = fill(&outbox, &frame);
    assert!(outbox.owed_bytes() > 0);
    let all = read(&mut client, frames * frame.len());
    let flush = std::future::poll_fn(|cx| outbox.poll_flush(cx));
    let (flushed, all) = tokio::join!(flush, all);
    flushed.unwrap();
    assert!(all.iter().all(|&byte| byte == 7));
    assert_eq!(outbox.owed_bytes(), 0);
}

#[tokio::test]
async fn what_is_sent_at_once_keeps_its_place_behind_what_is_owed() {
    let (outbox, mut client) = pair(usize::MAX).await;
    outbox.send(&Bytes::from_static(b"first"));
    assert_eq!(read(&mut client, 5).await, b"first");
    outbox.push_raw(Bytes::from_static(b"owed"));
    outbox.send(&Bytes::from_static(b"then"));
    assert_eq!(read(&mut client, 8).await, b"owedthen");

    let large = Bytes::from((0..4 << 20).map(|n: u32| n as u8).collect::<Vec<_>>());
    outbox.send(&large);
    outbox.send(&Bytes::from_static(b"end"));
    assert!(outbox.owed_bytes() > 3, "the kernel took a part of it");
    let (flushed, all) =
        tokio::join!(std::future::poll_fn(|cx| outbox.poll_flush(cx)), read(&mut client, large.len() + 3));
    flushed.unwrap();
    assert!(all[..large.len()] == large && all[large.len()..] == *b"end");
}

#[tokio::test]
async fn one_large_frame_makes_no_slow_consumer_but_the_next_one_does() {
    let (outbox, _client) = pair(1_000).await;
    let frame = Bytes::from(vec![0; 20 << 20]);
    outbox.push(Frame::Whole(frame));
    assert_eq!(outbox.flush(), Flushed::Rest);
    outbox.push(Frame::text("x"));
    assert_eq!(outbox.flush(), Flushed::TooSlow);
    assert_eq!(outbox.take_end(), Some(CloseCause::SlowConsumer));
}

#[tokio::test]
async fn a_goodbye_replaces_what_is_owed_only_between_frames() {
    let (outbox, _client) = pair(usize::MAX).await;
    outbox.push(Frame::text("unsent"));
    assert!(outbox.replace_owed(Frame::close(1008, "")));
    assert_eq!(outbox.owed_bytes(), 4);

    fill(&outbox, &Bytes::from(vec![0; 100_003]));
    assert!(!outbox.replace_owed(Frame::close(1008, "")), "a frame was begun");
}

#[tokio::test]
async fn the_first_end_stands_and_nothing_is_owed_after_it() {
    let (outbox, mut client) = pair(0).await;
    outbox.push(Frame::text("owed"));
    let goodbye = Some(Frame::close(1001, ""));
    outbox.end(End { cause: CloseCause::ShuttingDown, goodbye });
    outbox.end(End { cause: CloseCause::Idle, goodbye: None });
    outbox.push(Frame::text("late"));
    assert_eq!(outbox.take_end(), Some(CloseCause::ShuttingDown));
    std::future::poll_fn(|cx| outbox.poll_flush(cx)).await.unwrap();
    outbox.transport().finish_writing();
    let mut all = Vec::new();
    client.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"\x81\x04owed\x88\x02\x03\xe9");
}

#[tokio::test]
async fn a_reader_that_is_gone_is_noticed() {
    let (outbox, mut client) = pair(usize::MAX).await;
    client.shutdown().await.unwrap();
    drop(client);
    let frame = Bytes::from(vec![0; 4_096]);
    let gone = async {
        loop {
            outbox.push(Frame::Whole(frame.clone()));
            if outbox.flush() == Flushed::Gone {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(5), gone).await.unwrap();
    assert_eq!(outbox.take_end(), Some(CloseCause::ClientGone));
}

#[tokio::test]
async fn it_is_behind_since_the_first_beat_that_found_something_owed() {
    let (outbox, _client) = pair(usize::MAX).await;
    let beat = |second| Moment::at(Duration::from_secs(second));
    assert_eq!(outbox.behind_since(beat(1)), None);
    fill(&outbox, &Bytes::from(vec![0; 100_000]));
    assert_eq!([2, 3].map(|second| outbox.behind_since(beat(second))), [Some(beat(2)); 2]);
    outbox.clear();
    assert_eq!(outbox.behind_since(beat(4)), None);
}

#[test]
fn a_frame_in_two_pieces_is_begun_when_its_head_is_gone() {
    let mut owed = Owed::default();
    owed.push(Frame::text_with_tail("[7,", Bytes::from_static(b"\"tail\"]")));
    owed.push(Frame::text("next"));
    assert!(!owed.begun);
    let head = owed.first.len();
    owed.advance(head);
    assert!(owed.begun, "its tail must follow");
    owed.advance(b"\"tail\"]".len());
    assert!(!owed.begun, "between two frames");
    owed.advance(6);
    assert!(owed.is_empty() && !owed.begun);
}
