//! What a client asks of its slave, in any dialect.

use std::fmt;

use crate::{
    command::Command,
    event::Event,
    frame::Frame,
    ids::{ChannelName, UserId},
    member::Member,
    remote::RemoteCall,
};

/// What one message of a client asks for. A session carries out one at a time, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Nothing to do.
    Ignore,
    /// Answer with this frame; nothing else happens.
    Answer(Frame),
    /// Answer with this frame: the client asked to subscribe to a channel, and the dialect refuses that.
    RejectSubscribe {
        /// The channel, as it was written.
        channel: String,
        /// Why, for logs and metrics.
        reason: &'static str,
        /// What the client is told.
        says: Frame,
    },
    /// Tell the client what time it is, so that it sees that the server is there.
    Ping,
    /// Subscribe to all of these channels, or to none.
    Subscribe(Vec<ChannelName>),
    /// Subscribe to one channel with credentials of its own, which the dialect has verified: the permissions of the socket do
    /// not matter.
    Enter(AuthorizedSubscribe),
    /// Be the socket of this user from now on; its client has proved to the dialect that it may. Denied if the socket is
    /// another user's already.
    Identify(UserId),
    /// Publish an event to the other subscribers of a channel, which the socket must be subscribed to.
    Say {
        /// Where.
        channel: ChannelName,
        /// What.
        event: Event,
    },
    /// Unsubscribe from a channel.
    Unsubscribe(ChannelName),
    /// Tell the patterns of channels that the socket may subscribe to.
    ListGrants,
    /// Send a remote command to the backend of the app. What follows does not wait for its outcome.
    Call(RemoteCall),
    /// Answer with this frame: the client sent a remote command, and the dialect refuses it.
    RejectCall {
        /// Why, for metrics.
        reason: &'static str,
        /// What the client is told.
        says: Frame,
    },
    /// Answer with this frame, and then do that.
    AnswerFirst(Frame, Box<Action>),
    /// Leave one channel for another, for which the dialect has verified the credentials, apart from a temporary token.
    Switch(ChannelSwitch),
    /// Publish a command, in the app of the socket. What is published to a channel needs a subscription to it.
    Publish(Box<Command>),
    /// Tell which sockets of the dialect are on a channel, anywhere in the cluster, so many of each slave at most.
    ListSockets(ChannelName, u32),
}

/// A change of channels in one step.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChannelSwitch {
    /// The channel to leave, if there is one.
    pub from: Option<ChannelName>,
    /// The channel to subscribe to. It may be the same: then only the tag of the subscription changes.
    pub to: ChannelName,
    /// The temporary token that allows it. It is used up if it does.
    pub token: Option<TemporaryToken>,
}

/// A temporary token. Never shown.
#[derive(Clone, Eq, PartialEq)]
pub struct TemporaryToken(pub String);

impl fmt::Debug for TemporaryToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TemporaryToken")
    }
}

/// A subscribe with credentials of its own, which the dialect has verified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AuthorizedSubscribe {
    /// The channel.
    pub channel: ChannelName,
    /// As which member, if the channel is a presence channel.
    pub member: Option<Member>,
    /// How many members it may have.
    pub most_members: usize,
    /// Did the client show what its backend has signed? Where clients must do so in time, this one has.
    pub signed: bool,
}
