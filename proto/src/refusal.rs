//! Why the server says no, and why a socket ends. Neutral: each dialect turns them into its own words and numbers.

use std::{borrow::Cow, time::Duration};

/// The caller's matter: the request is answered, nothing is logged as a fault.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The request breaks its API's rule; the text is for the caller and part of that API.
    #[error("{0}")]
    Malformed(Cow<'static, str>),
    /// No credentials where some are needed.
    #[error("credentials are missing")]
    CredentialsMissing,
    /// Credentials that are unknown, expired or forged.
    #[error("credentials are not valid")]
    CredentialsInvalid,
    /// A token of one app, shown to another.
    #[error("the token belongs to another app")]
    WrongApp,
    /// Known, but not allowed to do this.
    #[error("{0}")]
    Forbidden(Cow<'static, str>),
    /// Nothing stands at that path.
    #[error("not found")]
    NotFound,
    /// The path exists for other methods.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// Larger than a limit allows.
    #[error("larger than the {limit} bytes that {what} may have")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The body did not arrive in time.
    #[error("the request body took too long")]
    TooSlow,
    /// Not a WebSocket handshake, or not one that RFC 6455 allows.
    #[error("{0}")]
    NotAHandshake(&'static str),
    /// A WebSocket version other than 13.
    #[error("only WebSocket version 13 is spoken here")]
    WrongVersion,
    /// Something that only one dialect has a number for.
    #[error("{text}")]
    Coded {
        /// The number.
        code: u16,
        /// Its name in logs and metrics.
        reason: &'static str,
        /// What goes with it.
        text: Cow<'static, str>,
    },
    /// The server cannot take it now; later it can.
    #[error("{why}")]
    Unavailable {
        /// What is missing.
        why: &'static str,
        /// When to come back.
        retry_after: Duration,
    },
}

impl Refusal {
    /// The bus takes nothing, or there is no room.
    #[must_use]
    pub fn unavailable(why: &'static str) -> Self {
        Self::Unavailable { why, retry_after: Duration::from_secs(1) }
    }

    /// Not here any more: whoever comes back at once finds another in our place.
    #[must_use]
    pub fn moved(why: &'static str) -> Self {
        Self::Unavailable { why, retry_after: Duration::ZERO }
    }

    /// Its name in logs and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::CredentialsMissing => "credentials_missing",
            Self::CredentialsInvalid => "credentials_invalid",
            Self::WrongApp => "wrong_app",
            Self::Forbidden(_) => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TooLarge { .. } => "too_large",
            Self::TooSlow => "too_slow",
            Self::NotAHandshake(_) => "not_a_handshake",
            Self::WrongVersion => "wrong_version",
            Self::Coded { reason, .. } => reason,
            Self::Unavailable { .. } => "unavailable",
        }
    }

    /// What of it may stand in a log: its words, but not what they quote behind a colon, which may be a query string.
    #[must_use]
    pub fn in_short(&self) -> String {
        let words = self.to_string();
        words.split_once(": ").map_or(words.as_str(), |(short, _)| short).trim_end().to_owned()
    }

    /// The HTTP status that fits, where a dialect prescribes no other.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) | Self::NotAHandshake(_) | Self::Coded { .. } => 400,
            Self::CredentialsMissing | Self::CredentialsInvalid | Self::WrongApp => 401,
            Self::Forbidden(_) => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::TooSlow => 408,
            Self::TooLarge { .. } => 413,
            Self::WrongVersion => 426,
            Self::Unavailable { .. } => 503,
        }
    }
}

/// Why a socket ends.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum CloseCause {
    /// The client said goodbye.
    ClientClosed,
    /// The client vanished without a goodbye.
    ClientGone,
    /// A frame that breaks RFC 6455.
    ProtocolError,
    /// A text or close reason that is not UTF-8.
    BadUtf8,
    /// A message over the limit.
    TooBig,
    /// A binary message where only text is spoken.
    UnsupportedData,
    /// A message that the dialect does not understand.
    InvalidMessage,
    /// A message that the dialect understands and forbids.
    PolicyViolation,
    /// It reads more slowly than we write.
    SlowConsumer,
    /// All sockets together were behind by too much, and this one by the most.
    OwedTooMuch,
    /// All sockets together had too much of unfinished messages, and this one the most.
    UnfinishedTooMuch,
    /// It answered no ping in time.
    PongTimeout,
    /// It did nothing for as long as the operator allows.
    Idle,
    /// It showed nothing that its backend has signed, for as long as its app allows.
    Unauthorized,
    /// This node lets go of its clients, and another takes them: come back at once.
    ShuttingDown,
    /// This node lets go of its clients, and nobody is there yet to take them: come back in a moment.
    ShuttingDownAlone,
    /// A fault of ours.
    Internal,
    /// Its backend asked for it.
    Terminated {
        /// Is the client to come back at once, or to stay away?
        reconnect: bool,
    },
}

