//! Which slaves are not waited for: those that owed an answer when a deadline passed. Pure.

use std::collections::BTreeSet;

use wellhead_proto::ids::NodeId;

/// They owed an answer when a deadline passed, or were not heard of since an outage: they are not waited for until they send a
/// heartbeat, or answer another question in time.
#[derive(Default)]
pub(super) struct LateSlaves(BTreeSet<NodeId>);

/// Who has not answered a question yet.
pub(super) struct OwedAnswers {
    pub(super) waited_for: BTreeSet<NodeId>,
    /// On the membership, and not waited for.
    pub(super) silent: BTreeSet<NodeId>,
}

impl LateSlaves {
    /// Which of `slaves` owe an answer to a question that is asked now.
    pub(super) fn owed(&self, slaves: &[NodeId]) -> OwedAnswers {
        let (silent, waited_for) = slaves.iter().partition(|slave| self.0.contains(slave));
        OwedAnswers { waited_for, silent }
    }

    /// They owed an answer when the deadline passed.
    pub(super) fn missed_deadline(&mut self, slaves: impl IntoIterator<Item = NodeId>) {
        self.0.extend(slaves);
    }

    /// `node` sent a heartbeat, or an answer in time.
    pub(super) fn heard_of(&mut self, node: NodeId) {
        self.0.remove(&node);
    }

    /// Only `slaves` are there; `true` if all of them are waited for.
    pub(super) fn all_answer(&mut self, slaves: &[NodeId]) -> bool {
        self.0.retain(|late| slaves.contains(late));
        self.0.is_empty()
    }
}

impl OwedAnswers {
    pub(super) fn paid(&mut self, node: NodeId) {
        self.waited_for.remove(&node);
        self.silent.remove(&node);
    }

    pub(super) fn missing(mut self) -> Vec<NodeId> {
        self.silent.append(&mut self.waited_for);
        self.silent.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(no: u32) -> NodeId {
        NodeId::from_random(no)
    }

    #[test]
    fn who_missed_a_deadline_is_not_waited_for_until_it_is_heard_of() {
        let slaves = [node(1), node(2)];
        let mut late = LateSlaves::default();
        let owed = late.owed(&slaves);
        assert_eq!((owed.waited_for.len(), owed.silent.len()), (2, 0));
        late.missed_deadline(owed.waited_for);
        let owed = late.owed(&slaves);
        assert_eq!((owed.waited_for.len(), owed.missing()), (0, slaves.to_vec()));
        late.heard_of(node(1));
        let owed = late.owed(&slaves);
        assert_eq!((owed.waited_for, owed.silent), ([node(1)].into(), [node(2)].into()));
        assert!(!late.all_answer(&slaves));
        assert!(late.all_answer(&slaves[..1]), "who is gone owes nothing");
        assert!(late.all_answer(&slaves), "and is waited for when it comes again");
    }
}
