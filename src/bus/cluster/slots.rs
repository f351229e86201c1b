//! The slots that this node listens to. Pushes to a channel travel on one of 65,536 slots that its app and name hash to, and
//! pushes to a user on one of as many others. A node listens to the slots of what its clients hold, and some seconds longer.
//! Above a limit it listens to all of them at once, because each slot costs memory here and in the server.
//!
//! While a node changes from one mode to the other it listens in both, and each push comes twice. These steps keep pushes
//! from being lost, doubled or overtaken:
//!
//! ```text
//! asked ──confirmed──▶ settling ──1 s──▶ both ──3 s──▶ trailing ──1 s──▶ changed
//!  │                    │                 │             │
//!  only the old mode    the same, and     the first     the old mode has ended; what it
//!  counts               it is noted       copy counts   delivered does not count again
//! ```

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    hash::Hasher,
    time::Duration,
};

use rustc_hash::FxHashSet;
use siphasher::sip::SipHasher13;
use wellhead_proto::ids::{AppId, ChannelKey, UserId};

/// Slots that are listened to one by one; more than these, and all are.
const MOST: usize = 16_384;
/// Fewer than these, and they are listened to one by one again.
const FEW: usize = 12_288;
/// How long a slot is listened to after nobody wants it any more, in seconds.
const LONGER: u16 = 10;
/// After the new mode is confirmed: everything that went before has come by then.
pub(super) const SETTLE: Duration = Duration::from_secs(1);
/// How long both modes count: everything that comes by one only has come by then.
const BOTH: Duration = Duration::from_secs(3);

/// The slot on which the pushes of a channel travel. The same on every node.
#[must_use]
pub fn slot_of(channel: &ChannelKey) -> u16 {
    hashed(&channel.app, channel.name.as_str())
}

/// The slot of users on which the pushes to a user travel. The same on every node.
#[must_use]
pub fn slot_of_user(app: &AppId, user: &UserId) -> u16 {
    hashed(app, user.as_str())
}

fn hashed(app: &AppId, name: &str) -> u16 {
    let mut hasher = SipHasher13::new();
    hasher.write(app.as_str().as_bytes());
    // no name holds this byte
    hasher.write_u8(0xFF);
    hasher.write(name.as_bytes());
    hasher.finish() as u16
}

/// The table of a node, for channels or for users. Pure: it says what to listen to, the caller does.
#[derive(Default)]
pub struct Slots {
    slots: HashMap<u16, Slot>,
    /// Those of them that are listened to and not confirmed.
    unconfirmed: FxHashSet<u16>,
    mode: SubscriptionMode,
    limits: Limits,
}

struct Limits {
    most: usize,
    few: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { most: MOST, few: FEW }
    }
}

/// A slot that is wanted, or was until lately. Held for most distinct users of a node, so it is packed: with its number it
/// takes 8 bytes.
#[derive(Default)]
struct Slot {
    wanted: [u8; 4],
    /// The second since which nobody has wanted it.
    idle_since: u16,
}

impl Slot {
    fn wanted(&self) -> u32 {
        u32::from_ne_bytes(self.wanted)
    }

    fn set_wanted(&mut self, wanted: u32) {
        self.wanted = wanted.to_ne_bytes();
    }

    fn is_idle(&self, now: Duration) -> bool {
        self.wanted() == 0 && second(now).wrapping_sub(self.idle_since) >= LONGER
    }
}

/// A moment in seconds. It comes round after 18 hours, and is looked at every second.
fn second(now: Duration) -> u16 {
    now.as_secs() as u16
}

/// How pushes come.
#[derive(Default)]
enum SubscriptionMode {
    #[default]
    OneByOne,
    All,
    /// From one to the other: to all of them, or back.
    Changing {
        to_all: bool,
        phase: ChangePhase,
        seen: HashSet<Piece>,
    },
}

