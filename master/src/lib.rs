//! The master: the HTTP API of backends, their push keys, and the way onto the bus.

mod api;
mod dispatch;
mod error;
pub mod keys;
mod master;
mod metrics;
pub mod settings;

pub use self::{
    api::AdmittedRequest,
    keys::Keyless,
    master::{Master, MasterSetup},
};

#[cfg(test)]
mod tests;
