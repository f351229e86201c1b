//! A backend: it pushes and asks over the master's HTTP API, on one connection that it keeps.

use std::net::SocketAddr;

use serde_json::Value;

use super::{
    encoded,
    http::{Http, Reply},
};

/// One backend.
pub struct Backend {
    pub http: Http,
    /// Its push key, if it has one.
    key: Option<String>,
}

impl Backend {
    pub async fn of(master: SocketAddr) -> Self {
        Self { http: Http::to(master).await, key: None }
    }

    /// The same with a push key.
    pub fn with_key(mut self, key: &str) -> Self {
        self.key = Some(format!("Bearer {key}"));
        self
    }

    async fn call(&mut self, method: &str, path: &str, kind: &str, body: &str) -> Reply {
        let key = self.key.clone();
        let mut headers = vec![("Content-Type", kind)];
        headers.extend(key.as_deref().map(|key| ("Authorization", key)));
        self.http.call(method, path, &headers, body).await
    }

    /// A v1 request.
    pub async fn form(&mut self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let body: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        self.call("POST", path, "application/x-www-form-urlencoded", &body.join("&")).await
    }

    /// A v3 request.
    pub async fn json(&mut self, method: &str, path: &str, body: &str) -> Reply {
        self.call(method, path, "application/json", body).await
    }

    /// A query.
    pub async fn get(&mut self, path: &str) -> Reply {
        self.call("GET", path, "text/plain", "").await
    }

    /// A query that is answered with JSON.
    pub async fn ask(&mut self, path: &str) -> Value {
        let reply = self.get(path).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        reply.json()
    }

    /// The names in an answer, sorted.
    pub async fn names(&mut self, path: &str) -> Vec<String> {
        let mut names: Vec<String> = serde_json::from_value(self.ask(path).await).expect("a list of names");
        names.sort();
        names
    }

    /// Push to a channel; it must be accepted.
    pub async fn push(&mut self, app: &str, channel: &str, event: &str, data: &str) -> Reply {
        let path = format!("/api/push/{}/{}/{}", encoded(app), encoded(channel), encoded(event));
        self.accepted(&path, &[("data", data)]).await
    }

    /// Push to all sockets of a user; it must be accepted.
    pub async fn push_to_user(&mut self, app: &str, user: &str, data: &str) -> Reply {
        let path = format!("/api/push/user/{}/{}", encoded(app), encoded(user));
        self.accepted(&path, &[("data", data)]).await
    }

    /// Push to one socket; it must be accepted.
    pub async fn push_to_socket(&mut self, app: &str, socket: &str, data: &str) -> Reply {
        let path = format!("/api/push/socket/{}/{}", encoded(app), encoded(socket));
        self.accepted(&path, &[("data", data)]).await
    }

    /// Push to the channels that match; how many they were.
    pub async fn push_matching(&mut self, app: &str, pattern: &str, event: &str, data: &str) -> u64 {
        let fields = [("channel_pattern", pattern), ("event", event), ("data", data)];
        let reply = self.accepted(&format!("/api/push/{}", encoded(app)), &fields).await;
        let reply = reply.json();
        assert_eq!(reply["pattern"], pattern);
        reply["total"].as_u64().expect("a number")
    }

    /// A v1 request that must be accepted.
    pub async fn accepted(&mut self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let reply = self.form(path, fields).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        reply
    }
}
