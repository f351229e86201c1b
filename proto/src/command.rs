//! What a backend tells the cluster to do. Carried by the bus, carried out by slaves.

use serde::{Deserialize, Serialize};

use crate::{
    channel::ChannelPattern,
    event::{Event, Payload},
    ids::{AppId, ChannelName, SocketId, UserId},
};

/// A command within one app.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Command {
    /// Deliver `event` to every socket on `channel`, except one.
    Publish {
        /// Where it goes.
        channel: ChannelName,
        /// What is delivered.
        event: Event,
        /// The socket that is left out: usually the one that caused the push.
        except: Option<SocketId>,
    },
    /// Deliver `data`, without a channel around it, whatever the receivers subscribe to.
    Direct {
        /// Who gets it.
        to: Target,
        /// What is delivered.
        data: Payload,
    },
    /// Replace the patterns of channels that the live sockets of `user` may subscribe to; they leave what is no longer
    /// allowed.
    Reload {
        /// Whose sockets.
        user: UserId,
        /// Only patterns that lie wholly inside one of these are taken away; what else a socket has stays.
        within: Vec<ChannelPattern>,
        /// Their patterns from now on, in place of those.
        channels: Vec<ChannelPattern>,
    },
    /// Add one pattern to them; subscribes to nothing.
    Grant {
        /// Whose sockets.
        user: UserId,
        /// The pattern to add.
        channel: ChannelPattern,
    },
    /// Deliver `event`, without a channel around it, to every socket of `user`, except one.
    DirectEvent {
        /// Who gets it.
        user: UserId,
        /// What is delivered.
        event: Event,
        /// The socket that is left out: usually the one that caused the push.
        except: Option<SocketId>,
    },
    /// Close the sockets of a user, or one socket, behind what was pushed before.
    Terminate {
        /// Which.
        whose: Target,
        /// Are their clients to come back at once, or to stay away?
        reconnect: bool,
    },
    /// Deliver `data` to sockets of one dialect, which has a frame of its own for it. No other dialect receives it.
    WithinDialect {
        /// The name of the dialect.
        dialect: String,
        /// Which of its sockets.
        to: Within,
        /// What is delivered, in the words of the dialect.
        data: Payload,
    },
}

/// Deliver `event` on every channel whose name `pattern` matches. Slaves answer it with the hashes of the names that match,
/// so that whoever publishes it learns how many there are.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PublishMatching {
    /// The app.
    pub app: AppId,
    /// A regular expression (see [`crate::matcher::Matcher`]).
    pub pattern: String,
    /// Only channels that one of these allows.
    pub within: Vec<ChannelPattern>,
    /// What is delivered.
    pub event: Event,
}

/// The sockets that a command is for, whatever they subscribe to.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Target {
    /// Every socket of a user.
    User(UserId),
    /// One socket.
    Socket(SocketId),
}

/// Which sockets of a dialect get what only they can read.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Within {
    /// Those on a channel.
    Channel(ChannelName),
    /// All of the app.
    Everybody,
    /// Those of the app that are on no channel.
    NoChannel,
}

impl Command {
    /// A short name for logs and metrics.
    #[must_use]
    pub fn kind(&self) -> PushKind {
        match self {
            Self::Publish { .. } => PushKind::Channel,
            Self::Direct { to: Target::User(_), .. } | Self::DirectEvent { .. } => PushKind::User,
            Self::Direct { to: Target::Socket(_), .. } => PushKind::Socket,
            Self::Reload { .. } => PushKind::Reload,
            Self::Grant { .. } => PushKind::Grant,
            Self::Terminate { .. } => PushKind::Terminate,
            Self::WithinDialect { to: Within::Channel(_), .. } => PushKind::Channel,
            Self::WithinDialect { .. } => PushKind::Dialect,
        }
    }
}

/// What kind of command it is, for logs and metrics.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum PushKind {
    /// To one channel.
    Channel,
    /// Several channel pushes in one request.
    Batch,
    /// To every channel that a pattern matches.
    Pattern,
    /// To a user.
    User,
    /// To a socket.
    Socket,
    /// New permissions for a user.
    Reload,
    /// One more permission for a user.
    Grant,
    /// An end of sockets.
    Terminate,
    /// To sockets of one dialect, whatever their channels.
    Dialect,
}

impl PushKind {
    /// Its name in logs and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::Batch => "batch",
            Self::Pattern => "pattern",
            Self::User => "user",
            Self::Socket => "socket",
            Self::Reload => "reload",
            Self::Grant => "grant",
            Self::Terminate => "terminate",
            Self::Dialect => "dialect",
        }
    }
}
