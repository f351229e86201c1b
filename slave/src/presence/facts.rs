//! What the coordinator decides, as one ordered stream of facts for several readers. Whoever decides never waits for a
//! reader: each has a bounded queue of its own, and one that is full loses its oldest facts, which are counted.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use wellhead_proto::ids::AppId;

use super::coordinator::Fact;
use crate::metrics::Metrics;

/// Facts that wait for one reader at most: when a slave dies, all its channels are vacated in one step.
pub const MOST: usize = 65_536;

/// What the payloads of those may take, in bytes: only events of clients have one.
const MOST_BYTES: usize = 16 << 20;

/// Room that a queue keeps when it has been emptied.
const KEPT: usize = 256;

/// Who reads facts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Consumer {
    /// Announces members to every slave.
    Announcer,
    /// Counts facts.
    Metrics,
    /// Writes them to the log.
    Log,
    /// Sends webhooks. It is read outside of the slave, if at all, and says which facts it wants ([`FactFilter`]).
    Webhooks,
}

impl Consumer {
    /// Those that every slave has.
    pub const ALL: [Self; 3] = [Self::Announcer, Self::Metrics, Self::Log];

    /// Its name in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Announcer => "announcer",
            Self::Metrics => "metrics",
            Self::Log => "log",
            Self::Webhooks => "webhooks",
        }
    }

    /// Does it want to know of `fact`?
    fn wants(self, fact: &Fact) -> bool {
        match self {
            Self::Announcer => matches!(fact, Fact::MemberAdded(..) | Fact::MemberRemoved(..)),
            Self::Metrics => is_decided_here(fact),
            Self::Log => is_decided_here(fact) && log::log_enabled!(log::Level::Debug),
            Self::Webhooks => true,
        }
    }
}

fn is_decided_here(fact: &Fact) -> bool {
    !matches!(fact, Fact::ClientEvent(..) | Fact::DecidedBy(..) | Fact::Leaving(_))
}

/// Which facts a reader wants of those that its kind is for.
pub trait FactFilter: Send + Sync {
    /// Does it want this one? Asked while facts are decided: it must not wait.
    fn wants(&self, fact: &Fact) -> bool;

    /// Might it want events that clients of `app` publish?
    fn wants_client_events(&self, app: &AppId) -> bool;
}

/// The end at which facts enter.
pub struct FactStream {
    queues: Mutex<Vec<Arc<FactQueue>>>,
    /// Facts that wait for one reader at most.
    most: usize,
    metrics: Metrics,
}

struct FactQueue {
    consumer: Consumer,
    filter: Option<Arc<dyn FactFilter>>,
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    facts: VecDeque<Fact>,
    /// What their payloads take.
    bytes: usize,
    /// So many were dropped since the reader last looked.
    lost: usize,
    /// No more will come.
    ended: bool,
}

impl Waiting {
    fn pop(&mut self) -> Option<Fact> {
        let fact = self.facts.pop_front()?;
        self.bytes -= payload(&fact);
        Some(fact)
    }
}

/// The bytes of its payload.
fn payload(fact: &Fact) -> usize {
    match fact {
        Fact::ClientEvent(_, _, event) => event.data.len(),
        _ => 0,
    }
}

