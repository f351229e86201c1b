//! The list of dialects; nothing else. A further one, with settings of its own, is a folder here and its route in [`ALL`].

mod allowance;
pub mod contract;
pub mod conveyor;
#[cfg(test)]
mod golden;
pub mod gusher;
pub mod mount;
pub mod native;
mod object;
pub mod pusher;
pub mod pushex;

use std::sync::Arc;

use contract::Dialect;
use mount::Definition;

use crate::ids::SocketIdSeal;

/// What the settings say about dialects.
pub use mount::DialectKeys as Settings;

/// Every dialect.
pub const ALL: &[&dyn Definition] = &[
    mount::of::<gusher::Gusher>(),
    mount::of::<pusher::Pusher>(),
    mount::of::<pushex::PushEx>(),
    mount::of::<native::Native>(),
    mount::of::<conveyor::Conveyor>(),
];

/// All of them, made from `settings`.
#[must_use]
pub fn all(settings: &Settings, seal: &SocketIdSeal) -> Vec<Arc<dyn Dialect>> {
    ALL.iter().map(|definition| definition.build(settings, seal)).collect()
}
