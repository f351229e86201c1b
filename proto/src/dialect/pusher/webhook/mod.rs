//! Webhooks (pusher.md §1.13): what an app is told of, which of it a target wants, and the request that tells it. Who sends
//! it, and when again, is not said here.

mod event;
mod settings;

use std::time::Duration;

use crate::{
    channel::{ChannelPattern, allowed},
    http_target::HttpTarget,
    ids::ChannelName,
};

pub(super) use self::settings::{alike, paths, webhooks};
pub use self::{
    event::{WebhookEvent, WebhookKind},
    settings::WebhookSettings,
};

/// The header with the app's key.
pub const KEY_HEADER: &str = "x-pusher-key";
/// The header with the signature of the body.
pub const SIGNATURE_HEADER: &str = "x-pusher-signature";

/// A target of an app: where it is, and what it wants to be told of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Webhook {
    /// Its key in the settings, for errors.
    pub place: String,
    /// Where requests go.
    pub target: HttpTarget,
    /// What it is told of.
    pub events: Vec<WebhookKind>,
    /// Only of channels that one of these allows.
    pub channels: Vec<ChannelPattern>,
}

impl Webhook {
    /// Does it want events of this kind on that channel?
    #[must_use]
    pub fn wants(&self, kind: WebhookKind, channel: &ChannelName) -> bool {
        self.events.contains(&kind) && allowed(&self.channels, channel)
    }
}

/// The body of a request that tells of `events`; `now`: time since 1970. Libraries refuse one that is five minutes old, so
/// it is written anew for each attempt.
#[must_use]
pub fn body<'e>(events: impl IntoIterator<Item = &'e WebhookEvent>, now: Duration) -> String {
    let mut body = format!(r#"{{"time_ms":{},"events":["#, now.as_millis());
    for (index, event) in events.into_iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        event.write(&mut body);
    }
    body.push_str("]}");
    body
}

#[cfg(test)]
mod tests;
