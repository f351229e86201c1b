//! The latest pushes that this node handed to the bus, without those that were refused. A node that had no connection
//! asks for what it missed. Pure.

use std::collections::VecDeque;

use crate::bus::pubsub::Subject;

/// So many pushes are remembered: 1 MiB.
const MOST: usize = 1 << 16;

/// The latest pushes of this node, in the order in which the bus got them.
#[derive(Default)]
pub(super) struct Journal {
    /// Numbers of messages, ascending, and where each went; nowhere, if it was refused.
    pushes: VecDeque<(u64, Option<Subject>)>,
    /// The highest number that is no longer in it.
    forgotten: u64,
}

impl Journal {
    /// The bus is about to get this push.
    pub(super) fn note(&mut self, message: u64, subject: Subject) {
        if self.pushes.len() == MOST
            && let Some((oldest, _)) = self.pushes.pop_front()
        {
            self.forgotten = oldest;
        }
        self.pushes.push_back((message, Some(subject)));
    }

    /// Its publisher was told that it failed.
    pub(super) fn refused(&mut self, message: u64) {
        if let Ok(at) = self.pushes.binary_search_by_key(&message, |(message, _)| *message) {
            self.pushes[at].1 = None;
        }
    }

    /// Every push behind the message `after`; `None` if that is too long ago.
    pub(super) fn since(&self, after: u64) -> Option<impl Iterator<Item = (u64, Subject)> + '_> {
        let from = self.pushes.partition_point(|(message, _)| *message <= after);
        let kept = |&(message, subject): &(u64, Option<Subject>)| Some((message, subject?));
        (after >= self.forgotten).then(|| self.pushes.range(from..).filter_map(kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn since(journal: &Journal, after: u64) -> Option<Vec<u64>> {
        journal.since(after).map(|pushes| pushes.map(|(message, _)| message).collect())
    }

    #[test]
    fn it_tells_what_was_handed_over_since_and_not_taken_back() {
        let mut journal = Journal::default();
        for message in [10, 12, 15, 16] {
            journal.note(message, Subject::Slot(7));
        }
        journal.refused(15);
        journal.refused(11);
        assert_eq!(since(&journal, 0), Some(vec![10, 12, 16]));
        assert_eq!(since(&journal, 10), Some(vec![12, 16]));
        assert_eq!(since(&journal, 11), Some(vec![12, 16]));
        assert_eq!(since(&journal, 16), Some(vec![]));
    }

    #[test]
    fn what_is_too_long_ago_is_not_guessed() {
        let mut journal = Journal::default();
        for message in 1..=MOST as u64 + 3 {
            journal.note(message, Subject::Everyone);
        }
        assert_eq!(journal.pushes.len(), MOST);
        assert_eq!(since(&journal, 2), None);
        assert_eq!(since(&journal, 3).unwrap().len(), MOST);
    }
}
