//! Pusher's words: protocol 7 on sockets, signed requests from backends.

use std::{
    fmt::Write,
    ops::Range,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use hmac::{Hmac, Mac};
use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::Sha256;

use super::{PushRequest, Speech, has};
use crate::load::track::{self, Layout};

/// An app as its backends know it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BenchApp {
    /// As it stands in paths of the HTTP API.
    pub id: String,
    /// As it stands in a client's path.
    pub key: String,
    /// What requests are signed with.
    pub secret: String,
}

/// The protocol, for one app.
pub struct PusherSpeech(pub BenchApp);

impl PusherSpeech {
    fn signed(&self, path: &str, body: String) -> PushRequest {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        PushRequest { target: self.0.sign("POST", path, &body, now), body }
    }
}

impl BenchApp {
    /// `path` with the query that proves who asks, at `now` in Unix seconds.
    pub fn sign(&self, method: &str, path: &str, body: &str, now: u64) -> String {
        let md5 = hex(&Md5::digest(body));
        let query = format!("auth_key={}&auth_timestamp={now}&auth_version=1.0&body_md5={md5}", self.key);
        // an HMAC takes keys of any length
        let signature = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).map_or_else(
            |_| String::new(),
            |hmac| hex(&hmac.chain_update(format!("{method}\n{path}\n{query}")).finalize().into_bytes()),
        );
        format!("{path}?{query}&auth_signature={signature}")
    }
}

impl Speech for PusherSpeech {
    fn path(&self, _: &str, _: &Range<usize>) -> String {
        format!("/app/{}?protocol=7&client=bench&version=1.0", self.0.key)
    }

    fn greets(&self) -> bool {
        true
    }

    fn joins(&self, channels: &Range<usize>) -> Result<Vec<String>> {
        let join = |no| json!({ "event": "pusher:subscribe", "data": { "channel": track::channel(no) } }).to_string();
        Ok(channels.clone().map(join).collect())
    }

    fn is_joined(&self, payload: &[u8]) -> bool {
        has(payload, b"pusher_internal:subscription_succeeded")
    }

    fn push(&self, channel: &str, data: &str) -> PushRequest {
        let body = format!("{{\"name\":\"m\",\"channel\":\"{channel}\",\"data\":{data}}}");
        self.signed(&format!("/apps/{}/events", self.0.id), body)
    }

    fn batch(&self, channels: &[String], data: &str) -> PushRequest {
        let one = |channel| format!("{{\"name\":\"m\",\"channel\":\"{channel}\",\"data\":{data}}}");
        let events: Vec<_> = channels.iter().map(one).collect();
        let body = format!("{{\"batch\":[{}]}}", events.join(","));
        self.signed(&format!("/apps/{}/batch_events", self.0.id), body)
    }

    fn layout(&self) -> Option<Layout> {
        // servers order the members of a frame as they like
        None
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // writing to a string does not fail
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_is_signed_as_the_official_libraries_sign_it() {
        let app = BenchApp { id: "42".into(), key: "wh-key".into(), secret: "wh-secret".into() };
        let body = r#"{"name":"ping","channels":["room-1"],"data":"{\"n\":1}"}"#;
        assert_eq!(
            app.sign("POST", "/apps/42/events", body, 1_700_000_000),
            "/apps/42/events?auth_key=wh-key&auth_timestamp=1700000000&auth_version=1.0\
             &body_md5=bc64f26d03a39099a29c030bc0dbaf83\
             &auth_signature=73e731afe4a1777f9b22d338629912e59cfb548095b89ef6751a2dacd7097f8b"
        );
    }
}
