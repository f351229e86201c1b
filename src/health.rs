//! Is this process up, and is it ready? The same answer on every listener.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use serde_json::json;
use wellhead_proto::{
    bus::Bus,
    dialect::contract::ApiReply,
    http_api::{Head, text},
};

/// What this release is called.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The process as load balancers see it.
#[derive(Clone)]
pub struct Health {
    stage: Arc<AtomicU8>,
    bus: Arc<dyn Bus>,
}

const STARTING: u8 = 0;
const SERVING: u8 = 1;
const ENDING: u8 = 2;

impl Health {
    /// A process that starts, on `bus`.
    #[must_use]
    pub fn new(bus: Arc<dyn Bus>) -> Self {
        Self { stage: Arc::new(AtomicU8::new(STARTING)), bus }
    }

    /// It is up.
    pub fn serving(&self) {
        self.stage.store(SERVING, Ordering::Release);
    }

    /// It shuts down: from now on it is not ready.
    pub fn ending(&self) {
        self.stage.store(ENDING, Ordering::Release);
    }

    /// Why it is not ready, if it is not.
    #[must_use]
    pub fn unready(&self) -> Option<&'static str> {
        match self.stage.load(Ordering::Acquire) {
            STARTING => Some("starting"),
            ENDING => Some("shutting down"),
            _ if self.bus.state().borrow().stranger => Some("the other nodes have another cluster.secret"),
            _ if !self.bus.is_up() => Some("the bus is down"),
            _ if !self.bus.state().borrow().roster_known => Some("waiting for everybody's hello"),
            _ => None,
        }
    }

    /// The answer to a request for one of the three paths that every listener has.
    #[must_use]
    pub fn answer(&self, head: Head<'_>) -> Option<ApiReply> {
        let reply: fn(&Self) -> ApiReply = match head.path {
            "/healthz" => |_| text(200, "ok"),
            "/readyz" => |health| match health.unready() {
                None => text(200, "ready"),
                Some(why) => text(503, why),
            },
            "/version" => |_| {
                let version = json!({ "name": "wellhead", "version": VERSION }).to_string();
                ApiReply::new(200, "application/json", version)
            },
            _ => return None,
        };
        Some(match head.method {
            "GET" | "HEAD" => reply(self).with_header("Cache-Control", "no-store"),
            _ => text(405, "Method Not Allowed\n").with_header("Allow", "GET, HEAD"),
        })
    }
}
