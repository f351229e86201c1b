//! For tests of the crates above: a bus that remembers what it was given.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use crate::{
    bus::{Bus, BusError, Gathered, Inbox},
    envelope::Envelope,
    query::{Ask, Census},
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
    async fn publish(&self, envelope: Envelope) -> Result<(), BusError> {
        if !self.is_up() {
            return Err(BusError::Down);
        }
        self.published.lock().expect("no test panicked").push(envelope);
        Ok(())
    }

    async fn gather(&self, ask: Ask) -> Result<Gathered, BusError> {
        if !self.is_up() {
            return Err(BusError::Down);
        }
        let census = self.answer.lock().expect("no test panicked").clone().unwrap_or_else(|| ask.nothing());
        self.asked.lock().expect("no test panicked").push(ask);
        Ok(Gathered { census })
    }

    fn attach(&self, _: Arc<dyn Inbox>) {}

    fn is_up(&self) -> bool {
        !*self.down.lock().expect("no test panicked")
    }
}
