//! Which format each node reads, and so in which one this node writes. Pure; spans are measured since any fixed moment.
//!
//! A node of this release reads both formats, one of the previous release only its own. So this node writes the old format
//! as long as a node of the previous release is here, and signs what it writes otherwise. Nodes of this release recognise
//! each other by their heartbeats: those go out in the new format, too, and who once was heard in it reads it.

use std::{collections::BTreeMap, time::Duration};

use wellhead_proto::{
    ids::NodeId,
    membership::LEASE,
    node_message::{Body, MessageFormat},
};

use crate::bus::pubsub::Subject;

/// Beside nodes of the previous release, of so many heartbeats one goes out in the new format: they refuse it.
const ONE_IN: u32 = 5;

const OLD: &[MessageFormat] = &[MessageFormat::V3];
const NEW: &[MessageFormat] = &[MessageFormat::V4];
/// The new one first: whoever reads both heeds it, and leaves the other out.
const BOTH: &[MessageFormat] = &[MessageFormat::V4, MessageFormat::V3];

/// What is known of the formats of the others.
#[derive(Default)]
pub(super) struct Formats {
    nodes: BTreeMap<NodeId, KnownFormat>,
    /// How many of them read the old format only.
    old: usize,
    /// Nothing is read or written that is not signed.
    require_signed: bool,
    /// Everybody who was here when this node came has been heard of.
    settled: bool,
    /// Heartbeats that went to everybody beside nodes of the previous release.
    beats: u32,
}

struct KnownFormat {
    /// `None` for a node that is linked, and was not heard yet.
    incarnation: Option<u64>,
    /// The newest in which it was heard.
    format: MessageFormat,
    since: Duration,
}

impl Formats {
    /// From now on nothing is read or written that is not signed.
    pub(super) fn require_signed(&mut self) {
        (self.require_signed, self.settled) = (true, true);
    }

    /// Is what is not signed refused?
    pub(super) fn are_signed(&self) -> bool {
        self.require_signed
    }

    /// Everybody who was here when this node came has been heard of, or has had the time for it.
    pub(super) fn settle(&mut self) {
        self.settled = true;
    }

    /// Is it known in which format to write?
    pub(super) fn is_settled(&self) -> bool {
        self.settled
    }

    /// A node came over the local bus, and nothing of it was heard yet.
    pub(super) fn linked(&mut self, node: NodeId, format: MessageFormat, now: Duration) {
        self.nodes.insert(node, KnownFormat { incarnation: None, format, since: now });
        self.count();
    }

    /// Its link broke.
    pub(super) fn unlinked(&mut self, node: NodeId) {
        self.nodes.remove(&node);
        self.count();
    }

    /// A node that was let in was heard in that format. `true` if that is news.
    pub(super) fn heard(&mut self, node: NodeId, incarnation: u64, format: MessageFormat, now: Duration) -> bool {
        let known = self.nodes.get(&node).filter(|known| known.incarnation == Some(incarnation));
        if known.is_some_and(|known| known.format == format || known.format == MessageFormat::V4) {
            return false;
        }
        self.nodes.insert(node, KnownFormat { incarnation: Some(incarnation), format, since: now });
        self.count();
        true
    }

    /// Does that incarnation of a node read the new format?
    pub(super) fn reads_new(&self, node: NodeId, incarnation: u64) -> bool {
        let known = self.nodes.get(&node).filter(|known| known.incarnation == Some(incarnation));
        known.is_some_and(|known| known.format == MessageFormat::V4)
    }

    /// Forget the nodes that are not here any more.
    pub(super) fn retain(&mut self, is_here: impl Fn(NodeId) -> bool, now: Duration) {
        let comes = |known: &KnownFormat| known.incarnation.is_none() && now.saturating_sub(known.since) < LEASE;
        self.nodes.retain(|&node, known| is_here(node) || comes(known));
        self.count();
    }

    /// How many nodes of the previous release are here.
    pub(super) fn old(&self) -> usize {
        self.old
    }

    /// Does everybody who is here listen to slots of users? The previous release does not know them.
    pub(super) fn have_user_slots(&self) -> bool {
        self.require_signed || self.old == 0
    }

    fn count(&mut self) {
        self.old = self.nodes.values().filter(|known| known.format == MessageFormat::V3).count();
    }

    /// In which formats `body` goes to `subject`.
    pub(super) fn of(&mut self, subject: Subject, body: &Body) -> &'static [MessageFormat] {
        if self.require_signed {
            return NEW;
        }
        let is_heartbeat = matches!(body, Body::Heartbeat(_) | Body::Hello(_));
        if let Subject::Node(node) = subject {
            return match self.nodes.get(&node).map(|known| known.format) {
                Some(MessageFormat::V4) => NEW,
                Some(MessageFormat::V3) => OLD,
                None if is_heartbeat => BOTH,
                None => self.for_all(),
            };
        }
        match body {
            Body::Hello(_) => BOTH,
            Body::Heartbeat(_) if self.for_all() == OLD => {
                self.beats = self.beats.wrapping_add(1);
                if self.beats % ONE_IN == 1 { BOTH } else { OLD }
            }
            _ => self.for_all(),
        }
    }

    /// What everybody who is here reads.
    fn for_all(&self) -> &'static [MessageFormat] {
        if self.old > 0 { OLD } else { NEW }
    }
}

