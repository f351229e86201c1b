//! Questions that wait for answers of other nodes.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::mpsc;
use wellhead_proto::ids::NodeId;

/// Answers of one kind, by the number of their question.
pub(super) struct Pending<T>(Mutex<HashMap<u64, mpsc::UnboundedSender<(NodeId, T)>>>);

/// A question that waits. Nothing comes any more once this is dropped.
pub(super) struct PendingMessages<'a, T> {
    pending: &'a Pending<T>,
    /// Its number.
    pub(super) id: u64,
    /// Who has answered, and what.
    pub(super) answers: mpsc::UnboundedReceiver<(NodeId, T)>,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Pending<T> {
    /// Wait for answers to the question `id`.
    pub(super) fn wait(&self, id: u64) -> PendingMessages<'_, T> {
        let (answer, answers) = mpsc::unbounded_channel();
        self.lock().insert(id, answer);
        PendingMessages { pending: self, id, answers }
    }

    /// Does somebody wait for answers to the question `id`? Through this they come.
    pub(super) fn of(&self, id: u64) -> Option<mpsc::UnboundedSender<(NodeId, T)>> {
        self.lock().get(&id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, mpsc::UnboundedSender<(NodeId, T)>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for PendingMessages<'_, T> {
    fn drop(&mut self) {
        self.pending.lock().remove(&self.id);
    }
}
