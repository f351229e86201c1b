//! What went through the doors.

use std::{
    fmt::Write,
    sync::{Arc, OnceLock},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Upper bounds of the durations that are told apart.
const SECONDS: [f64; 13] = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

/// The requests of all doors.
#[derive(Clone)]
pub struct AllRequests {
    count: Family<Labels, Counter>,
    duration: Family<RoleLabel, Histogram, fn() -> Histogram>,
}

/// The requests of one door.
#[derive(Clone)]
pub struct Requests {
    role: &'static str,
    count: Family<Labels, Counter>,
    /// Those of each method that were answered with 200: a family looks its counters up by their labels, behind a lock.
    good: Arc<[OnceLock<Counter>; METHODS]>,
    duration: Histogram,
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
        let requests = Self { count: Family::default(), duration: Family::new_with_constructor(histogram) };
        registry.register("http_requests", "HTTP requests that were answered", requests.count.clone());
        registry.register_with_unit(
            "http_request_duration",
            "From the head of an HTTP request to its reply",
            Unit::Seconds,
            requests.duration.clone(),
        );
        requests
    }

    /// Those of one door.
    #[must_use]
    pub fn of(&self, role: &'static str) -> Requests {
        let duration = self.duration.get_or_create(&RoleLabel { role }).clone();
        Requests { role, count: self.count.clone(), good: Arc::default(), duration }
    }
}

impl Requests {
    /// The door's role.
    #[must_use]
    pub fn role(&self) -> &'static str {
        self.role
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
