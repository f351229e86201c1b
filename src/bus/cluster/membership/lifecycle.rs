//! From one phase to the next: the transport's connections, the tick of each second, the end.

use std::time::Duration;

use actix::{AsyncContext, Context, Handler, StreamHandler};
use futures_util::stream;
use log::{debug, info, warn};
use tokio::sync::watch;
use wellhead_proto::{
    ids::NodeId,
    membership::{BEAT, Heartbeat},
    node_message::Body,
};

use super::{Begin, FormatsChanged, LeaveCluster, Lost, MembershipActor, NodePhase, Stop};
use crate::bus::{cluster::Cluster, pubsub::Subject};

/// How long nobody new may say hello before the membership counts as known.
const QUIET: Duration = Duration::from_millis(300);
/// How long slaves that were there before may take to come back after us: each tries again at least every two seconds.
const RETURN: Duration = Duration::from_millis(2_500);
/// A tick so late means that this process stood still.
const STOOD_STILL: Duration = Duration::from_secs(3);

/// The transport went up or down, perhaps more than once.
struct WireChanged;

impl Handler<Begin> for MembershipActor {
    type Result = ();

    fn handle(&mut self, Begin { hello }: Begin, ctx: &mut Context<Self>) {
        let Some(node) = self.node.upgrade() else { return };
        self.hello = hello;
        let most = node.common().max_nodes;
        self.change(|members| members.nodes.limit(most));
        if matches!(self.phase, NodePhase::Starting) {
            self.phase = NodePhase::Down;
        }
        if let Some(pubsub) = node.sender.pubsub() {
            ctx.add_stream(changes(pubsub.state()));
        }
        self.tick(ctx);
    }
}

/// An item at once, and one after each change.
fn changes(pubsub: watch::Receiver<bool>) -> impl stream::Stream<Item = WireChanged> {
    stream::unfold((pubsub, true), |(mut pubsub, first)| async move {
        if !first {
            pubsub.changed().await.ok()?;
        }
        Some((WireChanged, (pubsub, false)))
    })
}

impl StreamHandler<WireChanged> for MembershipActor {
    /// Down for a moment only is down: connections are told apart by their numbers.
    fn handle(&mut self, _: WireChanged, ctx: &mut Context<Self>) {
        let Some(node) = self.node.upgrade() else { return };
        let session = node.sender.session();
        if session == self.phase.session() || matches!(self.phase, NodePhase::Stopped) {
            return;
        }
        if self.phase.session().is_some() {
            self.disconnected(&node, ctx);
        }
        if let Some(session) = session {
            self.connected(session, &node, ctx);
        }
    }

    fn finished(&mut self, _: &mut Context<Self>) {
        // the transport is gone, and with it the node
    }
}

impl MembershipActor {
    fn connected(&mut self, session: u32, node: &Cluster, ctx: &mut Context<Self>) {
        let now = node.now();
        self.begin_anew(node);
        self.change(|members| members.strangers.up(now));
        if self.phase.is_member() {
            self.change(|members| members.nodes.heard(node.heartbeat(), now));
            node.late().heard_of(node.me.node);
        }
        self.conflict.up(now);
        let opened = node.bus_handler().map_or(0, |bus_handler| bus_handler.opened());
        node.continuity().up(opened, now);
        // before the bus is up: pushes wait for those who come back a little later
        self.all_back.send_replace(false);
        match &mut self.phase {
            NodePhase::Leaving { session: connection, .. } => *connection = Some(session),
            _ if self.hello.is_zero() => self.enter(NodePhase::Known { session }, ctx),
            _ => self.find_out(session, node, ctx),
        }
        self.all_back_at = Some(ctx.run_later(RETURN, |membership, _| membership.let_pushes_go()));
        self.publish(node);
        if self.phase.is_member() {
            say(node, Subject::Everyone, Body::Hello);
        }
        node.interest.confirm_soon();
        info!(node_id:% = node.me.node; "the bus is up");
    }

