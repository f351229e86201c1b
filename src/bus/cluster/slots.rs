//! The slots that this node listens to. A channel's pushes travel on one of 65,536 slots that its app and name hash to; a node
//! listens to the slots of the channels that its clients hold, and a little longer. Above a limit it listens to all of
//! them at once instead: each slot costs memory here and in the server.
//!
//! While it changes over, both are listened to, and each push comes twice. Which of the two counts is decided so that
//! nothing is lost, doubled or overtaken: at first the old mode only, until the new one is confirmed and everything that
//! went before it has come; then whichever comes first, by the numbers of the messages; then the new one, and what is still
//! under way by the old one, once; then the new one only.

use std::{
    collections::{HashMap, HashSet},
    hash::Hasher,
    time::Duration,
};

use siphasher::sip::SipHasher13;
use wellhead_proto::ids::ChannelKey;

/// Slots that are listened to one by one; more than these, and all are.
const MOST: usize = 16_384;
/// Fewer than these, and they are listened to one by one again.
const FEW: usize = 12_288;
/// How long a slot is listened to after nobody wants it any more.
const LONGER: Duration = Duration::from_secs(10);
/// After the new mode is confirmed: everything that went before has come by then.
const SETTLE: Duration = Duration::from_secs(1);
/// How long both ways count: everything that comes by one only has come by then.
const BOTH: Duration = Duration::from_secs(3);

/// The slot on which the pushes of a channel travel. The same on every node.
#[must_use]
pub fn slot_of(channel: &ChannelKey) -> u16 {
    let mut hasher = SipHasher13::new();
    hasher.write(channel.app.as_str().as_bytes());
    // no name holds this byte
    hasher.write_u8(0xFF);
    hasher.write(channel.name.as_str().as_bytes());
    hasher.finish() as u16
}

/// The table of a node. Pure: it says what to listen to, the caller does.
#[derive(Default)]
pub struct Slots {
    slots: HashMap<u16, Slot>,
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

#[derive(Default)]
struct Slot {
    wanted: usize,
    confirmed: bool,
    /// Nobody has wanted it since.
    idle_since: Duration,
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
        let everything = self.hears_everything();
        let one_by_one = !matches!(
            self.mode,
            SubscriptionMode::All | SubscriptionMode::Changing { to_all: true, phase: ChangePhase::Trailing(_), .. }
        );
        let entry = self.slots.entry(slot).or_insert_with(|| {
            if one_by_one {
                orders.push(SlotOrder::Listen(slot));
            }
            Slot::default()
        });
        entry.wanted += 1;
        entry.confirmed || everything
    }

    /// Somebody wants it no more.
    pub fn unwant(&mut self, slot: u16, now: Duration) {
        if let Some(entry) = self.slots.get_mut(&slot) {
            entry.wanted -= 1;
            entry.idle_since = now;
        }
    }

    /// Does somebody want `slot`?
    #[must_use]
    pub fn is_wanted(&self, slot: u16) -> bool {
        self.slots.get(&slot).is_some_and(|slot| slot.wanted > 0)
    }

    /// Is `slot` heard?
    #[must_use]
    pub fn is_heard(&self, slot: u16) -> bool {
        self.hears_everything() || self.slots.get(&slot).is_some_and(|slot| slot.confirmed)
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
        let slots: Vec<_> = self.slots.iter().filter(|(_, slot)| !slot.confirmed).map(|(&slot, _)| slot).collect();
        let change = matches!(self.mode, SubscriptionMode::Changing { phase: ChangePhase::Asked, .. });
        (change || !slots.is_empty()).then_some(slots)
    }

