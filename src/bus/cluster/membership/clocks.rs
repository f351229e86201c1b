//! How far the clocks of other nodes are from this one's, as their heartbeats tell. Pure; `now` is a span since any fixed
//! moment, and what clocks show are milliseconds since 1970.

use std::{collections::BTreeMap, time::Duration};

use wellhead_proto::ids::NodeId;

/// Heartbeats that are compared. Each is late by what it travelled and waited, so the least late of them is right.
const BEATS: usize = 4;
/// Clocks of nodes that are remembered, those of nodes that are gone among them: their tokens are still shown.
const MOST: usize = 4_096;
/// A difference that is warned of, and a change of it that is warned of again, in milliseconds.
const NOTABLE: i64 = 5_000;

/// The clocks of the others.
#[derive(Default)]
pub(super) struct Clocks(BTreeMap<NodeId, NodeClock>);

struct NodeClock {
    /// By how much this node's clock is ahead, by each of the last heartbeats, in milliseconds.
    ahead: [i64; BEATS],
    beats: usize,
    /// What was said of it last.
    said: i64,
    heard: Duration,
}

/// Something to be said of a clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum News {
    /// This node's clock is ahead of the other's by so many milliseconds (or behind, if less than 0).
    Differs(i64),
    /// They agree again.
    Agrees,
}

impl NodeClock {
    fn ahead(&self) -> i64 {
        self.ahead[..self.beats.min(BEATS)].iter().copied().min().unwrap_or(0)
    }
}

impl Clocks {
    /// A heartbeat of `node` said that it is `theirs` while it is `ours` here.
    pub(super) fn heard(&mut self, node: NodeId, theirs: u64, ours: u64, now: Duration) -> Option<News> {
        if !self.0.contains_key(&node) && self.0.len() >= MOST {
            let longest_gone = self.0.iter().min_by_key(|(_, clock)| clock.heard).map(|(&node, _)| node);
            longest_gone.and_then(|node| self.0.remove(&node));
        }
        let clock = self.0.entry(node).or_insert(NodeClock { ahead: [0; BEATS], beats: 0, said: 0, heard: now });
        let millis = |unix: u64| i64::try_from(unix).unwrap_or(i64::MAX);
        clock.ahead[clock.beats % BEATS] = millis(ours) - millis(theirs);
        clock.beats += 1;
        clock.heard = now;
        let ahead = clock.ahead();
        // a single heartbeat may have waited here for long
        if clock.beats < BEATS || ahead.abs_diff(clock.said) <= NOTABLE.unsigned_abs() {
            return None;
        }
        if ahead.abs() > NOTABLE {
            clock.said = ahead;
            return Some(News::Differs(ahead));
        }
        clock.said = 0;
        Some(News::Agrees)
    }

    /// By how many milliseconds this node's clock is ahead of that of `node`; at most `tolerance` either way, and 0 if
    /// nothing is known of it.
    pub(super) fn ahead_of(&self, node: NodeId, tolerance: Duration) -> i64 {
        let most = i64::try_from(tolerance.as_millis()).unwrap_or(i64::MAX);
        self.0.get(&node).map_or(0, |clock| clock.ahead().clamp(-most, most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn node(no: u32) -> NodeId {
        NodeId::from_random(no)
    }

    /// Beats of a clock that is behind ours by `ahead`, each `late`.
    fn beats(clocks: &mut Clocks, no: u32, ahead: i64, late: &[u64]) -> Vec<News> {
        let heard = |late: &u64| {
            let theirs = 1_700_000_000_000_u64;
            clocks.heard(node(no), theirs, theirs.saturating_add_signed(ahead) + late, Duration::ZERO)
        };
        late.iter().filter_map(heard).collect()
    }

    #[test]
    fn what_a_beat_waited_is_not_taken_for_a_difference() {
        let mut clocks = Clocks::default();
        assert_eq!(clocks.ahead_of(node(1), MINUTE), 0);
        assert_eq!(beats(&mut clocks, 1, 0, &[9_000, 8_000, 7_000, 6]), []);
        assert_eq!(clocks.ahead_of(node(1), MINUTE), 6);
        assert_eq!(beats(&mut clocks, 1, 0, &[20_000, 19_000, 18_000, 17_000]), [News::Differs(17_000)]);
        assert_eq!(beats(&mut clocks, 1, 0, &[1]), [News::Agrees]);
    }

    #[test]
    fn a_difference_is_said_once_and_again_when_it_changes() {
        let mut clocks = Clocks::default();
        assert_eq!(beats(&mut clocks, 1, 60_000, &[5; 20]), [News::Differs(60_005)]);
        assert_eq!(beats(&mut clocks, 1, 57_000, &[5; 20]), []);
        assert_eq!(beats(&mut clocks, 1, 30_000, &[5; 20]), [News::Differs(30_005)]);
        assert_eq!(beats(&mut clocks, 1, -30_000, &[5; 20]), [News::Differs(-29_995)]);
        assert_eq!(beats(&mut clocks, 1, 400, &[5; 20]), [News::Agrees]);
        assert_eq!(beats(&mut clocks, 2, 4_000, &[5; 20]), [], "a difference that needs no words");
        assert_eq!(clocks.ahead_of(node(2), MINUTE), 4_005);
    }

    #[test]
    fn no_difference_counts_beyond_the_bound_and_no_number_makes_it_panic() {
        let mut clocks = Clocks::default();
        for (theirs, ours) in [(0, u64::MAX), (u64::MAX, 0), (u64::MAX, u64::MAX), (1, 2)] {
            for _ in 0..BEATS {
                clocks.heard(node(1), theirs, ours, Duration::ZERO);
            }
            assert!(clocks.ahead_of(node(1), MINUTE).abs() <= 60_000);
            assert_eq!(clocks.ahead_of(node(1), Duration::ZERO), 0);
        }
    }

    #[test]
    fn the_clock_of_who_is_gone_longest_is_forgotten() {
        let mut clocks = Clocks::default();
        for no in 0..=u32::try_from(MOST).unwrap() {
            clocks.heard(node(no), 0, 7, Duration::from_secs(u64::from(no)));
        }
        assert_eq!(clocks.0.len(), MOST);
        assert_eq!((clocks.ahead_of(node(0), MINUTE), clocks.ahead_of(node(1), MINUTE)), (0, 7));
    }
}
