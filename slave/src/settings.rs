//! The slave's settings.

use serde::{Deserialize, Serialize};
use wellhead_proto::units::{Size, Span};

use crate::presence::coordinator::GRACE;

/// `[slave]`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where clients connect.
    pub listen: String,
    /// Where health and metrics are served; empty: nowhere.
    pub admin: String,
    /// Origins that may open sockets, where an app does not say so itself.
    pub allowed_origins: Vec<String>,
    /// Between two pings to a socket.
    pub ping_interval: Span,
    /// How long a socket may take to answer a ping.
    pub pong_timeout: Span,
    /// A socket without subscriptions that sends nothing for so long is closed; zero: never.
    pub idle_timeout: Span,
    /// How long a member of a presence channel may be without a socket before the others are told that it has left.
    pub member_grace: Span,
    /// Sockets per process; 0: as many as the file descriptors allow.
    pub max_connections: usize,
    /// How long closing all sockets may take at shutdown.
    pub drain: Span,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8888".to_owned(),
            admin: "127.0.0.1:9602".to_owned(),
            allowed_origins: vec!["*".to_owned()],
            ping_interval: Span::seconds(54),
            pong_timeout: Span::seconds(10),
            idle_timeout: Span::seconds(0),
            member_grace: Span(GRACE),
            max_connections: 0,
            drain: Span::seconds(10),
        }
    }
}

/// `[limits]`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// One message of a client, over all its fragments.
    pub message: Size,
    /// What a socket may be behind.
    pub queue: Size,
    /// How long a socket may be behind at all.
    pub stall: Span,
    /// The kernel's send buffer of a socket.
    pub send_buffer: Size,
    /// Subscriptions of one socket.
    pub subscriptions: usize,
    /// What a user may subscribe to: its permissions, written as a JSON list.
    pub grants: Size,
    /// One HTTP body.
    pub body: Size,
    /// HTTP connections of a listener; 0: as many as the file descriptors leave room for.
    pub http_connections: usize,
    /// What all unfinished requests and unsent replies of the process may hold.
    pub http_memory: Size,
    /// What all sockets of a process may hold: what they are behind and messages that are not whole. In a
    /// file nothing stands for a part of what the process may use; whoever makes a slave says how much that is, or nothing
    /// for no bound.
    pub memory: Size,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: Size::kib(64),
            queue: Size::mib(1),
            stall: Span::seconds(30),
            send_buffer: Size::kib(128),
            subscriptions: 1_000,
            grants: Size::kib(64),
            body: Size::mib(10),
            http_connections: 0,
            http_memory: Size::mib(64),
            memory: Size(0),
        }
    }
}

/// Connection tokens, as `[jwt]` sets them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TokenSettings {
    /// How long a token lives.
    pub ttl: Span,
    /// Is it good for one socket only?
    pub one_time: bool,
    /// Does a client's JWT open a socket, too?
    pub accept_jwt: bool,
    /// What all references to tokens may take.
    pub reference_memory: Size,
    /// References that a user may have.
    pub references_per_user: usize,
    /// References of other slaves that are asked for at a time.
    pub reference_lookups: usize,
}

impl Default for TokenSettings {
    fn default() -> Self {
        Self {
            ttl: Span::seconds(60),
            one_time: false,
            accept_jwt: true,
            reference_memory: Size::mib(64),
            references_per_user: 64,
            reference_lookups: 256,
        }
    }
}
