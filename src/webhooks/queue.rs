//! What waits for one target, and what was given up for it. Pure.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use wellhead_proto::{
    dialect::pusher::webhook::WebhookEvent,
    query::{KeptWebhook, WebhookState},
};

/// Events of one request, and about how many bytes they may take.
const TOGETHER: usize = 100;
const TOGETHER_BYTES: usize = 256 << 10;
/// What may wait for a target. Beyond it the oldest are given up.
const MOST: usize = 10_000;
const MOST_BYTES: usize = 8 << 20;
/// What is kept of what was given up.
const KEPT: usize = 100;
const KEPT_BYTES: usize = 1 << 20;

/// The events of one request.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct WebhookBatch {
    pub(super) id: String,
    pub(super) events: Vec<WebhookEvent>,
    pub(super) made: Instant,
    bytes: usize,
    /// It was sent before: nothing joins it, since a backend may know its id.
    is_resent: bool,
}

impl WebhookBatch {
    /// May an event of `weight` bytes join it?
    fn takes(&self, weight: usize) -> bool {
        self.is_open() && self.bytes + weight <= TOGETHER_BYTES
    }

    /// Is its time over at `then`? What it waited behind others counts: a target that is back is not sent what happened hours
    /// ago.
    pub(super) fn is_over(&self, then: Instant, patience: Duration) -> bool {
        then.saturating_duration_since(self.made) > patience
    }

    fn is_open(&self) -> bool {
        !self.is_resent && self.events.len() < TOGETHER
    }
}

/// Why a request was given up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum GivenUp {
    /// The target did not answer 2xx for `webhooks.retry_for`; last of all it was this.
    Failed(String),
    /// More waited than may.
    Overflow,
    /// The target is no longer in the settings.
    Removed,
    /// The node went.
    ShutDown,
}

impl GivenUp {
    /// All of their names in metrics.
    pub(super) const LABELS: [&'static str; 4] = ["failed", "overflow", "removed", "shut_down"];

    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Failed(_) => "failed",
            Self::Overflow => "overflow",
            Self::Removed => "removed",
            Self::ShutDown => "shut_down",
        }
    }

    pub(super) fn words(&self) -> &str {
        match self {
            Self::Failed(error) => error,
            Self::Overflow => "too many events waited",
            Self::Removed => "the target is no longer in the settings",
            Self::ShutDown => "the node was shut down",
        }
    }
}

/// The queue of one target.
#[derive(Default)]
pub(super) struct TargetQueue {
    waiting: VecDeque<WebhookBatch>,
    /// What is being sent, and counts as waiting.
    under_way: Option<Arc<WebhookBatch>>,
    /// What waits, without what is being sent.
    events: usize,
    bytes: usize,
    /// Given up, oldest first.
    kept: VecDeque<KeptBatch>,
    kept_bytes: usize,
    /// When a request was last answered 2xx: milliseconds since 1970.
    pub(super) last_success: Option<u64>,
    /// The last failure, with the same time.
    pub(super) last_error: Option<(u64, String)>,
}

struct KeptBatch {
    batch: Arc<WebhookBatch>,
    given_up: u64,
    reason: String,
}

impl TargetQueue {
    /// One more event; `id` names a request if it begins one. What is given up for it.
    pub(super) fn push(&mut self, event: WebhookEvent, now: Instant, id: impl FnOnce() -> String) -> Vec<WebhookBatch> {
        let weight = event.weight();
        self.events += 1;
        self.bytes += weight;
        match self.waiting.back_mut() {
            Some(last) if last.takes(weight) => {
                last.events.push(event);
                last.bytes += weight;
            }
            _ => {
                let batch = WebhookBatch { id: id(), events: vec![event], made: now, bytes: weight, is_resent: false };
                self.waiting.push_back(batch);
            }
        }
        self.overflow()
    }

    /// What is beyond the bounds: the oldest, and never what came last.
    fn overflow(&mut self) -> Vec<WebhookBatch> {
        let mut dropped = Vec::new();
        while (self.events > MOST || self.bytes > MOST_BYTES) && self.waiting.len() > 1 {
            dropped.extend(self.pop());
        }
        dropped
    }

    /// Since when the next request waits, if more events may still join it.
    pub(super) fn open_since(&self) -> Option<Instant> {
        let first = self.waiting.front()?;
        (self.waiting.len() == 1 && first.is_open()).then_some(first.made)
    }

