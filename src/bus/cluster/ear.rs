//! What a node does about what it hears. Everything is hostile until it is parsed.

use std::sync::{Arc, PoisonError, Weak};

use bytes::Bytes;
use log::{info, warn};
use wellhead_proto::{
    bus::{BoxFuture, Gap},
    ids::NodeId,
    node_message::{BadMessage, Body, MessageFormat, NodeMessage},
    query::{QueryResult, ResultPart},
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
        cluster.hear(subject, &message);
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
    pub(super) fn refuse(&self, subject: Subject, why: &str) {
        self.metrics.refused.inc();
        let times = self.complaints.lock().unwrap_or_else(PoisonError::into_inner).happened(why, self.now());
        if let Some(times) = times {
            warn!(subject:% = subject, times; "refused a message on {subject}: {why}");
        }
    }

    fn hear(self: &Arc<Self>, subject: Subject, bytes: &[u8]) {
        if MessageFormat::of(bytes) == Some(MessageFormat::V3) && self.formats().are_signed() {
            return self.refuse(subject, "message without a signature (cluster.require_signed)");
        }
        match NodeMessage::decode(bytes, &self.common().key) {
            Ok((message, MessageFormat::V4)) => self.read(subject, message, MessageFormat::V4),
            Ok((message, MessageFormat::V3)) => self.read_unsigned(subject, message),
            Err(BadMessage::Signature) => match NodeMessage::unverified_heartbeat(bytes).map(|message| message.body) {
                // a node with another secret says so: it is not let in, and both sides say why
                Some(Body::Heartbeat(beat)) if self.is_of_another_secret(&beat) => self.heard_stranger(beat, false),
                Some(Body::Hello(beat)) if self.is_of_another_secret(&beat) => self.heard_stranger(beat, true),
                _ => self.refuse(subject, &BadMessage::Signature.to_string()),
            },
            Err(error) => self.refuse(subject, &error.to_string()),
        }
    }

    /// From a node of the previous release, or from one that writes for such a node.
    fn read_unsigned(self: &Arc<Self>, subject: Subject, message: NodeMessage) {
        match &message.body {
            // whoever is known to read the new format said the same in it
            Body::Heartbeat(beat) | Body::Hello(beat)
                if beat.node == self.me.node || self.formats().reads_new(beat.node, beat.incarnation) => {}
            _ => {
                self.metrics.unsigned.inc();
                self.read(subject, message, MessageFormat::V3);
            }
        }
    }

    fn read(self: &Arc<Self>, subject: Subject, message: NodeMessage, format: MessageFormat) {
        let of_slot = matches!(subject, Subject::Slot(_) | Subject::EverySlot);
        let NodeMessage { id, session, body } = message;
        let fragment = if let Body::Fragment { index, .. } = body { index } else { 0 };
        if of_slot && !self.slots().counts((id, fragment), subject == Subject::EverySlot) {
            return;
        }
        let Body::Fragment { of, index, count, bytes } = body else {
            self.came(id, session);
            return self.obey_body(subject, body, format);
        };
        let now = self.now();
        let whole = {
            let mut fragments = self.fragments.lock().unwrap_or_else(PoisonError::into_inner);
            fragments.take((format, of), index, count, &bytes, now)
        };
        match whole {
            Ok(None) => {}
            Ok(Some(whole)) => match NodeMessage::defragment(&whole, format) {
                Ok(message) => {
                    self.came(id, session);
                    self.obey_body(subject, message.body, format);
                }
                Err(error) => self.refuse(subject, &error.to_string()),
            },
            Err(()) => self.refuse(subject, "a fragment of a message that does not belong there"),
        }
    }

    /// A whole message came.
    fn came(&self, message: u64, session: u32) {
        let sender = sender_of(message);
        if self.holds_sockets() && sender != self.me.node && !self.is_stranger(sender) {
            self.continuity().heard(message, session, self.now());
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

    fn obey_body(self: &Arc<Self>, subject: Subject, body: Body, format: MessageFormat) {
        match body {
            Body::Command(envelope) => {
                if let Some(inbox) = self.inbox() {
                    inbox.deliver(envelope);
                }
            }
            Body::Announcement(announcement) => {
                if let Some(inbox) = self.inbox() {
                    inbox.announced(announcement);
                }
            }
            Body::PublishMatching { from, .. }
            | Body::Query { from, .. }
            | Body::Result { from, .. }
            | Body::Request { from, .. }
            | Body::Response { from, .. }
            | Body::Reports { from, .. }
            | Body::AskPushed { from, .. }
            | Body::Pushed { from, .. }
                if self.is_stranger(from) => {}
            Body::PublishMatching { id, from, push } => {
                let Some(inbox) = self.inbox() else { return };
                let matched = inbox.publish_matching(push);
                self.answer(id, from, async { matched.await.into_result() });
            }
            Body::Query { id, from, query } => {
                let Some(inbox) = self.inbox() else { return };
                self.answer(id, from, inbox.query(query));
            }
            Body::Result { id, from, result } => {
                if let Some(query) = self.queries.of(id) {
                    // first: whoever has this answer and asks again waits for the next
                    self.roster().answered(from);
                    let _ = query.send((from, result));
                }
            }
            Body::Request { id, from, request } => {
                let Some(inbox) = self.inbox() else { return };
                let response = inbox.request(request);
                self.say(Subject::Node(from), Body::Response { id, from: self.me.node, response });
            }
            Body::Response { id, from, response } => {
                if let Some(request) = self.requests.of(id) {
                    self.roster().answered(from);
                    let _ = request.send((from, response));
                }
            }
            Body::AskPushed { no, from, after } => {
                let messages = self.pushed_since(after, from);
                self.say(Subject::Node(from), Body::Pushed { no, from: self.me.node, messages });
            }
            Body::Pushed { no, from, messages } => self.told_pushed(from, no, messages),
            Body::Heartbeat(beat) => self.heard_beat(beat, false, format),
            Body::Hello(beat) => self.heard_beat(beat, true, format),
            Body::Goodbye(node, incarnation) => {
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
            Body::Reports { from, reports } => {
                if let Some(inbox) = self.inbox() {
                    inbox.report(from, reports);
                }
            }
            Body::Settings { from, settings } => self.heard_settings(from, &settings),
            Body::Fragment { .. } => self.refuse(subject, "fragments in fragments"),
        }
    }

    /// Answer a question once the answer is there.
    fn answer(&self, id: u64, to: NodeId, result: impl Future<Output = QueryResult> + Send + 'static) {
        let (outgoing, me) = (self.outgoing.clone(), self.me.node);
        self.runtime.spawn(async move {
            let result = result.await;
            let _ = outgoing.send((Subject::Node(to), Body::Result { id, from: me, result }));
        });
    }

    fn say(&self, to: Subject, body: Body) {
        // fails only when the process ends
        let _ = self.outgoing.send((to, body));
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
            self.say(Subject::Node(node), Body::AskPushed { no, from: self.me.node, after });
        }
    }
}
