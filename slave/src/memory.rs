//! What all sockets of a process may hold together: what is owed to readers that are behind, and messages that are not
//! whole. Beyond it those who hold the most are closed, so that no number of them takes the memory that others need.
//!
//! A frame that is owed to many sockets is one piece of memory, so it counts once in a thread, however many owe it: else
//! a large push to a large channel would look like an attack. Nobody keeps that number as frames come and go. Each thread
//! adds up what its sockets *begin* to hold, which is never less than what they hold, and counts what they really hold when
//! that sum passes its share. What the kernel takes at once is never counted at all.

use std::{
    cell::Cell,
    collections::hash_map::Entry,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use log::warn;
use rustc_hash::FxHashMap;

/// What a piece costs beside its bytes: its place in a queue.
pub const PIECE: usize = size_of::<(Bytes, bool)>();
/// Smaller pieces count for each socket: to remember where they are would cost as much.
const SMALL: usize = 256;
/// A thread tells the others what it holds in steps of the limit's so many-th part.
const STEPS: usize = 256;
/// A count is due when a share has grown by its so many-th part, and closing goes on until so much is free again.
const SLACK: usize = 8;

/// The budget of a process.
#[derive(Debug)]
pub struct Memory {
    limit: usize,
    held: AtomicUsize,
    threads: AtomicUsize,
    /// Sockets that were closed and not yet spoken of.
    closed: AtomicUsize,
}

impl Memory {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, held: AtomicUsize::new(0), threads: AtomicUsize::new(0), closed: AtomicUsize::new(0) }
    }

    /// What is held, or more.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// A socket was closed for what it held.
    pub fn note_closed(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// Say how many sockets were closed since the last time. Called once a second.
    pub fn tell(&self) {
        let closed = self.closed.swap(0, Ordering::Relaxed);
        if closed > 0 {
            let (held, limit) = (self.held(), self.limit);
            warn!(
                closed, held, limit;
                "sockets held more than the {limit} bytes of limits.memory: the {closed} that held the most were closed"
            );
        }
    }
}

/// A thread's part in it, and what each of its sockets may owe.
#[derive(Debug)]
pub struct Share {
    /// How far the reader of one socket may be behind, in bytes.
    pub queue: usize,
    memory: Arc<Memory>,
    /// What the sockets of the thread hold, or more.
    held: Cell<usize>,
    /// So much of it the others know.
    told: Cell<usize>,
    /// Beyond this it is counted.
    count_at: Cell<usize>,
}

impl Share {
    /// One more thread's part in `memory`, for sockets that may be `queue` bytes behind.
    #[must_use]
    pub fn new(memory: Arc<Memory>, queue: usize) -> Self {
        memory.threads.fetch_add(1, Ordering::Relaxed);
        let (held, told, count_at) = Default::default();
        let share = Self { queue, memory, held, told, count_at };
        share.set_held(0);
        share
    }

    /// The budget that it is a part of.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// A socket holds so many bytes more.
    pub fn grow(&self, bytes: usize) {
        let held = self.held.get().saturating_add(bytes);
        self.held.set(held);
        if held - self.told.get() >= self.memory.limit / STEPS {
            self.tell();
        }
    }

