//! gusher's words, and what the bare baselines make of them.

use std::ops::Range;

use anyhow::Result;
use serde_json::json;

use super::{PushRequest, Speech, has};
use crate::load::track;

/// The protocol; `raw` if what is pushed must look as subscribers shall see it.
pub struct GusherSpeech {
    /// A pushed body is passed on as it is, of a batch each line.
    pub raw: bool,
}

impl Speech for GusherSpeech {
    fn path(&self, token: &str, _: &Range<usize>) -> String {
        format!("/v1/apps/bench/ws?token={token}")
    }

    fn joins(&self, channels: &Range<usize>) -> Result<Vec<String>> {
        let command = if channels.len() == 1 {
            json!({ "event": "gusher.subscribe", "data": { "channel": track::channel(channels.start) } })
        } else {
            let names: Vec<_> = channels.clone().map(track::channel).collect();
            json!({ "event": "gusher.multi_subscribe", "data": { "multi_channel": names } })
        };
        Ok(vec![command.to_string()])
    }

    fn is_joined(&self, payload: &[u8]) -> bool {
        has(payload, b"subscribe_succeeded")
    }

    fn push(&self, channel: &str, data: &str) -> PushRequest {
        let body = if self.raw { track::frame(channel, data) } else { format!("{{\"event\":\"m\",\"data\":{data}}}") };
        PushRequest { target: format!("/v1/apps/bench/channels/{channel}/messages"), body }
    }

    fn batch(&self, channels: &[String], data: &str) -> PushRequest {
        let messages: Vec<_> = channels.iter().map(|channel| track::frame(channel, data)).collect();
        // for who does not parse JSON, a line for each
        let body = if self.raw { messages.join("\n") } else { format!("[{}]", messages.join(",")) };
        PushRequest { target: "/v1/apps/bench/messages/batch".to_owned(), body }
    }
}
