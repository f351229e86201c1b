//! The slave: the sockets of clients, their subscriptions, and the fan-out.

mod admission;
mod api;
mod backlog;
mod channels;
mod dispatcher;
mod encodings;
mod handshake;
mod interests;
mod keep_alive;
mod lifecycle;
mod memory;
mod metrics;
mod numbers;
mod outbox;
mod pages;
mod patience;
mod presence;
mod registries;
mod registry;
mod remote;
mod session;
pub mod settings;
mod slave;
mod state;
mod token;
mod transport;
mod users;
mod webhooks;

/// Checks the frames of clients before they are parsed: for the fuzzer.
#[cfg(feature = "fuzz")]
pub use self::session::validator;
pub use self::{
    handshake::{Accepted, Opened, Rejected, SocketAccept},
    presence::{
        coordinator::Fact,
        facts::{Batch, FactFilter, FactReader},
    },
    remote::{NoRemote, RemoteCaller},
    slave::{Slave, SlaveSetup},
    transport::Transport,
    webhooks::{NoWebhooks, WebhookSender},
};
