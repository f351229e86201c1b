//! What the settings say about Pusher: its apps and their limits.

use std::{fmt, time::Duration};

use crate::ids::AppId;

/// Where Pusher's rows stand, and the apps that it serves.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Settings {
    /// What stands before `/apps` on the master, without a last slash. Usually empty; no part of what is signed.
    pub master_prefix: String,
    /// What stands before `/app` on the slave, without a last slash. Usually empty.
    pub slave_prefix: String,
    /// Listed apps that have an id and a secret.
    pub apps: Vec<App>,
}

/// An app as Pusher's libraries know it.
#[derive(Clone, Eq, PartialEq)]
pub struct App {
    /// Its key, which stands in the path of its sockets and names it everywhere else in the house.
    pub key: AppId,
    /// Its id, which stands in the paths of the HTTP API.
    pub id: String,
    /// Signs requests and permissions.
    pub secret: Vec<u8>,
    /// May clients publish to each other on private and presence channels?
    pub client_events: bool,
    /// What it may have.
    pub limits: Limits,
}

/// How much of everything an app may have; the defaults are pusher.md §1.11's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// The longest channel name, in bytes.
    pub channel_name: usize,
    /// The longest event name, in characters.
    pub event_name: usize,
    /// The largest payload of an event, in bytes.
    pub event_data: usize,
    /// Channels that one event may name.
    pub channels_per_event: usize,
    /// Events in a batch.
    pub batch: usize,
    /// Members of a presence channel.
    pub presence_members: usize,
    /// The largest user object of a member, in bytes.
    pub presence_info: usize,
    /// The longest id of a member, in characters.
    pub presence_id: usize,
    /// Client events that one socket may send in a second.
    pub client_events: u32,
    /// After how long a silent client should ask whether the server is there; told in the first frame.
    pub activity_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            channel_name: 200,
            event_name: 200,
            event_data: 10_240,
            channels_per_event: 100,
            batch: 10,
            presence_members: 100,
            presence_info: 1_024,
            presence_id: 128,
            client_events: 10,
            activity_timeout: Duration::from_secs(120),
        }
    }
}

/// Never shows the secret.
impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("key", &self.key).field("id", &self.id).finish_non_exhaustive()
    }
}
