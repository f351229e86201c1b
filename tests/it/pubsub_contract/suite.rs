//! The promises, one function each.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use bytes::Bytes;
use wellhead::bus::pubsub::Subject::{self, EverySlot, EveryUserSlot, Everyone, Slot, UserSlot};
use wellhead_proto::{bus::BusError, ids::NodeId};

use super::{PubSubCarrier, node::PubSubNode};
use crate::support::within;

const MEBIBYTE: usize = 1 << 20;

async fn pair<C: PubSubCarrier>() -> (C, PubSubNode, PubSubNode) {
    let mut carrier = C::started();
    let one = carrier.node().up().await;
    let other = carrier.node().up().await;
    (carrier, one, other)
}

pub async fn what_is_sent_to_a_subject_arrives_in_order<C: PubSubCarrier>() {
    let (_carrier, ann, bob) = pair::<C>().await;
    let subjects = [Slot(1), Slot(65_535), Everyone, Subject::Node(NodeId::from_random(7))];
    let bob = bob.listens(&subjects).await;
    for number in 0..2_000_u32 {
        for subject in subjects {
            ann.send(subject, number.to_string()).await;
        }
    }
    let mut last = HashMap::new();
    for _ in 0..2_000 * subjects.len() {
        let (subject, message) = bob.handler.next().await;
        let next = last.entry(subject).or_insert(0);
        assert_eq!(message, next.to_string(), "on {subject}");
        *next += 1;
    }
    assert!(subjects.iter().all(|subject| last[subject] == 2_000));
}

pub async fn a_burst_is_not_too_much_for_a_reader_that_reads<C: PubSubCarrier>() {
    let (_carrier, ann, bob) = pair::<C>().await;
    let bob = bob.listens(&[EverySlot]).await;
    const BURST: u32 = 200_000;
    for number in 0..BURST {
        ann.pubsub.send(Slot(number as u16), number.to_be_bytes().repeat(64).into()).await.unwrap();
    }
    for number in 0..BURST {
        let (_, message) = bob.handler.next().await;
        assert_eq!(message[..4], number.to_be_bytes());
    }
    assert_eq!(bob.handler.gaps(), 0);
}

pub async fn a_node_hears_itself_and_listening_twice_is_once<C: PubSubCarrier>() {
    let (_carrier, ann, _bob) = pair::<C>().await;
    let ann = ann.listens(&[Slot(4), Slot(4)]).await.listens(&[Slot(4)]).await;
    ann.send(Slot(4), "a").await;
    ann.send(Slot(4), "b").await;
    ann.hears(Slot(4), "a").await;
    ann.hears(Slot(4), "b").await;
}

pub async fn what_is_not_listened_to_is_not_heard<C: PubSubCarrier>() {
    let (_carrier, ann, bob) = pair::<C>().await;
    let bob = bob.listens(&[Slot(1), Slot(2)]).await;
    ann.send(Slot(3), "not listened to").await;
    ann.send(Everyone, "not listened to").await;
    ann.send(Slot(1), "first").await;
    bob.hears(Slot(1), "first").await;
    bob.pubsub.unlisten(Slot(1));
    bob.pubsub.confirm().await.unwrap();
    ann.send(Slot(1), "unlistened").await;
    ann.pubsub.confirm().await.unwrap();
    let bob = bob.listens(&[Slot(1)]).await;
    ann.send(Slot(1), "second").await;
    bob.hears(Slot(1), "second").await;
    // in one breath, and heard once
    bob.pubsub.unlisten(Slot(2));
    let bob = bob.listens(&[Slot(2)]).await;
    ann.send(Slot(2), "third").await;
    ann.send(Slot(2), "fourth").await;
    bob.hears(Slot(2), "third").await;
    bob.hears(Slot(2), "fourth").await;
}

pub async fn after_a_confirmation_no_later_message_is_missed<C: PubSubCarrier>() {
    let (_carrier, ann, bob) = pair::<C>().await;
    for slot in 0..1_000 {
        bob.pubsub.listen(Slot(slot));
        bob.pubsub.confirm().await.unwrap();
        ann.send(Slot(slot), slot.to_string()).await;
    }
    let mut missing: Vec<u16> = (0..1_000).collect();
    while !missing.is_empty() {
        let (subject, message) = bob.handler.next().await;
        missing.retain(|slot| subject != Slot(*slot) || message != slot.to_string());
    }
}

