//! Phoenix channels as PushEx uses them, for one socket: join, leave, heartbeat; each channel is a topic.
//!
//! ```text
//!           phx_join            phx_leave, or any event of a client's own
//! (none) ───────────▶ joined ─────────────────────────────────────────────▶ (none)
//!                      │  ▲
//!                      └──┘ phx_join: the former subscription is closed, the new one stays
//! ```

pub mod frames;
mod message;

use std::time::Duration;

use crate::{
    action::Action,
    dialect::contract::{ClientMessage, Protocol, Variant},
    frame::Frame,
    ids::{ChannelName, SocketId},
    notice::{ActionOutcome, Denial},
    refusal::CloseCause,
    tenants::Tenants,
};

use self::{
    frames::TopicMessage,
    message::{ChannelMessage, PhoenixReference},
};

/// The first serializer: objects.
pub const V1: Variant = Variant(0);

/// The second: lists, in which each event names the subscription of its receiver.
pub const V2: Variant = Variant(1);

/// How many there are.
pub const VARIANTS: u8 = 2;

/// What is remembered of one socket.
pub struct PhoenixProtocol {
    variant: Variant,
    socket: SocketId,
    /// Topics that it has joined, in their order, each with the join's reference as it was given.
    joined: Vec<(ChannelName, PhoenixReference)>,
    /// The message whose action is under way.
    asked: Option<Box<PhoenixPending>>,
}

struct PhoenixPending {
    what: PhoenixRequest,
    topic: ChannelName,
    join_reference: PhoenixReference,
    reference: PhoenixReference,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum PhoenixRequest {
    Join,
    Leave,
    /// PushEx has no handler for what clients say, so that the channel of who says it crashes.
    Crash,
}

impl PhoenixProtocol {
    pub fn new(variant: Variant, socket: SocketId) -> Self {
        Self { variant, socket, joined: Vec::new(), asked: None }
    }

    fn find(&self, topic: &str) -> Result<usize, usize> {
        self.joined.binary_search_by(|(joined, _)| joined.as_str().cmp(topic))
    }

    fn ask(&mut self, what: PhoenixRequest, topic: ChannelName, message: ChannelMessage<'_>) -> Action {
        let ChannelMessage { join_reference, reference, .. } = message;
        let action = match what {
            PhoenixRequest::Join => Action::Subscribe(vec![topic.clone()]),
            PhoenixRequest::Leave | PhoenixRequest::Crash => Action::Unsubscribe(topic.clone()),
        };
        self.asked = Some(Box::new(PhoenixPending { what, topic, join_reference, reference }));
        action
    }

    fn join(&mut self, message: ChannelMessage<'_>) -> Action {
        match ChannelName::try_from(&*message.topic) {
            Ok(topic) if !message.topic.is_empty() => self.ask(PhoenixRequest::Join, topic, message),
            _ => {
                let says = message.answer().error(self.variant, "invalid topic");
                Action::RejectSubscribe { channel: message.topic.into_owned(), reason: "bad_name", says }
            }
        }
    }

    /// What is said of a topic that the socket has not joined.
    fn not_joined(&self, message: &ChannelMessage<'_>) -> Action {
        Action::Answer(match &*message.event {
            "phx_leave" => message.answer().ok(self.variant),
            _ => TopicMessage { join_reference: &PhoenixReference::NULL, ..message.answer() }
                .error(self.variant, "unmatched topic"),
        })
    }

    /// The subscription of a topic ends: what its client is told, whose reference is that of the join.
    fn forget(&mut self, topic: &ChannelName, event: &str) -> Option<Frame> {
        let at = self.find(topic.as_str()).ok()?;
        let (_, joined) = self.joined.remove(at);
        let message = TopicMessage { join_reference: &joined, reference: &joined, topic: topic.as_str() };
        Some(message.frame(self.variant, event, "{}"))
    }

    fn keep(&mut self, topic: ChannelName, join_reference: PhoenixReference) {
        if self.joined.is_empty() {
            // most sockets join one topic
            self.joined.reserve_exact(1);
        }
        if let Err(at) = self.find(topic.as_str()) {
            self.joined.insert(at, (topic, join_reference));
        }
    }

    fn joined(&mut self, pending: PhoenixPending, outcome: ActionOutcome<'_>) -> Frame {
        let PhoenixPending { topic, join_reference, reference, .. } = pending;
        let closed = self.forget(&topic, "phx_close");
        let answer = TopicMessage { join_reference: &join_reference, reference: &reference, topic: topic.as_str() };
        let frame = match outcome {
            ActionOutcome::Done => {
                let frame = answer.ok(self.variant);
                self.keep(topic, join_reference);
                frame
            }
            ActionOutcome::Barred(Denial::TooManySubscriptions { .. }) => {
                answer.error(self.variant, "too many channels joined")
            }
            _ => answer.error(self.variant, "unauthorized"),
        };
        match closed {
            Some(closed) => frame.then(closed),
            None => frame,
        }
    }

    fn left(&mut self, pending: PhoenixPending) -> Frame {
        let PhoenixPending { topic, reference, .. } = pending;
        let joined = self.find(topic.as_str()).ok().map(|at| self.joined[at].1.clone()).unwrap_or_default();
        // a join without a reference of its own is known by that of its message, which only its events still show
        let answer = TopicMessage { join_reference: &joined, reference: &reference, topic: topic.as_str() };
        let frame = answer.ok(self.variant);
        match self.forget(&topic, "phx_close") {
            Some(closed) => frame.then(closed),
            None => frame,
        }
    }
}

impl ChannelMessage<'_> {
    /// Where an answer to it goes.
    fn answer(&self) -> TopicMessage<'_> {
        TopicMessage { join_reference: &self.join_reference, reference: &self.reference, topic: &self.topic }
    }
}

impl Protocol for PhoenixProtocol {
    fn socket_id(&self) -> String {
        self.socket.to_string()
    }

    fn receive(&mut self, message: ClientMessage, _: &Tenants, _: Duration) -> Result<Action, CloseCause> {
        let message = message::read(self.variant, &message)?;
        let (topic, event) = (&*message.topic, &*message.event);
        if (topic, event) == ("phoenix", "heartbeat") {
            let answer = TopicMessage { join_reference: &PhoenixReference::NULL, ..message.answer() };
            return Ok(Action::Answer(answer.ok(self.variant)));
        }
        if event == "phx_join" {
            return Ok(self.join(message));
        }
        let Ok(at) = self.find(topic) else { return Ok(self.not_joined(&message)) };
        let (topic, joined) = &self.joined[at];
        // V1 has no reference of the join
        if !message.join_reference.is_null() && message.join_reference != *joined {
            return Ok(Action::Ignore);
        }
        let what = if event == "phx_leave" { PhoenixRequest::Leave } else { PhoenixRequest::Crash };
        Ok(self.ask(what, topic.clone(), message))
    }

    /// The reference of the join under way. V1 shows none.
    fn tag(&self) -> Option<Box<str>> {
        let PhoenixPending { join_reference, reference, .. } = self.asked.as_deref().filter(|_| self.variant == V2)?;
        join_reference.or(reference).clone().into_json()
    }

    /// A topic whose permission was taken away is left, too: the slave did that already.
    fn reply(&mut self, outcome: ActionOutcome<'_>) -> Option<Frame> {
        let pending = *self.asked.take()?;
        match pending.what {
            PhoenixRequest::Join => Some(self.joined(pending, outcome)),
            PhoenixRequest::Leave => Some(self.left(pending)),
            PhoenixRequest::Crash => self.forget(&pending.topic, "phx_error"),
        }
    }
}

#[cfg(test)]
mod tests;
