//! The way from the transport into the membership actor. An actor's mailbox has no bound that would hold its senders up, it is emptied
//! before anything else of its thread has a turn, and heartbeats can be forged: so what waits is counted, and when it is too
//! much the transport waits, as it does for a slave without room, until the mailbox is empty and the others have had their turn.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use tokio::sync::Notify;

/// Messages that may wait; beyond, the transport reads nothing more until none waits.
const MOST: usize = 1_024;

/// How many messages of the transport wait for the actor.
#[derive(Clone, Default)]
pub(in super::super) struct MailboxLoad(Arc<Load>);

#[derive(Default)]
struct Load {
    waiting: AtomicUsize,
    full: AtomicBool,
    emptied: Notify,
}

/// One message that waits, until it is dropped.
pub(in super::super) struct WaitingMessage(Arc<Load>);

impl MailboxLoad {
    /// A message is about to be sent.
    pub(in super::super) fn add(&self) -> WaitingMessage {
        let load = &*self.0;
        if load.waiting.fetch_add(1, SeqCst) + 1 >= MOST {
            load.full.store(true, SeqCst);
        }
        WaitingMessage(self.0.clone())
    }

    pub(in super::super) fn has_room(&self) -> bool {
        !self.0.full.load(SeqCst)
    }

    /// Resolves once there is room.
    pub(in super::super) async fn room(&self) {
        loop {
            let mut emptied = pin!(self.0.emptied.notified());
            emptied.as_mut().enable();
            if self.has_room() {
                return;
            }
            emptied.await;
        }
    }
}

impl Drop for WaitingMessage {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, SeqCst) == 1 && self.0.full.swap(false, SeqCst) {
            self.0.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_wire_waits_while_too_much_waits_until_nothing_does() {
        let load = MailboxLoad::default();
        load.room().await;
        let mut waiting: Vec<_> = (1..MOST).map(|_| load.add()).collect();
        assert!(load.has_room());
        waiting.push(load.add());
        assert!(!load.has_room());
        waiting.truncate(1);
        assert!(!load.has_room());
        tokio::join!(load.room(), async { waiting.clear() });
        assert!(load.has_room());
        assert_eq!(load.0.waiting.load(SeqCst), 0);
    }
}
