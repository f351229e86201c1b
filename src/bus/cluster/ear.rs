//! What a node does about what it hears. Everything is hostile until it is parsed.

use std::sync::{Arc, PoisonError, Weak};

use bytes::Bytes;
use log::{debug, info, warn};
use wellhead_proto::{
    bus::BoxFuture,
    mail::{Letter, Mail},
    roster::{Beat, Heard},
};

use super::{Cluster, rival::Verdict};
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
        if let Some(inbox) = self.0.upgrade().and_then(|cluster| cluster.inbox()) {
            inbox.gap();
        }
    }
}

impl Cluster {
    fn refuse(&self, subject: Subject, why: &str) {
        self.metrics.refused.inc();
        warn!(subject:% = subject; "refused a message on {subject}: {why}");
    }

    fn read(self: &Arc<Self>, subject: Subject, letter: Letter) {
        let of_slot = matches!(subject, Subject::Slot(_) | Subject::EverySlot);
        let piece = if let Mail::Part { index, .. } = letter.mail { index } else { 0 };
        if of_slot && !self.slots().counts((letter.id, piece), subject == Subject::EverySlot) {
            return;
        }
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
                        Ok(letter) => self.obey_mail(subject, letter.mail),
                        Err(error) => self.refuse(subject, &error.to_string()),
                    },
                    Err(()) => self.refuse(subject, "a piece of a letter that does not belong there"),
                }
            }
            mail => self.obey_mail(subject, mail),
        }
    }

    fn obey_mail(self: &Arc<Self>, subject: Subject, mail: Mail) {
        match mail {
            Mail::Order(envelope) => {
                if let Some(inbox) = self.inbox() {
                    inbox.deliver(envelope);
                }
            }
            Mail::Ask { id, from, ask } => {
                let Some(inbox) = self.inbox() else { return };
                let (answer, outgoing, me) = (inbox.answer(ask), self.outgoing.clone(), self.me.node);
                self.runtime.spawn(async move {
                    let census = answer.await;
                    let _ = outgoing.send((Subject::Node(from), Mail::Answer { id, from: me, census }));
                });
            }
            Mail::Answer { id, from, census } => {
                if let Some(question) = self.questions().get(&id) {
                    let _ = question.send((from, census));
                }
            }
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
                    info!(node_id:% = node; "node {node} says goodbye");
                    self.show_roster();
                }
            }
            Mail::Reports { from, reports } => {
                if let Some(inbox) = self.inbox() {
                    inbox.report(from, reports);
                }
            }
            Mail::Part { .. } => self.refuse(subject, "pieces in pieces"),
        }
    }

    /// `asks`: it wants to know who is here. So does every node that was not known.
    fn heard_beat(&self, beat: Beat, asks: bool) {
        if beat.node == self.me.node && beat.incarnation != self.me.incarnation {
            // one in two million for two nodes
            let verdict = self.rivalry().heard(self.me.incarnation, beat.incarnation, self.now());
            if verdict != Verdict::Wait {
                warn!(node_id:% = beat.node; "another node has the number of this one ({}): {verdict:?}", beat.node);
            }
            match verdict {
                Verdict::Yield => drop(self.clashed.send_replace(true)),
                Verdict::Answer => drop(self.outgoing.send((Subject::Everyone, Mail::Beat(self.me)))),
                Verdict::Wait => {}
            }
            return;
        }
        let heard = self.roster().heard(beat, self.now());
        if (asks || heard != Heard::Known) && beat.node != self.me.node && !self.is_leaving() {
            let _ = self.outgoing.send((Subject::Node(beat.node), Mail::Beat(self.me)));
        }
        if heard != Heard::Known {
            debug!(node_id:% = beat.node, slave = beat.slave; "heard of node {}", beat.node);
            self.show_roster();
        }
        self.look_who_is_back();
    }
}
