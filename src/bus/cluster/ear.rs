//! What a node does about what it hears. Everything is hostile until it is parsed.

use std::sync::{Arc, PoisonError, Weak};

use bytes::Bytes;
use log::{info, warn};
use wellhead_proto::{
    bus::BoxFuture,
    mail::{Letter, Mail},
};

use super::{Cluster, membership::Cause};
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
        if self.said().once(Cause::Refused, self.now()) {
            warn!(subject:% = subject; "refused a message on {subject}: {why} (further ones are counted)");
        }
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
            Mail::Ask { from, .. } | Mail::Answer { from, .. } | Mail::Reports { from, .. }
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
            Mail::Settings { from, settings } => self.heard_settings(from, &settings),
            Mail::Part { .. } => self.refuse(subject, "pieces in pieces"),
        }
    }
}
