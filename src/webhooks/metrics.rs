//! Metrics of webhooks. No label names an app or a target.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::queue::GivenUp;

/// What became of events that reached a target.
const DELIVERED: &str = "delivered";

#[derive(Clone)]
pub(super) struct Metrics {
    requests: Family<AttemptLabel, Counter>,
    events: Family<OutcomeLabel, Counter>,
    /// Events that wait.
    pub(super) queued: Gauge,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct AttemptLabel {
    result: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OutcomeLabel {
    result: &'static str,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self { requests: Family::default(), events: Family::default(), queued: Gauge::default() };
        registry.register("webhook_requests", "Requests to targets of webhooks, by result", metrics.requests.clone());
        let events = "Events for targets of webhooks, by what became of them";
        registry.register("webhook_events", events, metrics.events.clone());
        registry.register("webhook_queue", "Events that wait for targets of webhooks", metrics.queued.clone());
        // shown from the start, so that the first that is given up shows as a rise
        metrics.delivered(0);
        GivenUp::LABELS.iter().for_each(|result| drop(metrics.events.get_or_create(&OutcomeLabel { result })));
        metrics
    }

    /// One attempt to send a request.
    pub(super) fn tried(&self, result: &'static str) {
        self.requests.get_or_create(&AttemptLabel { result }).inc();
    }

    pub(super) fn delivered(&self, events: usize) {
        self.events.get_or_create(&OutcomeLabel { result: DELIVERED }).inc_by(events as u64);
    }

    pub(super) fn given_up(&self, why: &GivenUp, events: usize) {
        self.events.get_or_create(&OutcomeLabel { result: why.label() }).inc_by(events as u64);
    }
}
