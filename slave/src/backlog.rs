//! Counts the pushes that a slave has accepted and not delivered yet. While there are too many, publishers wait: memory
//! stays bounded, and a burst slows its publishers down, not its readers.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// Deliveries that may wait: some 150 ms of work for one thread.
const MAX_DELIVERIES: usize = 20_000;
/// Bytes of payload that may wait.
const MAX_BYTES: usize = 64 << 20;

/// The pushes that wait, counted.
#[derive(Default)]
pub struct Backlog {
    deliveries: AtomicUsize,
    bytes: AtomicUsize,
    less: Notify,
}

/// One push that waits; it counts until this is dropped.
pub struct Permit {
    backlog: Arc<Backlog>,
    deliveries: usize,
    bytes: usize,
}

impl Backlog {
    /// A push of `bytes` bytes begins to wait. It counts as one delivery until somebody knows better.
    pub fn admit(self: &Arc<Self>, bytes: usize) -> Permit {
        self.deliveries.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Permit { backlog: self.clone(), deliveries: 1, bytes }
    }

    /// Does no push wait?
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.deliveries.load(Ordering::Relaxed) == 0 && self.bytes.load(Ordering::Relaxed) == 0
    }

    /// Is there room for more?
    pub fn has_room(&self) -> bool {
        self.deliveries.load(Ordering::Relaxed) < MAX_DELIVERIES && self.bytes.load(Ordering::Relaxed) < MAX_BYTES
    }

    /// Resolves once there is.
    pub async fn room(self: Arc<Self>) {
        loop {
            let less = self.less.notified();
            if self.has_room() {
                return;
            }
            less.await;
        }
    }
}

impl Permit {
    /// One more delivery begins to wait, of a payload that is counted already.
    pub fn another(&self) -> Self {
        self.backlog.admit(0)
    }

    /// The push goes to so many sockets.
    pub fn set_deliveries(&mut self, deliveries: usize) {
        if deliveries == self.deliveries {
            return;
        }
        self.backlog.deliveries.fetch_add(deliveries, Ordering::Relaxed);
        self.backlog.deliveries.fetch_sub(self.deliveries, Ordering::Relaxed);
        self.deliveries = deliveries;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let was_full = !self.backlog.has_room();
        self.backlog.deliveries.fetch_sub(self.deliveries, Ordering::Relaxed);
        self.backlog.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        if was_full && self.backlog.has_room() {
            self.backlog.less.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn publishers_wait_while_it_is_full_and_go_on_when_it_is_not() {
        let backlog = Arc::new(Backlog::default());
        let mut large = backlog.admit(10);
        assert!(backlog.has_room());
        large.set_deliveries(MAX_DELIVERIES);
        assert!(!backlog.has_room());

        let waiting = tokio::spawn(backlog.clone().room());
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(large);
        tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();

        let heavy = backlog.admit(MAX_BYTES);
        assert!(!backlog.has_room());
        drop(heavy);
        assert!(backlog.has_room());
        assert_eq!(backlog.deliveries.load(Ordering::Relaxed), 0);
    }
}
