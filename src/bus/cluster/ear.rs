//! What a node does about what it hears. Everything is hostile until it is parsed.

use std::sync::{Arc, PoisonError, Weak};

use bytes::Bytes;
use log::{info, warn};
use wellhead_proto::{
    bus::{BoxFuture, Gap},
    ids::NodeId,
    mail::{Letter, Mail},
};

use super::{
    Cluster,
    continuity::{Question, sender_of},
};
use crate::bus::wire::{Ear, Subject};

/// The ear of a node, for its wire. Holds the node weakly: the wire belongs to it.
pub struct ClusterEar(Weak<Cluster>);

impl ClusterEar {
    pub(super) fn new(cluster: &Arc<Cluster>) -> Self {
        Self(Arc::downgrade(cluster))
    }
}

impl Ear for ClusterEar {
    fn hear(&self, subject: Subject, message: Bytes) {
        let Some(cluster) = self.0.upgrade() else { return };
        match Letter::decode(&message) {
            Ok(letter) => cluster.read(subject, letter),
            Err(error) => cluster.refuse(subject, &error.to_string()),
        }
    }

    fn has_room(&self) -> bool {
        self.0.upgrade().and_then(|cluster| cluster.inbox().map(|inbox| inbox.has_room())).unwrap_or(true)
    }

    fn room(&self) -> BoxFuture<()> {
        match self.0.upgrade().and_then(|cluster| cluster.inbox()) {
            Some(inbox) => inbox.room(),
            None => Box::pin(std::future::ready(())),
        }
    }

    fn gap(&self) {
        // the wire has counted it
        if let Some(inbox) = self.0.upgrade().and_then(|cluster| cluster.inbox()) {
            inbox.gap(Gap::TooSlow);
        }
    }

    fn interrupted(&self) {
        if let Some(cluster) = self.0.upgrade() {
            cluster.interrupted();
        }
    }
}

impl Cluster {
    fn refuse(&self, subject: Subject, why: &str) {
        self.metrics.refused.inc();
        let times = self.complaints.lock().unwrap_or_else(PoisonError::into_inner).happened(why, self.now());
        if let Some(times) = times {
            warn!(subject:% = subject, times; "refused a message on {subject}: {why}");
        }
    }

    fn read(self: &Arc<Self>, subject: Subject, letter: Letter) {
        let of_slot = matches!(subject, Subject::Slot(_) | Subject::EverySlot);
        let piece = if let Mail::Part { index, .. } = letter.mail { index } else { 0 };
        if of_slot && !self.slots().counts((letter.id, piece), subject == Subject::EverySlot) {
            return;
        }
        let (id, session) = (letter.id, letter.session);
        match letter.mail {
            Mail::Part { of, index, count, bytes } => {
                let now = self.now();
                let whole = {
                    let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
                    parts.take(of, index, count, &bytes, now)
                };
                match whole {
                    Ok(None) => {}
                    Ok(Some(whole)) => match Letter::decode(&whole) {
                        Ok(Letter { mail: Mail::Part { .. }, .. }) => self.refuse(subject, "pieces in pieces"),
                        Ok(letter) => {
                            self.came(id, session);
                            self.obey_mail(subject, letter.mail);
                        }
                        Err(error) => self.refuse(subject, &error.to_string()),
                    },
                    Err(()) => self.refuse(subject, "a piece of a letter that does not belong there"),
                }
            }
            mail => {
                self.came(id, session);
                self.obey_mail(subject, mail);
            }
        }
    }

    /// A whole letter came.
    fn came(&self, letter: u64, session: u32) {
        let sender = sender_of(letter);
        if self.holds_sockets() && sender != self.me.node && !self.is_stranger(sender) {
            self.continuity().heard(letter, session, self.now());
        }
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
        let by_a_node = self.wire.get().is_some_and(|wire| wire.is_served_by_a_node());
        let masters: Vec<_> = self.roster().masters().filter(|_| by_a_node).collect();
        self.continuity().interrupted(|node| !masters.contains(&node), self.now());
    }

    /// What went to whoever asks, or to a slot, behind the letter `after`.
    fn pushed_since(&self, after: u64, asks: NodeId) -> Option<Vec<(Option<u16>, u64)>> {
        let journal = self.journal();
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
            let slots = self.slots();
            let ours = |&(slot, _): &(Option<u16>, u64)| slot.is_none_or(|slot| slots.is_wanted(slot));
            letters.into_iter().filter(ours).map(|(_, letter)| letter).collect()
        });
        let gap = self.continuity().answered(from, no, letters, self.now());
        if let Some(gap) = gap {
            self.tell_gap(gap);
        }
    }

    fn obey_mail(self: &Arc<Self>, subject: Subject, mail: Mail) {
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
                let (answer, outgoing, me) = (inbox.answer(ask), self.outgoing.clone(), self.me.node);
                self.runtime.spawn(async move {
                    let census = answer.await;
                    let _ = outgoing.send((Subject::Node(from), Mail::Answer { id, from: me, census }));
                });
            }
            Mail::Answer { id, from, census } => {
                let question = self.questions().get(&id).cloned();
                if let Some(question) = question {
                    // first: whoever has this answer and asks again waits for the next
                    self.roster().answered(from);
                    let _ = question.send((from, census));
                }
            }
            Mail::AskPushed { no, from, after } => {
                let letters = self.pushed_since(after, from);
                let _ = self.outgoing.send((Subject::Node(from), Mail::Pushed { no, from: self.me.node, letters }));
            }
            Mail::Pushed { no, from, letters } => self.told_pushed(from, no, letters),
            Mail::Beat(beat) => self.heard_beat(beat, false),
            Mail::Hello(beat) => self.heard_beat(beat, true),
            Mail::Goodbye(node, incarnation) => {
                if (node, incarnation) == (self.me.node, self.me.incarnation) {
                    self.left.notify_waiters();
                }
                let gone = {
                    let mut roster = self.roster();
                    roster.incarnation(node) == Some(incarnation) && roster.goodbye(node)
                };
                if gone {
                    self.continuity().goodbye(node);
                    info!(node_id:% = node; "node {node} says goodbye");
                    self.show_roster();
                }
            }
            Mail::Reports { from, reports } => {
                if let Some(inbox) = self.inbox() {
                    inbox.report(from, reports);
                }
            }
            Mail::Settings { from, settings } => self.heard_settings(from, &settings),
            Mail::Part { .. } => self.refuse(subject, "pieces in pieces"),
        }
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
        if let Some(Question { no, after }) = question {
            let ask = Mail::AskPushed { no, from: self.me.node, after };
            let _ = self.outgoing.send((Subject::Node(node), ask));
        }
    }
}
