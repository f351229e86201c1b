//! The metrics of a slave. Labels come from enums only, never from channels, users or apps that a client names.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use wellhead_proto::{jwt::BadToken, refusal::CloseCause};

use crate::users::Users;

/// The counters of a slave; all threads share them.
#[derive(Clone)]
pub struct Metrics {
    /// Open sockets.
    pub connections: Gauge,
    /// Sockets opened since the start.
    pub opened: Counter,
    closed: Family<CauseLabel, Counter>,
    refused: Family<StatusLabel, Counter>,
    turned_away: Family<CodeLabel, Counter>,
    said: Family<TakenLabel, Counter>,
    /// Subscriptions of open sockets.
    pub subscriptions: Gauge,
    /// Channels with subscribers here.
    pub channels: Gauge,
    /// Users with sockets here.
    pub users: Users,
    /// Frames of pushes handed to sockets.
    pub deliveries: Counter,
    /// Pushes, from their arrival until the last socket was served.
    pub fan_out: Histogram,
    /// Bytes queued for sockets.
    pub queue_bytes: Gauge,
    /// Bytes that sockets hold of what `limits.memory` bounds.
    pub held_bytes: Gauge,
    /// `limits.memory` in bytes.
    pub limit_bytes: Gauge,
    auth_failures: Family<AuthFailureLabel, Counter>,
    rejected: Family<WhyLabel, Counter>,
    facts: Family<FactLabel, Counter>,
    dropped: Family<ByLabel, Counter>,
    remote: Family<TakenLabel, Counter>,
    /// Pushes to users and sockets that a socket did not get, since its dialect has no frame for them.
    pub direct_without_frame: Counter,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct FactLabel {
    fact: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ByLabel {
    consumer: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct CauseLabel {
    cause: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct StatusLabel {
    status: u16,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct CodeLabel {
    code: u16,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct TakenLabel {
    result: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct WhyLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct AuthFailureLabel {
    role: &'static str,
    reason: &'static str,
}

impl Metrics {
    /// Counters that `registry` shows.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            connections: Gauge::default(),
            opened: Counter::default(),
            closed: Family::default(),
            refused: Family::default(),
            turned_away: Family::default(),
            said: Family::default(),
            subscriptions: Gauge::default(),
            channels: Gauge::default(),
            users: Users::default(),
            deliveries: Counter::default(),
            fan_out: Histogram::new([0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0]),
            queue_bytes: Gauge::default(),
            held_bytes: Gauge::default(),
            limit_bytes: Gauge::default(),
            auth_failures: Family::default(),
            rejected: Family::default(),
            facts: Family::default(),
            dropped: Family::default(),
            remote: Family::default(),
            direct_without_frame: Counter::default(),
        };
        registry.register("connections", "Open sockets", metrics.connections.clone());
        registry.register("connections_opened", "Sockets opened", metrics.opened.clone());
        registry.register("connections_closed", "Sockets closed, by cause", metrics.closed.clone());
        registry.register("handshakes_refused", "Handshakes refused, by HTTP status", metrics.refused.clone());
        let away = "Handshakes accepted only to say why the socket may not stay, by close code";
        registry.register("handshakes_turned_away", away, metrics.turned_away.clone());
        registry.register("client_events", "Events that clients published to each other", metrics.said.clone());
        registry.register("subscriptions", "Subscriptions of open sockets", metrics.subscriptions.clone());
        registry.register("channels", "Channels with subscribers on this node", metrics.channels.clone());
        let users = "Users with open sockets on this node, each once per app; a sum over nodes may count one twice";
        registry.register("users", users, metrics.users.count.clone());
        registry.register("deliveries", "Pushed frames handed to sockets", metrics.deliveries.clone());
        registry.register_with_unit(
            "fan_out_duration",
            "From the arrival of a push until the last socket was served",
            Unit::Seconds,
            metrics.fan_out.clone(),
        );
        registry.register_with_unit("queue", "Owed to sockets", Unit::Bytes, metrics.queue_bytes.clone());
        let held =
            "Held for sockets: owed to those that are behind, what many owe counted once, and unfinished messages";
        registry.register_with_unit("memory_held", held, Unit::Bytes, metrics.held_bytes.clone());
        let limit = "What may be held for sockets (limits.memory)";
        registry.register_with_unit("memory_limit", limit, Unit::Bytes, metrics.limit_bytes.clone());
        registry.register("slave_auth_failures", "Tokens refused, by reason", metrics.auth_failures.clone());
        registry.register("subscribes_rejected", "Subscribes refused, by reason", metrics.rejected.clone());
        registry.register("keeper_facts", "What this slave decided as coordinator", metrics.facts.clone());
        let dropped = "Facts that a reader was too slow for, by consumer";
        registry.register("facts_dropped", dropped, metrics.dropped.clone());
        registry.register("remote_commands", "Remote commands of clients, by result", metrics.remote.clone());
        let without = "Pushes to users and sockets that a socket did not get: its dialect has no frame for them";
        registry.register("direct_pushes_without_frame", without, metrics.direct_without_frame.clone());
        // every cause is there from the start, so that a first slow consumer shows as a rise
        for cause in CloseCause::ALL {
            drop(metrics.closed.get_or_create(&CauseLabel { cause: cause.label() }));
        }
        metrics
    }

    /// A socket ended.
    pub fn closed(&self, cause: CloseCause) {
        self.closed.get_or_create(&CauseLabel { cause: cause.label() }).inc();
    }

    /// A handshake was refused.
    pub fn refused(&self, status: u16) {
        self.refused.get_or_create(&StatusLabel { status }).inc();
    }

    /// A handshake was accepted, and the socket closed with this code.
    pub fn turned_away(&self, code: u16) {
        self.turned_away.get_or_create(&CodeLabel { code }).inc();
    }

    /// A client published an event, and the bus took it or did not.
    pub fn said(&self, taken: bool) {
        self.said.get_or_create(&TakenLabel { result: if taken { "ok" } else { "unavailable" } }).inc();
    }

    /// A token was refused.
    pub fn auth_failed(&self, reason: BadToken) {
        self.auth_failures.get_or_create(&AuthFailureLabel { role: "slave", reason: reason.label() }).inc();
    }

    /// A client may not join a channel.
    pub fn subscribe_rejected(&self, reason: &'static str) {
        self.rejected.get_or_create(&WhyLabel { reason }).inc();
    }

    /// What became of a remote command: `ok`, or why it failed.
    pub fn remote(&self, result: &'static str) {
        self.remote.get_or_create(&TakenLabel { result }).inc();
    }

    /// The coordinator decided something.
    pub fn fact(&self, fact: &'static str) {
        self.facts.get_or_create(&FactLabel { fact }).inc();
    }

    /// A reader of facts was too slow for so many. None: it is shown.
    pub fn facts_dropped(&self, consumer: &'static str, facts: usize) {
        self.dropped.get_or_create(&ByLabel { consumer }).inc_by(facts as u64);
    }

    /// How many those are by now.
    #[cfg(test)]
    pub fn dropped_facts(&self, consumer: &'static str) -> u64 {
        self.dropped.get_or_create(&ByLabel { consumer }).get()
    }
}
