//! What a node counts of the cluster.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// The counters of a node's end of the bus.
#[derive(Clone, Default)]
pub struct Metrics {
    /// Nodes on the roster.
    pub nodes: Gauge,
    /// Slots that are listened to.
    pub slots: Gauge,
    /// Messages that were no letter of ours.
    pub refused: Counter,
    /// Times that pushes passed this node by; the wire counts those of its own there, too.
    pub gaps: Counter,
}

impl Metrics {
    /// Counters that `registry` shows; `gaps` are the wire's.
    pub fn new(registry: &mut Registry, gaps: Counter) -> Self {
        let metrics = Self { gaps, ..Self::default() };
        registry.register("roster_nodes", "Nodes that are alive, as this one sees it", metrics.nodes.clone());
        registry.register("bus_interests", "Slots of channels that this node listens to", metrics.slots.clone());
        registry.register("bus_refused", "Messages that were not of this cluster's words", metrics.refused.clone());
        metrics
    }
}
