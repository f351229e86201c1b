//! What the settings say about Pusher: where its rows stand, and how much of everything an app may have.

use serde::{Deserialize, Serialize};
use wellhead_proto::{
    dialect::pusher,
    units::{Size, Span},
};

/// `[pusher]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pusher {
    /// What stands before `/apps` on the master.
    pub master_prefix: String,
    /// What stands before `/app` on the slave.
    pub slave_prefix: String,
}

/// `[apps.listed.limits]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AppLimits {
    /// The longest channel name.
    pub channel_name: Size,
    /// The longest event name, in characters.
    pub event_name: usize,
    /// The largest payload of an event.
    pub event_data: Size,
    /// Channels that one event may name.
    pub channels_per_event: usize,
    /// Events in a batch.
    pub batch: usize,
    /// Members of a presence channel.
    pub presence_members: usize,
    /// The largest user object of a member.
    pub presence_info: Size,
    /// The longest id of a member, in characters.
    pub presence_id: usize,
    /// Client events that one socket may send in a second.
    pub client_events: u32,
    /// After how long a silent client should ask whether the server is there.
    pub activity_timeout: Span,
}

impl Default for AppLimits {
    fn default() -> Self {
        let size = |bytes: usize| Size(bytes as u64);
        let limits = pusher::Limits::default();
        Self {
            channel_name: size(limits.channel_name),
            event_name: limits.event_name,
            event_data: size(limits.event_data),
            channels_per_event: limits.channels_per_event,
            batch: limits.batch,
            presence_members: limits.presence_members,
            presence_info: size(limits.presence_info),
            presence_id: limits.presence_id,
            client_events: limits.client_events,
            activity_timeout: Span(limits.activity_timeout),
        }
    }
}

impl From<&AppLimits> for pusher::Limits {
    fn from(limits: &AppLimits) -> Self {
        Self {
            channel_name: limits.channel_name.bytes(),
            event_name: limits.event_name,
            event_data: limits.event_data.bytes(),
            channels_per_event: limits.channels_per_event,
            batch: limits.batch,
            presence_members: limits.presence_members,
            presence_info: limits.presence_info.bytes(),
            presence_id: limits.presence_id,
            client_events: limits.client_events,
            activity_timeout: limits.activity_timeout.0,
        }
    }
}
