//! What a node does about what it hears. Everything is hostile until it is parsed.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use log::warn;
use wellhead_proto::{
    bus::{BoxFuture, Gap},
    ids::NodeId,
    mail::{Letter, Mail},
};

use super::{
    Cluster,
    complaints::Complaints,
    continuity::{GapQuestion, sender_of},
    fragments::MessageFragments,
    membership::{FromNode, NodeNews},
    unix_millis,
};
use crate::bus::pubsub::{MessageHandler, Subject};

/// What a node's wire tells what comes. Holds the node weakly: the wire belongs to it.
pub struct NodeMessageHandler {
    node: Weak<Cluster>,
    fragments: Mutex<MessageFragments>,
    complaints: Mutex<Complaints>,
}

impl NodeMessageHandler {
    pub(super) fn new(node: &Arc<Cluster>) -> Self {
        Self { node: Arc::downgrade(node), fragments: Mutex::default(), complaints: Mutex::default() }
    }

    /// Something came that is no message of this cluster.
    fn refuse(&self, node: &Cluster, subject: Subject, why: &str) {
        node.metrics.refused.inc();
        let times = self.complaints.lock().unwrap_or_else(PoisonError::into_inner).happened(why, node.now());
        if let Some(times) = times {
            warn!(subject:% = subject, times; "refused a message on {subject}: {why}");
        }
    }

    fn read(&self, node: &Arc<Cluster>, subject: Subject, letter: Letter) {
        let of_slot = matches!(subject, Subject::Slot(_) | Subject::EverySlot);
        let piece = if let Mail::Part { index, .. } = letter.mail { index } else { 0 };
        if of_slot && !node.interest.slots().counts((letter.id, piece), subject == Subject::EverySlot) {
            return;
        }
        let (id, session) = (letter.id, letter.session);
        let mail = match letter.mail {
            Mail::Part { of, index, count, bytes } => {
                let mut fragments = self.fragments.lock().unwrap_or_else(PoisonError::into_inner);
                let whole = fragments.take(of, index, count, &bytes, node.now());
                drop(fragments);
                match whole {
                    Ok(None) => return,
                    Ok(Some(whole)) => match Letter::decode(&whole) {
                        Ok(Letter { mail: Mail::Part { .. }, .. }) => {
                            return self.refuse(node, subject, "pieces in pieces");
                        }
                        Ok(letter) => letter.mail,
                        Err(error) => return self.refuse(node, subject, &error.to_string()),
                    },
                    Err(()) => return self.refuse(node, subject, "a piece of a letter that does not belong there"),
                }
            }
            mail => mail,
        };
        node.came(id, session);
        node.carry_out(mail);
    }
}

impl MessageHandler for NodeMessageHandler {
    fn hear(&self, subject: Subject, message: Bytes) {
        let Some(node) = self.node.upgrade() else { return };
        match Letter::decode(&message) {
            Ok(letter) => self.read(&node, subject, letter),
            Err(error) => self.refuse(&node, subject, &error.to_string()),
        }
    }

    fn has_room(&self) -> bool {
        self.node
            .upgrade()
            .is_none_or(|node| node.membership_load.has_room() && node.inbox().is_none_or(|inbox| inbox.has_room()))
    }

    fn room(&self) -> BoxFuture<()> {
        let Some(node) = self.node.upgrade() else { return Box::pin(std::future::ready(())) };
        let (membership, inbox) = (node.membership_load.clone(), node.inbox());
        Box::pin(async move {
            membership.room().await;
            if let Some(inbox) = inbox {
                inbox.room().await;
            }
        })
    }

    fn gap(&self) {
        // the wire has counted it
        if let Some(inbox) = self.node.upgrade().and_then(|node| node.inbox()) {
            inbox.gap(Gap::TooSlow);
        }
    }

    fn interrupted(&self) {
        if let Some(node) = self.node.upgrade() {
            node.interrupted();
        }
    }
}

impl Cluster {
    /// A whole letter came.
    fn came(&self, letter: u64, session: u32) {
        let sender = sender_of(letter);
        if self.holds_sockets() && sender != self.me.node && !self.is_stranger(sender) {
            self.continuity().heard(letter, session, self.now());
        }
    }

    fn is_stranger(&self, node: NodeId) -> bool {
        self.members.borrow().is_stranger(node, self.now())
    }

    /// Somebody may have missed what does not come.
    fn holds_sockets(&self) -> bool {
        self.me.slave
    }

