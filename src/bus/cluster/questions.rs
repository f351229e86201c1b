//! Questions that wait for answers, and which slaves are not waited for: those that owed an answer when a deadline passed.
//! Pure, but for the channels that answers go through.

use std::collections::{BTreeSet, HashMap};

use tokio::sync::mpsc;
use wellhead_proto::{ids::NodeId, query::Census};

/// An answer, and who gave it.
pub(super) type Answered = (NodeId, Census);

/// All of a node's open questions.
#[derive(Default)]
pub(super) struct OpenQuestions {
    open: HashMap<u64, mpsc::UnboundedSender<Answered>>,
    /// They owed an answer when a deadline passed, or were not heard of since an outage: they are not waited for until they
    /// send a heartbeat, or answer another question in time.
    late: BTreeSet<NodeId>,
}

/// Who has not answered a question yet.
pub(super) struct OwedAnswers {
    pub(super) waited_for: BTreeSet<NodeId>,
    /// On the roster, and not waited for.
    pub(super) silent: BTreeSet<NodeId>,
}

impl OpenQuestions {
    /// The answers to the question `id` come through the receiver, until it is closed.
    pub(super) fn open(&mut self, id: u64) -> mpsc::UnboundedReceiver<Answered> {
        let (answer, answers) = mpsc::unbounded_channel();
        self.open.insert(id, answer);
        answers
    }

    pub(super) fn close(&mut self, id: u64) {
        self.open.remove(&id);
    }

    /// Which of `slaves` owe an answer to a question that is asked now.
    pub(super) fn owed(&self, slaves: &[NodeId]) -> OwedAnswers {
        let (silent, waited_for) = slaves.iter().partition(|slave| self.late.contains(slave));
        OwedAnswers { waited_for, silent }
    }

    /// `from` answered the question `id`: it is waited for again, before whoever asked can ask the next.
    pub(super) fn answered(&mut self, id: u64, from: NodeId, census: Census) {
        if let Some(answers) = self.open.get(&id) {
            self.late.remove(&from);
            // whoever gave up waiting does not listen
            let _ = answers.send((from, census));
        }
    }

    /// They owed an answer when the deadline passed.
    pub(super) fn missed_deadline(&mut self, slaves: impl IntoIterator<Item = NodeId>) {
        self.late.extend(slaves);
    }

    /// A heartbeat of `node` was heard.
    pub(super) fn heard_of(&mut self, node: NodeId) {
        self.late.remove(&node);
    }

    /// Only `slaves` are there; `true` if all of them are waited for.
    pub(super) fn all_answer(&mut self, slaves: &[NodeId]) -> bool {
        self.late.retain(|late| slaves.contains(late));
        self.late.is_empty()
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

    fn nobody() -> Census {
        Census::Names(BTreeSet::new())
    }

    #[test]
    fn who_missed_a_deadline_is_not_waited_for_until_it_is_heard_of() {
        let slaves = [node(1), node(2)];
        let mut questions = OpenQuestions::default();
        let mut answers = questions.open(7);
        let owed = questions.owed(&slaves);
        assert_eq!((owed.waited_for.len(), owed.silent.len()), (2, 0));
        questions.missed_deadline(owed.waited_for);
        let owed = questions.owed(&slaves);
        assert_eq!((owed.waited_for.len(), owed.missing()), (0, slaves.to_vec()));

        questions.heard_of(node(1));
        assert_eq!(questions.owed(&slaves).waited_for, [node(1)].into());
        questions.answered(8, node(2), nobody());
        assert_eq!(questions.owed(&slaves).silent, [node(2)].into(), "nobody asked that");
        questions.answered(7, node(2), nobody());
        assert_eq!(questions.owed(&slaves).missing(), slaves, "both are waited for");
        assert_eq!(answers.try_recv().map(|(from, _)| from), Ok(node(2)));
        questions.close(7);
        questions.missed_deadline([node(1)]);
        questions.answered(7, node(1), nobody());
        assert!(!questions.all_answer(&slaves));
        assert!(questions.all_answer(&slaves[1..]), "who is gone owes nothing");
    }
}
