//! Frames on their way into a socket: a queue that counts its bytes, and the writer that empties it.

use std::{
    collections::VecDeque,
    mem,
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{self, AsyncWrite, AsyncWriteExt},
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::frame::BusFrame;

/// Frames are gathered up to this size; larger messages are written from where they are.
const GATHER: usize = 64 * 1_024;
/// How long all who send to a crowded queue wait for it to be eased, once, before it runs into its bound.
const STALL: Duration = Duration::from_millis(250);

/// The frames that wait for one socket.
pub(super) struct Outbound {
    bound: usize,
    queue: Mutex<Queue>,
    filled: Notify,
    /// Notified whenever some were written.
    emptied: Notify,
    ended: Notify,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<BusFrame>,
    /// Of the frames that wait and of those that are being written.
    bytes: usize,
    /// No more frames are taken: those in the queue are the last.
    ended: bool,
    /// Waited for in vain, and not again before it is half empty.
    slow: bool,
}

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum NotTaken {
    /// The queue is over its bound.
    Full,
    /// The last frame was said.
    Ended,
}

impl Outbound {
    pub(super) fn new(bound: usize) -> Self {
        Self { bound, queue: Mutex::default(), filled: Notify::new(), emptied: Notify::new(), ended: Notify::new() }
    }

    /// Queue `frame`, unless there is no room. A single frame always has room.
    pub(super) fn push(&self, frame: BusFrame) -> Result<(), NotTaken> {
        let mut queue = self.queue();
        if queue.ended {
            return Err(NotTaken::Ended);
        }
        if queue.bytes > 0 && queue.bytes + frame.size() > self.bound {
            return Err(NotTaken::Full);
        }
        queue.take(frame);
        drop(queue);
        self.filled.notify_one();
        Ok(())
    }

    /// Is it more than half full, and worth waiting for?
    pub(super) fn is_crowded(&self) -> bool {
        let queue = self.queue();
        queue.bytes > self.bound / 2 && !queue.ended && !queue.slow
    }

    /// Wait until it is not crowded. A burst may be faster than a reader that is well; one that is not is waited for
    /// only once.
    pub(super) async fn eased(&self) {
        let deadline = Instant::now() + STALL;
        loop {
            let mut emptied = pin!(self.emptied.notified());
            emptied.as_mut().enable();
            if !self.is_crowded() {
                return;
            }
            if timeout_at(deadline, emptied).await.is_err() {
                self.queue().slow = true;
                return;
            }
        }
    }

    /// Queue `frame`, room or not: one of the few that keep the connection going.
    pub(super) fn push_urgent(&self, frame: BusFrame) {
        let mut queue = self.queue();
        if !queue.ended {
            queue.take(frame);
            drop(queue);
            self.filled.notify_one();
        }
    }

    /// Queue `frame` as the last. `false` if another was the last.
    pub(super) fn push_last(&self, frame: BusFrame) -> bool {
        let mut queue = self.queue();
        if queue.ended {
            return false;
        }
        queue.take(frame);
        queue.ended = true;
        drop(queue);
        self.filled.notify_one();
        self.ended.notify_one();
        true
    }

    /// Drop what waits and queue `frame` as the last. How many were dropped, unless another was the last.
    pub(super) fn cut_off(&self, frame: BusFrame) -> Option<usize> {
        let mut queue = self.queue();
        if queue.ended {
            return None;
        }
        let frames = mem::take(&mut queue.frames);
        let dropped = frames.len();
        queue.bytes -= frames.iter().map(BusFrame::size).sum::<usize>();
        queue.take(frame);
        queue.ended = true;
        drop(queue);
        self.filled.notify_one();
        self.ended.notify_one();
        Some(dropped)
    }

    /// Was the last frame queued?
    pub(super) fn has_ended(&self) -> bool {
        self.queue().ended
    }

    /// Resolves once the last frame is queued. For one who waits.
    pub(super) async fn ended(&self) {
        while !self.has_ended() {
            self.ended.notified().await;
        }
    }

    /// Resolves at the next time that some frames were written. Enable it before asking for room.
    pub(super) fn emptied(&self) -> tokio::sync::futures::Notified<'_> {
        self.emptied.notified()
    }

    /// Whoever waits for room is to look again.
    pub(super) fn wake(&self) {
        self.emptied.notify_waiters();
    }

    /// Write what comes; back once the last frame is written.
    pub(super) async fn write_to(&self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let mut batch = Vec::new();
        let mut gathered = Vec::new();
        loop {
            let filled = self.filled.notified();
            let (bytes, last) = self.next(&mut batch);
            if batch.is_empty() {
                if last {
                    return stream.flush().await;
                }
                filled.await;
                continue;
            }
            for frame in batch.drain(..) {
                gathered.extend_from_slice(&frame.head);
                if frame.body.len() < GATHER / 4 {
                    gathered.extend_from_slice(&frame.body);
                } else {
                    stream.write_all(&gathered).await?;
                    gathered.clear();
                    stream.write_all(&frame.body).await?;
                }
            }
            stream.write_all(&gathered).await?;
            gathered.clear();
            {
                let mut queue = self.queue();
                queue.bytes -= bytes;
                queue.slow &= queue.bytes > self.bound / 2;
            }
            self.emptied.notify_waiters();
        }
    }

    /// Take the next frames; their bytes, and whether there will be no more.
    fn next(&self, batch: &mut Vec<BusFrame>) -> (usize, bool) {
        let mut queue = self.queue();
        let mut bytes = 0;
        while bytes < GATHER
            && let Some(frame) = queue.frames.pop_front()
        {
            bytes += frame.size();
            batch.push(frame);
        }
        (bytes, queue.ended)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn take(&mut self, frame: BusFrame) {
        self.bytes += frame.size();
        self.frames.push_back(frame);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::bus::local::frame::ToClient;
    use crate::bus::pubsub::Subject;

    fn frame(bytes: usize) -> BusFrame {
        ToClient::Heard(Subject::Everyone, Bytes::from(vec![7; bytes])).frame()
    }

    #[tokio::test]
    async fn what_is_queued_is_written_in_order_to_the_last() {
        let outbound = Outbound::new(1 << 20);
        let mut wanted = Vec::new();
        for bytes in [0, 10, 20_000, 3, 100_000, 1] {
            let frame = frame(bytes);
            wanted.extend_from_slice(&frame.head);
            wanted.extend_from_slice(&frame.body);
            outbound.push(frame).unwrap();
        }
        let last = ToClient::Goodbye.frame();
        wanted.extend_from_slice(&last.head);
        assert!(outbound.push_last(last));
        assert_eq!(outbound.push(frame(1)), Err(NotTaken::Ended));
        let mut written = Vec::new();
        outbound.write_to(&mut written).await.unwrap();
        assert!(written == wanted);
        assert_eq!(outbound.queue().bytes, 0);
    }

    #[tokio::test]
    async fn over_its_bound_it_takes_nothing_until_some_is_written() {
        let outbound = Outbound::new(1_000);
        outbound.push(frame(5_000)).expect("the first always has room");
        assert_eq!(outbound.push(frame(1)), Err(NotTaken::Full));
        let (mut ours, mut theirs) = io::duplex(64);
        let emptied = outbound.emptied();
        tokio::select! {
            _ = outbound.write_to(&mut ours) => unreachable!("there is no last frame"),
            () = async {
                let mut taken = [0; 5_010];
                theirs.read_exact(&mut taken).await.unwrap();
                emptied.await;
            } => {}
        }
        outbound.push(frame(1)).unwrap();
    }

    #[tokio::test]
    async fn one_that_is_crowded_is_waited_for_but_only_once() {
        let outbound = Outbound::new(1_000);
        outbound.eased().await;
        outbound.push(frame(600)).unwrap();
        let since = Instant::now();
        outbound.eased().await;
        assert!(since.elapsed() >= STALL);
        assert!(!outbound.is_crowded(), "it would be waited for again");
        // half empty again, it is worth it again
        let mut written = io::sink();
        let emptied = outbound.emptied();
        tokio::select! {
            _ = outbound.write_to(&mut written) => unreachable!("there is no last frame"),
            () = emptied => {}
        }
        outbound.push(frame(600)).unwrap();
        assert!(outbound.is_crowded());
    }

    #[tokio::test]
    async fn who_is_cut_off_reads_what_was_begun_and_then_why() {
        let outbound = Outbound::new(100_000);
        outbound.push(frame(90_000)).unwrap();
        let (mut ours, mut theirs) = io::duplex(64);
        let mut read = Vec::new();
        let ((), ()) = tokio::join!(
            async {
                outbound.write_to(&mut ours).await.unwrap();
                drop(ours);
            },
            async {
                read.resize(1_000, 0);
                theirs.read_exact(&mut read).await.unwrap();
                outbound.push(frame(10)).unwrap();
                assert_eq!(outbound.push(frame(50_000)), Err(NotTaken::Full));
                assert_eq!(outbound.cut_off(ToClient::CutOff.frame()), Some(1));
                assert_eq!(outbound.cut_off(ToClient::CutOff.frame()), None);
                theirs.read_to_end(&mut read).await.unwrap();
            }
        );
        let mut wanted = frame(90_000).head.to_vec();
        wanted.extend_from_slice(&frame(90_000).body);
        wanted.extend_from_slice(&ToClient::CutOff.frame().head);
        assert!(read == wanted);
    }
}
