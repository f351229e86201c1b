//! PushEx' words: Phoenix channels on sockets, in either serializer, and its push API.

use std::ops::Range;

use anyhow::Result;

use super::{PushRequest, Speech, has};
use crate::load::track::{self, Layout};

/// The protocol, with the serializer of that number.
pub struct PhoenixSpeech {
    /// 1 or 2.
    pub serializer: u8,
}

impl Speech for PhoenixSpeech {
    fn path(&self, token: &str, _: &Range<usize>) -> String {
        format!("/push_socket/websocket?vsn={}.0.0&token={token}", self.serializer)
    }

    fn joins(&self, channels: &Range<usize>) -> Result<Vec<String>> {
        let join = |no| {
            let topic = track::channel(no);
            match self.serializer {
                1 => format!(r#"{{"topic":"{topic}","event":"phx_join","payload":{{}},"ref":"1"}}"#),
                _ => format!(r#"["1","1","{topic}","phx_join",{{}}]"#),
            }
        };
        Ok(channels.clone().map(join).collect())
    }

    fn is_joined(&self, payload: &[u8]) -> bool {
        has(payload, br#""status":"ok""#)
    }

    fn push(&self, channel: &str, data: &str) -> PushRequest {
        let body = format!(r#"{{"channel":"{channel}","data":{data},"event":"m"}}"#);
        PushRequest { target: "/api/push".to_owned(), body }
    }

    fn batch(&self, channels: &[String], data: &str) -> PushRequest {
        let body = format!(r#"{{"channel":["{}"],"data":{data},"event":"m"}}"#, channels.join("\",\""));
        PushRequest { target: "/api/push".to_owned(), body }
    }

    fn layout(&self) -> Option<Layout> {
        Some(match self.serializer {
            1 => Layout::reversed(
                r#"{"event":"msg","payload":{"data":""#,
                r#"","event":"m"},"ref":null,"topic":""#,
                r#""}"#,
            ),
            _ => Layout::named_first(r#"["1",null,""#, r#"","msg",{"data":""#, r#"","event":"m"}]"#),
        })
    }
}