pub async fn all_who_wait_are_confirmed<C: PubSubCarrier>() {
    let (_carrier, ann, _bob) = pair::<C>().await;
    let waiting: Vec<_> = (0..500)
        .map(|slot| {
            let pubsub = ann.pubsub.clone();
            tokio::spawn(async move {
                pubsub.listen(Slot(slot));
                pubsub.confirm().await
            })
        })
        .collect();
    for confirmed in waiting {
        within("a confirmation", confirmed).await.unwrap().unwrap();
    }
}

pub async fn every_slot_is_heard_at_once<C: PubSubCarrier>() {
    let (_carrier, ann, bob) = pair::<C>().await;
    let bob = bob.listens(&[EverySlot, Everyone]).await;
    for slot in [0, 1, 40_000, 65_535] {
        // those of users are others
        ann.send(UserSlot(slot), "to a user").await;
        ann.send(Slot(slot), slot.to_string()).await;
        bob.hears(EverySlot, &slot.to_string()).await;
    }
    let bob = bob.listens(&[EveryUserSlot, UserSlot(7)]).await;
    ann.send(UserSlot(8), "user").await;
    bob.hears(EveryUserSlot, "user").await;
    bob.pubsub.unlisten(EveryUserSlot);
    bob.pubsub.confirm().await.unwrap();
    ann.send(UserSlot(8), "unlistened").await;
    ann.send(UserSlot(7), "one user").await;
    bob.hears(UserSlot(7), "one user").await;
    ann.send(Subject::Node(NodeId::from_random(1)), "to a node").await;
    ann.send(Everyone, "to everyone").await;
    bob.hears(Everyone, "to everyone").await;
    // while a node changes from one to the other it hears both, each as what it is
    let bob = bob.listens(&[Slot(1)]).await;
    ann.send(Slot(1), "twice").await;
    let mut heard = [bob.handler.next().await, bob.handler.next().await];
    heard.sort();
    assert_eq!(heard, [(Slot(1), "twice".into()), (EverySlot, "twice".into())]);
    bob.pubsub.unlisten(EverySlot);
    bob.pubsub.confirm().await.unwrap();
    ann.send(Slot(2), "unlistened").await;
    ann.send(Slot(1), "once").await;
    bob.hears(Slot(1), "once").await;
}

pub async fn a_message_of_a_mebibyte_arrives_and_a_larger_one_than_allowed_is_refused<C: PubSubCarrier>() {
    let (_carrier, ann, bob) = pair::<C>().await;
    let bob = bob.listens(&[Slot(1)]).await;
    let limit = ann.pubsub.max_message().expect("both have a limit");
    assert!(limit >= MEBIBYTE);
    for byte in 0..20 {
        ann.pubsub.send(Slot(1), vec![byte; MEBIBYTE].into()).await.unwrap();
    }
    ann.pubsub.send(Slot(1), vec![20; limit].into()).await.unwrap();
    assert_eq!(ann.pubsub.send(Slot(1), vec![0; limit + 1].into()).await, Err(BusError::TooLarge { limit }));
    ann.send(Slot(1), "").await;
    for byte in 0..=20 {
        let (_, message) = bob.handler.next().await;
        assert_eq!(message.len(), if byte == 20 { limit } else { MEBIBYTE });
        assert!(message.iter().all(|is| *is == byte), "message {byte}");
    }
    bob.hears(Slot(1), "").await;
}

pub async fn who_closes_sends_what_is_queued<C: PubSubCarrier>() {
    let (_carrier, ann, bob) = pair::<C>().await;
    let bob = bob.listens(&[Slot(1)]).await;
    for number in 0..500 {
        ann.send(Slot(1), number.to_string()).await;
    }
    within("the end", ann.pubsub.close()).await;
    ann.is(false).await;
    ann.takes_nothing().await;
    for number in 0..500 {
        bob.hears(Slot(1), &number.to_string()).await;
    }
}

