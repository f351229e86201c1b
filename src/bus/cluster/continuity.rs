//! Has this node received everything that the others pushed? Pure; the time is passed in, as a span since any fixed
//! moment.
//!
//! Messages of a node are numbered in the order in which it hands them to the bus, and each says over which of the
//! sender's connections it travels. Over one connection of the sender and one of this node they arrive in that order and
//! without a hole. So nothing is in doubt until one of the two changes, or the sender was silent for longer than its
//! heartbeat allows:
//!
//! ```text
//! sure ──(connection of either side changed, silence)──▶ in doubt ──ask──▶ asked ──nothing was missed──▶ sure
//!                                                            │               └──some were──▶ settling ──they came──▶ sure
//!                                                            └── no answer: gap                  └── they did not: gap
//! ```
//!
//! In doubt, the node is asked what it handed over behind the last message that came for sure, and its answer is held
//! against what has come since.

use std::{collections::VecDeque, time::Duration};

use rustc_hash::{FxHashMap, FxHashSet};
use wellhead_proto::{
    bus::Gap,
    ids::NodeId,
    membership::{BEAT, LEASE},
};

/// The number of a message holds its sender above this bit.
pub(super) const SENDER: u32 = 43;

/// A node that sends a heartbeat once a second is not silent for so long, unless something was lost.
const SILENCE: Duration = Duration::from_millis(BEAT.as_millis() as u64 * 8 / 5);
/// How long an answer is waited for before the question is put again.
const AGAIN: Duration = Duration::from_millis(500);
/// Everything that was under way, by whatever other way, has come by then.
const SETTLE: Duration = Duration::from_secs(1);
/// Whose connection is lost over and over is not left in doubt for longer.
const LONGEST: Duration = Duration::from_secs(4 * LEASE.as_secs());
/// Messages that came while their sender was in doubt; beyond it nobody can tell what is missing.
const MOST_CAME: usize = 1 << 20;
/// Messages of nodes that are not known yet: as many as come while a heartbeat waits for the membership to take it.
const STRAYS: usize = 1 << 14;
/// Nodes that are remembered, those that are gone included.
const NODES: usize = 4_096;

/// What is known of the messages of each other node.
#[derive(Default)]
pub(super) struct Continuity {
    nodes: FxHashMap<NodeId, Known>,
    /// Messages of others, each with its sender's connection.
    strays: VecDeque<(u64, u32)>,
    /// When this node was up for the first time.
    up_since: Option<Duration>,
    /// When its connection ended last.
    interrupted: Option<Duration>,
    questions: u64,
}

struct Known {
    /// The highest number that came, over which connection of the sender, and when.
    last: u64,
    session: u32,
    heard: Duration,
    /// Its lease ended.
    gone: bool,
    doubt: Option<Doubt>,
}

struct Doubt {
    /// Everything up to this message came.
    sure: u64,
    /// What came behind it.
    came: FxHashSet<u64>,
    began: Duration,
    /// This node can be answered, since then.
    since: Duration,
    asked: Option<(u64, Duration)>,
    /// What has not come, and since when that is known.
    missing: Option<(Duration, Vec<u64>)>,
    /// If the node says nothing, is it to be feared that it pushed?
    must_answer: bool,
    /// Sockets from this one on missed nothing.
    opened: Option<u32>,
}

/// A question to a node: what did you push behind the message `after`?
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct GapQuestion {
    /// Stands in the answer.
    pub(super) no: u64,
    pub(super) after: u64,
}

/// Who sent a message.
pub(super) fn sender_of(message: u64) -> NodeId {
    NodeId::from_random((message >> SENDER) as u32)
}

impl Continuity {
    /// A message came.
    pub(super) fn heard(&mut self, message: u64, session: u32, now: Duration) {
        let Some(known) = self.nodes.get_mut(&sender_of(message)) else {
            if self.strays.len() == STRAYS {
                self.strays.pop_front();
            }
            self.strays.push_back((message, session));
            return;
        };
        let other = known.session != session;
        match &mut known.doubt {
            // the answer to an earlier question does not cover this connection
            Some(doubt) if other => doubt.begin_anew(),
            Some(_) => {}
            // a node that was silent and ends without an answer was most likely ending already: that alone is no gap
            None if other || known.gone || now.saturating_sub(known.heard) >= SILENCE => {
                known.doubt = Some(Doubt { must_answer: other, ..Doubt::after(known.last, now) });
            }
            None => {}
        }
        if let Some(doubt) = &mut known.doubt {
            doubt.came.insert(message);
        }
        *known = Known { last: known.last.max(message), session, heard: now, gone: false, doubt: known.doubt.take() };
    }

    /// `node` is a member of the cluster, and its heartbeat was heard just now.
    pub(super) fn member(&mut self, node: NodeId, now: Duration) {
        if self.nodes.contains_key(&node) || !self.has_room() {
            return;
        }
        let mut known = Known { last: 0, session: 0, heard: now, gone: false, doubt: None };
        let mut came = FxHashSet::default();
        self.strays.retain(|&(message, session)| {
            let its = sender_of(message) == node;
            if its {
                (known.last, known.session) = (known.last.max(message), session);
                came.insert(message);
            }
            !its
        });
        // what was pushed before this node started is not missing; a node that comes later is asked for everything since its
        // first message
        let within = |since: Option<Duration>, span| since.is_some_and(|since| now.saturating_sub(since) < span);
        if self.interrupted.is_some() || !within(self.up_since, LEASE) {
            let first = u64::from(u32::from(node)) << SENDER;
            // a node that ends soon after its start must answer only if this node had no connection meanwhile
            let must_answer = within(self.interrupted, LONGEST);
            known.doubt = Some(Doubt { came, must_answer, ..Doubt::after(first, now) });
        }
        self.nodes.insert(node, known);
    }

