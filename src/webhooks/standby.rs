//! What other slaves decided lately, for which this one stands by: if one of them dies, what it may not have sent is told here.
//! So an event that was decided in the last seconds of a slave is told, and perhaps twice. Pure.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use wellhead_proto::{
    dialect::pusher::webhook::WebhookEvent,
    ids::{ChannelKey, NodeId, UserId},
};

/// How long a decision is remembered: until the death of its slave is noticed, and what may be taken back has been told.
const SPAN: Duration = Duration::from_secs(15);

/// Decisions that are remembered at most.
const MOST: usize = 65_536;

/// The last decision about each channel and member.
#[derive(Default)]
pub(super) struct StandbyLog {
    decided: HashMap<DecidedKey, DecidedElsewhere>,
    order: VecDeque<(Duration, u64, DecidedKey)>,
    next: u64,
}

type DecidedKey = (ChannelKey, Option<UserId>);

struct DecidedElsewhere {
    by: NodeId,
    number: u64,
    event: WebhookEvent,
}

/// What an event decides about; `None`: nothing that another could decide.
fn key(event: &WebhookEvent) -> Option<DecidedKey> {
    match event {
        WebhookEvent::ChannelOccupied(channel) | WebhookEvent::ChannelVacated(channel) => Some((channel.clone(), None)),
        WebhookEvent::MemberAdded(channel, user) | WebhookEvent::MemberRemoved(channel, user) => {
            Some((channel.clone(), Some(user.clone())))
        }
        WebhookEvent::ClientEvent(..) | WebhookEvent::SubscriptionCount(..) => None,
    }
}

impl StandbyLog {
    /// The slave `by` decided `event`.
    pub(super) fn note(&mut self, by: NodeId, event: WebhookEvent, now: Duration) {
        let Some(key) = key(&event) else { return };
        self.next += 1;
        self.decided.insert(key.clone(), DecidedElsewhere { by, number: self.next, event });
        self.order.push_back((now, self.next, key));
        while self.order.len() > MOST || self.order.front().is_some_and(|(at, ..)| *at + SPAN < now) {
            self.forget_oldest();
        }
    }

    /// This slave decides something itself: what is to be told before it, if the one that decided last is not among `slaves`.
    pub(super) fn overtaken(&mut self, event: &WebhookEvent, slaves: &[NodeId], now: Duration) -> Option<WebhookEvent> {
        if self.decided.is_empty() {
            return None;
        }
        self.forget_old(now);
        let last = self.decided.remove(&key(event)?)?;
        (!slaves.contains(&last.by)).then_some(last.event)
    }

    /// The slave `by` tells itself what it decided.
    pub(super) fn forget(&mut self, by: NodeId) {
        self.decided.retain(|_, decided| decided.by != by);
    }

    /// Only `slaves` are alive: what the others decided last, in that order.
    pub(super) fn of_the_dead(&mut self, slaves: &[NodeId], now: Duration) -> Vec<WebhookEvent> {
        self.forget_old(now);
        let mut dead: Vec<_> =
            self.decided.extract_if(|_, decided| !slaves.contains(&decided.by)).map(|(_, decided)| decided).collect();
        dead.sort_by_key(|decided| decided.number);
        dead.into_iter().map(|decided| decided.event).collect()
    }

    fn forget_old(&mut self, now: Duration) {
        while self.order.front().is_some_and(|(at, ..)| *at + SPAN < now) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, number, key)) = self.order.pop_front()
            && self.decided.get(&key).is_some_and(|decided| decided.number == number)
        {
            self.decided.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(name: &str) -> ChannelKey {
        ChannelKey { app: "app".parse().unwrap(), name: name.parse().unwrap() }
    }

    fn occupied(name: &str) -> WebhookEvent {
        WebhookEvent::ChannelOccupied(channel(name))
    }

    fn vacated(name: &str) -> WebhookEvent {
        WebhookEvent::ChannelVacated(channel(name))
    }

    fn node(number: u32) -> NodeId {
        NodeId::from_random(number)
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_a_slave_decided_shortly_before_its_death_is_told_once_in_order() {
        let mut log = StandbyLog::default();
        log.note(node(1), occupied("old"), at(0));
        log.note(node(1), occupied("b"), at(10));
        log.note(node(1), occupied("a"), at(10));
        log.note(node(2), occupied("c"), at(10));
        log.note(node(1), vacated("a"), at(11));
        assert_eq!(log.of_the_dead(&[node(1), node(2)], at(16)), []);
        assert_eq!(log.of_the_dead(&[node(2)], at(16)), [occupied("b"), vacated("a")]);
        assert_eq!(log.of_the_dead(&[node(2)], at(16)), []);
    }

    #[test]
    fn who_goes_in_order_tells_it_itself() {
        let mut log = StandbyLog::default();
        log.note(node(1), occupied("a"), at(0));
        log.note(node(2), occupied("b"), at(0));
        log.forget(node(1));
        assert_eq!(log.of_the_dead(&[], at(1)), [occupied("b")]);
    }

    #[test]
    fn a_decision_of_this_slave_comes_behind_the_last_of_a_dead_one_and_instead_of_a_live_ones() {
        let mut log = StandbyLog::default();
        log.note(node(1), occupied("a"), at(0));
        log.note(node(2), occupied("b"), at(0));
        assert_eq!(log.overtaken(&vacated("a"), &[node(2)], at(1)), Some(occupied("a")));
        assert_eq!(log.overtaken(&vacated("b"), &[node(2)], at(1)), None);
        assert_eq!(log.of_the_dead(&[], at(1)), []);
    }

    #[test]
    fn it_is_bounded() {
        let mut log = StandbyLog::default();
        (0..MOST + 10).for_each(|number| log.note(node(1), occupied(&number.to_string()), at(0)));
        assert_eq!((log.decided.len(), log.order.len()), (MOST, MOST));
        log.note(node(1), occupied("a"), at(99));
        assert_eq!((log.decided.len(), log.order.len()), (1, 1));
    }
}
