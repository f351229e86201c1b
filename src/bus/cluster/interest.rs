//! What this node listens to, kept in step with the transport: the tables of slots, and who waits for one to be confirmed.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time,
};
use wellhead_proto::{
    bus::Interest,
    ids::{AppId, ChannelKey, UserId},
    membership::BEAT,
};

use super::{
    Cluster,
    slots::{SlotOrder, Slots, slot_of, slot_of_user},
};
use crate::bus::pubsub::{PubSub, Subject};

/// Between two tries to confirm.
const AGAIN: Duration = Duration::from_millis(100);

/// The slots of a node, of channels or of users.
pub(super) struct SlotInterest {
    kind: SlotKind,
    slots: Mutex<Slots>,
    /// Something is to be confirmed, of channels or of users.
    asked: Arc<Notify>,
    /// Told by the next confirmation that begins. Each has waiters of its own, so that it wakes nobody else. Locked behind the
    /// slots.
    next: Mutex<watch::Sender<bool>>,
}

/// What hashes to the slots.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum SlotKind {
    /// Channels.
    Channels,
    /// Users.
    Users,
}

/// What one confirmation confirms.
struct ConfirmationRound {
    slots: Vec<u16>,
    /// Was a change of modes asked for?
    change: bool,
    waiters: watch::Sender<bool>,
}

impl SlotKind {
    fn subject(self, slot: u16) -> Subject {
        match self {
            Self::Channels => Subject::Slot(slot),
            Self::Users => Subject::UserSlot(slot),
        }
    }

    fn wildcard(self) -> Subject {
        match self {
            Self::Channels => Subject::EverySlot,
            Self::Users => Subject::EveryUserSlot,
        }
    }

    /// Those of a node.
    fn of(self, cluster: &Cluster) -> &SlotInterest {
        match self {
            Self::Channels => &cluster.interest,
            Self::Users => &cluster.user_interest,
        }
    }

    /// Listen and unlisten as the table of slots says.
    fn carry_out(self, orders: &[SlotOrder], pubsub: Option<&Arc<dyn PubSub>>) {
        let Some(pubsub) = pubsub else { return };
        for order in orders {
            match *order {
                SlotOrder::Listen(slot) => pubsub.listen(self.subject(slot)),
                SlotOrder::Unlisten(slot) => pubsub.unlisten(self.subject(slot)),
                SlotOrder::ListenAll => pubsub.listen(self.wildcard()),
                SlotOrder::UnlistenAll => pubsub.unlisten(self.wildcard()),
            }
        }
    }
}

impl SlotInterest {
    /// Those of channels and those of users, which are confirmed together.
    pub(super) fn of_both() -> (Self, Self) {
        let asked = Arc::new(Notify::new());
        let new = |kind| Self {
            kind,
            slots: Mutex::default(),
            asked: asked.clone(),
            next: Mutex::new(watch::Sender::new(false)),
        };
        (new(SlotKind::Channels), new(SlotKind::Users))
    }

    pub(super) fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something may be to be confirmed, here or in the other table.
    pub(super) fn confirm_soon(&self) {
        self.asked.notify_one();
    }

    /// Once a second: listen no more to what nobody wants, and change over where it is time. How many slots there are.
    pub(super) fn tick(&self, pubsub: Option<&Arc<dyn PubSub>>, now: Duration) -> usize {
        let mut orders = Vec::new();
        let (count, changing) = {
            let mut slots = self.slots();
            slots.tick(now, &mut orders);
            self.kind.carry_out(&orders, pubsub);
            (slots.len(), slots.is_change_asked())
        };
        if changing {
            self.confirm_soon();
        }
        count
    }

    /// Somebody wants `slot`. Nothing if it is heard, else what tells that it is confirmed.
    fn want(&self, slot: u16, pubsub: Option<&Arc<dyn PubSub>>) -> Option<watch::Receiver<bool>> {
        let mut orders = Vec::new();
        let confirmed = {
            // the transport is told before anyone else sees the table: nothing is confirmed that it has not heard of
            let mut slots = self.slots();
            let is_heard = slots.want(slot, &mut orders);
            self.kind.carry_out(&orders, pubsub);
            (!is_heard).then(|| self.next().subscribe())
        };
        if confirmed.is_some() {
            self.confirm_soon();
        }
        confirmed
    }

    /// The same for a slot that somebody wants already.
    fn unless_heard(&self, slot: u16) -> Option<watch::Receiver<bool>> {
        let slots = self.slots();
        (!slots.is_heard(slot)).then(|| self.next().subscribe())
    }

    fn next(&self) -> MutexGuard<'_, watch::Sender<bool>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be confirmed now. If nothing is, those who wait are told to look again: a round that had begun when they
    /// came has confirmed what they wait for.
    fn begin_round(&self) -> Option<ConfirmationRound> {
        let slots = self.slots();
        let change = slots.is_change_asked();
        let unconfirmed = slots.unconfirmed();
        let waiters = std::mem::replace(&mut *self.next(), watch::Sender::new(false));
        Some(ConfirmationRound { slots: unconfirmed?, change, waiters })
    }
}

