//! What the load generator is told to do.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A job.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Job {
    /// Where sockets are opened.
    pub slave: SocketAddr,
    /// Where pushes go.
    pub master: SocketAddr,
    /// The processes whose time and memory is measured.
    pub pids: Vec<u32>,
    /// The server sends a pushed body as it is: it is pushed as subscribers shall see it.
    pub raw: bool,
    /// How sockets prove who they are.
    pub tokens: Tokens,
    /// How many sockets.
    pub sockets: usize,
    /// How many channels; socket n is on channel n modulo that.
    pub channels: usize,
    /// Subscriptions of a socket; with more than one, each has channels of its own.
    pub subscriptions: usize,
    /// Further sockets on channel 0 that never read.
    pub stuck: usize,
    /// Bytes of data in a push.
    pub size: usize,
    /// What is done once the sockets are open.
    pub work: Work,
}

/// How sockets prove who they are.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Tokens {
    /// They need not.
    None,
    /// By one JWT, exchanged once for a token that all of them show.
    Shared(String),
    /// Each by a JWT of its own, exchanged just before.
    Each(Vec<String>),
}

/// What is done once the sockets are open.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Work {
    /// Nothing.
    Idle,
    /// `window` publishers, each pushing again when the last subscriber has its last push and it is acknowledged. With
    /// `batch` above one, that many channels a request.
    Windowed {
        /// Requests in all.
        pushes: u64,
        /// Requests under way.
        window: usize,
        /// Channels in a request.
        batch: usize,
    },
    /// Publishers that push again when their last push is acknowledged.
    Acknowledged {
        /// Requests in all.
        pushes: u64,
        /// How many publishers.
        publishers: usize,
    },
    /// Pushes by the clock.
    Paced {
        /// How many in a second.
        per_second: f64,
        /// How many in all.
        pushes: u64,
    },
    /// One large push after the other to channel 0, and by the clock small ones to a channel with one socket.
    Beside {
        /// Large pushes.
        pushes: u64,
        /// Small pushes in a second.
        per_second: f64,
    },
    /// Pushes to patterns, one after the other.
    Patterns {
        /// The patterns.
        patterns: Vec<String>,
        /// How often each.
        times: u64,
    },
}