    /// The next request is to be sent. None: nothing waits.
    pub(super) fn take(&mut self) -> Option<Arc<WebhookBatch>> {
        self.under_way = self.pop().map(Arc::new);
        self.under_way.clone()
    }

    /// What was being sent is no longer.
    pub(super) fn done(&mut self) {
        self.under_way = None;
    }

    /// Nothing more can be sent: all that waits, and what is being sent.
    pub(super) fn clear(&mut self) -> Vec<Arc<WebhookBatch>> {
        let mut all: Vec<_> = self.under_way.take().into_iter().collect();
        while let Some(batch) = self.pop() {
            all.push(Arc::new(batch));
        }
        all
    }

    /// Keep what was given up, so that it may be sent again.
    pub(super) fn keep(&mut self, batch: Arc<WebhookBatch>, why: &GivenUp, now: u64) {
        self.kept_bytes += batch.bytes;
        self.kept.push_back(KeptBatch { batch, given_up: now, reason: why.words().to_owned() });
        while self.kept.len() > KEPT || self.kept_bytes > KEPT_BYTES {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.kept_bytes -= oldest.batch.bytes;
        }
    }

    /// Send a request again that is kept, behind what waits. `None`: it is not; else what is given up for it.
    pub(super) fn resend(&mut self, id: &str, now: Instant) -> Option<Vec<WebhookBatch>> {
        let at = self.kept.iter().position(|kept| kept.batch.id == id)?;
        let KeptBatch { batch, .. } = self.kept.remove(at)?;
        self.kept_bytes -= batch.bytes;
        let (events, bytes) = (batch.events.clone(), batch.bytes);
        self.events += events.len();
        self.bytes += bytes;
        self.waiting.push_back(WebhookBatch { id: batch.id.clone(), events, made: now, bytes, is_resent: true });
        Some(self.overflow())
    }

    /// Events that wait, with those that are being sent.
    pub(super) fn queued(&self) -> usize {
        self.events + self.under_way.as_ref().map_or(0, |batch| batch.events.len())
    }

    /// As a backend is shown it.
    pub(super) fn state(&self, target: String) -> WebhookState {
        let kept = self.kept.iter().map(|KeptBatch { batch, given_up, reason }| {
            let events = batch.events.len() as u64;
            (batch.id.clone(), KeptWebhook { events, given_up: *given_up, reason: reason.clone() })
        });
        WebhookState {
            target,
            queued_events: self.queued() as u64,
            queued_requests: (self.waiting.len() + usize::from(self.under_way.is_some())) as u64,
            last_success: self.last_success,
            last_error: self.last_error.clone(),
            kept: kept.collect::<BTreeMap<_, _>>(),
        }
    }

