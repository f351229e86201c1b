//! The messages that a registry understands. Everything in them may cross threads.

use std::sync::Arc;

use actix::Message;
use smallvec::SmallVec;
use tokio::sync::oneshot;
use wellhead_proto::{
    command::PublishMatching,
    envelope::Envelope,
    query::{
        AppStats, ChannelStates, CountQuery, GrantsQuery, MemberInfos, MembersQuery, NameHashes, Names, NamesQuery,
        StatesQuery, StatsQuery,
    },
    refusal::CloseCause,
};

use crate::{
    backlog::Permit,
    channels::{ChannelId, ChannelRef},
    presence::{MemberUpdate, UserStanding},
};

/// Carry out commands for the sockets of this thread, in order.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Deliver(pub Deliveries);

/// Most often one.
pub type Deliveries = SmallVec<[Delivery; 1]>;

/// A command for the sockets of a thread.
pub struct Delivery {
    /// What to do, and in which app.
    pub envelope: Envelope,
    /// For a push to a channel: its number as it was when the push came. By now it may be another channel's.
    pub channel: Option<ChannelId>,
    /// Counts it as waiting until it is done.
    pub permit: Permit,
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
    pub permit: Permit,
}

/// Tell the sockets on a channel how many there are.
#[derive(Message)]
#[rtype(result = "()")]
pub struct CountUpdate {
    /// The channel.
    pub channel: ChannelRef,
    /// How many.
    pub count: u64,
    /// All of them, and not only those that were told nothing yet.
    pub all: bool,
    /// Counts it as waiting until it is done.
    pub permit: Permit,
}

/// Tell the sockets that watch these users how they stand.
#[derive(Message)]
#[rtype(result = "()")]
pub struct UsersStand(pub Vec<UserStanding>);

/// Answer from what this thread holds.
#[derive(Message)]
#[rtype(result = "()")]
pub struct AnswerQuery {
    /// The question.
    pub question: RunningQuery,
    /// For a push to a pattern: counts it as waiting until it is done.
    pub permit: Permit,
}

/// What a thread is asked, whichever it is.
pub enum RunningQuery {
    /// For names.
    Names(PendingAnswer<NamesQuery, Names>),
    /// How many there are.
    Count(PendingAnswer<CountQuery, NameHashes>),
    /// For states of channels.
    States(PendingAnswer<StatesQuery, ChannelStates>),
    /// For members of a channel.
    Members(PendingAnswer<MembersQuery, MemberInfos>),
    /// What a user may subscribe to.
    Grants(PendingAnswer<GrantsQuery, Names>),
    /// For sizes of apps.
    Stats(PendingAnswer<StatsQuery, AppStats>),
    /// To publish to the channels that match, and to answer with the hashes of their names.
    Publish(PendingAnswer<PublishMatching, NameHashes>),
}

/// A question whose answer is waited for. It may take several turns of the thread.
pub struct PendingAnswer<Q, R> {
    /// What is asked; the same of every thread.
    pub query: Arc<Q>,
    /// Where the answer goes.
    pub reply: oneshot::Sender<R>,
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
