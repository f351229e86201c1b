//! The bus: one trait of `proto`'s, and what carries it. `handle` is the only place that knows all of them.

mod backoff;
mod buffer;
mod client;
pub mod cluster;
mod flush;
mod handle;
pub mod local;
pub mod metrics;
pub mod nats;
pub mod pubsub;

pub use handle::{BusHandle, ClusterBuilder};