    fn pop(&mut self) -> Option<WebhookBatch> {
        let batch = self.waiting.pop_front()?;
        self.events -= batch.events.len();
        self.bytes -= batch.bytes;
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use wellhead_proto::{
        event::{Event, Payload},
        ids::{ChannelKey, NodeId, SocketId},
    };

    use super::*;

    fn event(data: usize) -> WebhookEvent {
        let channel = ChannelKey { app: "app".parse().unwrap(), name: "private-a".parse().unwrap() };
        let event = Event::new("client-x".parse().unwrap(), Payload::Text("x".repeat(data).into()));
        WebhookEvent::ClientEvent(channel, SocketId::new(NodeId::from_random(1), 1), event)
    }

    struct Filled {
        queue: TargetQueue,
        next: usize,
        dropped: Vec<String>,
    }

    impl Filled {
        fn new() -> Self {
            Self { queue: TargetQueue::default(), next: 0, dropped: Vec::new() }
        }

        fn push(&mut self, data: usize) {
            let next = &mut self.next;
            let id = || {
                *next += 1;
                next.to_string()
            };
            let dropped = self.queue.push(event(data), Instant::now(), id);
            self.dropped.extend(dropped.into_iter().map(|batch| batch.id));
        }

        fn taken(&mut self) -> Option<(String, usize)> {
            self.queue.take().map(|batch| (batch.id.clone(), batch.events.len()))
        }
    }

    #[test]
    fn the_time_of_a_request_begins_with_its_first_event_and_anew_when_it_is_sent_again() {
        let (mut filled, patience) = (Filled::new(), Duration::from_secs(300));
        filled.push(1);
        let batch = filled.queue.take().unwrap();
        assert!(!batch.is_over(batch.made + patience, patience));
        let later = batch.made + patience + Duration::from_millis(1);
        assert!(batch.is_over(later, patience));
        filled.queue.done();
        filled.queue.keep(batch, &GivenUp::Overflow, 0);
        assert_eq!(filled.queue.resend("1", later), Some(Vec::new()));
        assert!(!filled.queue.take().unwrap().is_over(later + patience, patience));
    }

    #[test]
    fn events_that_wait_together_travel_together_up_to_a_bound() {
        let mut filled = Filled::new();
        assert_eq!(filled.queue.open_since(), None);
        (0..TOGETHER - 1).for_each(|_| filled.push(1));
        assert!(filled.queue.open_since().is_some());
        filled.push(1);
        assert_eq!(filled.queue.open_since(), None);
        filled.push(TOGETHER_BYTES / 2);
        filled.push(TOGETHER_BYTES / 2);
        filled.push(1);
        assert_eq!(filled.queue.queued(), TOGETHER + 3);
        assert_eq!(filled.taken(), Some(("1".to_owned(), TOGETHER)));
        // what is under way counts, and takes nothing in
        filled.push(1);
        assert_eq!(filled.queue.queued(), TOGETHER + 4);
        filled.queue.done();
        assert_eq!(filled.taken(), Some(("2".to_owned(), 1)));
        filled.queue.done();
        assert_eq!(filled.taken(), Some(("3".to_owned(), 3)));
        filled.queue.done();
        assert_eq!((filled.taken(), filled.queue.queued()), (None, 0));
    }

    #[test]
    fn beyond_its_bounds_the_oldest_requests_are_given_up_and_what_is_under_way_is_not() {
        let mut filled = Filled::new();
        filled.push(1);
        filled.taken();
        (0..MOST + 1).for_each(|_| filled.push(1));
        assert_eq!(filled.dropped, ["2"]);
        assert_eq!(filled.queue.queued(), 1 + MOST + 1 - TOGETHER);
        let all: Vec<_> = filled.queue.clear().iter().map(|batch| batch.id.clone()).collect();
        assert_eq!((all.len(), &*all[0], &*all[1]), (1 + MOST / TOGETHER, "1", "3"));
        assert_eq!((filled.queue.queued(), filled.queue.bytes), (0, 0));

        let mut filled = Filled::new();
        (0..40).for_each(|_| filled.push(TOGETHER_BYTES));
        assert!(filled.queue.bytes <= MOST_BYTES && filled.dropped.len() == 9, "{:?}", filled.dropped);
    }

    #[test]
    fn the_last_that_were_given_up_are_kept_and_sent_again_once() {
        let mut filled = Filled::new();
        let give_up = |filled: &mut Filled, data: usize| {
            filled.push(data);
            let batch = filled.queue.take().unwrap();
            filled.queue.done();
            filled.queue.keep(batch, &GivenUp::Failed("answered 500".to_owned()), 7);
        };
        (0..KEPT + 2).for_each(|_| give_up(&mut filled, 1));
        let state = filled.queue.state("http://example.com:80".to_owned());
        assert_eq!((state.kept.len(), state.queued_events), (KEPT, 0));
        assert!(!state.kept.contains_key("2") && state.kept.contains_key("3"));
        assert_eq!(state.kept["3"], KeptWebhook { events: 1, given_up: 7, reason: "answered 500".to_owned() });

        assert_eq!(filled.queue.resend("2", Instant::now()), None);
        assert_eq!(filled.queue.resend("3", Instant::now()), Some(vec![]));
        assert_eq!(filled.queue.resend("3", Instant::now()), None);
        // a backend that has seen it, and drops what it has seen, loses nothing that happened later
        assert_eq!(filled.queue.open_since(), None);
        filled.push(1);
        assert_eq!(filled.taken(), Some(("3".to_owned(), 1)));
        filled.queue.done();
        assert_eq!(filled.taken(), Some((filled.next.to_string(), 1)));

        (0..5).for_each(|_| give_up(&mut filled, KEPT_BYTES / 4));
        assert_eq!(filled.queue.kept.len(), 3);
        assert_eq!(filled.queue.kept_bytes, filled.queue.kept.iter().map(|kept| kept.batch.bytes).sum::<usize>());
    }
}