/// Want pushes of `channel` at this node.
pub(super) fn want(cluster: &Arc<Cluster>, channel: &ChannelKey) -> Interest {
    want_slot(cluster, SlotKind::Channels, slot_of(channel))
}

/// Want pushes to a user at this node. `None`: they go to everybody.
pub(super) fn want_user(cluster: &Arc<Cluster>, app: &AppId, user: &UserId) -> Option<Interest> {
    cluster.has_user_slots().then(|| want_slot(cluster, SlotKind::Users, slot_of_user(app, user)))
}

fn want_slot(cluster: &Arc<Cluster>, kind: SlotKind, slot: u16) -> Interest {
    let confirmed = kind.of(cluster).want(slot, cluster.sender.pubsub());
    let hold = Arc::new(Wanted { cluster: cluster.clone(), kind, slot });
    if confirmed.is_none() && cluster.state.borrow().up {
        return Interest { hold, confirmed: None };
    }
    Interest { hold, confirmed: Some(Box::pin(heard_and_up(cluster.clone(), kind, slot, confirmed))) }
}

async fn heard_and_up(cluster: Arc<Cluster>, kind: SlotKind, slot: u16, mut confirmed: Option<watch::Receiver<bool>>) {
    let mut state = cluster.state.clone();
    loop {
        if let Some(mut confirmed) = confirmed {
            // an error says that nothing was left to confirm
            let _ = confirmed.wait_for(|confirmed| *confirmed).await;
        }
        if state.wait_for(|state| state.up).await.is_err() {
            // the process ends, and the socket with it
            return std::future::pending().await;
        }
        confirmed = kind.of(&cluster).unless_heard(slot);
        if confirmed.is_none() {
            return;
        }
    }
}

/// Keeps a slot wanted.
struct Wanted {
    cluster: Arc<Cluster>,
    kind: SlotKind,
    slot: u16,
}

impl Drop for Wanted {
    fn drop(&mut self) {
        let now = self.cluster.now();
        self.kind.of(&self.cluster).slots().unwant(self.slot, now);
    }
}

impl Cluster {
    /// Do pushes to users travel on slots of their own here? It depends on the transport alone.
    pub(super) fn has_user_slots(&self) -> bool {
        self.sender.pubsub().is_some_and(|pubsub| pubsub.has_user_slots())
    }

    /// One more user is here, whose slot is held by nothing but a count.
    pub(super) fn retain_user(&self, app: &AppId, user: &UserId) {
        if self.has_user_slots() {
            drop(self.user_interest.want(slot_of_user(app, user), self.sender.pubsub()));
        }
    }

    /// One fewer.
    pub(super) fn release_user(&self, app: &AppId, user: &UserId) {
        if self.has_user_slots() {
            self.user_interest.slots().unwant(slot_of_user(app, user), self.now());
        }
    }

    /// What a message on `subject` concerns, if that is a slot; and whether it came through the wildcard.
    pub(super) fn interest_of(&self, subject: Subject) -> Option<(&SlotInterest, bool)> {
        match subject {
            Subject::Slot(_) | Subject::EverySlot => Some((&self.interest, subject.is_wildcard())),
            Subject::UserSlot(_) | Subject::EveryUserSlot => Some((&self.user_interest, subject.is_wildcard())),
            Subject::Everyone | Subject::Node(_) => None,
        }
    }

    /// Once a second: see [`SlotInterest::tick`].
    pub(super) fn tick_slots(&self) {
        for (interest, gauge) in
            [(&self.interest, &self.metrics.slots), (&self.user_interest, &self.metrics.user_slots)]
        {
            let slots = interest.tick(self.sender.pubsub(), self.now());
            gauge.set(i64::try_from(slots).unwrap_or(i64::MAX));
        }
    }
}

/// Confirm what is listened to, all that waits at once, as long as the node is there. One task for both tables: it lets go of
/// the node now and then, and of two tasks one would always hold it.
pub(super) async fn confirm(cluster: Weak<Cluster>) {
    // those of a round trip that failed wait for the next one
    let mut waiters = Vec::new();
    loop {
        let Some(strong) = cluster.upgrade() else { return };
        let interests = [&strong.interest, &strong.user_interest];
        let rounds = interests.map(SlotInterest::begin_round);
        if rounds.iter().all(Option::is_none) {
            waiters.clear();
            // wakes up now and then to see whether the node is still there
            let _ = time::timeout(BEAT, strong.interest.asked.notified()).await;
            continue;
        }
        let confirmed = match strong.pubsub() {
            Ok(pubsub) => pubsub.confirm().await,
            Err(down) => Err(down),
        };
        for (interest, round) in interests.into_iter().zip(rounds) {
            let Some(ConfirmationRound { slots, change, waiters: further }) = round else { continue };
            waiters.push(further);
            if confirmed.is_ok() {
                interest.slots().confirmed(&slots, change, strong.now());
            }
        }
        if confirmed.is_ok() {
            for waiters in waiters.drain(..) {
                waiters.send_replace(true);
            }
        } else {
            drop(strong);
            time::sleep(AGAIN).await;
        }
    }
}
