//! Who is let onto the roster: what a node does about the heartbeats that it hears, and what it says about nodes that do
//! not fit.

use std::{
    collections::BTreeMap,
    sync::{MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use log::{debug, error, info, warn};
use wellhead_proto::{
    fingerprint::Fingerprint,
    ids::NodeId,
    node_message::{Body, MessageFormat},
    roster::{Beat, Heard},
};

use super::{Cluster, Common, clocks::News, rival::Verdict, strangers::Strangers};
use crate::bus::wire::Subject;

/// Answers to hellos at once, and those of each second after.
const ANSWERS: u32 = 1_024;
/// After so much silence a cause is said again.
const SILENCE: Duration = Duration::from_secs(60);
/// Nodes whose settings were complained of that are remembered.
const COMPLAINTS: usize = 1_024;

/// What is said once, for as long as it goes on.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Cause {
    /// The roster is full.
    Full,
    /// Too many nodes come at once.
    Crowded,
    /// Nodes of the previous release are here.
    Unsigned,
}

/// What was said.
#[derive(Default)]
pub(super) struct Said {
    causes: BTreeMap<Cause, Duration>,
    /// Nodes whose settings differ, by incarnation.
    settings: BTreeMap<NodeId, u64>,
    /// Answers to hellos in this second.
    answers: (u64, u32),
}

impl Said {
    /// `cause` is there. `true` if it was not lately.
    pub(super) fn once(&mut self, cause: Cause, now: Duration) -> bool {
        self.causes.insert(cause, now).is_none_or(|last| now.saturating_sub(last) >= SILENCE)
    }

    /// The settings of a node differ. `true` if that is news.
    fn settings(&mut self, node: NodeId, incarnation: u64) -> bool {
        if self.settings.len() >= COMPLAINTS && !self.settings.contains_key(&node) {
            return false;
        }
        self.settings.insert(node, incarnation) != Some(incarnation)
    }

    /// May another hello be answered?
    fn answer(&mut self, now: Duration) -> bool {
        if self.answers.0 != now.as_secs() {
            self.answers = (now.as_secs(), 0);
        }
        self.answers.1 += 1;
        self.answers.1 <= ANSWERS
    }
}

impl Cluster {
    pub(super) fn common(&self) -> &Common {
        &self.shared().0
    }

    fn shared(&self) -> &(Common, Fingerprint) {
        self.common.get_or_init(|| (Common::default(), Common::default().digest()))
    }

    pub(super) fn strangers(&self) -> MutexGuard<'_, Strangers> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this node says about itself now.
    pub(super) fn beat(&self) -> Beat {
        let (common, settings) = self.shared();
        Beat { secret: common.secret, settings: *settings, unix_millis: unix_millis(), ..self.me }
    }

    /// A node was heard of. `asks`: it wants to know who is here. So does every node that was not known.
    pub(super) fn heard_beat(&self, beat: Beat, asks: bool, format: MessageFormat) {
        if self.is_of_another_secret(&beat) {
            return self.heard_stranger(beat, asks);
        }
        if beat.node == self.me.node && beat.incarnation != self.me.incarnation {
            return self.heard_rival(beat);
        }
        let heard = self.roster().heard(beat, self.now());
        match heard {
            Heard::Full => {
                let why = format!("there are {} (cluster.max_nodes)", self.common().max_nodes);
                return self.no_room(Cause::Full, "full", &why);
            }
            Heard::Crowded => return self.no_room(Cause::Crowded, "crowded", "too many come at once"),
            Heard::New | Heard::Restarted | Heard::Known => {}
        }
        if beat.node != self.me.node {
            // before anything is said to it
            if self.formats().heard(beat.node, beat.incarnation, format, self.now()) {
                self.look_at_formats();
            }
            self.compare_clocks(beat);
            if asks || heard != Heard::Known {
                self.answer_hello(beat.node);
            }
            if heard != Heard::Known && beat.settings != self.shared().1 {
                self.send_settings(beat.node);
            }
        }
        if heard != Heard::Known {
            debug!(node_id:% = beat.node, slave = beat.slave; "heard of node {}", beat.node);
            self.show_roster();
            self.stand_back_for_strangers();
        }
        self.look_who_is_back();
        self.look_what_was_missed(beat.node);
    }

    /// Forget the formats of nodes that are gone, and say whether nodes of the previous release are here.
    pub(super) fn look_at_formats(&self) {
        let old = {
            let roster = self.roster();
            let mut formats = self.formats();
            formats.retain(|node| roster.incarnation(node).is_some(), self.now());
            formats.old()
        };
        let before = self.metrics.old_nodes.set(old as i64);
        if old > 0 && before == 0 && self.said().once(Cause::Unsigned, self.now()) {
            warn!(
                node_id:% = self.me.node, nodes = old;
                "nodes of the previous release are here: as long as they are, messages are written as they read them, \
                 which is without a signature"
            );
        }
        if old == 0 && before > 0 {
            info!(node_id:% = self.me.node; "all nodes are of this release: messages are signed");
        }
    }

    fn heard_rival(&self, beat: Beat) {
        // one in two million for two nodes
        let verdict = self.rivalry().heard(self.me.incarnation, beat.incarnation, self.now());
        if verdict != Verdict::Wait {
            warn!(node_id:% = beat.node; "another node has the number of this one ({}): {verdict:?}", beat.node);
        }
        match verdict {
            Verdict::Yield => drop(self.clashed.send_replace(true)),
            Verdict::Answer => drop(self.outgoing.send((Subject::Everyone, Body::Heartbeat(self.beat())))),
            Verdict::Wait => {}
        }
    }

    /// Tell a node that this one is here.
    fn answer_hello(&self, node: NodeId) {
        if !self.is_leaving() && self.said().answer(self.now()) {
            let _ = self.outgoing.send((Subject::Node(node), Body::Heartbeat(self.beat())));
        }
    }

    fn no_room(&self, cause: Cause, label: &'static str, why: &str) {
        self.metrics.beat_refused(label);
        if self.said().once(cause, self.now()) {
            warn!("nodes are not let into the cluster: {why}; if these are not yours, see who reaches the bus");
        }
    }

    pub(super) fn is_of_another_secret(&self, beat: &Beat) -> bool {
        beat.secret != self.common().secret
    }

    pub(super) fn heard_stranger(&self, beat: Beat, asks: bool) {
        self.metrics.beat_refused("secret");
        let node = beat.node;
        if self.common().given {
            // it hears from the owner what the secret is now, and begins anew with that
            return debug!(node_id:% = node; "node {node} has the secret of an earlier owner of the bus");
        }
        if self.strangers().heard(node, beat.incarnation, self.now()) {
            error!(
                node_id:% = node;
                "node {node} has another cluster.secret than this one ({}): it is refused; give every node the same \
                 cluster.secret, or a cluster.name of its own",
                self.me.node
            );
        }
        if asks {
            // it says so, too, and need not wait for our next beat
            self.answer_hello(node);
        }
        self.stand_back_for_strangers();
    }

    /// Has `node` another secret? Who is on the roster has not, whatever somebody says in its name.
    pub(super) fn is_stranger(&self, node: NodeId) -> bool {
        self.strangers().has(node, self.now()) && self.roster().incarnation(node).is_none()
    }

    /// Serve nobody, or serve again: as the nodes with another secret are there, or not.
    pub(super) fn stand_back_for_strangers(&self) {
        // before, those with the same secret may not have been heard of yet
        let alone = self.state.borrow().roster_known && self.roster().len() <= 1;
        let stands_back = self.strangers().stands_back(alone, self.now());
        let changed = self.state.send_if_modified(|state| {
            let changed = state.stranger != stands_back;
            state.stranger = stands_back;
            changed
        });
        match stands_back {
            true if changed => error!(
                node_id:% = self.me.node;
                "all other nodes have another cluster.secret, and this node came last: it serves nobody"
            ),
            false if changed => info!(node_id:% = self.me.node; "this node serves again"),
            _ => {}
        }
    }

    fn send_settings(&self, node: NodeId) {
        let settings = self.common().settings.clone().into_iter().collect();
        let _ = self.outgoing.send((Subject::Node(node), Body::Settings { from: self.me.node, settings }));
    }

    /// A node whose settings differ says what they are.
    pub(super) fn heard_settings(&self, node: NodeId, settings: &[(String, Fingerprint)]) {
        let Some(incarnation) = self.roster().incarnation(node) else { return };
        let Some(difference) = self.common().difference(settings) else { return };
        if self.said().settings(node, incarnation) {
            self.metrics.differs("settings");
            warn!(
                node_id:% = node;
                "node {node} has other settings than this one ({}): {difference}; give every node the same [apps] and [jwt]",
                self.me.node
            );
        }
    }

    fn compare_clocks(&self, beat: Beat) {
        let node = beat.node;
        let news = self.clocks().heard(node, beat.unix_millis, unix_millis(), self.now());
        let seconds = |millis: i64| Duration::from_millis(millis.unsigned_abs()).as_secs_f64();
        match news {
            Some(News::Differs(ahead)) => {
                self.metrics.differs("clock");
                let side = if ahead > 0 { "behind" } else { "ahead of" };
                let most = self.common().clock_tolerance.as_secs_f64();
                let allowed = if seconds(ahead) > most {
                    format!("that is more than the {most} s that are allowed for (cluster.clock_tolerance)")
                } else {
                    "that is allowed for".to_owned()
                };
                warn!(
                    node_id:% = node, milliseconds = ahead;
                    "the clock of node {node} is {:.1} s {side} this one's ({}): {allowed}; set the clocks right (NTP)",
                    seconds(ahead), self.me.node
                );
            }
            Some(News::Agrees) => info!(node_id:% = node; "the clock of node {node} agrees with this one's again"),
            None => {}
        }
    }

    pub(super) fn clock_ahead_of(&self, node: NodeId) -> i64 {
        self.clocks().ahead_of(node, self.common().clock_tolerance)
    }

    fn clocks(&self) -> MutexGuard<'_, super::Clocks> {
        self.clocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unix_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
