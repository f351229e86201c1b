//! Counts HTTP requests and connections.

use std::{
    fmt::Write,
    sync::{Arc, OnceLock},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Upper bounds of the durations that are told apart.
const SECONDS: [f64; 13] = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

/// The requests of all listeners.
#[derive(Clone)]
pub struct AllRequests {
    count: Family<Labels, Counter>,
    duration: Family<RoleLabel, Histogram, fn() -> Histogram>,
    connections: Family<RoleLabel, Gauge>,
    ended: Family<EndedLabels, Counter>,
}

/// The requests of one listener.
#[derive(Clone)]
pub struct Requests {
    role: &'static str,
    count: Family<Labels, Counter>,
    /// Those of each method that were answered with 200: a family looks its counters up by their labels, behind a lock.
    good: Arc<[OnceLock<Counter>; METHODS]>,
    duration: Histogram,
    connections: Gauge,
    ended: Family<EndedLabels, Counter>,
}

/// Why we closed a connection without an answer, or answered instead of its request.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Ended {
    /// No request came for too long.
    Idle,
    /// A head took too long.
    HeadLate,
    /// The client took nothing of a reply for too long.
    Stalled,
    /// It waited for a request, and others needed its room.
    Crowded,
    /// There was no room for it.
    Refused,
    /// It would have needed more memory than all may have.
    NoMemory,
}

impl EncodeLabelValue for Ended {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(match self {
            Self::Idle => "idle",
            Self::HeadLate => "head_timeout",
            Self::Stalled => "write_timeout",
            Self::Crowded => "crowded",
            Self::Refused => "refused",
            Self::NoMemory => "memory",
        })
    }
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct EndedLabels {
    role: &'static str,
    cause: Ended,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Labels {
    role: &'static str,
    method: Method,
    status: u16,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RoleLabel {
    role: &'static str,
}

/// The methods that are told apart; clients may make up any number of others.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Other,
}

const METHODS: usize = Method::Other as usize + 1;

impl EncodeLabelValue for Method {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Other => "other",
        })
    }
}

impl AllRequests {
    /// Counted in `registry`.
    pub fn new(registry: &mut Registry) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(SECONDS);
        let requests = Self {
            count: Family::default(),
            duration: Family::new_with_constructor(histogram),
            connections: Family::default(),
            ended: Family::default(),
        };
        let help = "HTTP connections that are open; those that became WebSockets are not among them";
        registry.register("http_connections", help, requests.connections.clone());
        let help = "HTTP connections that were closed by the server, but for those that were answered as asked";
        registry.register("http_connections_ended", help, requests.ended.clone());
        registry.register("http_requests", "HTTP requests that were answered", requests.count.clone());
        registry.register_with_unit(
            "http_request_duration",
            "From the head of an HTTP request to its reply",
            Unit::Seconds,
            requests.duration.clone(),
        );
        requests
    }

    /// Those of one listener.
    #[must_use]
    pub fn of(&self, role: &'static str) -> Requests {
        let duration = self.duration.get_or_create(&RoleLabel { role }).clone();
        let connections = self.connections.get_or_create(&RoleLabel { role }).clone();
        Requests {
            role,
            count: self.count.clone(),
            good: Arc::default(),
            duration,
            connections,
            ended: self.ended.clone(),
        }
    }
}

impl Requests {
    /// The role of the listener.
    #[must_use]
    pub fn role(&self) -> &'static str {
        self.role
    }

    /// Shows how many connections are open.
    #[must_use]
    pub fn connections(&self) -> Gauge {
        self.connections.clone()
    }

    /// One connection more was closed for `cause`.
    pub fn ended(&self, cause: Ended) {
        self.ended.get_or_create(&EndedLabels { role: self.role, cause }).inc();
    }

    /// One more.
    pub fn count(&self, method: &str, status: u16, took: Duration) {
        let method = match method {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "DELETE" => Method::Delete,
            "OPTIONS" => Method::Options,
            _ => Method::Other,
        };
        let counter = || self.count.get_or_create(&Labels { role: self.role, method, status }).clone();
        if status == 200 {
            self.good[method as usize].get_or_init(counter).inc();
        } else {
            counter().inc();
        }
        self.duration.observe(took.as_secs_f64());
    }
}
