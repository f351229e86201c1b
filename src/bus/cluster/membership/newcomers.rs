//! What nodes say of themselves: who is let onto the roster, and what this node says about those that do not fit.

use std::time::Duration;

use actix::{Context, Handler};
use log::{debug, error, info, warn};
use wellhead_proto::{
    fingerprint::Fingerprint,
    ids::NodeId,
    mail::Mail,
    roster::{self, Beat},
};

use super::{
    FromNode, MembershipActor, NodeNews, NodePhase, clocks::News, complained::NotAdmitted, conflict::ConflictVerdict,
    lifecycle::say,
};
use crate::bus::{cluster::Cluster, pubsub::Subject};

impl Handler<FromNode> for MembershipActor {
    type Result = ();

    fn handle(&mut self, FromNode { news, waiting }: FromNode, ctx: &mut Context<Self>) {
        drop(waiting);
        let Some(node) = self.node.upgrade() else { return };
        match news {
            NodeNews::Here { beat, asks, unix_millis } => self.heard(beat, asks, unix_millis, &node, ctx),
            NodeNews::Goodbye { node: node_id, incarnation } => self.heard_goodbye(node_id, incarnation, &node, ctx),
            NodeNews::Settings { node: node_id, settings } => self.heard_settings(node_id, &settings, &node),
        }
    }
}

impl MembershipActor {
    /// A node was heard of. `asks`: it wants to know who is here. So does every node that was not known.
    fn heard(&mut self, beat: Beat, asks: bool, unix_millis: u64, node: &Cluster, ctx: &mut Context<Self>) {
        if beat.secret != node.common().secret {
            return self.heard_stranger(beat, asks, node, ctx);
        }
        if beat.node == node.me.node && beat.incarnation != node.me.incarnation {
            return self.heard_conflict(beat, node);
        }
        let heard = self.change(|members| members.nodes.heard(beat, node.now()));
        match heard {
            roster::Heard::Full => return self.no_room(NotAdmitted::Full, node),
            roster::Heard::Crowded => return self.no_room(NotAdmitted::Crowded, node),
            roster::Heard::New | roster::Heard::Restarted | roster::Heard::Known => {}
        }
        node.questions().heard_of(beat.node);
        let news = heard != roster::Heard::Known;
        if beat.node != node.me.node {
            self.compare_clocks(beat, unix_millis, node);
            if asks || news {
                self.answer_hello(beat.node, node);
            }
            if news && beat.settings != node.settings_digest() {
                send_settings(beat.node, node);
            }
        }
        if news {
            debug!(node_id:% = beat.node, slave = beat.slave; "heard of node {}", beat.node);
            if self.publish(node) {
                self.somebody_new(node, ctx);
            }
            self.stand_back_for_strangers(node, ctx);
        } else if !*self.all_back.borrow() {
            self.publish(node);
        }
        node.look_what_was_missed(beat.node);
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

    fn heard_conflict(&mut self, beat: Beat, node: &Cluster) {
        // one in two million for two nodes
        let verdict = self.conflict.heard(node.me.incarnation, beat.incarnation, node.now());
        if verdict != ConflictVerdict::Wait {
            warn!(node_id:% = beat.node; "another node has the number of this one ({}): {verdict:?}", beat.node);
        }
        match verdict {
            ConflictVerdict::Yield => drop(self.conflicts.send_replace(true)),
            ConflictVerdict::Answer => say(node, Subject::Everyone, Mail::Beat),
            ConflictVerdict::Wait => {}
        }
    }

    /// Tell a node that this one is here.
    fn answer_hello(&mut self, to: NodeId, node: &Cluster) {
        if self.phase.is_member() && self.complained.may_answer(node.now()) {
            say(node, Subject::Node(to), Mail::Beat);
        }
    }

    fn no_room(&mut self, cause: NotAdmitted, node: &Cluster) {
        let most = node.common().max_nodes;
        let (label, why) = match cause {
            NotAdmitted::Full => ("full", format!("there are {most} (cluster.max_nodes)")),
            NotAdmitted::Crowded => ("crowded", "too many come at once".to_owned()),
        };
        node.metrics.beat_refused(label);
        if self.complained.once(cause, node.now()) {
            warn!("nodes are not let into the cluster: {why}; if these are not yours, see who reaches the bus");
        }
    }

    fn heard_stranger(&mut self, beat: Beat, asks: bool, node: &Cluster, ctx: &mut Context<Self>) {
        node.metrics.beat_refused("secret");
        let node_id = beat.node;
        if node.common().given {
            // it hears from the owner what the secret is now, and begins anew with that
            return debug!(node_id:%; "node {node_id} has the secret of an earlier owner of the bus");
        }
        if self.change(|members| members.strangers.heard(node_id, beat.incarnation, node.now())) {
            error!(
                node_id:%;
                "node {node_id} has another cluster.secret than this one ({}): it is refused; give every node the same \
                 cluster.secret, or a cluster.name of its own",
                node.me.node
            );
        }
        if asks {
            // it says so, too, and need not wait for our next beat
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

    fn compare_clocks(&mut self, beat: Beat, unix_millis: u64, node: &Cluster) {
        let node_id = beat.node;
        let news = self.change(|members| members.clocks.heard(node_id, beat.unix_millis, unix_millis, node.now()));
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
    node.sender.queue(Subject::Node(to), Mail::Settings { from: node.me.node, settings });
}
