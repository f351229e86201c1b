//! Two nodes with the same id: which of them takes another. Pure; times are spans since any fixed moment.

use std::time::Duration;

use wellhead_proto::membership::LEASE;

/// A node that has been on the bus for less than this gives its number up: it has the fewer sockets.
const YOUNG: Duration = Duration::from_secs(3);
/// Between two answers to a node of the same id: two old ones do not answer each other without end.
const PAUSE: Duration = Duration::from_millis(500);

/// What is known of rivals.
#[derive(Default)]
pub(super) struct NodeIdConflict {
    up_since: Duration,
    /// Who it is, and since when it has been heard.
    rival: Option<(u64, Duration)>,
    answered: Option<Duration>,
}

/// What to do about a node of the same id.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ConflictVerdict {
    /// Take another number.
    Yield,
    /// Tell the other node that its id is taken.
    Answer,
    /// Wait for it to go.
    Wait,
}

impl NodeIdConflict {
    /// The bus came up.
    pub(super) fn up(&mut self, now: Duration) {
        *self = Self { up_since: now, ..Self::default() };
    }

    /// The incarnation `other` of this node's number was heard by the incarnation `own`.
    pub(super) fn heard(&mut self, own: u64, other: u64, now: Duration) -> ConflictVerdict {
        if now.saturating_sub(self.up_since) < YOUNG {
            return ConflictVerdict::Yield;
        }
        let since = match self.rival {
            Some((rival, since)) if rival == other => since,
            _ => {
                self.rival = Some((other, now));
                now
            }
        };
        // a young one would have gone by now: this one is as old as we are
        if now.saturating_sub(since) >= LEASE && own > other {
            return ConflictVerdict::Yield;
        }
        if self.answered.is_some_and(|answered| now.saturating_sub(answered) < PAUSE) {
            return ConflictVerdict::Wait;
        }
        self.answered = Some(now);
        ConflictVerdict::Answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_newcomer_yields_and_the_older_one_tells_it_at_once() {
        let (mut old, mut young) = (NodeIdConflict::default(), NodeIdConflict::default());
        old.up(at(0));
        young.up(at(60_000));
        assert_eq!(old.heard(9, 1, at(60_001)), ConflictVerdict::Answer);
        assert_eq!(old.heard(9, 1, at(60_002)), ConflictVerdict::Wait);
        assert_eq!(young.heard(1, 9, at(60_003)), ConflictVerdict::Yield);
        assert_eq!(old.heard(9, 2, at(90_000)), ConflictVerdict::Answer, "another newcomer");
    }

    #[test]
    fn of_two_old_ones_exactly_one_yields() {
        let (mut one, mut two) = (NodeIdConflict::default(), NodeIdConflict::default());
        let mut yielded = [0, 0];
        for second in 10..30 {
            yielded[0] += u32::from(one.heard(1, 2, at(second * 1_000)) == ConflictVerdict::Yield);
            yielded[1] += u32::from(two.heard(2, 1, at(second * 1_000)) == ConflictVerdict::Yield);
        }
        assert_eq!(yielded[0], 0);
        assert!(yielded[1] > 0);
    }
}