    /// Has so much been added that it is to be counted?
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.held.get() > self.count_at.get()
    }

    /// Is there nothing to count?
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.held.get() == 0
    }

    /// What the thread may hold whatever the others do.
    fn fair(&self) -> usize {
        self.memory.limit / self.memory.threads.load(Ordering::Relaxed).max(1)
    }

    /// So much is really held.
    pub fn counted(&self, count: &Count) {
        self.set_held(count.bytes);
    }

    fn set_held(&self, held: usize) {
        self.held.set(held);
        self.tell();
        self.count_at.set(self.fair().max(held + self.fair() / SLACK));
    }

    fn tell(&self) {
        let (held, told) = (self.held.get(), self.told.replace(self.held.get()));
        if held >= told {
            self.memory.held.fetch_add(held - told, Ordering::Relaxed);
        } else {
            self.memory.held.fetch_sub(told - held, Ordering::Relaxed);
        }
    }

    /// Is it this thread that should make room?
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.memory.held() > self.memory.limit && self.held.get() > self.fair()
    }

    /// Is there room again, or does this thread hold no more than its fair part?
    #[must_use]
    pub fn has_made_room(&self) -> bool {
        let most = |limit: usize| limit - limit / SLACK;
        self.memory.held() <= most(self.memory.limit) || self.held.get() <= most(self.fair())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.held.fetch_sub(self.told.get(), Ordering::Relaxed);
        self.memory.threads.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What sockets of a thread hold, counted.
#[derive(Default)]
pub struct Count {
    /// Where the larger pieces end, which is the same for all who owe the rest of one; how long the longest rest is, and how
    /// many owe it.
    pieces: FxHashMap<usize, (usize, usize)>,
    bytes: usize,
}

impl Count {
    /// A socket owes `piece`.
    pub fn piece(&mut self, piece: &Bytes) {
        self.bytes += PIECE;
        let length = piece.len();
        if length < SMALL {
            self.bytes += length;
            return;
        }
        let (longest, owed_by) = self.pieces.entry(end_of(piece)).or_default();
        self.bytes += length.saturating_sub(*longest);
        *longest = length.max(*longest);
        *owed_by += 1;
    }

    /// A socket holds `bytes` for itself.
    pub fn own(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// A socket that owed `piece` does no more.
    pub fn forget_piece(&mut self, piece: &Bytes) {
        let mut bytes = PIECE;
        match self.pieces.entry(end_of(piece)) {
            Entry::Occupied(mut entry) if piece.len() >= SMALL => {
                let (longest, owed_by) = entry.get_mut();
                *owed_by -= 1;
                if *owed_by == 0 {
                    bytes += *longest;
                    entry.remove();
                }
            }
            _ => bytes += piece.len(),
        }
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// A socket that held `bytes` for itself does no more.
    pub fn forget_own(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

fn end_of(piece: &Bytes) -> usize {
    piece.as_ptr_range().end.addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(memory: &Arc<Memory>) -> Share {
        Share::new(memory.clone(), 1 << 20)
    }

    #[test]
    fn what_many_owe_counts_once_and_what_is_owed_in_part_as_far_as_it_is_owed() {
        let frame = Bytes::from(vec![0; 10_000]);
        let mut count = Count::default();
        for begun in [9_000, 2_000, 5_000] {
            count.piece(&frame.slice(begun..));
        }
        assert_eq!(count.bytes, 3 * PIECE + 8_000);
        count.piece(&Bytes::from(vec![0; 10_000]));
        assert_eq!(count.bytes, 4 * PIECE + 18_000, "another frame");
        count.own(7);
        for begun in [2_000, 9_000] {
            count.forget_piece(&frame.slice(begun..));
        }
        assert_eq!(count.bytes, 2 * PIECE + 18_000 + 7, "one still owes it");
        count.forget_piece(&frame.slice(5_000..));
        count.forget_own(7);
        assert_eq!(count.bytes, PIECE + 10_000);
    }

    #[test]
    fn small_pieces_count_for_each() {
        let frame = Bytes::from(vec![0; SMALL - 1]);
        let mut count = Count::default();
        count.piece(&frame);
        count.piece(&frame);
        assert_eq!(count.bytes, 2 * (PIECE + SMALL - 1));
        count.forget_piece(&frame);
        count.forget_piece(&frame);
        assert_eq!(count.bytes, 0);
    }

    #[test]
    fn a_thread_counts_when_it_passes_its_part_and_makes_room_only_if_all_hold_too_much() {
        let memory = Arc::new(Memory::new(8_000));
        let (one, other) = (share(&memory), share(&memory));
        one.set_held(0);
        one.grow(4_000);
        assert!(!one.is_due());
        one.grow(1);
        assert!(one.is_due());
        one.set_held(6_000);
        assert!(!one.is_due() && !one.is_over(), "the other thread leaves it room");
        one.grow(501);
        assert!(one.is_due(), "from then on in steps");
        other.grow(2_000);
        assert_eq!(memory.held(), 8_501);
        assert!(one.is_over() && !other.is_over(), "it is the one that holds more than its part");
        one.set_held(4_900);
        assert!(!one.is_over() && one.has_made_room());
        drop(one);
        assert_eq!(memory.held(), 2_000);
        assert_eq!(other.fair(), 8_000);
    }
}
