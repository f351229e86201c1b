//! What nodes say of themselves: who is let onto the membership, and what this node says about those that do not fit.

use std::time::Duration;

use actix::{Context, Handler};
use log::{debug, error, info, warn};
use wellhead_proto::{
    fingerprint::Fingerprint,
    ids::NodeId,
    membership::{self, Heartbeat},
    node_message::{Body, MessageFormat},
};

use super::{
    FromNode, MembershipActor, NodeNews, NodePhase, clocks::News, complained::SaidOnce, conflict::ConflictVerdict,
    lifecycle::say,
};
use crate::bus::{cluster::Cluster, pubsub::Subject};

impl Handler<FromNode> for MembershipActor {
    type Result = ();

    fn handle(&mut self, FromNode { news, waiting }: FromNode, ctx: &mut Context<Self>) {
        drop(waiting);
        let Some(node) = self.node.upgrade() else { return };
        match news {
            NodeNews::Here { heartbeat, asks, format, unix_millis } => {
                self.heard(heartbeat, asks, (format, unix_millis), &node, ctx)
            }
            NodeNews::Stranger { heartbeat, asks } => self.heard_stranger(heartbeat, asks, &node, ctx),
            NodeNews::Goodbye { node: node_id, incarnation } => self.heard_goodbye(node_id, incarnation, &node, ctx),
            NodeNews::Settings { node: node_id, settings } => self.heard_settings(node_id, &settings, &node),
        }
    }
}

impl MembershipActor {
    /// A node was heard of, in that format, when it was that time here. `asks`: it wants to know who is here. So does every node
    /// that was not known.
    fn heard(
        &mut self,
        heartbeat: Heartbeat,
        asks: bool,
        heard_in: (MessageFormat, u64),
        node: &Cluster,
        ctx: &mut Context<Self>,
    ) {
        let (format, unix_millis) = heard_in;
        if node.is_of_another_secret(&heartbeat) {
            return self.heard_stranger(heartbeat, asks, node, ctx);
        }
        if heartbeat.node == node.me.node && heartbeat.incarnation != node.me.incarnation {
            return self.heard_conflict(heartbeat, node);
        }
        let heard = self.change(|members| members.nodes.heard(heartbeat, node.now()));
        match heard {
            membership::HeartbeatEffect::Full => {
                let why = format!("there are {} (cluster.max_nodes)", node.common().max_nodes);
                return self.no_room(SaidOnce::Full, "full", &why, node);
            }
            membership::HeartbeatEffect::Crowded => {
                return self.no_room(SaidOnce::Crowded, "crowded", "too many come at once", node);
            }
            membership::HeartbeatEffect::New
            | membership::HeartbeatEffect::Restarted
            | membership::HeartbeatEffect::Known => {}
        }
        node.late().heard_of(heartbeat.node);
        let news = heard != membership::HeartbeatEffect::Known;
        if heartbeat.node != node.me.node {
            // before anything is said to it
            if node.formats().heard(heartbeat.node, heartbeat.incarnation, format, node.now()) {
                self.look_at_formats(node);
            }
            self.compare_clocks(heartbeat, unix_millis, node);
            if asks || news {
                self.answer_hello(heartbeat.node, node);
            }
            if news && heartbeat.settings != node.settings_digest() {
                send_settings(heartbeat.node, node);
            }
        }
        if news {
            debug!(node_id:% = heartbeat.node, slave = heartbeat.slave; "heard of node {}", heartbeat.node);
            if self.publish(node) {
                self.somebody_new(node, ctx);
            }
            self.stand_back_for_strangers(node, ctx);
        } else if !*self.all_back.borrow() {
            self.publish(node);
        }
        node.look_what_was_missed(heartbeat.node);
    }

    /// Forget the formats of nodes that are gone, and say whether nodes of the previous release are here.
    pub(super) fn look_at_formats(&mut self, node: &Cluster) {
        let old = {
            let members = self.members.borrow();
            let mut formats = node.formats();
            formats.retain(|other| members.nodes.incarnation(other).is_some(), node.now());
            formats.old()
        };
        let before = node.metrics.old_nodes.set(i64::try_from(old).unwrap_or(i64::MAX));
        if old > 0 && before == 0 && self.complained.once(SaidOnce::Unsigned, node.now()) {
            warn!(
                node_id:% = node.me.node, nodes = old;
                "nodes of the previous release are here: as long as they are, messages are written as they read them, \
                 which is without a signature"
            );
        }
        if old == 0 && before > 0 {
            info!(node_id:% = node.me.node; "all nodes are of this release: messages are signed");
        }
    }

