//! What is said once about nodes that do not fit, and how many of them are answered. Pure; spans are measured since any fixed
//! moment.

use std::{collections::BTreeMap, time::Duration};

use wellhead_proto::ids::NodeId;

/// Answers to hellos at once, and those of each second after.
const ANSWERS: u32 = 1_024;
/// After so much silence a cause is said again.
const SILENCE: Duration = Duration::from_secs(60);
/// Nodes whose settings were complained of that are remembered.
const COMPLAINTS: usize = 1_024;

/// What is said once, for as long as it goes on.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum SaidOnce {
    /// The membership is full.
    Full,
    /// Too many nodes come at once.
    Crowded,
    /// Nodes of the previous release are here.
    Unsigned,
}

/// What was said.
#[derive(Default)]
pub(super) struct Complained {
    causes: BTreeMap<SaidOnce, Duration>,
    /// Nodes whose settings differ, by incarnation.
    settings: BTreeMap<NodeId, u64>,
    /// Answers to hellos in this second.
    answers: (u64, u32),
}

impl Complained {
    /// `cause` is there. `true` if it was not lately.
    pub(super) fn once(&mut self, cause: SaidOnce, now: Duration) -> bool {
        self.causes.insert(cause, now).is_none_or(|last| now.saturating_sub(last) >= SILENCE)
    }

    /// The settings of a node differ. `true` if that is news.
    pub(super) fn settings(&mut self, node: NodeId, incarnation: u64) -> bool {
        if self.settings.len() >= COMPLAINTS && !self.settings.contains_key(&node) {
            return false;
        }
        self.settings.insert(node, incarnation) != Some(incarnation)
    }

    /// May another hello be answered?
    pub(super) fn may_answer(&mut self, now: Duration) -> bool {
        if self.answers.0 != now.as_secs() {
            self.answers = (now.as_secs(), 0);
        }
        self.answers.1 += 1;
        self.answers.1 <= ANSWERS
    }
}
