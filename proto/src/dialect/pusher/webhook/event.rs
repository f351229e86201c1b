//! What can be told, and its JSON.

use std::{fmt::Write, str::FromStr};

use crate::{
    event::{Event, Payload, Sender, quote},
    ids::{ChannelKey, SocketId, UserId},
};

/// What an event is about. A channel's cache is none of them yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WebhookKind {
    /// A channel has its first subscription.
    ChannelOccupied,
    /// It has lost its last.
    ChannelVacated,
    /// A member has come to a presence channel.
    MemberAdded,
    /// A member has left.
    MemberRemoved,
    /// A client has published an event.
    ClientEvent,
    /// The number of subscriptions of a channel has changed.
    SubscriptionCount,
}

impl WebhookKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::ChannelOccupied,
        Self::ChannelVacated,
        Self::MemberAdded,
        Self::MemberRemoved,
        Self::ClientEvent,
        Self::SubscriptionCount,
    ];

    /// Its name in settings and bodies.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ChannelOccupied => "channel_occupied",
            Self::ChannelVacated => "channel_vacated",
            Self::MemberAdded => "member_added",
            Self::MemberRemoved => "member_removed",
            Self::ClientEvent => "client_event",
            Self::SubscriptionCount => "subscription_count",
        }
    }
}

impl FromStr for WebhookKind {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or(())
    }
}

/// Something that happened on a channel of an app.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum WebhookEvent {
    /// See [`WebhookKind::ChannelOccupied`].
    ChannelOccupied(ChannelKey),
    /// See [`WebhookKind::ChannelVacated`].
    ChannelVacated(ChannelKey),
    /// See [`WebhookKind::MemberAdded`].
    MemberAdded(ChannelKey, UserId),
    /// See [`WebhookKind::MemberRemoved`].
    MemberRemoved(ChannelKey, UserId),
    /// See [`WebhookKind::ClientEvent`]: the socket of the client that published it, and the event.
    ClientEvent(ChannelKey, SocketId, Event),
    /// See [`WebhookKind::SubscriptionCount`].
    SubscriptionCount(ChannelKey, u64),
}

impl WebhookEvent {
    /// What it is about.
    #[must_use]
    pub fn kind(&self) -> WebhookKind {
        match self {
            Self::ChannelOccupied(_) => WebhookKind::ChannelOccupied,
            Self::ChannelVacated(_) => WebhookKind::ChannelVacated,
            Self::MemberAdded(..) => WebhookKind::MemberAdded,
            Self::MemberRemoved(..) => WebhookKind::MemberRemoved,
            Self::ClientEvent(..) => WebhookKind::ClientEvent,
            Self::SubscriptionCount(..) => WebhookKind::SubscriptionCount,
        }
    }

    /// On which channel it happened.
    #[must_use]
    pub fn channel(&self) -> &ChannelKey {
        match self {
            Self::ChannelOccupied(channel)
            | Self::ChannelVacated(channel)
            | Self::MemberAdded(channel, _)
            | Self::MemberRemoved(channel, _)
            | Self::ClientEvent(channel, ..)
            | Self::SubscriptionCount(channel, _) => channel,
        }
    }

    /// About how many bytes it takes, in memory and in a body.
    #[must_use]
    pub fn weight(&self) -> usize {
        /// Punctuation, numbers, and the event itself.
        const FIXED: usize = 160;
        let more = match self {
            Self::MemberAdded(_, user) | Self::MemberRemoved(_, user) => user.as_str().len(),
            Self::ClientEvent(_, _, event) => event.name.as_str().len() + event.data.len(),
            Self::ChannelOccupied(_) | Self::ChannelVacated(_) | Self::SubscriptionCount(..) => 0,
        };
        FIXED + self.channel().name.as_str().len() + more
    }

    pub(super) fn write(&self, body: &mut String) {
        let (kind, channel) = (self.kind().name(), quote(self.channel().name.as_str()));
        let mut add = |text: std::fmt::Arguments<'_>| body.write_fmt(text).expect("a string takes any text");
        add(format_args!(r#"{{"name":"{kind}","channel":{channel}"#));
        match self {
            Self::ChannelOccupied(_) | Self::ChannelVacated(_) => {}
            Self::MemberAdded(_, user) | Self::MemberRemoved(_, user) => {
                add(format_args!(r#","user_id":{}"#, quote(user.as_str())));
            }
            Self::ClientEvent(_, socket, Event { name, data, sender }) => {
                // a library of Pusher's reads no other value than a string here
                let data = match data {
                    Payload::Json(text) | Payload::Text(text) => text,
                    Payload::Absent => "",
                };
                let (name, data) = (quote(name.as_str()), quote(data));
                add(format_args!(r#","event":{name},"data":{data},"socket_id":"{socket}""#));
                if let Some(Sender::Member(user)) = sender {
                    add(format_args!(r#","user_id":{}"#, quote(user.as_str())));
                }
            }
            Self::SubscriptionCount(_, count) => add(format_args!(r#","subscription_count":{count}"#)),
        }
        add(format_args!("}}"));
    }
}
