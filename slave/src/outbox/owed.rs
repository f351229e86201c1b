//! What is queued for one socket, in the order in which it was decided, and how far behind its reader is. Pure.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes};
use wellhead_proto::frame::Frame;

/// What is queued.
#[derive(Default)]
pub struct SendQueue {
    /// The next piece; empty if nothing is owed. Beside the others, since there is seldom more than one.
    first: Bytes,
    /// What only a socket that is behind needs: an idle one keeps no room for it.
    more: Option<Box<More>>,
    bytes: usize,
    /// A part of the frame that the first piece belongs to is sent: what follows it must follow.
    begun: bool,
    /// Bytes up to the end of the last reply to the client itself.
    replies: u32,
    /// The kernel has refused something since the last time that nothing was owed.
    behind: bool,
}

#[derive(Default)]
struct More {
    /// The pieces behind the first, each with whether it goes on with the frame before it.
    pieces: VecDeque<(Bytes, bool)>,
    /// The largest frame that waits behind the first one, as far as that matters, and what is owed up to its end.
    largest: usize,
    largest_end: usize,
    /// What the reader must take before its time for it begins anew.
    due: usize,
}

impl SendQueue {
    /// Is nothing queued?
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// Bytes that are queued.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Has a frame been sent in part?
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Has the kernel refused something of it?
    pub fn is_behind(&self) -> bool {
        self.behind
    }

    /// The kernel refuses something of it. `false` if it has done so before.
    pub fn refused(&mut self) -> bool {
        !std::mem::replace(&mut self.behind, true)
    }

    /// The last frame is a reply to the client itself.
    pub fn note_reply(&mut self) {
        // more than 4 GiB are forgotten too early, which does no harm
        self.replies = u32::try_from(self.bytes).unwrap_or(u32::MAX);
    }

    /// Bytes up to the end of the last reply to the client itself.
    pub fn replies(&self) -> usize {
        self.replies as usize
    }

