//! Puts messages together that travel in fragments. Bounded in bytes and in time: who begins a message and does not end it
//! costs nothing for long.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use wellhead_proto::node_message::MessageFormat;

/// How long a message may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);
/// All unfinished messages together, in bytes.
const MAX_BYTES: usize = 256 << 20;

/// Messages of which some fragments have come.
#[derive(Default)]
pub struct MessageFragments {
    /// By format, too: what is not signed never becomes a part of what is.
    unfinished: HashMap<FragmentKey, Unfinished>,
    bytes: usize,
}

type FragmentKey = (MessageFormat, u64);

struct Unfinished {
    count: u32,
    next: u32,
    bytes: Vec<u8>,
    since: Duration,
}

impl MessageFragments {
    /// A fragment came at `now`. The whole message, if it was the last. `Err` if it does not belong where it came: then the
    /// message is lost.
    pub fn take(
        &mut self,
        of: FragmentKey,
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
        let message =
            self.unfinished.get_mut(&of).filter(|message| fits && message.count == count && message.next == index);
        let Some(message) = message else {
            self.forget(of);
            return Err(());
        };
        message.next += 1;
        message.bytes.extend_from_slice(piece);
        self.bytes += piece.len();
        if message.next < count {
            return Ok(None);
        }
        let whole = self.unfinished.remove(&of).map(|message| message.bytes).unwrap_or_default();
        self.bytes -= whole.len();
        Ok(Some(whole))
    }

    fn forget(&mut self, of: FragmentKey) {
        if let Some(message) = self.unfinished.remove(&of) {
            self.bytes -= message.bytes.len();
        }
    }

    fn forget_old(&mut self, now: Duration) {
        let old = |message: &Unfinished| now.saturating_sub(message.since) > PATIENCE;
        let bytes: usize =
            self.unfinished.values().filter(|message| old(message)).map(|message| message.bytes.len()).sum();
        self.bytes -= bytes;
        self.unfinished.retain(|_, message| !old(message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(of: u64) -> FragmentKey {
        (MessageFormat::V4, of)
    }

    #[test]
    fn what_is_not_signed_does_not_mix_with_what_is() {
        let mut fragments = MessageFragments::default();
        let piece = |text: &'static str| Bytes::from_static(text.as_bytes());
        assert_eq!(fragments.take(signed(1), 0, 2, &piece("a"), at(0)), Ok(None));
        assert_eq!(fragments.take((MessageFormat::V3, 1), 1, 2, &piece("x"), at(0)), Err(()));
        assert_eq!(fragments.take(signed(1), 1, 2, &piece("b"), at(0)), Ok(Some(b"ab".to_vec())));
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn fragments_in_order_are_a_message_also_when_two_travel_at_once() {
        let mut fragments = MessageFragments::default();
        let piece = |text: &'static str| Bytes::from_static(text.as_bytes());
        assert_eq!(fragments.take(signed(1), 0, 2, &piece("a"), at(0)), Ok(None));
        assert_eq!(fragments.take(signed(2), 0, 2, &piece("x"), at(0)), Ok(None));
        assert_eq!(fragments.take(signed(1), 1, 2, &piece("b"), at(0)), Ok(Some(b"ab".to_vec())));
        assert_eq!(fragments.take(signed(2), 1, 2, &piece("y"), at(0)), Ok(Some(b"xy".to_vec())));
        assert!(fragments.unfinished.is_empty() && fragments.bytes == 0);
    }

    #[test]
    fn a_fragment_that_does_not_belong_loses_the_message_and_nothing_else() {
        let mut fragments = MessageFragments::default();
        let piece = Bytes::from_static(b"a");
        assert_eq!(fragments.take(signed(1), 1, 2, &piece, at(0)), Err(()), "its beginning is missing");
        assert_eq!(fragments.take(signed(1), 0, 3, &piece, at(0)), Ok(None));
        assert_eq!(fragments.take(signed(1), 2, 3, &piece, at(0)), Err(()), "one is missing");
        assert_eq!(fragments.take(signed(1), 1, 3, &piece, at(0)), Err(()), "the message is lost");
        assert_eq!(fragments.take(signed(2), 0, 2, &piece, at(0)), Ok(None));
        assert_eq!(fragments.take(signed(2), 1, 5, &piece, at(0)), Err(()), "another count");
        assert!(fragments.unfinished.is_empty() && fragments.bytes == 0);
    }

    #[test]
    fn what_is_not_finished_in_time_or_too_much_is_forgotten() {
        let mut fragments = MessageFragments::default();
        let large = Bytes::from(vec![0; MAX_BYTES]);
        assert_eq!(fragments.take(signed(1), 0, 2, &large, at(0)), Ok(None));
        assert_eq!(fragments.take(signed(2), 0, 2, &Bytes::from_static(b"a"), at(5)), Err(()), "no room");
        assert_eq!(fragments.take(signed(3), 0, 2, &Bytes::from_static(b"a"), at(11)), Ok(None));
        assert_eq!(fragments.bytes, 1);
    }
}
