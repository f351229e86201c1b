//! How far a node is in the cluster: one value, where flags could contradict each other.

use std::time::Duration;

use actix::SpawnHandle;
use tokio::sync::oneshot;

/// The phase of a node. Each that has a `session` has a connection to the bus, and names it.
pub(super) enum NodePhase {
    /// It has no transport yet.
    Starting,
    /// It hears nothing. It forgets nobody for that.
    Down,
    /// It is connected, and finds out who is there: until nobody new was heard of for a while, or until `ends`.
    Joining {
        session: u32,
        ends: Duration,
        /// Ends the phase, unless somebody new is heard of before.
        quiet: SpawnHandle,
    },
    /// It knows who is there, and serves.
    Known { session: u32 },
    /// It knows who is there: nobody but nodes with another secret. It came last, and serves nobody.
    StandingBack { session: u32 },
    /// It said goodbye, or is down and cannot: it is on no membership and sends no heartbeats, and still hears and answers.
    Leaving {
        session: Option<u32>,
        /// Told when it has heard its own goodbye: everything that it sent before has reached the bus.
        heard: Option<oneshot::Sender<()>>,
    },
    /// It hears nothing any more.
    Stopped,
}

impl NodePhase {
    /// The connection, while there is one.
    pub(super) fn session(&self) -> Option<u32> {
        match *self {
            Self::Joining { session, .. } | Self::Known { session } | Self::StandingBack { session } => Some(session),
            Self::Leaving { session, .. } => session,
            Self::Starting | Self::Down | Self::Stopped => None,
        }
    }

    /// Is everybody known who is there, as far as can be told?
    pub(super) fn knows_all(&self) -> bool {
        match self {
            Self::Known { .. } | Self::StandingBack { .. } => true,
            Self::Leaving { session, .. } => session.is_some(),
            Self::Starting | Self::Down | Self::Joining { .. } | Self::Stopped => false,
        }
    }

    /// Does it say that it is here?
    pub(super) fn is_member(&self) -> bool {
        !matches!(self, Self::Leaving { .. } | Self::Stopped)
    }

    pub(super) fn stands_back(&self) -> bool {
        matches!(self, Self::StandingBack { .. })
    }
}