#[cfg(test)]
mod tests {
    use wellhead_proto::membership::Heartbeat;

    use super::*;

    fn node(no: u32) -> NodeId {
        NodeId::from_random(no)
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn heartbeat() -> Heartbeat {
        Heartbeat::new(node(0), true, 1)
    }

    fn push() -> Body {
        Body::Goodbye(node(0), 1)
    }

    #[test]
    fn the_old_format_is_written_as_long_as_a_node_reads_no_other() {
        let mut formats = Formats::default();
        assert_eq!(formats.of(Subject::Slot(1), &push()), NEW);
        formats.heard(node(1), 7, MessageFormat::V4, at(0));
        formats.heard(node(2), 7, MessageFormat::V3, at(0));
        assert_eq!(formats.old(), 1);
        assert_eq!(formats.of(Subject::Slot(1), &push()), OLD);
        assert_eq!(formats.of(Subject::Everyone, &push()), OLD);
        // who is asked alone is asked in its own
        assert_eq!(formats.of(Subject::Node(node(1)), &push()), NEW);
        assert_eq!(formats.of(Subject::Node(node(2)), &push()), OLD);
        assert_eq!(formats.of(Subject::Node(node(3)), &push()), OLD, "who knows");
        formats.retain(|other| other == node(1), at(1));
        assert_eq!(formats.of(Subject::Slot(1), &push()), NEW);
    }

    #[test]
    fn who_was_heard_in_the_new_format_reads_it_until_it_is_restarted() {
        let mut formats = Formats::default();
        assert!(formats.heard(node(1), 7, MessageFormat::V3, at(0)));
        assert!(!formats.heard(node(1), 7, MessageFormat::V3, at(1)));
        assert!(formats.heard(node(1), 7, MessageFormat::V4, at(1)));
        assert!(!formats.heard(node(1), 7, MessageFormat::V3, at(2)));
        assert!(formats.reads_new(node(1), 7) && !formats.reads_new(node(1), 8) && !formats.reads_new(node(2), 7));
        assert_eq!(formats.of(Subject::Everyone, &push()), NEW);
        formats.heard(node(1), 8, MessageFormat::V3, at(3));
        assert_eq!(formats.of(Subject::Everyone, &push()), OLD, "it came back as the previous release");
    }

    #[test]
    fn heartbeats_are_heard_by_all_and_tell_the_nodes_of_this_release_apart() {
        let mut formats = Formats::default();
        assert_eq!(formats.of(Subject::Everyone, &Body::Hello(heartbeat())), BOTH, "nobody knows who is here");
        assert_eq!(formats.of(Subject::Node(node(1)), &Body::Heartbeat(heartbeat())), BOTH);
        assert_eq!(formats.of(Subject::Everyone, &Body::Heartbeat(heartbeat())), NEW);
        formats.heard(node(2), 7, MessageFormat::V3, at(0));
        let sent: Vec<_> = (0..10).map(|_| formats.of(Subject::Everyone, &Body::Heartbeat(heartbeat()))).collect();
        assert_eq!(sent, [BOTH, OLD, OLD, OLD, OLD, BOTH, OLD, OLD, OLD, OLD]);
    }

    #[test]
    fn a_link_tells_its_format_before_it_is_heard_and_is_not_believed_for_ever() {
        let mut formats = Formats::default();
        formats.linked(node(1), MessageFormat::V3, at(0));
        formats.retain(|_| false, at(4));
        assert_eq!(formats.of(Subject::Slot(1), &push()), OLD);
        formats.retain(|_| false, at(5));
        assert_eq!(formats.of(Subject::Slot(1), &push()), NEW);
        formats.linked(node(1), MessageFormat::V3, at(6));
        formats.unlinked(node(1));
        assert_eq!(formats.old(), 0);
    }

    #[test]
    fn where_signatures_are_required_nothing_else_is_written() {
        let mut formats = Formats::default();
        formats.heard(node(1), 7, MessageFormat::V3, at(0));
        formats.require_signed();
        for (subject, body) in [
            (Subject::Everyone, Body::Hello(heartbeat())),
            (Subject::Everyone, Body::Heartbeat(heartbeat())),
            (Subject::Node(node(1)), push()),
            (Subject::Slot(1), push()),
        ] {
            assert_eq!(formats.of(subject, &body), NEW);
        }
        assert!(formats.is_settled());
    }
}
