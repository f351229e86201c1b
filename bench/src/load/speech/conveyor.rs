//! Conveyor's words: one channel a socket, silently joined; messages with the server token in the query.

use std::ops::Range;

use anyhow::{Result, bail};
use serde_json::json;

use super::{PushRequest, Speech, has};
use crate::load::track::{self, Layout};

/// The protocol, with this server token.
pub struct ConveyorSpeech(pub String);

impl Speech for ConveyorSpeech {
    fn path(&self, _: &str, _: &Range<usize>) -> String {
        format!("/?token={}", self.0)
    }

    fn greets(&self) -> bool {
        true
    }

    fn joins(&self, channels: &Range<usize>) -> Result<Vec<String>> {
        if channels.len() != 1 {
            bail!("a socket of Conveyor's is on one channel");
        }
        let connect = json!({ "action": "channel-connect", "channel": track::channel(channels.start), "auth": self.0 });
        // that is answered, and once it is, the socket has joined
        let echo = json!({ "action": "base-action", "data": "joined" });
        Ok(vec![connect.to_string(), echo.to_string()])
    }

    fn answers(&self, joins: usize) -> usize {
        joins - 1
    }

    fn is_joined(&self, payload: &[u8]) -> bool {
        has(payload, b"base-action")
    }

    /// Frames do not name their channel: the name is the beginning of the message.
    fn push(&self, channel: &str, data: &str) -> PushRequest {
        let text = data.trim_start_matches('"');
        let body = format!("{{\"channel\":\"{channel}\",\"message\":\"{channel}{text}}}");
        PushRequest { target: format!("/conveyor/message?token={}", self.0), body }
    }

    /// There are no batches: the first of them.
    fn batch(&self, channels: &[String], data: &str) -> PushRequest {
        self.push(channels.first().map_or("", String::as_str), data)
    }

    fn layout(&self) -> Option<Layout> {
        Some(Layout::conveyor())
    }
}
