//! The metrics of a node about its cluster.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// The counters of a node's end of the bus.
#[derive(Clone, Default)]
pub struct Metrics {
    /// Nodes on the membership.
    pub nodes: Gauge,
    /// Slots that are listened to.
    pub slots: Gauge,
    /// Slots of users that are listened to.
    pub user_slots: Gauge,
    /// Messages that were none of ours, or not signed with our secret.
    pub refused: Counter,
    /// Messages that were read though they are not signed.
    pub unsigned: Counter,
    /// Nodes of the previous release.
    pub old_nodes: Gauge,
    /// Times that pushes passed this node by; the transport counts those of its own there, too.
    pub gaps: Counter,
    beats_refused: Family<RefusedCause, Counter>,
    differences: Family<DifferenceLabel, Counter>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RefusedCause {
    cause: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct DifferenceLabel {
    about: &'static str,
}

impl Metrics {
    /// Counters that `registry` shows; `gaps` are the transport's.
    pub fn new(registry: &mut Registry, gaps: Counter) -> Self {
        let metrics = Self { gaps, ..Self::default() };
        registry.register("roster_nodes", "Nodes that are alive, as this one sees it", metrics.nodes.clone());
        registry.register("bus_interests", "Slots of channels that this node listens to", metrics.slots.clone());
        let users = "Slots of users that this node listens to";
        registry.register("bus_user_interests", users, metrics.user_slots.clone());
        registry.register("bus_refused", "Messages that were not of this cluster's words", metrics.refused.clone());
        registry.register(
            "bus_unsigned",
            "Messages of the previous release's format that were read",
            metrics.unsigned.clone(),
        );
        let old = "Nodes of the previous release: as long as there are some, messages are not signed";
        registry.register("roster_previous_release", old, metrics.old_nodes.clone());
        let beats = "Heartbeats of nodes that were not let onto the roster, by cause";
        registry.register("roster_refused", beats, metrics.beats_refused.clone());
        let differences = "Times that another node was found to differ from this one, by what differs";
        registry.register("node_differences", differences, metrics.differences.clone());
        for cause in ["secret", "full", "crowded"] {
            drop(metrics.beats_refused.get_or_create(&RefusedCause { cause }));
        }
        for about in ["settings", "clock"] {
            drop(metrics.differences.get_or_create(&DifferenceLabel { about }));
        }
        metrics
    }

    /// A node was not let onto the membership.
    pub fn beat_refused(&self, cause: &'static str) {
        self.beats_refused.get_or_create(&RefusedCause { cause }).inc();
    }

    /// Another node differs from this one.
    pub fn differs(&self, about: &'static str) {
        self.differences.get_or_create(&DifferenceLabel { about }).inc();
    }
}