    /// This node's connection ended. Where the server is a node, nobody pushed through it once it was gone; what it had
    /// taken before went with it.
    fn interrupted(&self) {
        if !self.holds_sockets() {
            return;
        }
        let by_a_node = self.sender.wire().is_some_and(|wire| wire.is_served_by_a_node());
        let masters: Vec<_> = self.members.borrow().nodes.masters().filter(|_| by_a_node).collect();
        self.continuity().interrupted(|node| !masters.contains(&node), self.now());
    }

    /// What went to whoever asks, or to a slot, behind the letter `after`.
    fn pushed_since(&self, after: u64, asks: NodeId) -> Option<Vec<(Option<u16>, u64)>> {
        let journal = self.sender.journal();
        let pushed = journal.since(after)?.filter_map(|(letter, subject)| match subject {
            Subject::Slot(slot) => Some((Some(slot), letter)),
            Subject::Everyone => Some((None, letter)),
            Subject::Node(node) => (node == asks).then_some((None, letter)),
            Subject::EverySlot => None,
        });
        Some(pushed.collect())
    }

    /// A node said what it pushed; which of it concerns this one?
    fn told_pushed(&self, from: NodeId, no: u64, letters: Option<Vec<(Option<u16>, u64)>>) {
        let letters = letters.map(|letters| {
            let slots = self.interest.slots();
            let ours = |&(slot, _): &(Option<u16>, u64)| slot.is_none_or(|slot| slots.is_wanted(slot));
            letters.into_iter().filter(ours).map(|(_, letter)| letter).collect()
        });
        let gap = self.continuity().answered(from, no, letters, self.now());
        if let Some(gap) = gap {
            self.tell_gap(gap);
        }
    }

    fn carry_out(self: &Arc<Self>, mail: Mail) {
        match mail {
            Mail::Order(envelope) => {
                if let Some(inbox) = self.inbox() {
                    inbox.deliver(envelope);
                }
            }
            Mail::Ask { from, .. }
            | Mail::Answer { from, .. }
            | Mail::Reports { from, .. }
            | Mail::AskPushed { from, .. }
            | Mail::Pushed { from, .. }
                if self.is_stranger(from) => {}
            Mail::Ask { id, from, ask } => {
                let Some(inbox) = self.inbox() else { return };
                let (node, answer) = (Arc::downgrade(self), inbox.answer(ask));
                self.runtime.spawn(async move {
                    let census = answer.await;
                    if let Some(node) = node.upgrade() {
                        node.sender.queue(Subject::Node(from), Mail::Answer { id, from: node.me.node, census });
                    }
                });
            }
            Mail::Answer { id, from, census } => self.questions().answered(id, from, census),
            Mail::AskPushed { no, from, after } => {
                let letters = self.pushed_since(after, from);
                self.sender.queue(Subject::Node(from), Mail::Pushed { no, from: self.me.node, letters });
            }
            Mail::Pushed { no, from, letters } => self.told_pushed(from, no, letters),
            Mail::Reports { from, reports } => {
                if let Some(inbox) = self.inbox() {
                    inbox.report(from, reports);
                }
            }
            Mail::Beat(beat) => self.tell_membership(NodeNews::Here { beat, asks: false, unix_millis: unix_millis() }),
            Mail::Hello(beat) => self.tell_membership(NodeNews::Here { beat, asks: true, unix_millis: unix_millis() }),
            Mail::Goodbye(node, incarnation) => self.tell_membership(NodeNews::Goodbye { node, incarnation }),
            Mail::Settings { from: node, settings } => self.tell_membership(NodeNews::Settings { node, settings }),
            // a piece is put together before: see `NodeMessageHandler::read`
            Mail::Part { .. } => {}
        }
    }

    fn tell_membership(&self, news: NodeNews) {
        self.membership.do_send(FromNode { news, waiting: self.membership_load.add() });
    }

    /// `node` can be heard: ask it, if it is in doubt whether everything came.
    pub(super) fn look_what_was_missed(&self, node: NodeId) {
        let Some(inbox) = self.inbox().filter(|_| self.holds_sockets() && node != self.me.node) else { return };
        let question = {
            let mut continuity = self.continuity();
            continuity.member(node, self.now());
            match self.state.borrow().up {
                true => continuity.question(node, inbox.opened(), self.now()),
                false => None,
            }
        };
        if let Some(GapQuestion { no, after }) = question {
            let ask = Mail::AskPushed { no, from: self.me.node, after };
            self.sender.queue(Subject::Node(node), ask);
        }
    }
}
