//! The metrics of a transport, the same for every transport. Labels come from enums only.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Upper bounds of the confirmation times that are told apart.
const SECONDS: [f64; 12] = [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 2.0];

/// The counters of this process's transport; all its threads share them.
#[derive(Clone)]
pub struct PubSubMetrics {
    pub(super) up: Gauge,
    pub(super) reconnects: Counter,
    pub(super) gaps: Counter,
    pub(super) subscriptions: Gauge,
    cut_off: Counter,
    heard: Traffic,
    sent: Traffic,
    confirmed: Histogram,
}

#[derive(Clone)]
struct Traffic {
    messages: Counter,
    bytes: Counter,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Direction {
    direction: &'static str,
}

impl PubSubMetrics {
    /// Counters that `registry` shows.
    pub fn new(registry: &mut Registry) -> Self {
        let messages = Family::<Direction, Counter>::default();
        let bytes = Family::<Direction, Counter>::default();
        let traffic = |direction| {
            let label = Direction { direction };
            Traffic { messages: messages.get_or_create(&label).clone(), bytes: bytes.get_or_create(&label).clone() }
        };
        let metrics = Self {
            up: Gauge::default(),
            reconnects: Counter::default(),
            gaps: Counter::default(),
            subscriptions: Gauge::default(),
            cut_off: Counter::default(),
            heard: traffic("in"),
            sent: traffic("out"),
            confirmed: Histogram::new(SECONDS),
        };
        registry.register("bus_up", "Is the bus connected?", metrics.up.clone());
        registry.register("bus_reconnects", "Times that the bus came back", metrics.reconnects.clone());
        registry.register("bus_gaps", "Times that pushes passed this node by, or may have", metrics.gaps.clone());
        registry.register("bus_subscriptions", "Subjects that this node listens to", metrics.subscriptions.clone());
        registry.register("bus_cut_off", "Nodes cut off by their master for slowness", metrics.cut_off.clone());
        registry.register("bus_messages", "Messages on the bus, by direction", messages);
        registry.register("bus_bytes", "Bytes of messages on the bus, by direction", bytes);
        registry.register_with_unit(
            "bus_confirm_duration",
            "One round trip that confirms what was sent and listened to",
            Unit::Seconds,
            metrics.confirmed.clone(),
        );
        metrics
    }

    pub(super) fn heard(&self, bytes: usize) {
        self.heard.count(bytes);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.sent.count(bytes);
    }

    pub(super) fn confirmed(&self, took: Duration) {
        self.confirmed.observe(took.as_secs_f64());
    }

    pub(super) fn cut_off(&self) {
        self.cut_off.inc();
    }

    pub(super) fn listens_to(&self, subjects: usize) {
        self.subscriptions.set(i64::try_from(subjects).unwrap_or(i64::MAX));
    }
}

impl Default for PubSubMetrics {
    fn default() -> Self {
        Self::new(&mut Registry::default())
    }
}

impl Traffic {
    fn count(&self, bytes: usize) {
        self.messages.inc();
        self.bytes.inc_by(bytes as u64);
    }
}
