//! Nodes on the same bus that have another secret, and whether this one is to stand back for them. Pure; spans are measured
//! since any fixed moment.

use std::{collections::BTreeMap, time::Duration};

use wellhead_proto::{ids::NodeId, membership::LEASE};

/// A node that has been on the bus for less than this is the one that is wrong.
const YOUNG: Duration = Duration::from_secs(3);
/// Strangers that are told apart; more are counted, not named.
const MOST: usize = 64;
/// After so much silence a stranger is named again.
const SILENCE: Duration = Duration::from_secs(60);

/// All of them.
#[derive(Default)]
pub(super) struct Strangers {
    heard: BTreeMap<(NodeId, u64), Duration>,
    /// When the bus was up for the first time.
    begun: Option<Duration>,
    /// Was this node young when it met the first of them?
    newcomer: Option<bool>,
    last: Option<Duration>,
}

impl Strangers {
    /// The bus is up.
    pub(super) fn up(&mut self, now: Duration) {
        self.begun.get_or_insert(now);
    }

    /// The incarnation of a node with another secret was heard. `true` if that is news.
    pub(super) fn heard(&mut self, node: NodeId, incarnation: u64, now: Duration) -> bool {
        let young = self.begun.is_none_or(|begun| now.saturating_sub(begun) < YOUNG);
        self.newcomer.get_or_insert(young);
        self.last = Some(now);
        if let Some(heard) = self.heard.get_mut(&(node, incarnation)) {
            *heard = now;
            return false;
        }
        self.heard.retain(|_, heard| now.saturating_sub(*heard) < SILENCE);
        if self.heard.len() >= MOST {
            return false;
        }
        self.heard.insert((node, incarnation), now);
        true
    }

    /// Is `node` one of them?
    pub(super) fn has(&self, node: NodeId, now: Duration) -> bool {
        let mut heard = self.heard.range((node, 0)..=(node, u64::MAX));
        heard.any(|(_, heard)| now.saturating_sub(*heard) < LEASE)
    }

    /// Is this node to serve nobody? It came last, and nobody shares its secret.
    pub(super) fn stands_back(&self, alone: bool, now: Duration) -> bool {
        let lately = self.last.is_some_and(|last| now.saturating_sub(last) < LEASE);
        alone && lately && self.newcomer == Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(no: u32) -> NodeId {
        NodeId::from_random(no)
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn each_is_news_once_and_again_after_a_silence() {
        let mut strangers = Strangers::default();
        assert!(!strangers.has(node(1), at(0)));
        assert!(strangers.heard(node(1), 5, at(1)));
        for second in 1..100 {
            assert!(!strangers.heard(node(1), 5, at(second)));
        }
        assert!(strangers.heard(node(1), 6, at(100)), "it was restarted");
        assert!(strangers.has(node(1), at(101)) && !strangers.has(node(1), at(105)));
        assert!(!strangers.has(node(0), at(100)) && !strangers.has(node(2), at(100)));
        let news = (2..1_000).filter(|&no| strangers.heard(node(no), 1, at(100))).count();
        assert_eq!(news, MOST - 2);
        assert!(strangers.heard(node(5_000), 5, at(160)));
    }

    #[test]
    fn who_came_last_and_has_no_friends_stands_back_as_long_as_there_are_strangers() {
        let mut young = Strangers::default();
        young.up(at(10));
        assert!(!young.stands_back(true, at(10)));
        young.heard(node(1), 1, at(11));
        assert!(young.stands_back(true, at(15)));
        assert!(!young.stands_back(false, at(15)), "others have its secret");
        assert!(!young.stands_back(true, at(16)), "they are gone");
        young.up(at(60));
        young.heard(node(1), 1, at(90));
        assert!(young.stands_back(true, at(90)), "it is still the one that came last");

        let mut old = Strangers::default();
        old.up(at(10));
        old.heard(node(1), 1, at(13));
        assert!(!old.stands_back(true, at(13)));
    }
}
