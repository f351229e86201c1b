//! The messages that a registry understands. Everything in them may cross threads.

use actix::Message;
use wellhead_proto::{
    envelope::Envelope,
    ids::ChannelKey,
    query::{Ask, Census},
};

use crate::{attendance::Told, backlog::Ticket};

/// Carry out a command for the sockets of this thread.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Obey {
    /// What to do, and in which app.
    pub envelope: Envelope,
    /// Counts it as waiting until it is done.
    pub ticket: Ticket,
}

/// Tell members on a channel what has changed.
#[derive(Message)]
#[rtype(result = "()")]
pub struct TellMembers {
    /// The channel.
    pub channel: ChannelKey,
    /// What has changed.
    pub told: Told,
    /// Counts it as waiting until it is done.
    pub ticket: Ticket,
}

/// Answer from what this thread holds.
#[derive(Message)]
#[rtype(result = "Census")]
pub struct Answer {
    /// The question.
    pub ask: Ask,
    /// For a push to a pattern: counts it as waiting until it is done.
    pub ticket: Ticket,
}

/// Close every socket, a few at a time.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Drain;