    fn disconnected(&mut self, node: &Cluster, ctx: &mut Context<Self>) {
        if let Some(timer) = self.all_back_at.take() {
            ctx.cancel_future(timer);
        }
        match &mut self.phase {
            NodePhase::Leaving { session, heard } => {
                *session = None;
                // nobody hears it any more
                heard.take();
            }
            _ => self.enter(NodePhase::Down, ctx),
        }
        self.publish(node);
        // pushes that wait for slaves are refused at once
        self.let_pushes_go();
        warn!(node_id:% = node.me.node; "the bus is down");
    }

    /// Nothing could be heard for a while. Whoever went meanwhile is not waited for, and not forgotten before its time either: it
    /// may come back a little later than this node does.
    fn begin_anew(&self, node: &Cluster) {
        let now = node.now();
        self.change(|members| members.nodes.renew_leases(now));
        let members = self.members.borrow();
        node.late().missed_deadline(members.nodes.slaves());
    }

    /// Find out who is there.
    fn find_out(&mut self, session: u32, node: &Cluster, ctx: &mut Context<Self>) {
        let ends = node.now() + self.hello;
        let quiet = know_all_in(QUIET.min(self.hello), ctx);
        self.enter(NodePhase::Joining { session, ends, quiet }, ctx);
    }

    /// Somebody new was heard of: who else is there will be known a little later.
    pub(super) fn somebody_new(&mut self, node: &Cluster, ctx: &mut Context<Self>) {
        if let NodePhase::Joining { ends, quiet, .. } = &mut self.phase {
            ctx.cancel_future(*quiet);
            *quiet = know_all_in(QUIET.min(ends.saturating_sub(node.now())), ctx);
        }
    }

    fn know_all(&mut self, ctx: &mut Context<Self>) {
        let Some(node) = self.node.upgrade() else { return };
        if let NodePhase::Joining { session, .. } = self.phase {
            self.enter(NodePhase::Known { session }, ctx);
            self.publish(&node);
        }
    }

    /// Serve nobody, or serve again: as the nodes with another secret are there, or not.
    pub(super) fn stand_back_for_strangers(&mut self, node: &Cluster, ctx: &mut Context<Self>) {
        let stands_back = {
            let members = self.members.borrow();
            members.strangers.stands_back(members.nodes.len() <= 1, node.now())
        };
        match self.phase {
            NodePhase::Known { session } if stands_back => {
                self.enter(NodePhase::StandingBack { session }, ctx);
                let node_id = node.me.node;
                log::error!(
                    node_id:%;
                    "all other nodes have another cluster.secret, and this node came last: it serves nobody"
                );
            }
            NodePhase::StandingBack { session } if !stands_back => self.enter(NodePhase::Known { session }, ctx),
            _ => return,
        }
        self.publish(node);
    }

    /// Change the phase; what belongs to the old one ends.
    fn enter(&mut self, phase: NodePhase, ctx: &mut Context<Self>) {
        let before = std::mem::replace(&mut self.phase, phase);
        if let NodePhase::Joining { quiet, .. } = before {
            ctx.cancel_future(quiet);
        }
        if before.stands_back()
            && matches!(self.phase, NodePhase::Known { .. })
            && let Some(node) = self.node.upgrade()
        {
            info!(node_id:% = node.me.node; "this node serves again");
        }
    }

