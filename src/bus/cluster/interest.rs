//! What this node listens to, kept in step with the transport: the table of slots, and who waits for one to be confirmed.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{sync::Notify, time};
use wellhead_proto::{
    bus::{BoxFuture, Interest},
    ids::ChannelKey,
    membership::BEAT,
};

use super::{
    Cluster,
    slots::{SlotOrder, Slots, slot_of},
};
use crate::bus::pubsub::{PubSub, Subject};

/// Between two tries to confirm.
const AGAIN: Duration = Duration::from_millis(100);

/// The slots of a node.
#[derive(Default)]
pub(super) struct SlotInterest {
    slots: Mutex<Slots>,
    /// Something is to be confirmed.
    asked: Notify,
    /// Something was confirmed.
    confirmed: Notify,
}

impl SlotInterest {
    pub(super) fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something may be to be confirmed.
    pub(super) fn confirm_soon(&self) {
        self.asked.notify_one();
    }

    /// Once a second: listen no more to what nobody wants, and change over where it is time. How many slots there are.
    pub(super) fn tick(&self, pubsub: Option<&Arc<dyn PubSub>>, now: Duration) -> usize {
        let mut orders = Vec::new();
        let (count, changing) = {
            let mut slots = self.slots();
            slots.tick(now, &mut orders);
            carry_out(&orders, pubsub);
            (slots.len(), slots.is_change_asked())
        };
        if changing {
            self.confirm_soon();
        }
        count
    }
}

/// Listen and unlisten as the table of slots says.
fn carry_out(orders: &[SlotOrder], pubsub: Option<&Arc<dyn PubSub>>) {
    let Some(pubsub) = pubsub else { return };
    for order in orders {
        match *order {
            SlotOrder::Listen(slot) => pubsub.listen(Subject::Slot(slot)),
            SlotOrder::Unlisten(slot) => pubsub.unlisten(Subject::Slot(slot)),
            SlotOrder::ListenAll => pubsub.listen(Subject::EverySlot),
            SlotOrder::UnlistenAll => pubsub.unlisten(Subject::EverySlot),
        }
    }
}

/// Want pushes of `channel` at this node.
pub(super) fn want(cluster: &Arc<Cluster>, channel: &ChannelKey) -> Interest {
    let slot = slot_of(channel);
    let mut orders = Vec::new();
    let heard = {
        // the transport is told before anyone else sees the table: nothing is confirmed that it has not heard of
        let mut slots = cluster.interest.slots();
        let heard = slots.want(slot, &mut orders);
        carry_out(&orders, cluster.sender.pubsub());
        heard
    };
    let hold = Arc::new(Wanted { cluster: cluster.clone(), slot });
    if heard && cluster.state.borrow().up {
        return Interest { hold, confirmed: None };
    }
    cluster.interest.confirm_soon();
    let confirmed: BoxFuture<()> = Box::pin(heard_and_up(cluster.clone(), slot));
    Interest { hold, confirmed: Some(confirmed) }
}

async fn heard_and_up(cluster: Arc<Cluster>, slot: u16) {
    let mut state = cluster.state.clone();
    loop {
        let confirmed = cluster.interest.confirmed.notified();
        if state.wait_for(|state| state.up).await.is_err() {
            // the process ends, and the socket with it
            return std::future::pending().await;
        }
        if cluster.interest.slots().is_heard(slot) {
            return;
        }
        tokio::select! {
            () = confirmed => {}
            _ = state.changed() => {}
        }
    }
}

/// Keeps a slot wanted.
struct Wanted {
    cluster: Arc<Cluster>,
    slot: u16,
}

impl Drop for Wanted {
    fn drop(&mut self) {
        let now = self.cluster.now();
        self.cluster.interest.slots().unwant(self.slot, now);
    }
}

/// Confirm what is listened to, all that waits at once, as long as the node is there.
pub(super) async fn confirm(cluster: Weak<Cluster>) {
    loop {
        let Some(strong) = cluster.upgrade() else { return };
        let (asked, change) = {
            let slots = strong.interest.slots();
            (slots.unconfirmed(), slots.is_change_asked())
        };
        let Some(asked) = asked else {
            // wakes up now and then to see whether the node is still there
            let _ = time::timeout(BEAT, strong.interest.asked.notified()).await;
            continue;
        };
        let confirmed = match strong.pubsub() {
            Ok(pubsub) => pubsub.confirm().await,
            Err(down) => Err(down),
        };
        if confirmed.is_ok() {
            strong.interest.slots().confirmed(&asked, change, strong.now());
            strong.interest.confirmed.notify_waiters();
        } else {
            drop(strong);
            time::sleep(AGAIN).await;
        }
    }
}
