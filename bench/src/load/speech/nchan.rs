//! Nchan's words: a socket is on the channel that its path names, from the handshake on.

use std::ops::Range;

use anyhow::{Result, ensure};

use super::{PushRequest, Speech};
use crate::load::track;

/// The protocol, with subscribers at `/sub/NAME` and publishers at `/pub/NAME`.
pub struct Nchan;

impl Speech for Nchan {
    fn path(&self, _: &str, channels: &Range<usize>) -> String {
        format!("/sub/{}", track::channel(channels.start))
    }

    fn joins(&self, channels: &Range<usize>) -> Result<Vec<String>> {
        ensure!(channels.len() == 1, "a socket of Nchan is on one channel");
        Ok(Vec::new())
    }

    fn is_joined(&self, _: &[u8]) -> bool {
        false
    }

    fn push(&self, channel: &str, data: &str) -> PushRequest {
        PushRequest { target: format!("/pub/{channel}"), body: track::frame(channel, data) }
    }

    fn batch(&self, channels: &[String], data: &str) -> PushRequest {
        // never asked for: no workload with batches has Nchan in it
        PushRequest { target: format!("/pub/{}", channels.join(",")), body: track::frame(&channels[0], data) }
    }
}
