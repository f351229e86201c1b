//! Publish and subscribe between nodes: messages on subjects. What is the cluster's own (interest, queries, membership) is
//! built on top of it, in `cluster`, once for every transport; `tests/it/pubsub_contract` holds every transport to what is
//! promised here.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;
use wellhead_proto::{
    bus::{BoxFuture, BusError},
    ids::NodeId,
};

/// Where a message goes.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Subject {
    /// Pushes of the channels that hash to this slot.
    Slot(u16),
    /// All slots at once; only to be listened to.
    EverySlot,
    /// Every node.
    Everyone,
    /// One node.
    Node(NodeId),
    /// Pushes to the users that hash to this slot.
    UserSlot(u16),
    /// All slots of users at once; only to be listened to.
    EveryUserSlot,
}

impl Subject {
    /// The wildcard through which a message to this subject is received, too.
    #[must_use]
    pub fn wildcard(self) -> Option<Self> {
        match self {
            Self::Slot(_) => Some(Self::EverySlot),
            Self::UserSlot(_) => Some(Self::EveryUserSlot),
            Self::EverySlot | Self::Everyone | Self::Node(_) | Self::EveryUserSlot => None,
        }
    }

    /// Is it only to be listened to?
    #[must_use]
    pub fn is_wildcard(self) -> bool {
        matches!(self, Self::EverySlot | Self::EveryUserSlot)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slot(slot) => write!(f, "slot.{slot}"),
            Self::EverySlot => write!(f, "slot.*"),
            Self::Everyone => write!(f, "all"),
            Self::Node(node) => write!(f, "node.{node}"),
            Self::UserSlot(slot) => write!(f, "user.{slot}"),
            Self::EveryUserSlot => write!(f, "user.*"),
        }
    }
}

/// A node's connection to the transport. At most once; keeps no history.
///
/// Messages that one caller sends one after the other arrive everywhere in that order, as far as they go to the same
/// subject. A node receives its own messages, if it listens to their subject.
#[async_trait]
pub trait PubSub: Send + Sync {
    /// The number of the connection that is up; the next one has another.
    fn session(&self) -> Option<u32>;

    /// Hand over a message; back once it is in the queue to the server, and waiting while that is full.
    ///
    /// # Errors
    ///
    /// The transport is down, or stays full for longer than it makes anyone wait: then nobody gets the message. A
    /// message that was taken while the transport was up is never sent after it came back.
    async fn send(&self, subject: Subject, message: Bytes) -> Result<(), BusError> {
        let session = self.session().ok_or(BusError::Down)?;
        self.send_in(session, subject, message).await
    }

    /// The same, over that connection and no other.
    ///
    /// # Errors
    ///
    /// As [`PubSub::send`]; and another connection is up.
    async fn send_in(&self, session: u32, subject: Subject, message: Bytes) -> Result<(), BusError>;

    /// Receive `subject` from now on, also after the transport was down. Listening twice is listening once.
    fn listen(&self, subject: Subject);

    /// Stop receiving it.
    fn unlisten(&self, subject: Subject);

    /// Back once everything that was sent and listened to before has reached the server, so that nothing later can be
    /// missed. One round trip serves all who wait for one.
    ///
    /// # Errors
    ///
    /// The transport went down in between, or no answer came in time.
    async fn confirm(&self) -> Result<(), BusError>;

    /// The largest message, in bytes; `None` if there is no limit.
    fn max_message(&self) -> Option<usize>;

    /// Is the server itself a node, so that the transport is down as long as that node is not there?
    fn is_served_by_a_node(&self) -> bool {
        false
    }

    /// May pushes to users travel on slots of their own? If not, they go to everybody.
    fn has_user_slots(&self) -> bool {
        true
    }

    /// Is it up? It is once the server has everything that is listened to.
    fn state(&self) -> watch::Receiver<bool>;

    /// Send what is in the queue and disconnect for good.
    async fn close(&self);
}

/// Handles what a node receives.
pub trait MessageHandler: Send + Sync {
    /// A message came. `subject` is what was listened to: a push that comes through a wildcard, such as
    /// [`Subject::EverySlot`], comes with that, and once more with its slot, if that is listened to as well. Called for one after the other, per subject in the
    /// order in which they were sent; must not block.
    fn hear(&self, subject: Subject, message: Bytes);

    /// Is there room for more? While there is not, the transport reads nothing.
    fn has_room(&self) -> bool;

    /// Resolves once there is room again.
    fn room(&self) -> BoxFuture<()>;

    /// Messages were lost although the transport is up: this node was too slow and was cut off.
    fn gap(&self);

    /// A connection ended. Everything that came over it has been handled by now, and what comes from now on comes over
    /// another. What was sent in between was missed.
    fn interrupted(&self);
}