enum ChangePhase {
    /// The new mode is not confirmed.
    Asked,
    /// It is, since then.
    Settling(Duration),
    /// Both count, since then.
    Both(Duration),
    /// The old mode is left, since then, and some of what came in that mode may come the new mode yet.
    Trailing(Duration),
}

/// The number of a message, and of the piece of it that a message holds.
pub type Piece = (u64, u32);

/// What to do with the transport.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SlotOrder {
    /// Listen to this slot.
    Listen(u16),
    /// Listen to it no more.
    Unlisten(u16),
    /// Listen to all of them.
    ListenAll,
    /// No more.
    UnlistenAll,
}

impl Slots {
    /// Listen to at most `most` slots one by one, and to all until there are fewer than `few`.
    pub fn limit(&mut self, most: usize, few: usize) {
        self.limits = Limits { most, few };
    }

    /// Somebody wants `slot`. `true` if it is heard already.
    pub fn want(&mut self, slot: u16, orders: &mut Vec<SlotOrder>) -> bool {
        let one_by_one = !self.has_only_the_wildcard();
        let entry = match self.slots.entry(slot) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                if one_by_one {
                    orders.push(SlotOrder::Listen(slot));
                    self.unconfirmed.insert(slot);
                }
                entry.insert(Slot::default())
            }
        };
        entry.set_wanted(entry.wanted().saturating_add(1));
        self.is_heard(slot)
    }

    /// Somebody wants it no more.
    pub fn unwant(&mut self, slot: u16, now: Duration) {
        if let Some(entry) = self.slots.get_mut(&slot) {
            entry.set_wanted(entry.wanted().saturating_sub(1));
            entry.idle_since = second(now);
        }
    }

    /// Does somebody want `slot`?
    #[must_use]
    pub fn is_wanted(&self, slot: u16) -> bool {
        self.slots.get(&slot).is_some_and(|slot| slot.wanted() > 0)
    }

    /// Is `slot` heard?
    #[must_use]
    pub fn is_heard(&self, slot: u16) -> bool {
        self.hears_everything() || self.slots.contains_key(&slot) && !self.unconfirmed.contains(&slot)
    }

    /// Are slots not listened to one by one?
    fn has_only_the_wildcard(&self) -> bool {
        matches!(
            self.mode,
            SubscriptionMode::All | SubscriptionMode::Changing { to_all: true, phase: ChangePhase::Trailing(_), .. }
        )
    }

    /// Need nothing be confirmed? On the change back that ends early, so that every slot is confirmed well before it is the
    /// only way to hear it.
    fn hears_everything(&self) -> bool {
        match &self.mode {
            SubscriptionMode::OneByOne => false,
            SubscriptionMode::All
            | SubscriptionMode::Changing { to_all: true, phase: ChangePhase::Trailing(_), .. } => true,
            SubscriptionMode::Changing {
                to_all: false, phase: ChangePhase::Asked | ChangePhase::Settling(_), ..
            } => true,
            SubscriptionMode::Changing { .. } => false,
        }
    }

    /// What a confirmation that begins now would confirm; nothing, if there is nothing to confirm.
    #[must_use]
    pub fn unconfirmed(&self) -> Option<Vec<u16>> {
        let is_any = self.is_change_asked() || !self.unconfirmed.is_empty();
        is_any.then(|| self.unconfirmed.iter().copied().collect())
    }

    /// It is confirmed. `change`: was the change of modes asked for before that?
    pub fn confirmed(&mut self, slots: &[u16], change: bool, now: Duration) {
        for slot in slots {
            self.unconfirmed.remove(slot);
        }
        // looking at it takes as long as it has room for, whatever it holds
        if self.unconfirmed.capacity() > 64 + 8 * self.unconfirmed.len() {
            self.unconfirmed.shrink_to(2 * self.unconfirmed.len());
        }
        if let SubscriptionMode::Changing { phase, .. } = &mut self.mode
            && change
            && matches!(phase, ChangePhase::Asked)
        {
            *phase = ChangePhase::Settling(now);
        }
    }

    /// Is a change of modes asked for and not confirmed?
    #[must_use]
    pub fn is_change_asked(&self) -> bool {
        matches!(self.mode, SubscriptionMode::Changing { phase: ChangePhase::Asked, .. })
    }

    /// Once a second: stop listening to what nobody wants, and change modes where it is time.
    pub fn tick(&mut self, now: Duration, orders: &mut Vec<SlotOrder>) {
        self.forget_idle(now, orders);
        match &mut self.mode {
            SubscriptionMode::OneByOne if self.slots.len() > self.limits.most => {
                orders.push(SlotOrder::ListenAll);
                self.mode =
                    SubscriptionMode::Changing { to_all: true, phase: ChangePhase::Asked, seen: HashSet::new() };
            }
            SubscriptionMode::All if self.slots.len() < self.limits.few => {
                self.unconfirmed.extend(self.slots.keys());
                orders.extend(self.slots.keys().map(|&slot| SlotOrder::Listen(slot)));
                self.mode =
                    SubscriptionMode::Changing { to_all: false, phase: ChangePhase::Asked, seen: HashSet::new() };
            }
            SubscriptionMode::Changing { phase: phase @ ChangePhase::Settling(_), .. } => {
                if let ChangePhase::Settling(since) = *phase
                    && now.saturating_sub(since) >= SETTLE
                {
                    *phase = ChangePhase::Both(now);
                }
            }
            SubscriptionMode::Changing { to_all, phase: phase @ ChangePhase::Both(_), .. } => {
                if let ChangePhase::Both(since) = *phase
                    && now.saturating_sub(since) >= BOTH
                {
                    if *to_all {
                        orders.extend(self.slots.keys().map(|&slot| SlotOrder::Unlisten(slot)));
                        self.unconfirmed = FxHashSet::default();
                    } else {
                        orders.push(SlotOrder::UnlistenAll);
                    }
                    *phase = ChangePhase::Trailing(now);
                }
            }
            SubscriptionMode::Changing { to_all, phase: ChangePhase::Trailing(since), .. }
                if now.saturating_sub(*since) >= SETTLE =>
            {
                self.mode = if *to_all { SubscriptionMode::All } else { SubscriptionMode::OneByOne };
            }
            _ => {}
        }
    }

    /// Stop listening to slots that nobody has wanted for a while.
    fn forget_idle(&mut self, now: Duration, orders: &mut Vec<SlotOrder>) {
        let one_by_one = !self.has_only_the_wildcard();
        let Self { slots, unconfirmed, .. } = self;
        slots.retain(|&slot, entry| {
            let is_idle = entry.is_idle(now);
            if is_idle {
                unconfirmed.remove(&slot);
            }
            if is_idle && one_by_one {
                orders.push(SlotOrder::Unlisten(slot));
            }
            !is_idle
        });
        // what a crowd needed is given back when it has gone
        if slots.capacity() > 64 + 8 * slots.len() {
            slots.shrink_to(2 * slots.len());
        }
    }

    /// A message came that holds `piece`; `by_all`: because all slots are listened to, not because of its own. Does it
    /// count?
    pub fn counts(&mut self, piece: Piece, by_all: bool) -> bool {
        match &mut self.mode {
            SubscriptionMode::OneByOne => !by_all,
            SubscriptionMode::All => by_all,
            SubscriptionMode::Changing { to_all, phase, seen } => {
                let by_new = by_all == *to_all;
                match phase {
                    ChangePhase::Asked => !by_new,
                    ChangePhase::Settling(_) => !by_new && seen.insert(piece),
                    ChangePhase::Both(_) | ChangePhase::Trailing(_) => seen.insert(piece),
                }
            }
        }
    }

    /// How many slots are wanted, or were until lately.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Are all slots listened to at once?
    #[must_use]
    pub fn is_all(&self) -> bool {
        !matches!(self.mode, SubscriptionMode::OneByOne)
    }
}

#[cfg(test)]
mod tests;