    fn has_room(&mut self) -> bool {
        if self.nodes.len() >= NODES {
            self.nodes.retain(|_, known| !known.gone);
        }
        self.nodes.len() < NODES
    }

    /// This node's connection ended. `must_answer`: whose silence means that something may be missing?
    pub(super) fn interrupted(&mut self, must_answer: impl Fn(NodeId) -> bool, now: Duration) {
        self.interrupted = self.up_since.and(Some(now));
        for (&node, known) in self.nodes.iter_mut().filter(|(_, known)| !known.gone) {
            let last = known.last;
            let doubt = known.doubt.get_or_insert_with(|| Doubt { must_answer: false, ..Doubt::after(last, now) });
            doubt.begin_anew();
            doubt.must_answer |= must_answer(node);
        }
    }

    /// This node has a connection; sockets from `opened` on are opened from now on.
    pub(super) fn up(&mut self, opened: u32, now: Duration) {
        self.up_since.get_or_insert(now);
        for doubt in self.nodes.values_mut().filter_map(|known| known.doubt.as_mut()) {
            (doubt.since, doubt.opened) = (now, Some(opened));
        }
    }

    /// What `node`, which can be heard, is to be asked now.
    pub(super) fn question(&mut self, node: NodeId, opened: u32, now: Duration) -> Option<GapQuestion> {
        let doubt = self.nodes.get_mut(&node)?.doubt.as_mut()?;
        let waits = doubt.asked.is_some_and(|(_, asked)| now.saturating_sub(asked) < AGAIN);
        if waits || doubt.missing.is_some() {
            return None;
        }
        self.questions += 1;
        doubt.asked = Some((self.questions, now));
        doubt.opened = Some(opened);
        Some(GapQuestion { no: self.questions, after: doubt.sure })
    }

    /// `node` answered the question `no` with the messages that it pushed to what this node listens to; or that it does not
    /// remember.
    pub(super) fn answered(&mut self, node: NodeId, no: u64, pushed: Option<Vec<u64>>, now: Duration) -> Option<Gap> {
        let known = self.nodes.get_mut(&node)?;
        let doubt = known.doubt.as_mut()?;
        if doubt.asked.is_none_or(|(asked, _)| asked != no) || doubt.missing.is_some() {
            return None;
        }
        let Some(mut missing) = pushed else {
            return known.doubt.take().map(|doubt| Gap::Unknown { from: node, opened_before: doubt.opened });
        };
        missing.retain(|message| !doubt.came.contains(message));
        if missing.is_empty() {
            known.doubt = None;
        } else {
            doubt.missing = Some((now, missing));
        }
        None
    }

    /// A node said goodbye. If it is in doubt, it is still to answer.
    pub(super) fn goodbye(&mut self, node: NodeId) {
        if self.nodes.get(&node).is_some_and(|known| known.doubt.as_ref().is_none_or(|doubt| !doubt.must_answer)) {
            self.nodes.remove(&node);
        }
    }

    /// The lease of a node ended. If it is heard again, it was there meanwhile.
    pub(super) fn expired(&mut self, node: NodeId) {
        if let Some(known) = self.nodes.get_mut(&node).filter(|known| known.doubt.is_none()) {
            known.gone = true;
        }
    }

    /// What is missing for sure by now, or must be feared to be.
    pub(super) fn tick(&mut self, now: Duration) -> Vec<Gap> {
        let mut gaps = Vec::new();
        for (&from, known) in &mut self.nodes {
            let Some(doubt) = &mut known.doubt else { continue };
            let gap = match &doubt.missing {
                Some((since, missing)) if now.saturating_sub(*since) >= SETTLE => {
                    let lost = missing.iter().filter(|message| !doubt.came.contains(message)).count();
                    (lost > 0).then_some(Gap::Missed { from, lost, opened_before: doubt.opened })
                }
                _ if doubt.came.len() > MOST_CAME || doubt.is_over(now) => {
                    doubt.must_answer.then_some(Gap::Unknown { from, opened_before: doubt.opened })
                }
                _ => continue,
            };
            known.gone |= known.doubt.take().is_some_and(|doubt| doubt.asked.is_none());
            gaps.extend(gap);
        }
        gaps
    }
}

impl Doubt {
    fn after(sure: u64, now: Duration) -> Self {
        Self {
            sure,
            came: FxHashSet::default(),
            began: now,
            since: now,
            asked: None,
            missing: None,
            must_answer: true,
            opened: None,
        }
    }

    fn is_over(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) >= LEASE || now.saturating_sub(self.began) >= LONGEST
    }

    fn begin_anew(&mut self) {
        (self.asked, self.missing) = (None, None);
    }
}

#[cfg(test)]
mod tests;
