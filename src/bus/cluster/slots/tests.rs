use wellhead_proto::testkit::Golden;

use super::*;

/// Two nodes with other slots for a channel do not hear each other's pushes.
#[test]
fn every_channel_and_user_has_the_slot_that_it_always_had() {
    let mut golden = Golden::new("node_messages/slots.txt");
    for (app, name) in [("app", "news"), ("shop", "news"), ("shop", ""), ("a", "bc"), ("ab", "c"), ("a", "中文")] {
        let channel = ChannelKey { app: app.parse().unwrap(), name: name.parse().unwrap() };
        golden.case(&format!("{name:?} of {app:?}"), slot_of(&channel).to_string());
    }
    for (app, user) in [("app", "ann"), ("shop", "ann"), ("a", "中文")] {
        let slot = slot_of_user(&app.parse().unwrap(), &user.parse().unwrap());
        golden.case(&format!("user {user:?} of {app:?}"), slot.to_string());
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

/// Counted by the buckets of the table, of which it has a power of two, seven eighths of them in use at most.
#[test]
fn a_distinct_user_takes_at_most_24_bytes() {
    for users in [1_000, 1_800, 7_200, 10_000, 14_400, 17_000, 100_000] {
        let mut slots = Slots::default();
        let app = "app".parse().unwrap();
        for user in 0..users {
            slots.want(slot_of_user(&app, &format!("user-{user}").parse().unwrap()), &mut Vec::new());
        }
        confirm(&mut slots, 0);
        let buckets = (slots.slots.capacity() * 8).div_ceil(7).next_power_of_two();
        let bytes = buckets * (size_of::<(u16, Slot)>() + 1);
        assert!(bytes <= 24 * users, "{bytes} bytes for {users} users");
        assert!(slots.unconfirmed.is_empty());
    }
}

#[test]
fn nothing_stays_of_a_crowd() {
    let mut slots = slots(100_000, 50_000);
    for slot in 0..20_000 {
        slots.want(slot, &mut Vec::new());
    }
    for slot in 0..20_000 {
        slots.unwant(slot, at(1));
    }
    assert_eq!(tick(&mut slots, 11).len(), 20_000);
    assert!(slots.slots.capacity() <= 64 && slots.len() == 0 && slots.unconfirmed().is_none());
}

#[test]
fn a_slot_is_wanted_as_often_as_it_was_asked_for() {
    let mut slots = slots(10, 5);
    // the clock of idle slots comes round
    let late = u64::from(u16::MAX) - 3;
    for _ in 0..70_000 {
        slots.want(7, &mut Vec::new());
    }
    for _ in 0..69_999 {
        slots.unwant(7, at(late));
    }
    assert_eq!(tick(&mut slots, late + 60), []);
    slots.unwant(7, at(late));
    assert_eq!(tick(&mut slots, late + 9), []);
    slots.unwant(7, at(late));
    assert!(!slots.is_wanted(7), "once too often is harmless");
    assert_eq!(tick(&mut slots, late + 10), [SlotOrder::Unlisten(7)]);
}

/// If each round looked at all slots, many slots in a row would take a time that grows with their square.
#[test]
fn a_round_looks_at_what_it_confirms_and_at_nothing_else() {
    let mut slots = slots(100_000, 50_000);
    let mut looked_at = 0;
    for slot in 0..20_000 {
        slots.want(slot, &mut Vec::new());
        if slot < 10_000 && slot != 9_999 {
            continue;
        }
        looked_at += slots.unconfirmed.capacity();
        confirm(&mut slots, 0);
    }
    assert!(looked_at < 20_000 + 10_000 * 64, "{looked_at}");
}

#[test]
fn with_the_wildcard_a_new_slot_needs_no_confirmation() {
    let mut slots = slots(3, 2);
    (0..4).for_each(|slot| assert!(!slots.want(slot, &mut Vec::new())));
    for second in 1..=7 {
        tick(&mut slots, second);
        confirm(&mut slots, second);
    }
    assert!(slots.want(9, &mut Vec::new()));
    assert_eq!(slots.unconfirmed(), None);
}
