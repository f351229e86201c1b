//! Handles what a node receives. Nothing is trusted before it is parsed.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use log::warn;
use wellhead_proto::{
    bus::{BoxFuture, Gap},
    ids::NodeId,
    membership::Heartbeat,
    node_message::{BadMessage, Body, MessageFormat, NodeMessage, PushedTo},
    query::{QueryResult, ResultPart},
};

use super::{
    Cluster,
    continuity::{GapQuestion, sender_of},
    fragments::MessageFragments,
    membership::{FromNode, NodeNews},
    unix_millis,
};
use crate::bus::pubsub::{MessageHandler, Subject};

/// Handles what a node's transport receives. Holds the node weakly: the transport belongs to the node.
pub struct NodeMessageHandler {
    node: Weak<Cluster>,
    fragments: Mutex<MessageFragments>,
}

impl NodeMessageHandler {
    pub(super) fn new(node: &Arc<Cluster>) -> Self {
        Self { node: Arc::downgrade(node), fragments: Mutex::default() }
    }

    fn hear_from(&self, node: &Arc<Cluster>, subject: Subject, bytes: &[u8]) {
        if MessageFormat::of(bytes) == Some(MessageFormat::V3) && node.formats().are_signed() {
            return node.refuse(subject, "message without a signature (cluster.require_signed)");
        }
        match NodeMessage::decode(bytes, &node.common().key) {
            Ok((message, MessageFormat::V4)) => self.read(node, subject, message, MessageFormat::V4),
            Ok((message, MessageFormat::V3)) => self.read_unsigned(node, subject, message),
            Err(BadMessage::Signature) => match NodeMessage::unverified_heartbeat(bytes).map(|message| message.body) {
                // a node with another secret says so: it is not let in, and both sides say why
                Some(Body::Heartbeat(heartbeat)) if node.is_of_another_secret(&heartbeat) => {
                    node.tell_membership(NodeNews::Stranger { heartbeat, asks: false })
                }
                Some(Body::Hello(heartbeat)) if node.is_of_another_secret(&heartbeat) => {
                    node.tell_membership(NodeNews::Stranger { heartbeat, asks: true })
                }
                _ => node.refuse(subject, &BadMessage::Signature.to_string()),
            },
            Err(error) => node.refuse(subject, &error.to_string()),
        }
    }

    /// From a node of the previous release, or from one that writes for such a node.
    fn read_unsigned(&self, node: &Arc<Cluster>, subject: Subject, message: NodeMessage) {
        match &message.body {
            // whoever is known to read the new format said the same in it
            Body::Heartbeat(heartbeat) | Body::Hello(heartbeat)
                if heartbeat.node == node.me.node
                    || node.formats().reads_new(heartbeat.node, heartbeat.incarnation) => {}
            _ => {
                node.metrics.unsigned.inc();
                self.read(node, subject, message, MessageFormat::V3);
            }
        }
    }

    fn read(&self, node: &Arc<Cluster>, subject: Subject, message: NodeMessage, format: MessageFormat) {
        let NodeMessage { id, session, body } = message;
        let fragment = if let Body::Fragment { index, .. } = body { index } else { 0 };
        if let Some((interest, by_all)) = node.interest_of(subject)
            && !interest.slots().counts((id, fragment), by_all)
        {
            return;
        }
        let Body::Fragment { of, index, count, bytes } = body else {
            node.came(id, session);
            return node.carry_out(subject, body, format);
        };
        let now = node.now();
        let whole = {
            let mut fragments = self.fragments.lock().unwrap_or_else(PoisonError::into_inner);
            fragments.take((format, of), index, count, &bytes, now)
        };
        match whole {
            Ok(None) => {}
            Ok(Some(whole)) => match NodeMessage::defragment(&whole, format) {
                Ok(message) => {
                    node.came(id, session);
                    node.carry_out(subject, message.body, format);
                }
                Err(error) => node.refuse(subject, &error.to_string()),
            },
            Err(()) => node.refuse(subject, "a fragment of a message that does not belong there"),
        }
    }
}