    /// Once a second: a heartbeat, the leases of the others, the slots.
    fn tick(&mut self, ctx: &mut Context<Self>) {
        let Some(node) = self.node.upgrade() else {
            return actix::ActorContext::stop(ctx);
        };
        // a second after this one: after the process stood still there is one tick, not one for each that was due
        ctx.run_later(BEAT, Self::tick);
        let now = node.now();
        let late = self.ticked.replace(now).is_some_and(|last| now.saturating_sub(last) >= STOOD_STILL);
        let Some(session) = self.phase.session() else { return };
        if late && self.phase.is_member() {
            // what the others said meanwhile has not been read yet: nobody is forgotten for it, and nothing decided
            warn!(node_id:% = node.me.node; "this process stood still for a while: it asks anew who is here");
            self.begin_anew(&node);
            self.find_out(session, &node, ctx);
            self.publish(&node);
            say(&node, Subject::Everyone, Body::Hello);
        } else if self.phase.is_member() {
            say(&node, Subject::Everyone, Body::Heartbeat);
        }
        // at the time that was looked at: a process that is stopped right here must not take it for their silence
        let gone = self.change(|members| members.nodes.expire(now));
        for node_id in &gone {
            node.continuity().expired(*node_id);
            warn!(node_id:%; "node {node_id} has been silent for too long: it is forgotten");
        }
        if !gone.is_empty() && self.publish(&node) {
            self.somebody_new(&node, ctx);
        }
        if late {
            // slots, too, settle by the time in which something could be read
            return;
        }
        self.look_at_formats(&node);
        self.stand_back_for_strangers(&node, ctx);
        let gaps = node.continuity().tick(node.now());
        for gap in gaps {
            node.tell_gap(gap);
        }
        node.tick_slots();
    }

    /// `node_id` is on the membership no more, because it says so or its connection broke. `true` if it was.
    pub(super) fn gone(&mut self, node_id: NodeId, node: &Cluster, ctx: &mut Context<Self>) -> bool {
        let gone = self.change(|members| members.nodes.goodbye(node_id));
        if gone && self.publish(node) {
            self.somebody_new(node, ctx);
        }
        gone
    }
}

fn know_all_in(span: Duration, ctx: &mut Context<MembershipActor>) -> actix::SpawnHandle {
    ctx.run_later(span, MembershipActor::know_all)
}

/// Say to `to` that this node is here, with `words`.
pub(super) fn say(node: &Cluster, to: Subject, words: fn(Heartbeat) -> Body) {
    node.sender.queue(to, words(node.heartbeat()));
}

impl Handler<Lost> for MembershipActor {
    type Result = ();

    /// The others hear of it from this node, which saw it.
    fn handle(&mut self, Lost(node_id): Lost, ctx: &mut Context<Self>) {
        let Some(node) = self.node.upgrade() else { return };
        let incarnation = self.members.borrow().nodes.incarnation(node_id);
        let Some(incarnation) = incarnation else { return };
        debug!(node_id:%; "node {node_id} is gone: its connection broke");
        self.gone(node_id, &node, ctx);
        node.sender.queue(Subject::Everyone, Body::Goodbye(node_id, incarnation));
    }
}

impl Handler<FormatsChanged> for MembershipActor {
    type Result = ();

    fn handle(&mut self, _: FormatsChanged, _: &mut Context<Self>) {
        if let Some(node) = self.node.upgrade() {
            self.look_at_formats(&node);
        }
    }
}

impl Handler<LeaveCluster> for MembershipActor {
    type Result = ();

    fn handle(&mut self, LeaveCluster(heard): LeaveCluster, ctx: &mut Context<Self>) {
        let Some(node) = self.node.upgrade().filter(|_| self.phase.is_member()) else { return };
        let session = self.phase.session();
        // a transport that is down tells nobody; then the lease does
        let heard = session.map(|_| heard);
        if heard.is_some() {
            // behind the heartbeats that wait: none comes after it
            node.sender.queue(Subject::Everyone, Body::Goodbye(node.me.node, node.me.incarnation));
        }
        self.enter(NodePhase::Leaving { session, heard }, ctx);
        self.publish(&node);
    }
}

impl Handler<Stop> for MembershipActor {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Context<Self>) {
        self.enter(NodePhase::Stopped, ctx);
        if let Some(node) = self.node.upgrade() {
            self.publish(&node);
        }
    }
}
