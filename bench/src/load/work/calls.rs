//! Requests whose answers are waited for, one after the other.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{PATIENCE, worker::Worker};
use crate::{
    histogram::Histogram,
    load::track::{self, LoadClock},
};

impl Worker<'_> {
    /// Each pattern in turn; how long its answers took, and what they said.
    pub(super) fn patterns(&mut self, patterns: &[String], times: u64) -> Result<Value> {
        self.engine.track.clock = LoadClock::None;
        let mut reports = Vec::new();
        for pattern in patterns {
            let mut latency = Histogram::default();
            let mut answer = Vec::new();
            for _ in 0..times {
                let count = self.count(0);
                let data = track::data(0, count, self.job.size);
                let body = json!({ "channel_pattern": pattern, "event": "m" }).to_string();
                let body = format!("{},\"data\":{data}}}", body.trim_end_matches('}'));
                answer = self.call("POST", "/v1/apps/bench/messages", &body, &mut latency)?;
            }
            let total = serde_json::from_slice::<Value>(&answer).unwrap_or(Value::Null)["total"].take();
            reports.push(json!({ "pattern": pattern, "total": total, "latency": latency.report() }));
        }
        Ok(json!(reports))
    }

    /// One request, again and again; how long its answers took, and what the last one said.
    pub(super) fn calls(&mut self, method: &str, target: &str, body: &str, times: u64) -> Result<Value> {
        let mut latency = Histogram::default();
        let mut answer = Vec::new();
        for _ in 0..times {
            answer = self.call(method, target, body, &mut latency)?;
        }
        let answer = String::from_utf8_lossy(&answer[..answer.len().min(200)]).into_owned();
        Ok(json!({ "latency": latency.report(), "answer": answer }))
    }

    fn call(&mut self, method: &str, target: &str, body: &str, latency: &mut Histogram) -> Result<Vec<u8>> {
        let since = Instant::now();
        self.pushed += 1;
        self.engine.publishers[0].ask(method, target, body.as_bytes())?;
        loop {
            self.engine.turn(Duration::from_millis(100))?;
            if let Some((_, answer)) = self.replies().pop() {
                latency.note(since.elapsed());
                return Ok(answer);
            }
            ensure!(since.elapsed() < PATIENCE, "no answer to {method} {target}");
        }
    }
}
