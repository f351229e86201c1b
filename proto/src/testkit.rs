//! For tests of the crates above: a bus that remembers what it was given.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{
    bus::{Bus, BusError, BusState, Gathered, Inbox, Interest},
    envelope::Envelope,
    ids::{ChannelKey, NodeId},
    query::{Ask, Census},
    report::CoordinationMessage,
};

/// A bus without nodes: it records what is published and answers queries with what it was told to.
#[derive(Default)]
pub struct RecordingBus {
    /// What was published, in order.
    pub published: Mutex<Vec<Envelope>>,
    /// What was asked, in order.
    pub asked: Mutex<Vec<Ask>>,
    /// What every query is answered with; nothing, if not set.
    pub answer: Mutex<Option<Census>>,
    /// Slaves that are said not to have answered.
    pub missing: Mutex<Vec<NodeId>>,
    /// Is it down?
    pub down: Mutex<bool>,
}

impl RecordingBus {
    /// What was published since the last call.
    ///
    /// # Panics
    ///
    /// If a test thread panicked while it held the bus.
    pub fn take_published(&self) -> Vec<Envelope> {
        std::mem::take(&mut self.published.lock().expect("no test panicked"))
    }
}

#[async_trait]
impl Bus for RecordingBus {
    async fn publish_all(&self, envelopes: Vec<Envelope>) -> Result<(), BusError> {
        if !self.is_up() {
            return Err(BusError::Down);
        }
        self.published.lock().expect("no test panicked").extend(envelopes);
        Ok(())
    }

    async fn gather(&self, ask: Ask) -> Result<Gathered, BusError> {
        if !self.is_up() {
            return Err(BusError::Down);
        }
        let census = self.answer.lock().expect("no test panicked").clone().unwrap_or_else(|| ask.nothing());
        self.asked.lock().expect("no test panicked").push(ask);
        Ok(Gathered { census, missing: self.missing.lock().expect("no test panicked").clone() })
    }

    async fn ask_node(&self, _: NodeId, ask: Ask) -> Result<Census, BusError> {
        self.gather(ask).await.map(|gathered| gathered.census)
    }

    fn interest(&self, _: &ChannelKey) -> Option<Interest> {
        None
    }

    fn report(&self, _: NodeId, _: Vec<CoordinationMessage>) {}

    fn attach(&self, _: Arc<dyn Inbox>) {}

    fn state(&self) -> watch::Receiver<BusState> {
        let up = !*self.down.lock().expect("no test panicked");
        watch::channel(BusState { up, roster_known: true, ..BusState::default() }).1
    }
}
