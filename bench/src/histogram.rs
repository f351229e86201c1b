//! Durations, counted in buckets that are 3 % wide: cheap to note, and exact enough for percentiles.

use std::time::Duration;

use serde_json::{Value, json};

/// Buckets for each power of two.
const STEPS: u64 = 32;

/// How often which duration was seen.
#[derive(Default)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Histogram {
    /// Count one.
    pub fn note(&mut self, span: Duration) {
        self.note_many(span, 1);
    }

    /// Count `times` of the same.
    pub fn note_many(&mut self, span: Duration, times: u64) {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX).max(1);
        let at = bucket(nanos);
        if self.buckets.len() <= at {
            self.buckets.resize(at + 1, 0);
        }
        self.buckets[at] += times;
        self.count += times;
        self.max = self.max.max(nanos);
    }

    /// The duration, in microseconds, that `share` of all stay below.
    pub fn quantile(&self, share: f64) -> f64 {
        let wanted = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted.max(1) {
                return floor_of(at + 1).min(self.max) as f64 / 1e3;
            }
        }
        self.max as f64 / 1e3
    }

    /// What a report says, in microseconds.
    pub fn report(&self) -> Value {
        json!({
            "count": self.count,
            "p50": self.quantile(0.5),
            "p90": self.quantile(0.9),
            "p99": self.quantile(0.99),
            "max": self.max as f64 / 1e3,
        })
    }
}

fn bucket(nanos: u64) -> usize {
    let power = u64::from(nanos.ilog2());
    if power < 5 {
        return nanos as usize;
    }
    ((power - 4) * STEPS + (nanos >> (power - 5)) - STEPS) as usize
}

fn floor_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let power = bucket / STEPS + 4;
    (bucket % STEPS + STEPS) << (power - 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_begins_at_its_floor() {
        for nanos in [1, 31, 32, 33, 63, 64, 65, 1_000, 123_456, 9_999_999_999] {
            let at = bucket(nanos);
            assert!(floor_of(at) <= nanos && nanos < floor_of(at + 1), "{nanos} in {at}");
        }
    }

    #[test]
    fn quantiles_are_those_of_what_was_noted() {
        let mut histogram = Histogram::default();
        for micros in 1..=1000 {
            histogram.note(Duration::from_micros(micros));
        }
        for (share, micros) in [(0.5, 500.0), (0.99, 990.0)] {
            let found = histogram.quantile(share);
            assert!((found / micros - 1.0).abs() < 0.04, "{share}: {found}");
        }
    }
}