    /// All pieces.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        let behind = self.more.iter().flat_map(|more| more.pieces.iter().map(|(piece, _)| piece));
        std::iter::once(&self.first).filter(|first| !first.is_empty()).chain(behind)
    }

    /// How many pieces there are.
    pub fn len(&self) -> usize {
        usize::from(!self.is_empty()) + self.more.as_ref().map_or(0, |more| more.pieces.len())
    }

    /// Forget all of it, but not that a frame was begun: nothing can follow it.
    pub fn forget(&mut self) {
        *self = Self { begun: self.begun, ..Self::default() };
    }

    /// How far the reader is behind: what waits between the frame that is being sent and the largest one behind it. Of what
    /// one frame weighs its reader can be no judge: however fast it reads, it cannot have more of a frame than was sent. So
    /// neither counts, and whatever is pushed while a large frame is on its way makes no slow consumer by itself.
    pub fn debt(&self) -> usize {
        self.bytes.saturating_sub(self.front()).saturating_sub(self.largest())
    }

    /// What is left of the frame that is being sent.
    fn front(&self) -> usize {
        let next = self.more.as_ref().and_then(|more| more.pieces.front());
        self.first.len() + next.filter(|(_, goes_on)| *goes_on).map_or(0, |(piece, _)| piece.len())
    }

    /// The largest frame that waits behind it.
    fn largest(&self) -> usize {
        let more = self.more.as_ref().filter(|more| more.largest_end > self.front());
        more.map_or(0, |more| more.largest)
    }

    /// Begin to measure how fast the reader is, unless that is under way: it has its time to take all that is owed now, or
    /// `most` of it. `false` while it is.
    pub fn measure(&mut self, most: usize) -> bool {
        let bytes = self.bytes;
        let more = self.more.get_or_insert_default();
        let begins = more.due == 0;
        if begins {
            more.due = bytes.min(most);
        }
        begins
    }

    /// Give back what a burst made it grow to.
    pub fn shrink(&mut self) {
        if self.is_empty() {
            self.more = None;
        }
    }

    /// Queue one more frame.
    pub fn push(&mut self, frame: Frame) {
        let length = frame.len();
        self.bytes += length;
        if !self.is_empty() && length >= self.largest() {
            let bytes = self.bytes;
            let more = self.more.get_or_insert_default();
            (more.largest, more.largest_end) = (length, bytes);
        }
        match frame {
            Frame::Whole(bytes) => self.push_piece(bytes, false),
            Frame::Split { head, tail } => {
                self.push_piece(head, false);
                self.push_piece(tail, true);
            }
        }
    }

    fn push_piece(&mut self, piece: Bytes, goes_on: bool) {
        if self.first.is_empty() {
            self.first = piece;
        } else if !piece.is_empty() {
            self.more.get_or_insert_default().pieces.push_back((piece, goes_on));
        }
    }

    /// The next piece, if it is the only one.
    pub fn only_piece(&self) -> Option<&Bytes> {
        self.more.as_ref().is_none_or(|more| more.pieces.is_empty()).then_some(&self.first)
    }

    /// The next pieces, as many as fit; how many they are.
    pub fn next_pieces<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        for (slot, piece) in into.iter_mut().zip(self.pieces()) {
            *slot = IoSlice::new(piece);
            count += 1;
        }
        count
    }

    /// So many bytes were sent.
    pub fn advance(&mut self, mut sent: usize) {
        self.bytes -= sent;
        self.replies = self.replies.saturating_sub(u32::try_from(sent).unwrap_or(u32::MAX));
        if let Some(more) = &mut self.more {
            more.largest_end = more.largest_end.saturating_sub(sent);
            more.due = more.due.saturating_sub(sent);
        }
        while !self.first.is_empty() {
            if sent < self.first.len() {
                self.first.advance(sent);
                self.begun |= sent > 0;
                return;
            }
            sent -= self.first.len();
            (self.first, self.begun) = self.more.as_mut().and_then(|more| more.pieces.pop_front()).unwrap_or_default();
        }
        self.behind = false;
        if let Some(more) = &mut self.more {
            more.pieces.shrink_to(8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: usize) -> Frame {
        Frame::Whole(Bytes::from(vec![0; bytes]))
    }

    fn owing(frames: &[usize]) -> SendQueue {
        let mut owed = SendQueue::default();
        for &bytes in frames {
            owed.push(whole(bytes));
        }
        owed
    }

    #[test]
    fn a_frame_in_two_pieces_is_begun_when_its_head_is_gone() {
        let mut owed = SendQueue::default();
        owed.push(Frame::text_with_tail("[7,", Bytes::from_static(b"\"tail\"]")));
        owed.push(Frame::text("next"));
        assert!(!owed.has_begun());
        let head = owed.first.len();
        owed.advance(head);
        assert!(owed.has_begun(), "its tail must follow");
        owed.advance(b"\"tail\"]".len());
        assert!(!owed.has_begun(), "between two frames");
        owed.advance(6);
        assert!(owed.is_empty() && !owed.has_begun());
    }

    #[test]
    fn neither_the_frame_under_way_nor_the_largest_behind_it_is_debt() {
        for (frames, debt) in [
            (&[][..], 0),
            (&[5_000], 0),
            (&[5_000, 1], 0),
            (&[5_000, 1, 1, 1], 2),
            (&[1, 5_000], 0),
            (&[1, 5_000, 1, 1], 2),
            (&[5_000, 5_000], 0),
            (&[5_000, 5_000, 1, 2], 3),
            (&[5_000, 1, 5_000, 2], 3),
            (&[5_000, 4_000, 6_000], 4_000),
            (&[10, 10, 10, 10], 20),
        ] {
            assert_eq!(owing(frames).debt(), debt, "{frames:?}");
            assert_eq!(owing(frames).len(), frames.len());
        }
        let mut headed = SendQueue::default();
        for _ in 0..3 {
            headed.push(Frame::text_with_tail("[7,", Bytes::from(vec![0; 100])));
        }
        assert_eq!(headed.debt(), 2 + 3 + 100, "head and tail are one frame");
    }

    #[test]
    fn the_debt_falls_as_it_is_paid() {
        let mut owed = owing(&[5_000, 20, 6_000, 30]);
        assert_eq!(owed.debt(), 50);
        owed.advance(4_999);
        assert_eq!(owed.debt(), 50);
        owed.advance(1);
        assert_eq!(owed.debt(), 30, "now the 20 are being sent");
        owed.advance(20);
        assert_eq!(owed.debt(), 30, "and now the 6,000");
        owed.push(whole(7));
        assert_eq!(owed.debt(), 30, "the largest behind them is a small one now, and what was not is debt");
        owed.advance(6_000 + 30 + 7);
        assert_eq!((owed.debt(), owed.bytes(), owed.is_empty()), (0, 0, true));
        owed.push(whole(9));
        assert_eq!(owed.debt(), 0);
    }

    #[test]
    fn a_reader_is_measured_until_it_has_taken_what_was_owed_or_the_most() {
        let mut owed = owing(&[100, 100]);
        assert!(owed.measure(150));
        owed.push(whole(1_000));
        owed.advance(149);
        assert!(!owed.measure(150), "one byte is missing");
        owed.advance(1);
        assert!(owed.measure(150), "anew");
        owed.advance(149);
        assert!(!owed.measure(150));

        let mut little = owing(&[1, 1]);
        assert!(little.measure(150));
        little.push(whole(1_000));
        little.advance(1);
        assert!(!little.measure(150));
        little.advance(1);
        assert!(little.measure(150), "all that it owed is taken");
    }
}