impl FactQueue {
    fn wants(&self, fact: &Fact) -> bool {
        self.consumer.wants(fact) && self.filter.as_ref().is_none_or(|filter| filter.wants(fact))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FactStream {
    /// A stream that nobody reads yet, with room for `most` facts for each reader.
    pub fn new(most: usize, metrics: Metrics) -> Self {
        Self { queues: Mutex::default(), most, metrics }
    }

    /// Read what enters from now on.
    pub fn read(&self, consumer: Consumer) -> FactReader {
        self.read_some(consumer, None)
    }

    /// The same, of those that `filter` lets through.
    pub fn read_some(&self, consumer: Consumer, filter: Option<Arc<dyn FactFilter>>) -> FactReader {
        // shown from the start, so that a first loss shows as a rise
        self.metrics.facts_dropped(consumer.label(), 0);
        let queue = Arc::new(FactQueue { consumer, filter, waiting: Mutex::default(), changed: Notify::new() });
        self.lock().push(queue.clone());
        FactReader(queue)
    }

    /// These facts happened, in this order.
    pub fn publish(&self, facts: Vec<Fact>) {
        if facts.is_empty() {
            return;
        }
        let mut queues = self.lock();
        // a reader that has gone needs no queue
        queues.retain(|queue| Arc::strong_count(queue) > 1);
        for queue in queues.iter() {
            let wanted = facts.iter().filter(|fact| queue.wants(fact));
            let mut waiting = queue.lock();
            let before = waiting.facts.len();
            waiting.facts.extend(wanted.cloned());
            if waiting.facts.len() == before {
                continue;
            }
            waiting.bytes += waiting.facts.range(before..).map(payload).sum::<usize>();
            let mut lost = 0;
            while (waiting.facts.len() > self.most || waiting.bytes > MOST_BYTES) && waiting.pop().is_some() {
                lost += 1;
            }
            waiting.lost += lost;
            drop(waiting);
            if lost > 0 {
                self.metrics.facts_dropped(queue.consumer.label(), lost);
            }
            queue.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<FactQueue>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FactStream {
    fn drop(&mut self) {
        for queue in self.lock().iter() {
            queue.lock().ended = true;
            queue.changed.notify_one();
        }
    }
}

/// The end at which one reader takes them out.
pub struct FactReader(Arc<FactQueue>);

/// Some facts in a row.
#[derive(Debug, Eq, PartialEq)]
pub struct Batch {
    /// In the order in which they happened.
    pub facts: Vec<Fact>,
    /// So many before them were dropped, since the reader was too slow.
    pub lost: usize,
    /// Nothing waits behind them.
    pub is_last: bool,
}

impl FactReader {
    /// The next facts, `most` at a time; `None` once the stream has ended.
    pub async fn next(&self, most: usize) -> Option<Batch> {
        loop {
            {
                let mut waiting = self.0.lock();
                if !waiting.facts.is_empty() {
                    let some = most.min(waiting.facts.len());
                    let facts = (0..some).filter_map(|_| waiting.pop()).collect();
                    let lost = std::mem::take(&mut waiting.lost);
                    let is_last = waiting.facts.is_empty();
                    if is_last {
                        waiting.facts.shrink_to(KEPT);
                    }
                    return Some(Batch { facts, lost, is_last });
                }
                if waiting.ended {
                    return None;
                }
            }
            self.0.changed.notified().await;
        }
    }

    /// Will no more come than what waits?
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.0.lock().ended
    }
}

#[cfg(test)]
mod tests {
    use wellhead_proto::{
        event::{Event, Payload},
        ids::{ChannelKey, NodeId, SocketId},
        member::Member,
    };

    use super::*;

    fn channel(no: usize) -> ChannelKey {
        ChannelKey { app: "app".parse().unwrap(), name: no.to_string().parse().unwrap() }
    }

    fn added(no: usize) -> Fact {
        Fact::MemberAdded(channel(no), Member { user: "ann".parse().unwrap(), info: "{}".into() })
    }

    fn stream(most: usize) -> (FactStream, Metrics) {
        let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default());
        (FactStream::new(most, metrics.clone()), metrics)
    }

    #[tokio::test]
    async fn every_reader_gets_what_it_wants_in_order() {
        let (stream, _) = stream(10);
        let (announcer, metrics) = (stream.read(Consumer::Announcer), stream.read(Consumer::Metrics));
        stream.publish(vec![Fact::Occupied(channel(1)), added(1)]);
        stream.publish(vec![added(2)]);
        let all = Batch { facts: vec![added(1), added(2)], lost: 0, is_last: true };
        assert_eq!(announcer.next(9).await, Some(all));
        let first = Batch { facts: vec![Fact::Occupied(channel(1)), added(1)], lost: 0, is_last: false };
        assert_eq!(metrics.next(2).await, Some(first));
        drop(stream);
        assert!(metrics.has_ended());
        assert_eq!(metrics.next(2).await, Some(Batch { facts: vec![added(2)], lost: 0, is_last: true }));
        assert_eq!((metrics.next(2).await, announcer.next(2).await), (None, None));
    }

    #[tokio::test]
    async fn a_reader_that_is_too_slow_loses_its_oldest_facts_and_nobody_elses() {
        let (stream, metrics) = stream(3);
        let (slow, quick) = (stream.read(Consumer::Announcer), stream.read(Consumer::Metrics));
        for no in 0..5 {
            stream.publish(vec![added(no)]);
            assert_eq!(quick.next(9).await, Some(Batch { facts: vec![added(no)], lost: 0, is_last: true }));
        }
        let left = Batch { facts: vec![added(2), added(3), added(4)], lost: 2, is_last: true };
        assert_eq!(slow.next(9).await, Some(left));
        assert_eq!(Consumer::ALL.map(|consumer| metrics.dropped_facts(consumer.label())), [2, 0, 0]);
        stream.publish((5..12).map(added).collect());
        assert_eq!(slow.next(1).await, Some(Batch { facts: vec![added(9)], lost: 4, is_last: false }));
        assert_eq!(slow.next(9).await.map(|batch| batch.lost), Some(0));
    }

    #[tokio::test]
    async fn a_reader_gets_what_its_filter_lets_through_and_payloads_are_bounded_together() {
        struct Even;
        impl FactFilter for Even {
            fn wants(&self, fact: &Fact) -> bool {
                matches!(fact, Fact::ClientEvent(..)) || *fact == added(2) || *fact == added(4)
            }

            fn wants_client_events(&self, _: &AppId) -> bool {
                true
            }
        }
        let (stream, metrics) = stream(9);
        let (some, log) = (stream.read_some(Consumer::Webhooks, Some(Arc::new(Even))), stream.read(Consumer::Metrics));
        stream.publish((0..5).map(added).collect());
        assert_eq!(some.next(9).await.map(|batch| batch.facts), Some(vec![added(2), added(4)]));
        let said = |length| {
            let data = Payload::Text("x".repeat(length).into());
            let socket = SocketId::new(NodeId::from_random(1), 1);
            Fact::ClientEvent(channel(1), socket, Event::new("client-x".parse().unwrap(), data))
        };
        stream.publish(vec![said(MOST_BYTES / 2), said(MOST_BYTES / 2), said(1), added(2)]);
        let left = vec![said(MOST_BYTES / 2), said(1), added(2)];
        assert_eq!(some.next(9).await, Some(Batch { facts: left, lost: 1, is_last: true }));
        assert_eq!(metrics.dropped_facts("webhooks"), 1);
        // what is said is no decision
        assert_eq!(log.next(9).await.map(|batch| batch.facts.len()), Some(6));
    }

    #[tokio::test]
    async fn who_waits_is_woken_and_who_has_gone_is_forgotten() {
        let (stream, _) = stream(3);
        let (reader, gone) = (stream.read(Consumer::Metrics), stream.read(Consumer::Metrics));
        drop(gone);
        let waits = tokio::spawn(async move { reader.next(1).await.map(|batch| batch.facts) });
        tokio::task::yield_now().await;
        stream.publish(vec![added(1)]);
        assert_eq!(stream.lock().len(), 1);
        assert_eq!(waits.await.unwrap(), Some(vec![added(1)]));
    }
}
