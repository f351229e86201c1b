//! What the load generator is told to do.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::speech::ServerProtocol;

/// A job.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Job {
    /// Where sockets are opened: socket n at one after the other.
    pub slaves: Vec<SocketAddr>,
    /// Where pushes go.
    pub master: SocketAddr,
    /// Where metrics say whether all sockets are gone.
    pub admins: Vec<SocketAddr>,
    /// The processes whose time and memory is measured.
    pub pids: Vec<u32>,
    /// What the server speaks.
    pub protocol: ServerProtocol,
    /// How sockets prove who they are.
    pub tokens: TokenSource,
    /// How many sockets.
    pub sockets: usize,
    /// How many channels; socket n is on channel n modulo that.
    pub channels: usize,
    /// Subscriptions of a socket; with more than one, each has channels of its own.
    pub subscriptions: usize,
    /// Further sockets on channel 0 that never read.
    pub stuck: usize,
    /// Further sockets at the last slave, each with 500 channels of its own that nobody pushes to.
    pub bystanders: usize,
    /// Bytes of data in a push.
    pub size: usize,
    /// What is done once the sockets are open.
    pub work: LoadWork,
    /// Then all sockets are closed, and it is measured what that costs.
    pub leave: bool,
}

impl Job {
    /// Idle sockets on one channel; whom it is about, the runner says.
    pub fn new(tokens: TokenSource) -> Self {
        Self {
            slaves: Vec::new(),
            master: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            admins: Vec::new(),
            pids: Vec::new(),
            protocol: ServerProtocol::Gusher,
            tokens,
            sockets: 10_000,
            channels: 1,
            subscriptions: 1,
            stuck: 0,
            bystanders: 0,
            size: 100,
            work: LoadWork::Idle,
            leave: false,
        }
    }

    /// How many sockets get a push to one channel.
    pub fn audience(&self) -> u64 {
        (self.sockets * self.subscriptions / self.channels) as u64
    }
}

/// How sockets prove who they are.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum TokenSource {
    /// They need not.
    None,
    /// All by this connection token.
    Given(String),
    /// By one JWT, exchanged once for a token that all of them show.
    Shared(String),
    /// Each by a JWT of its own, exchanged just before.
    Each(Vec<String>),
}

/// What is done once the sockets are open.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum LoadWork {
    /// Nothing.
    Idle,
    /// Nothing, for so long; what that costs is measured.
    Rest {
        /// Seconds.
        seconds: f64,
    },
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
    /// One request, again and again.
    Calls {
        /// Its method.
        method: String,
        /// Path and query.
        target: String,
        /// Its body.
        body: String,
        /// How often.
        times: u64,
    },
}
