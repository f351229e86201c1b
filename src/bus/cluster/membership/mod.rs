//! Who is in the cluster, and this node's place in it: one actor. It owns the membership, the phase of this node, and what is
//! known of nodes that do not fit. Everybody else sends it messages and reads what it publishes ([`ClusterMembers`], and
//! [`BusState`] for the roles); nothing on the way of a push waits for it.
//!
//! ```text
//! starting ──begin──▶ down ◀─────── connection lost ────────┬───────────────────────┐
//!                      │                                    │                       │
//!                  connected                                │                       │
//!                      ▼                                    │                       │
//!                   joining ──nobody new for a while──▶ known ◀── strangers ──▶ standing back
//!                      ▲                                    │                       │
//!                      └────── this process stood still ────┴───────────────────────┘
//!
//! any of them ──leave──▶ leaving ──stop──▶ stopped
//! ```
//!
//! Messages of one sender are handled in the order in which they were sent, and all that have come before a tick before it: what
//! was heard in time is not taken for silence.

mod clocks;
mod complained;
mod conflict;
mod lifecycle;
mod mailbox;
mod newcomers;
mod phase;
mod strangers;

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use actix::{Actor, Addr, Context, Message, SpawnHandle};
use actix_rt::ArbiterHandle;
use tokio::sync::{oneshot, watch};
use wellhead_proto::{
    bus::BusState,
    fingerprint::Fingerprint,
    ids::NodeId,
    membership::{Heartbeat, Membership},
    node_message::MessageFormat,
};

pub(super) use self::mailbox::{MailboxLoad, WaitingMessage};
use self::{clocks::Clocks, complained::Complained, conflict::NodeIdConflict, phase::NodePhase, strangers::Strangers};
use super::Cluster;

/// The nodes that are there, as the actor publishes them.
#[derive(Default)]
pub(super) struct ClusterMembers {
    /// Those with the secret of this one.
    pub(super) nodes: Membership,
    /// Those with another.
    strangers: Strangers,
    clocks: Clocks,
}

impl ClusterMembers {
    /// Has `node` another secret? Who is on the membership has not, whatever somebody says in its name.
    pub(super) fn is_stranger(&self, node: NodeId, now: Duration) -> bool {
        self.strangers.has(node, now) && self.nodes.incarnation(node).is_none()
    }

    /// By how many milliseconds this node's clock is ahead of that of `node`, as far as `tolerance` allows for it.
    pub(super) fn clock_ahead_of(&self, node: NodeId, tolerance: Duration) -> i64 {
        self.clocks.ahead_of(node, tolerance)
    }
}

/// What others see of the membership.
pub(super) struct Published {
    /// For the roles.
    pub(super) state: watch::Receiver<BusState>,
    pub(super) members: watch::Receiver<ClusterMembers>,
    /// Every slave that was there before an outage has been heard of since, or has had the time for it: pushes may go.
    pub(super) all_back: watch::Receiver<bool>,
    /// Another node has this one's number, and keeps it.
    pub(super) conflict: watch::Receiver<bool>,
}

/// The membership of one node.
pub(super) struct MembershipActor {
    node: Weak<Cluster>,
    phase: NodePhase,
    conflict: NodeIdConflict,
    complained: Complained,
    /// When it last ticked.
    ticked: Option<Duration>,
    /// How long it waits for everybody's hello each time the transport comes up.
    hello: Duration,
    /// Ends the time that slaves have to come back.
    all_back_at: Option<SpawnHandle>,
    state: watch::Sender<BusState>,
    members: watch::Sender<ClusterMembers>,
    all_back: watch::Sender<bool>,
    conflicts: watch::Sender<bool>,
}

/// The transport is there; `hello`: how long to wait for everybody's hello each time it comes up.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Begin {
    pub(super) hello: Duration,
}

/// Another node says something of itself.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct FromNode {
    pub(super) news: NodeNews,
    /// Makes the transport wait when too many wait.
    pub(super) waiting: WaitingMessage,
}

/// What nodes say of themselves.
pub(super) enum NodeNews {
    /// It is here. `asks`: it wants to know who is here.
    Here { heartbeat: Heartbeat, asks: bool, format: MessageFormat, unix_millis: u64 },
    /// It is here, has another secret, and signs with it.
    Stranger { heartbeat: Heartbeat, asks: bool },
    /// It goes.
    Goodbye { node: NodeId, incarnation: u64 },
    /// These are its settings.
    Settings { node: NodeId, settings: Vec<(String, Fingerprint)> },
}

/// The connection of a node broke, and this one saw it.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Lost(pub(super) NodeId);

/// A node came over the local bus and says what it reads, before it says anything else.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct FormatsChanged;

/// Say goodbye. The sender is told, or dropped, once nobody waits for this node any more.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct LeaveCluster(pub(super) oneshot::Sender<()>);

/// Take nothing more. Answered once that is published.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Stop;

impl MembershipActor {
    /// The membership of `node`, which is being made, on `arbiter`; what it knows is published.
    pub(super) fn start_on(node: Weak<Cluster>, arbiter: &ArbiterHandle) -> (Addr<Self>, Published) {
        let (state, state_shown) = watch::channel(BusState::default());
        let (members, members_shown) = watch::channel(ClusterMembers::default());
        let (all_back, all_back_shown) = watch::channel(true);
        let (conflicts, conflicts_shown) = watch::channel(false);
        let actor = Self::start_in_arbiter(arbiter, move |_| Self {
            node,
            phase: NodePhase::Starting,
            conflict: NodeIdConflict::default(),
            complained: Complained::default(),
            ticked: None,
            hello: Duration::ZERO,
            all_back_at: None,
            state,
            members,
            all_back,
            conflicts,
        });
        let published = Published {
            state: state_shown,
            members: members_shown,
            all_back: all_back_shown,
            conflict: conflicts_shown,
        };
        (actor, published)
    }

    /// Change what is known of the others.
    fn change<T>(&self, change: impl FnOnce(&mut ClusterMembers) -> T) -> T {
        let mut done = None;
        // nobody waits for these changes: whoever needs them looks
        self.members.send_if_modified(|members| {
            done = Some(change(members));
            false
        });
        done.expect("it was changed just now")
    }

    /// Show the roles how it stands with the bus. `true` if other slaves are there than before.
    fn publish(&mut self, node: &Cluster) -> bool {
        let (slaves, nodes): (Arc<[NodeId]>, _) = {
            let members = self.members.borrow();
            (members.nodes.slaves().collect(), members.nodes.len())
        };
        node.metrics.nodes.set(i64::try_from(nodes).unwrap_or(i64::MAX));
        let now = BusState {
            up: self.phase.session().is_some(),
            roster_known: self.phase.knows_all(),
            slaves: slaves.clone(),
            stranger: self.phase.stands_back(),
        };
        self.look_at_formats(node);
        let mut others = false;
        self.state.send_if_modified(|state| {
            others = state.slaves != slaves;
            let changed = *state != now;
            *state = now;
            changed
        });
        if node.late().all_answer(&slaves) {
            self.let_pushes_go();
        }
        others
    }

    fn let_pushes_go(&self) {
        self.all_back.send_if_modified(|all_back| !std::mem::replace(all_back, true));
    }
}

impl Actor for MembershipActor {
    type Context = Context<Self>;
}
