//! Outboxes against a real socket.

use std::{sync::Arc, time::Duration};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::*;
use crate::memory::Memory;

/// Ends a test that would wait for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// More than the kernel takes.
const LARGE: usize = 4 << 20;

async fn pair(queue: usize) -> (Outbox, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    let share = Rc::new(Share::new(Arc::new(Memory::new(usize::MAX)), queue));
    let transport = Transport::plain(server);
    transport.set_nodelay();
    transport.set_send_buffer(4_096).unwrap();
    (Outbox::new(transport, share), client)
}

async fn read(client: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; bytes];
    timeout(PATIENCE, client.read_exact(&mut buffer)).await.unwrap().unwrap();
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
async fn frames_behind_a_large_one_reach_whoever_reads() {
    for behind in [&[1][..], &[1, 500, 499], &[LARGE, 900], &[900, LARGE]] {
        let (outbox, mut client) = pair(1_000).await;
        let frames = [&[LARGE], behind].concat();
        for (number, &bytes) in frames.iter().enumerate() {
            outbox.push(Frame::Whole(Bytes::from(vec![number as u8; bytes])));
            assert_eq!(outbox.flush(), Flushed::Rest, "{behind:?}");
        }
        let all = frames.iter().sum();
        let (flushed, read) = tokio::join!(std::future::poll_fn(|cx| outbox.poll_flush(cx)), read(&mut client, all));
        flushed.unwrap();
        let mut read = &read[..];
        for (number, &bytes) in frames.iter().enumerate() {
            let frame = read.split_off(..bytes).unwrap();
            assert!(frame.iter().all(|&byte| byte == number as u8), "frame {number} of {behind:?}");
        }
    }
}

#[tokio::test]
async fn who_never_reads_may_be_behind_by_its_queue_and_no_more() {
    for large in [&[LARGE][..], &[LARGE, LARGE]] {
        let (outbox, _client) = pair(1_000).await;
        for &bytes in large {
            outbox.push(Frame::Whole(Bytes::from(vec![0; bytes])));
            assert_eq!(outbox.flush(), Flushed::Rest);
        }
        let small = Frame::Whole(Bytes::from_static(&[0; 100]));
        let mut least = 0;
        loop {
            outbox.push(small.clone());
            match outbox.flush() {
                Flushed::Rest => least += small.len(),
                flushed => break assert_eq!(flushed, Flushed::TooSlow),
            }
        }
        // with a large frame behind the first all small ones count, else one of them is the largest behind it
        assert_eq!(least, 1_000 + if large.len() == 1 { small.len() } else { 0 });
        assert_eq!(outbox.take_end(), Some(CloseCause::SlowConsumer));
    }
    let (outbox, _client) = pair(1_000).await;
    for bytes in [LARGE, LARGE, 1_001] {
        outbox.push(Frame::Whole(Bytes::from(vec![0; bytes])));
    }
    assert_eq!(outbox.flush(), Flushed::TooSlow);
}

#[tokio::test]
async fn replies_are_refused_until_they_are_taken_and_pushes_do_not_count() {
    let (outbox, mut client) = pair(usize::MAX).await;
    fill(&outbox, &Bytes::from(vec![0; 100_000]));
    assert!(outbox.is_behind() && !outbox.has_refused_replies(), "the client asked for none of it");
    outbox.reply(Frame::text("yes"));
    let before = outbox.owed_bytes();
    outbox.push(Frame::Whole(Bytes::from(vec![0; 100_000])));
    assert!(outbox.has_refused_replies());
    let mut drain = async |until_taken: usize| {
        let most = outbox.owed_bytes() - until_taken;
        let reading = async {
            while outbox.owed_bytes() > most {
                read(&mut client, 100).await;
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            _ = std::future::poll_fn(|cx| outbox.poll_flush(cx)) => {}
            () = reading => {}
        }
    };
    drain(before).await;
    assert!(!outbox.has_refused_replies(), "what stands behind it is for nobody to wait for");

    // a reader that takes all at once is heard all the time
    let (outbox, _client) = pair(usize::MAX).await;
    outbox.reply(Frame::text("yes"));
    assert!(!outbox.has_refused_replies());
    for _ in 0..1_000 {
        outbox.reply(Frame::Whole(Bytes::from(vec![0; 10_000])));
        if outbox.has_refused_replies() {
            assert!(outbox.owed_bytes() <= MOST_REPLIES + 10_000, "many are sent together");
            break;
        }
    }
    assert!(outbox.is_behind(), "the kernel does not take 10 MB");
}

#[tokio::test]
async fn what_is_given_up_is_forgotten_at_once_and_no_goodbye_cuts_a_frame_in_two() {
    let (outbox, _client) = pair(usize::MAX).await;
    fill(&outbox, &Bytes::from(vec![0; 100_003]));
    outbox.note_unfinished(70_000);
    let mut count = Count::default();
    let weight = outbox.count(&mut count);
    assert!(weight >= outbox.owed_bytes() + 70_000);
    outbox.give_up(CloseCause::OwedTooMuch, &mut count);
    assert_eq!((outbox.owed_bytes(), outbox.count(&mut count)), (0, 0));
    assert_eq!(outbox.take_end(), Some(CloseCause::OwedTooMuch));
    assert!(!outbox.replace_owed(Frame::close(1008, "")), "a frame was begun");
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
    outbox.end(SocketEnd { cause: CloseCause::ShuttingDown, goodbye });
    outbox.end(SocketEnd { cause: CloseCause::Idle, goodbye: None });
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
    *outbox.owed.borrow_mut() = SendQueue::default();
    assert_eq!(outbox.behind_since(beat(4)), None);
}

#[tokio::test]
async fn a_reader_that_keeps_reading_is_measured_anew_and_one_that_drips_is_not() {
    const QUEUE: usize = 64 << 10;
    let (outbox, mut client) = pair(QUEUE).await;
    // so that the kernel takes less than that at once
    SockRef::from(&client).set_recv_buffer_size(8 << 10).unwrap();
    outbox.push(Frame::Whole(Bytes::from(vec![0; LARGE])));
    assert_eq!(outbox.flush(), Flushed::Rest);
    assert!(!outbox.take_heard());
    // the client reads until the kernel has taken so much more
    let mut take = async |at_least: usize| {
        let most = outbox.owed_bytes() - at_least;
        let reading = async {
            while outbox.owed_bytes() > most {
                read(&mut client, 4_096).await;
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = reading => {}
            _ = std::future::poll_fn(|cx| outbox.poll_flush(cx)) => panic!("the frame is larger"),
        }
    };
    let behind_since = |second| outbox.behind_since(Moment::at(Duration::from_secs(second)));
    let beat = |second| Some(Moment::at(Duration::from_secs(second)));
    assert_eq!([1, 2].map(behind_since), [beat(1); 2]);
    take(QUEUE).await;
    assert!(outbox.take_heard(), "who reads is there, though it says nothing");
    assert_eq!([3, 4].map(behind_since), [beat(3); 2]);
    take(1).await;
    assert!(outbox.take_heard());
    assert_eq!([5, 6].map(behind_since), [beat(3); 2], "a drop is no reading");
}