    /// It is confirmed. `change`: was the change of modes asked for before that?
    pub fn confirmed(&mut self, slots: &[u16], change: bool, now: Duration) {
        for slot in slots {
            if let Some(slot) = self.slots.get_mut(slot) {
                slot.confirmed = true;
            }
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
        let all = matches!(
            self.mode,
            SubscriptionMode::All | SubscriptionMode::Changing { to_all: true, phase: ChangePhase::Trailing(_), .. }
        );
        self.slots.retain(|&slot, entry| {
            let keep = entry.wanted > 0 || now.saturating_sub(entry.idle_since) < LONGER;
            if !keep && !all {
                orders.push(SlotOrder::Unlisten(slot));
            }
            keep
        });
        match &mut self.mode {
            SubscriptionMode::OneByOne if self.slots.len() > self.limits.most => {
                orders.push(SlotOrder::ListenAll);
                self.mode =
                    SubscriptionMode::Changing { to_all: true, phase: ChangePhase::Asked, seen: HashSet::new() };
            }
            SubscriptionMode::All if self.slots.len() < self.limits.few => {
                for (&slot, entry) in &mut self.slots {
                    entry.confirmed = false;
                    orders.push(SlotOrder::Listen(slot));
                }
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
                    match to_all {
                        true => orders.extend(self.slots.keys().map(|&slot| SlotOrder::Unlisten(slot))),
                        false => orders.push(SlotOrder::UnlistenAll),
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
mod tests {
    use wellhead_proto::testkit::Golden;

    use super::*;

    /// Two nodes with other slots for a channel do not hear each other's pushes.
    #[test]
    fn every_channel_has_the_slot_that_it_always_had() {
        let mut golden = Golden::new("node_messages/slots.txt");
        for (app, name) in [("app", "news"), ("shop", "news"), ("shop", ""), ("a", "bc"), ("ab", "c"), ("a", "中文")]
        {
            let channel = ChannelKey { app: app.parse().unwrap(), name: name.parse().unwrap() };
            golden.case(&format!("{name:?} of {app:?}"), slot_of(&channel).to_string());
        }
        golden.check();
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn slots(most: usize, few: usize) -> Slots {
        Slots { limits: Limits { most, few }, ..Slots::default() }
    }

    fn tick(slots: &mut Slots, seconds: u64) -> Vec<SlotOrder> {
        let mut orders = Vec::new();
        slots.tick(at(seconds), &mut orders);
        orders.sort_by_key(|order| format!("{order:?}"));
        orders
    }

    fn confirm(slots: &mut Slots, seconds: u64) {
        let (asked, change) = (slots.unconfirmed().unwrap_or_default(), slots.is_change_asked());
        slots.confirmed(&asked, change, at(seconds));
    }

    #[test]
    fn a_slot_is_heard_once_confirmed_and_a_little_longer_than_wanted() {
        let mut slots = slots(10, 5);
        let mut orders = Vec::new();
        assert!(!slots.want(7, &mut orders));
        assert_eq!(orders, [SlotOrder::Listen(7)]);
        confirm(&mut slots, 0);
        assert!(slots.want(7, &mut orders), "listened to already: costs nothing");
        assert_eq!(orders.len(), 1);
        assert_eq!(slots.unconfirmed(), None);
        slots.unwant(7, at(1));
        slots.unwant(7, at(2));
        assert_eq!(tick(&mut slots, 11), []);
        assert!(slots.is_heard(7));
        assert_eq!(tick(&mut slots, 12), [SlotOrder::Unlisten(7)]);
        assert!(!slots.is_heard(7));
    }

    #[test]
    fn what_was_asked_for_after_a_confirmation_began_is_not_confirmed_by_it() {
        let mut slots = slots(10, 5);
        slots.want(1, &mut Vec::new());
        let asked = slots.unconfirmed().unwrap();
        slots.want(2, &mut Vec::new());
        slots.confirmed(&asked, false, at(0));
        assert!(slots.is_heard(1) && !slots.is_heard(2));
    }

    #[test]
    fn above_the_limit_it_changes_to_all_and_below_it_back_and_every_letter_counts_once() {
        let mut slots = slots(3, 2);
        for slot in 0..4 {
            slots.want(slot, &mut Vec::new());
        }
        confirm(&mut slots, 0);
        assert!(slots.counts((1, 0), false) && !slots.counts((1, 0), true));
        assert_eq!(tick(&mut slots, 1), [SlotOrder::ListenAll]);

        // asked for, not confirmed: the old mode only
        assert!(slots.counts((2, 0), false) && !slots.counts((2, 0), true));
        assert_eq!(tick(&mut slots, 2), []);
        confirm(&mut slots, 2);
        // settling: the old mode only, and it is noted what came
        assert!(!slots.counts((3, 0), true) && slots.counts((3, 0), false));
        assert_eq!(tick(&mut slots, 3), []);
        // both: whichever comes first
        assert!(!slots.counts((3, 0), true), "it came the old mode, a second ago");
        assert!(slots.counts((4, 0), true) && !slots.counts((4, 0), false));
        assert!(slots.counts((5, 0), false) && !slots.counts((5, 0), true));
        assert!((0..3).all(|piece| slots.counts((15, piece), piece == 1)), "each fragment of a message counts");
        assert!((0..3).all(|piece| !slots.counts((15, piece), piece != 1)), "once");
        let all = (0..4).map(SlotOrder::Unlisten).collect::<Vec<_>>();
        assert_eq!(tick(&mut slots, 6), all);
        // trailing: it came the old mode just now
        assert!(!slots.counts((5, 0), true) && slots.counts((16, 0), true));
        assert_eq!(tick(&mut slots, 7), []);
        assert!(slots.counts((6, 0), true) && !slots.counts((6, 0), false));

        // new slots cost nothing now
        let mut orders = Vec::new();
        assert!(slots.want(9, &mut orders) && orders.is_empty());
        for slot in [0, 1, 2, 9] {
            slots.unwant(slot, at(6));
        }
        assert_eq!(tick(&mut slots, 16), [SlotOrder::Listen(3)]);
        assert!(slots.is_heard(3), "still heard the old mode");
        confirm(&mut slots, 16);
        assert_eq!(tick(&mut slots, 17), []);
        assert!(slots.counts((7, 0), false) && !slots.counts((7, 0), true));
        // what is new now must be confirmed before it is all there is
        assert!(!slots.want(8, &mut orders) && orders == [SlotOrder::Listen(8)]);
        assert!(!slots.is_heard(8) && slots.is_heard(3));
        confirm(&mut slots, 17);
        assert!(slots.is_heard(8));
        assert_eq!(tick(&mut slots, 20), [SlotOrder::UnlistenAll]);
        assert!(!slots.counts((7, 0), true) && slots.counts((8, 0), false) && !slots.counts((8, 0), false));
        assert_eq!(tick(&mut slots, 21), []);
        assert!(slots.counts((9, 0), false) && !slots.counts((9, 0), true));
        assert!(slots.is_heard(3));
    }

    #[test]
    fn channels_spread_over_slots() {
        let key = |n: u32| ChannelKey { app: "app".parse().unwrap(), name: format!("c{n}").parse().unwrap() };
        let used: HashSet<_> = (0..10_000).map(|n| slot_of(&key(n))).collect();
        assert!(used.len() > 9_000, "{}", used.len());
        let other = ChannelKey { app: "other".parse().unwrap(), ..key(1) };
        assert_ne!(slot_of(&other), slot_of(&key(1)));
    }
}