impl CloseCause {
    /// Every cause, for metrics.
    pub const ALL: [Self; 19] = [
        Self::ClientClosed,
        Self::ClientGone,
        Self::ProtocolError,
        Self::BadUtf8,
        Self::TooBig,
        Self::UnsupportedData,
        Self::InvalidMessage,
        Self::PolicyViolation,
        Self::SlowConsumer,
        Self::OwedTooMuch,
        Self::UnfinishedTooMuch,
        Self::PongTimeout,
        Self::Idle,
        Self::Unauthorized,
        Self::ShuttingDown,
        Self::ShuttingDownAlone,
        Self::Internal,
        Self::Terminated { reconnect: false },
        Self::Terminated { reconnect: true },
    ];

    /// Its name in logs and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::ClientGone => "client_gone",
            Self::ProtocolError => "protocol_error",
            Self::BadUtf8 => "bad_utf8",
            Self::TooBig => "too_big",
            Self::UnsupportedData => "unsupported_data",
            Self::InvalidMessage => "invalid_message",
            Self::PolicyViolation => "policy_violation",
            Self::SlowConsumer => "slow_consumer",
            Self::OwedTooMuch => "memory_owed",
            Self::UnfinishedTooMuch => "memory_unfinished",
            Self::PongTimeout => "pong_timeout",
            Self::Idle => "idle",
            Self::Unauthorized => "unauthorized",
            Self::ShuttingDown | Self::ShuttingDownAlone => "shutting_down",
            Self::Internal => "internal",
            Self::Terminated { .. } => "terminated",
        }
    }

    /// The close code of RFC 6455 §7.4.1 that fits, where a dialect has no code of its own.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::ClientClosed | Self::ClientGone => 1000,
            Self::ShuttingDown | Self::ShuttingDownAlone | Self::Terminated { reconnect: true } => 1001,
            Self::ProtocolError => 1002,
            Self::UnsupportedData => 1003,
            Self::BadUtf8 => 1007,
            Self::TooBig => 1009,
            Self::Internal => 1011,
            Self::InvalidMessage
            | Self::PolicyViolation
            | Self::SlowConsumer
            | Self::OwedTooMuch
            | Self::UnfinishedTooMuch
            | Self::PongTimeout
            | Self::Idle
            | Self::Unauthorized
            | Self::Terminated { reconnect: false } => 1008,
        }
    }

    /// Is the socket closed to get back what it holds, and not waited for?
    #[must_use]
    pub fn is_for_room(self) -> bool {
        matches!(self, Self::SlowConsumer | Self::OwedTooMuch | Self::UnfinishedTooMuch)
    }

    /// The reason that stands beside the code.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::ClientClosed | Self::ClientGone => "",
            Self::ProtocolError => "protocol error",
            Self::BadUtf8 => "text is not UTF-8",
            Self::TooBig => "message too big",
            Self::UnsupportedData => "binary messages are not spoken here",
            Self::InvalidMessage => "invalid message",
            Self::PolicyViolation => "policy violation",
            Self::SlowConsumer | Self::OwedTooMuch => "reading too slowly",
            Self::UnfinishedTooMuch => "message unfinished while memory is short",
            Self::PongTimeout => "no answer to ping",
            Self::Idle => "idle",
            Self::Unauthorized => "not authorized in time",
            Self::ShuttingDown | Self::ShuttingDownAlone => "shutting down",
            Self::Internal => "internal error",
            Self::Terminated { reconnect: false } => "disconnected by the app",
            Self::Terminated { reconnect: true } => "disconnected by the app, please reconnect",
        }
    }
}
