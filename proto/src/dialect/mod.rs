//! The list of dialects; nothing else. A further one is a folder here and a row below.

pub mod contract;
#[cfg(test)]
mod golden;
pub mod gusher;
pub mod pusher;

use std::sync::Arc;

use contract::Dialect;

use crate::ids::SocketIdSeal;

/// What the settings say about dialects.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Settings {
    /// Where gusher's rows stand.
    pub gusher: gusher::Prefixes,
    /// Where Pusher's rows stand, and the apps that it serves.
    pub pusher: pusher::Settings,
}

/// Every dialect that is spoken.
#[must_use]
pub fn all(settings: &Settings, seal: &SocketIdSeal) -> Vec<Arc<dyn Dialect>> {
    vec![Arc::new(gusher::Gusher::new(&settings.gusher, seal.clone())), Arc::new(pusher::Pusher::new(&settings.pusher))]
}
