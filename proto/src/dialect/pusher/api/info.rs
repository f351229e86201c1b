//! What a backend wants to know of channels beside what it does (`info`), and how it is written.

use crate::{
    dialect::pusher::names::{ChannelKind, is_cache},
    ids::{AppId, ChannelName},
    query::{ChannelState, StatesOf, StatesQuery},
};

/// The attributes that are asked for. Unknown ones are ignored.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Info {
    /// How many members a presence channel has.
    pub users: bool,
    /// How many sockets are on a channel.
    pub subscriptions: bool,
    /// What a cache channel keeps.
    pub cache: bool,
}

impl Info {
    /// Read the comma list.
    pub fn of(list: &str) -> Self {
        let has = |name| list.split(',').any(|item| item.trim() == name);
        Self { users: has("user_count"), subscriptions: has("subscription_count"), cache: has("cache") }
    }

    /// Ask for the state of these channels, as far as it matters.
    pub fn query(self, app: &AppId, of: Vec<ChannelName>) -> StatesQuery {
        let members = self.users && of.iter().any(|name| ChannelKind::of(name.as_str()) == ChannelKind::Presence);
        StatesQuery { app: app.clone(), of: StatesOf::Named(of), members }
    }

    /// The attributes of a channel as the fields of an object, without braces. What does not apply to the channel is left
    /// out.
    pub fn write(self, name: &str, state: &ChannelState) -> String {
        let users = (self.users && ChannelKind::of(name) == ChannelKind::Presence)
            .then(|| format!(r#""user_count":{}"#, state.members.len()));
        let subscriptions = self.subscriptions.then(|| format!(r#""subscription_count":{}"#, state.subscriptions));
        users.into_iter().chain(subscriptions).collect::<Vec<_>>().join(",")
    }

    /// Is something asked for that this channel cannot have?
    pub fn misses(self, name: &str) -> Option<&'static str> {
        if self.users && ChannelKind::of(name) != ChannelKind::Presence {
            Some("Cannot retrieve the user count unless the channel is a presence channel")
        } else if self.cache && !is_cache(name) {
            Some("Cannot retrieve the cache unless the channel is a cache channel")
        } else {
            None
        }
    }
}
