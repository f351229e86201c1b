//! The bus: one trait of `proto`'s, and what carries it. `line` is the only place that knows all of them.

pub mod cluster;
mod confirms;
mod line;
mod lobby;
pub mod local;
pub mod metrics;
pub mod nats;
mod outage;
pub mod wire;

pub use line::{Found, Joining, Line};