    fn heard_goodbye(&mut self, node_id: NodeId, incarnation: u64, node: &Cluster, ctx: &mut Context<Self>) {
        if (node_id, incarnation) == (node.me.node, node.me.incarnation)
            && let NodePhase::Leaving { heard, .. } = &mut self.phase
            && let Some(heard) = heard.take()
        {
            // whoever gave up waiting does not listen
            let _ = heard.send(());
        }
        let is_on_it = self.members.borrow().nodes.incarnation(node_id) == Some(incarnation);
        if is_on_it && self.gone(node_id, node, ctx) {
            node.continuity().goodbye(node_id);
            info!(node_id:%; "node {node_id} says goodbye");
        }
    }

    fn heard_conflict(&mut self, heartbeat: Heartbeat, node: &Cluster) {
        // one in two million for two nodes
        let verdict = self.conflict.heard(node.me.incarnation, heartbeat.incarnation, node.now());
        if verdict != ConflictVerdict::Wait {
            warn!(node_id:% = heartbeat.node; "another node has the number of this one ({}): {verdict:?}", heartbeat.node);
        }
        match verdict {
            ConflictVerdict::Yield => drop(self.conflicts.send_replace(true)),
            ConflictVerdict::Answer => say(node, Subject::Everyone, Body::Heartbeat),
            ConflictVerdict::Wait => {}
        }
    }

    /// Tell a node that this one is here.
    fn answer_hello(&mut self, to: NodeId, node: &Cluster) {
        if self.phase.is_member() && self.complained.may_answer(node.now()) {
            say(node, Subject::Node(to), Body::Heartbeat);
        }
    }

    fn no_room(&mut self, cause: SaidOnce, label: &'static str, why: &str, node: &Cluster) {
        node.metrics.beat_refused(label);
        if self.complained.once(cause, node.now()) {
            warn!("nodes are not let into the cluster: {why}; if these are not yours, see who reaches the bus");
        }
    }

    fn heard_stranger(&mut self, heartbeat: Heartbeat, asks: bool, node: &Cluster, ctx: &mut Context<Self>) {
        node.metrics.beat_refused("secret");
        let node_id = heartbeat.node;
        if node.common().given {
            // it hears from the owner what the secret is now, and begins anew with that
            return debug!(node_id:%; "node {node_id} has the secret of an earlier owner of the bus");
        }
        if self.change(|members| members.strangers.heard(node_id, heartbeat.incarnation, node.now())) {
            error!(
                node_id:%;
                "node {node_id} has another cluster.secret than this one ({}): it is refused; give every node the same \
                 cluster.secret, or a cluster.name of its own",
                node.me.node
            );
        }
        if asks {
            // it says so, too, and need not wait for our next heartbeat
            self.answer_hello(node_id, node);
        }
        self.stand_back_for_strangers(node, ctx);
    }

    /// A node whose settings differ says what they are.
    fn heard_settings(&mut self, node_id: NodeId, settings: &[(String, Fingerprint)], node: &Cluster) {
        let incarnation = self.members.borrow().nodes.incarnation(node_id);
        let Some(incarnation) = incarnation else { return };
        let Some(difference) = node.common().difference(settings) else { return };
        if self.complained.settings(node_id, incarnation) {
            node.metrics.differs("settings");
            warn!(
                node_id:%;
                "node {node_id} has other settings than this one ({}): {difference}; give every node the same [apps] and \
                 [jwt]",
                node.me.node
            );
        }
    }

    fn compare_clocks(&mut self, heartbeat: Heartbeat, unix_millis: u64, node: &Cluster) {
        let node_id = heartbeat.node;
        let news = self.change(|members| members.clocks.heard(node_id, heartbeat.unix_millis, unix_millis, node.now()));
        let seconds = |millis: i64| Duration::from_millis(millis.unsigned_abs()).as_secs_f64();
        match news {
            Some(News::Differs(ahead)) => {
                node.metrics.differs("clock");
                let side = if ahead > 0 { "behind" } else { "ahead of" };
                let most = node.common().clock_tolerance.as_secs_f64();
                let allowed = if seconds(ahead) > most {
                    format!("that is more than the {most} s that are allowed for (cluster.clock_tolerance)")
                } else {
                    "that is allowed for".to_owned()
                };
                warn!(
                    node_id:%, milliseconds = ahead;
                    "the clock of node {node_id} is {:.1} s {side} this one's ({}): {allowed}; set the clocks right (NTP)",
                    seconds(ahead), node.me.node
                );
            }
            Some(News::Agrees) => info!(node_id:%; "the clock of node {node_id} agrees with this one's again"),
            None => {}
        }
    }
}

fn send_settings(to: NodeId, node: &Cluster) {
    let settings = node.common().settings.clone().into_iter().collect();
    node.sender.queue(Subject::Node(to), Body::Settings { from: node.me.node, settings });
}
