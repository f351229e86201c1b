//! The messages that a registry understands. Everything in them may cross threads.

use std::sync::Arc;

use actix::Message;
use smallvec::SmallVec;
use tokio::sync::oneshot;
use wellhead_proto::{
    envelope::Envelope,
    query::{Ask, Census},
    refusal::CloseCause,
};

use crate::{
    backlog::Ticket,
    channels::{ChannelId, ChannelRef},
    presence::MemberUpdate,
};

/// Carry out commands for the sockets of this thread, in order.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Obey(pub Orders);

/// Most often one.
pub type Orders = SmallVec<[Order; 1]>;

/// A command for the sockets of a thread.
pub struct Order {
    /// What to do, and in which app.
    pub envelope: Envelope,
    /// For a push to a channel: its number as it was when the push came. By now it may be another channel's.
    pub channel: Option<ChannelId>,
    /// Counts it as waiting until it is done.
    pub ticket: Ticket,
}

/// Tell members on a channel what has changed.
#[derive(Message)]
#[rtype(result = "()")]
pub struct TellMembers {
    /// The channel.
    pub channel: ChannelRef,
    /// What has changed.
    pub update: MemberUpdate,
    /// Counts it as waiting until it is done.
    pub ticket: Ticket,
}

/// Answer from what this thread holds.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Answer {
    /// The question.
    pub ask: Arc<Ask>,
    /// For a push to a pattern: counts it as waiting until it is done.
    pub ticket: Ticket,
    /// Where the answer goes. It may take several turns of the thread.
    pub reply: oneshot::Sender<Census>,
}

/// Close every socket, a few at a time.
#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Drain {
    /// Why, and with it when they may come back.
    pub cause: CloseCause,
    /// How many at a time, if that was decided already.
    pub at_once: Option<usize>,
    /// Only those that were opened before the socket of this number.
    pub opened_before: Option<u32>,
}