impl MessageHandler for NodeMessageHandler {
    fn hear(&self, subject: Subject, message: Bytes) {
        if let Some(node) = self.node.upgrade() {
            self.hear_from(&node, subject, &message);
        }
    }

    fn has_room(&self) -> bool {
        self.node.upgrade().is_none_or(|node| {
            node.membership_load.has_room() && node.bus_handler().is_none_or(|bus_handler| bus_handler.has_room())
        })
    }

    fn room(&self) -> BoxFuture<()> {
        let Some(node) = self.node.upgrade() else { return Box::pin(std::future::ready(())) };
        let (membership, bus_handler) = (node.membership_load.clone(), node.bus_handler());
        Box::pin(async move {
            membership.room().await;
            if let Some(bus_handler) = bus_handler {
                bus_handler.room().await;
            }
        })
    }

    fn gap(&self) {
        // the transport has counted it
        if let Some(bus_handler) = self.node.upgrade().and_then(|node| node.bus_handler()) {
            bus_handler.gap(Gap::TooSlow);
        }
    }

    fn interrupted(&self) {
        if let Some(node) = self.node.upgrade() {
            node.interrupted();
        }
    }
}

impl Cluster {
    /// A whole message came.
    fn came(&self, message: u64, session: u32) {
        let sender = sender_of(message);
        if self.holds_sockets() && sender != self.me.node && !self.is_stranger(sender) {
            self.continuity().heard(message, session, self.now());
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
        let by_a_node = self.sender.pubsub().is_some_and(|pubsub| pubsub.is_served_by_a_node());
        let masters: Vec<_> = self.members.borrow().nodes.masters().filter(|_| by_a_node).collect();
        self.continuity().interrupted(|node| !masters.contains(&node), self.now());
    }

    /// What went to whoever asks, or to a slot, behind the message `after`.
    fn pushed_since(&self, after: u64, asks: NodeId) -> Option<Vec<(PushedTo, u64)>> {
        let journal = self.sender.journal();
        let pushed = journal.since(after)?.filter_map(|(message, subject)| match subject {
            Subject::Slot(slot) => Some((PushedTo::Slot(slot), message)),
            Subject::UserSlot(slot) => Some((PushedTo::UserSlot(slot), message)),
            Subject::Everyone => Some((PushedTo::All, message)),
            Subject::Node(node) => (node == asks).then_some((PushedTo::All, message)),
            Subject::EverySlot | Subject::EveryUserSlot => None,
        });
        Some(pushed.collect())
    }

    /// A node said what it pushed; which of it concerns this one?
    fn told_pushed(&self, from: NodeId, no: u64, messages: Option<Vec<(PushedTo, u64)>>) {
        let messages = messages.map(|messages| {
            let (slots, user_slots) = (self.interest.slots(), self.user_interest.slots());
            let ours = |(to, _): &(PushedTo, u64)| match *to {
                PushedTo::All => true,
                PushedTo::Slot(slot) => slots.is_wanted(slot),
                PushedTo::UserSlot(slot) => user_slots.is_wanted(slot),
            };
            messages.into_iter().filter(ours).map(|(_, message)| message).collect()
        });
        let gap = self.continuity().answered(from, no, messages, self.now());
        if let Some(gap) = gap {
            self.tell_gap(gap);
        }
    }

    fn carry_out(self: &Arc<Self>, subject: Subject, body: Body, format: MessageFormat) {
        match body {
            Body::Command(envelope) => {
                if let Some(bus_handler) = self.bus_handler() {
                    bus_handler.deliver(envelope);
                }
            }
            Body::Announcement(announcement) => {
                if let Some(bus_handler) = self.bus_handler() {
                    bus_handler.announced(announcement);
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
                let Some(bus_handler) = self.bus_handler() else { return };
                let matched = bus_handler.publish_matching(push);
                self.answer(id, from, async { matched.await.into_result() });
            }
            Body::Query { id, from, query } => {
                let Some(bus_handler) = self.bus_handler() else { return };
                self.answer(id, from, bus_handler.query(query));
            }
            Body::Result { id, from, result } => {
                if let Some(query) = self.queries.of(id) {
                    // first: whoever has this answer and asks again waits for the next
                    self.late().heard_of(from);
                    let _ = query.send((from, result));
                }
            }
            Body::Request { id, from, request } => {
                let Some(bus_handler) = self.bus_handler() else { return };
                let response = bus_handler.request(request);
                self.say(Subject::Node(from), Body::Response { id, from: self.me.node, response });
            }
            Body::Response { id, from, response } => {
                if let Some(request) = self.requests.of(id) {
                    self.late().heard_of(from);
                    let _ = request.send((from, response));
                }
            }
            Body::AskPushed { no, from, after } => {
                let messages = self.pushed_since(after, from);
                self.say(Subject::Node(from), Body::Pushed { no, from: self.me.node, messages });
            }
            Body::Pushed { no, from, messages } => self.told_pushed(from, no, messages),
            Body::Heartbeat(heartbeat) => self.heard_beat(heartbeat, false, format),
            Body::Hello(heartbeat) => self.heard_beat(heartbeat, true, format),
            Body::Goodbye(node, incarnation) => self.tell_membership(NodeNews::Goodbye { node, incarnation }),
            Body::Reports { from, reports } => {
                if let Some(bus_handler) = self.bus_handler() {
                    bus_handler.report(from, reports);
                }
            }
            Body::Settings { from: node, settings } => self.tell_membership(NodeNews::Settings { node, settings }),
            Body::Fragment { .. } => self.refuse(subject, "fragments in fragments"),
        }
    }

    /// Answer a question once the answer is there.
    fn answer(self: &Arc<Self>, id: u64, to: NodeId, result: impl Future<Output = QueryResult> + Send + 'static) {
        let node = Arc::downgrade(self);
        self.runtime.spawn(async move {
            let result = result.await;
            if let Some(node) = node.upgrade() {
                node.say(Subject::Node(to), Body::Result { id, from: node.me.node, result });
            }
        });
    }

    fn say(&self, to: Subject, body: Body) {
        self.sender.queue(to, body);
    }

    fn heard_beat(&self, heartbeat: Heartbeat, asks: bool, format: MessageFormat) {
        self.tell_membership(NodeNews::Here { heartbeat, asks, format, unix_millis: unix_millis() });
    }

    /// Has it another secret than this node?
    pub(super) fn is_of_another_secret(&self, heartbeat: &Heartbeat) -> bool {
        heartbeat.secret != self.common().secret
    }

    fn tell_membership(&self, news: NodeNews) {
        self.membership.do_send(FromNode { news, waiting: self.membership_load.add() });
    }

    /// What came is no message of this cluster: it is counted and refused.
    pub(super) fn refuse(&self, subject: Subject, why: &str) {
        self.metrics.refused.inc();
        let times = self.complaints.lock().unwrap_or_else(PoisonError::into_inner).happened(why, self.now());
        if let Some(times) = times {
            warn!(subject:% = subject, times; "refused a message on {subject}: {why}");
        }
    }

    /// `node` can be heard: ask it, if it is in doubt whether everything came.
    pub(super) fn look_what_was_missed(&self, node: NodeId) {
        let Some(bus_handler) = self.bus_handler().filter(|_| self.holds_sockets() && node != self.me.node) else {
            return;
        };
        let question = {
            let mut continuity = self.continuity();
            continuity.member(node, self.now());
            match self.state.borrow().up {
                true => continuity.question(node, bus_handler.opened(), self.now()),
                false => None,
            }
        };
        if let Some(GapQuestion { no, after }) = question {
            self.say(Subject::Node(node), Body::AskPushed { no, from: self.me.node, after });
        }
    }
}