pub async fn a_reader_without_room_loses_but_is_told_and_nobody_else_loses<C: PubSubCarrier>() {
    let (mut carrier, ann, bob) = pair::<C>().await;
    let cat = carrier.node().up().await.listens(&[Slot(1)]).await;
    let bob = bob.listens(&[Slot(1)]).await;
    bob.handler.set_room(false);
    let message = Bytes::from(vec![b'x'; MEBIBYTE / 2]);
    let messages = C::FLOOD / message.len();
    for _ in 0..messages {
        ann.pubsub.send(Slot(1), message.clone()).await.unwrap();
        // the publisher is no faster than a reader that reads
        assert_eq!(cat.handler.next().await.1, message);
    }
    // it is still one of us: what it says is heard
    if !C::CUTS_OFF {
        bob.send(Slot(1), "I am slow").await;
        cat.hears(Slot(1), "I am slow").await;
    }
    assert!(bob.handler.so_far().await.is_empty());
    assert_eq!(bob.handler.gaps(), 0, "who has no room is told nothing");

    bob.handler.set_room(true);
    bob.has_gaps(1).await;
    if C::CUTS_OFF {
        bob.is(true).await;
    }
    within("bob hears again", async {
        loop {
            ann.send(Slot(1), "are you there?").await;
            cat.hears(Slot(1), "are you there?").await;
            let heard = bob.handler.so_far().await;
            assert!(heard.len() < messages);
            if heard.iter().any(|(_, message)| message == "are you there?") {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(bob.metric("bus_gaps_total"), 1.0);
    assert_eq!((bob.handler.gaps(), cat.handler.gaps(), ann.handler.gaps()), (1, 0, 0));
}

pub async fn nodes_wait_for_their_server<C: PubSubCarrier>() {
    let mut carrier = C::prepared();
    let ann = carrier.node();
    let bob = carrier.node();
    bob.pubsub.listen(Slot(1));
    ann.takes_nothing().await;
    assert!(!*ann.pubsub.state().borrow());
    carrier.start();
    ann.is(true).await;
    bob.is(true).await;
    ann.send(Slot(1), "there at last").await;
    bob.hears(Slot(1), "there at last").await;
}

pub async fn after_a_restart_everything_is_listened_to_and_nothing_stale_comes<C: PubSubCarrier>() {
    let (mut carrier, ann, bob) = pair::<C>().await;
    let bob = bob.listens(&[Slot(1), Slot(2), EverySlot]).await;
    ann.send(Everyone, "nobody listens").await;
    ann.pubsub.confirm().await.unwrap();
    for round in 0..3_u8 {
        bob.pubsub.listen(Everyone);
        carrier.stop();
        ann.is(false).await;
        bob.is(false).await;
        ann.takes_nothing().await;
        assert_eq!(ann.metric("bus_up"), 0.0);
        bob.pubsub.listen(Slot(3));
        bob.pubsub.unlisten(Slot(2));
        bob.pubsub.unlisten(EverySlot);
        carrier.start();
        ann.is(true).await;
        bob.is(true).await;
        ann.pubsub.confirm().await.unwrap();
        ann.send(Slot(2), "unlistened").await;
        assert_eq!(ann.metric("bus_up"), 1.0);
        assert_eq!(ann.metric("bus_reconnects_total"), f64::from(round + 1));
        assert_eq!(bob.metric("bus_subscriptions"), 3.0);
        for subject in [Slot(1), Slot(3), Everyone] {
            ann.send(subject, round.to_string()).await;
            bob.hears(subject, &round.to_string()).await;
        }
    }
}

/// Of a message: when it was sent, and of the moment it is heard.
const BEFORE: u8 = 0;
const WITHOUT: u8 = 1;
const AFTER: u8 = 2;

pub async fn nothing_that_was_taken_before_a_restart_comes_after_it<C: PubSubCarrier>() {
    let (mut carrier, ann, bob) = pair::<C>().await;
    let bob = bob.listens(&[Slot(1)]).await;
    let phase = Arc::new(AtomicU8::new(BEFORE));
    let hammering = tokio::spawn({
        let (pubsub, phase) = (ann.pubsub.clone(), phase.clone());
        async move {
            let mut taken = [0; 3];
            while taken[usize::from(AFTER)] < 100 {
                let sent_in = phase.load(Ordering::SeqCst);
                if pubsub.send(Slot(1), vec![sent_in; 1_000].into()).await.is_ok() {
                    taken[usize::from(sent_in)] += 1;
                }
                // with one thread, so that others have a turn
                tokio::task::yield_now().await;
            }
            taken
        }
    });
    for _ in 0..200 {
        bob.handler.next().await;
    }
    carrier.stop();
    phase.store(WITHOUT, Ordering::SeqCst);
    ann.is(false).await;
    bob.is(false).await;
    // what came over the transport before is not stale, if it was not heard yet
    bob.has_heard_all().await;
    bob.handler.so_far().await;
    phase.store(AFTER, Ordering::SeqCst);
    carrier.start();
    let taken = within("a hundred after the restart", hammering).await.unwrap();
    assert!(taken[usize::from(BEFORE)] >= 200);
    // bob may have come back later than ann; what he hears was sent after the restart
    bob.is(true).await;
    ann.send(Slot(1), "end").await;
    loop {
        let (_, message) = bob.handler.next().await;
        if message == "end" {
            return;
        }
        assert_eq!(message[0], AFTER, "stale");
    }
}
