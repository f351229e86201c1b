//! Puts letters together that travel in pieces. Bounded in bytes and in time: who begins a letter and does not end it
//! costs nothing for long.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;

/// How long a letter may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);
/// All unfinished letters together, in bytes.
const MAX_BYTES: usize = 256 << 20;

/// Letters of which some pieces have come.
#[derive(Default)]
pub struct MessageFragments {
    unfinished: HashMap<u64, Unfinished>,
    bytes: usize,
}

struct Unfinished {
    count: u32,
    next: u32,
    bytes: Vec<u8>,
    since: Duration,
}

impl MessageFragments {
    /// A piece came at `now`. The whole letter, if it was the last. `Err` if it does not belong where it came: then the
    /// letter is lost.
    pub fn take(
        &mut self,
        of: u64,
        index: u32,
        count: u32,
        piece: &Bytes,
        now: Duration,
    ) -> Result<Option<Vec<u8>>, ()> {
        self.forget_old(now);
        if index == 0 {
            self.forget(of);
            self.unfinished.insert(of, Unfinished { count, next: 0, bytes: Vec::new(), since: now });
        }
        let fits = self.bytes + piece.len() <= MAX_BYTES;
        let letter =
            self.unfinished.get_mut(&of).filter(|letter| fits && letter.count == count && letter.next == index);
        let Some(letter) = letter else {
            self.forget(of);
            return Err(());
        };
        letter.next += 1;
        letter.bytes.extend_from_slice(piece);
        self.bytes += piece.len();
        if letter.next < count {
            return Ok(None);
        }
        let whole = self.unfinished.remove(&of).map(|letter| letter.bytes).unwrap_or_default();
        self.bytes -= whole.len();
        Ok(Some(whole))
    }

    fn forget(&mut self, of: u64) {
        if let Some(letter) = self.unfinished.remove(&of) {
            self.bytes -= letter.bytes.len();
        }
    }

    fn forget_old(&mut self, now: Duration) {
        let old = |letter: &Unfinished| now.saturating_sub(letter.since) > PATIENCE;
        let bytes: usize = self.unfinished.values().filter(|letter| old(letter)).map(|letter| letter.bytes.len()).sum();
        self.bytes -= bytes;
        self.unfinished.retain(|_, letter| !old(letter));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn pieces_in_order_are_a_letter_also_when_two_travel_at_once() {
        let mut parts = MessageFragments::default();
        let piece = |text: &'static str| Bytes::from_static(text.as_bytes());
        assert_eq!(parts.take(1, 0, 2, &piece("a"), at(0)), Ok(None));
        assert_eq!(parts.take(2, 0, 2, &piece("x"), at(0)), Ok(None));
        assert_eq!(parts.take(1, 1, 2, &piece("b"), at(0)), Ok(Some(b"ab".to_vec())));
        assert_eq!(parts.take(2, 1, 2, &piece("y"), at(0)), Ok(Some(b"xy".to_vec())));
        assert!(parts.unfinished.is_empty() && parts.bytes == 0);
    }

    #[test]
    fn a_piece_that_does_not_belong_loses_the_letter_and_nothing_else() {
        let mut parts = MessageFragments::default();
        let piece = Bytes::from_static(b"a");
        assert_eq!(parts.take(1, 1, 2, &piece, at(0)), Err(()), "its beginning is missing");
        assert_eq!(parts.take(1, 0, 3, &piece, at(0)), Ok(None));
        assert_eq!(parts.take(1, 2, 3, &piece, at(0)), Err(()), "one is missing");
        assert_eq!(parts.take(1, 1, 3, &piece, at(0)), Err(()), "the letter is lost");
        assert_eq!(parts.take(2, 0, 2, &piece, at(0)), Ok(None));
        assert_eq!(parts.take(2, 1, 5, &piece, at(0)), Err(()), "another count");
        assert!(parts.unfinished.is_empty() && parts.bytes == 0);
    }

    #[test]
    fn what_is_not_finished_in_time_or_too_much_is_forgotten() {
        let mut parts = MessageFragments::default();
        let large = Bytes::from(vec![0; MAX_BYTES]);
        assert_eq!(parts.take(1, 0, 2, &large, at(0)), Ok(None));
        assert_eq!(parts.take(2, 0, 2, &Bytes::from_static(b"a"), at(5)), Err(()), "no room");
        assert_eq!(parts.take(3, 0, 2, &Bytes::from_static(b"a"), at(11)), Ok(None));
        assert_eq!(parts.bytes, 1);
    }
}
