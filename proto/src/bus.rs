//! The only way from one node to another. Every backend keeps the same promises; `tests/it/bus_contract.rs` holds
//! them to it.

use std::{future::Future, pin::Pin, sync::Arc};

use async_trait::async_trait;

use crate::{
    envelope::Envelope,
    query::{Ask, Census},
};

/// Carries envelopes to slaves and answers back. At most once; keeps no history.
#[async_trait]
pub trait Bus: Send + Sync {
    /// Hand `envelope` to every node that wants it; back once the bus has it. Envelopes that one task publishes one
    /// after the other reach each node in that order.
    ///
    /// # Errors
    ///
    /// The bus is down or stays full; then nobody gets the envelope.
    async fn publish(&self, envelope: Envelope) -> Result<(), BusError>;

    /// Ask every slave; back with their answers, merged.
    ///
    /// # Errors
    ///
    /// The bus is down.
    async fn gather(&self, ask: Ask) -> Result<Gathered, BusError>;

    /// From now on `inbox` hears what this node is meant to hear.
    fn attach(&self, inbox: Arc<dyn Inbox>);

    /// Is it up? While it is not, nothing is accepted.
    fn is_up(&self) -> bool;
}

/// A slave's ear. Called on whatever thread the bus runs, so it must not block: it passes on to the threads that
/// hold the sockets.
pub trait Inbox: Send + Sync {
    /// Obey `envelope`. Envelopes handed over one after the other are obeyed in that order, channel by channel.
    fn deliver(&self, envelope: Envelope);

    /// Is there room for more deliveries? Asked before each.
    fn has_room(&self) -> bool;

    /// Resolves once there is room again.
    fn room(&self) -> BoxFuture<()>;

    /// Answer `ask` from what this node holds.
    fn answer(&self, ask: Ask) -> BoxFuture<Census>;
}

/// What came of a [`Bus::gather`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Gathered {
    /// All answers in one.
    pub census: Census,
}

/// A future that another thread may drive.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Why the bus took nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BusError {
    /// Not connected, or shutting down.
    #[error("the bus is down")]
    Down,
    /// Its queues stayed full for as long as a publisher is made to wait.
    #[error("the bus is overloaded")]
    Full,
    /// It carries no message of that size.
    #[error("larger than the {limit} bytes that the bus carries at once")]
    TooLarge {
        /// The largest message, in bytes.
        limit: usize,
    },
}
