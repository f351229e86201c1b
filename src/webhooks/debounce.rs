//! What may be taken back: that a channel is vacated, or a member gone, is told after a while, and not at all if somebody came
//! back meanwhile. Pure.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use wellhead_proto::{
    dialect::pusher::webhook::WebhookEvent,
    ids::{ChannelKey, UserId},
};

/// How long it may be taken back.
pub(super) const SPAN: Duration = Duration::from_secs(3);

/// Events that wait at most. Beyond it the oldest are told early.
const MOST: usize = 65_536;

/// Events that may be taken back. Times are spans since any fixed moment.
pub(super) struct Debouncer {
    span: Duration,
    most: usize,
    /// What has left, each with the number of its place in the order.
    gone: HashMap<Leaver, u64>,
    /// All spans are equally long, so that the first to begin is the first to end. What came back has left a place behind.
    order: VecDeque<WaitingEvent>,
    /// The number of the next place.
    next: u64,
}

/// Who may come back: a channel's subscribers, or a member.
type Leaver = (ChannelKey, Option<UserId>);

struct WaitingEvent {
    until: Duration,
    number: u64,
    leaver: Leaver,
}

impl WaitingEvent {
    fn into_event(self) -> WebhookEvent {
        match self.leaver {
            (channel, None) => WebhookEvent::ChannelVacated(channel),
            (channel, Some(user)) => WebhookEvent::MemberRemoved(channel, user),
        }
    }
}

impl Default for Debouncer {
    fn default() -> Self {
        Self { span: SPAN, most: MOST, gone: HashMap::new(), order: VecDeque::new(), next: 0 }
    }
}

impl Debouncer {
    /// `event` happened `now`: what is to be told because of that.
    pub(super) fn take(&mut self, event: WebhookEvent, now: Duration) -> Vec<WebhookEvent> {
        match event {
            WebhookEvent::ChannelVacated(channel) => self.wait((channel, None), now),
            WebhookEvent::MemberRemoved(channel, user) => self.wait((channel, Some(user)), now),
            WebhookEvent::ChannelOccupied(ref channel) if self.came_back(&(channel.clone(), None)) => Vec::new(),
            WebhookEvent::MemberAdded(ref channel, ref user)
                if self.came_back(&(channel.clone(), Some(user.clone()))) =>
            {
                Vec::new()
            }
            event => vec![event],
        }
    }

    /// Those whose time is over.
    pub(super) fn due(&mut self, now: Duration) -> Vec<WebhookEvent> {
        let mut due = Vec::new();
        while self.order.front().is_some_and(|first| first.until <= now) {
            due.extend(self.pop());
        }
        due
    }

    /// When to look again.
    pub(super) fn next(&self) -> Option<Duration> {
        self.order.front().map(|first| first.until)
    }

    /// Those that `is_over` says of that nobody could take them back any more.
    pub(super) fn give_out(&mut self, is_over: impl Fn(&ChannelKey) -> bool) -> Vec<WebhookEvent> {
        let (mut out, mut left) = (Vec::new(), VecDeque::new());
        for waiting in std::mem::take(&mut self.order) {
            if self.gone.get(&waiting.leaver) != Some(&waiting.number) {
                continue;
            }
            if is_over(&waiting.leaver.0) {
                self.gone.remove(&waiting.leaver);
                out.push(waiting.into_event());
            } else {
                left.push_back(waiting);
            }
        }
        self.order = left;
        out
    }

    fn wait(&mut self, leaver: Leaver, now: Duration) -> Vec<WebhookEvent> {
        let number = self.next;
        self.next += 1;
        self.gone.insert(leaver.clone(), number);
        self.order.push_back(WaitingEvent { until: now + self.span, number, leaver });
        if self.order.len() > self.most { self.pop().into_iter().collect() } else { Vec::new() }
    }

    fn came_back(&mut self, leaver: &Leaver) -> bool {
        self.gone.remove(leaver).is_some()
    }

    /// The first, unless it came back.
    fn pop(&mut self) -> Option<WebhookEvent> {
        let first = self.order.pop_front()?;
        if self.gone.get(&first.leaver) != Some(&first.number) {
            return None;
        }
        self.gone.remove(&first.leaver);
        Some(first.into_event())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(name: &str) -> ChannelKey {
        ChannelKey { app: "app".parse().unwrap(), name: name.parse().unwrap() }
    }

    fn vacated(name: &str) -> WebhookEvent {
        WebhookEvent::ChannelVacated(channel(name))
    }

    fn occupied(name: &str) -> WebhookEvent {
        WebhookEvent::ChannelOccupied(channel(name))
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_taken_back_in_time_is_told_neither_way() {
        let mut debouncer = Debouncer::default();
        assert_eq!(debouncer.take(occupied("a"), at(0)), [occupied("a")]);
        assert_eq!(debouncer.take(vacated("a"), at(1)), []);
        assert_eq!(debouncer.take(vacated("b"), at(2)), []);
        assert_eq!(debouncer.take(occupied("a"), at(3)), []);
        assert_eq!(debouncer.due(at(4)), []);
        assert_eq!(debouncer.due(at(5)), [vacated("b")]);
        // later it is news again
        assert_eq!(debouncer.take(occupied("b"), at(6)), [occupied("b")]);
        assert_eq!((debouncer.next(), debouncer.due(at(99))), (None, vec![]));
    }

    #[test]
    fn the_last_to_leave_counts() {
        let mut debouncer = Debouncer::default();
        for (second, event) in [(0, vacated("a")), (1, occupied("a")), (2, vacated("a"))] {
            assert_eq!(debouncer.take(event, at(second)), []);
        }
        assert_eq!((debouncer.due(at(4)), debouncer.due(at(5))), (vec![], vec![vacated("a")]));
    }

    #[test]
    fn members_come_back_each_for_itself() {
        let mut debouncer = Debouncer::default();
        let user = |user: &str| user.parse::<UserId>().unwrap();
        let removed = |name: &str| WebhookEvent::MemberRemoved(channel("presence-a"), user(name));
        let added = |name: &str| WebhookEvent::MemberAdded(channel("presence-a"), user(name));
        for event in [removed("ann"), removed("bob"), vacated("presence-a"), added("ann")] {
            assert_eq!(debouncer.take(event, at(0)), []);
        }
        assert_eq!(debouncer.take(added("eve"), at(1)), [added("eve")]);
        assert_eq!(debouncer.due(at(3)), [removed("bob"), vacated("presence-a")]);
    }

    #[test]
    fn who_is_no_longer_asked_tells_what_waits_at_once() {
        let mut debouncer = Debouncer::default();
        for name in ["a", "b", "c"] {
            debouncer.take(vacated(name), at(0));
        }
        debouncer.take(occupied("b"), at(0));
        let moved = |key: &ChannelKey| key.name.as_str() != "c";
        assert_eq!(debouncer.give_out(moved), [vacated("a")]);
        assert_eq!((debouncer.give_out(moved), debouncer.due(at(3))), (vec![], vec![vacated("c")]));
    }

    #[test]
    fn beyond_its_bound_the_oldest_are_told_early() {
        let mut debouncer = Debouncer { most: 2, ..Debouncer::default() };
        let told: Vec<_> =
            ["a", "b", "c", "d"].into_iter().flat_map(|name| debouncer.take(vacated(name), at(0))).collect();
        assert_eq!(told, [vacated("a"), vacated("b")]);
        assert_eq!(debouncer.due(at(3)), [vacated("c"), vacated("d")]);
    }
}
