//! The network, the slaves on it, and what can happen to them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use wellhead_proto::{
    coordination::{CoordinatedKey, CoordinationMessage},
    ids::{ChannelKey, NodeId},
};

use super::{KEYS, Mode};
use crate::{
    channels::ChannelTable,
    presence::coordinator::{Coordinator, Fact, FollowUpdate, GRACE, LedgerKey, Outcome},
};

/// What travels from one slave to another.
enum Packet {
    CoordinationMessage(CoordinationMessage),
    /// The sender was heard of.
    Here,
    /// Its lease is over (or it said goodbye).
    Gone {
        lease: bool,
    },
}

#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum SimState {
    Up,
    /// Stopped; do the others forget it?
    Stopped {
        long: bool,
    },
}

pub(super) struct SimNode {
    pub(super) coordinator: Coordinator,
    pub(super) state: SimState,
    roster: BTreeSet<NodeId>,
    /// The membership has changed since the coordinator was last told.
    late: bool,
    pub(super) held: BTreeSet<usize>,
    /// With how many sockets it follows what.
    pub(super) follows: BTreeMap<usize, u64>,
    /// What all of those were told.
    pub(super) told: BTreeMap<usize, u64>,
}

pub(super) struct SimWorld {
    pub(super) mode: Mode,
    seed: u64,
    shown: bool,
    random: u64,
    now: Duration,
    pub(super) keys: Vec<CoordinatedKey>,
    next: u32,
    pub(super) nodes: BTreeMap<NodeId, SimNode>,
    links: BTreeMap<(NodeId, NodeId), VecDeque<Packet>>,
    pub(super) facts: Vec<Vec<bool>>,
    /// Channels that were held when that was last compared with the facts.
    pub(super) before: Vec<bool>,
    /// What was announced last.
    pub(super) occupied: Vec<bool>,
    /// Channels of which somebody died with news that it alone had.
    pub(super) tainted: BTreeSet<usize>,
    /// The last count of each channel that was announced.
    pub(super) counted: BTreeMap<usize, u64>,
}

impl SimWorld {
    pub(super) fn new(mode: Mode, seed: u64, shown: bool) -> Self {
        // a channel, a member of it, and a user in turn
        let key = |no: usize| {
            let (app, user) = ("app".parse().unwrap(), "ann".parse().unwrap());
            let name = format!("{seed}-{}", no / 3);
            match no % 3 {
                0 => CoordinatedKey::Channel(ChannelKey { app, name: name.parse().unwrap() }),
                1 => CoordinatedKey::Member { channel: ChannelKey { app, name: name.parse().unwrap() }, user },
                _ => CoordinatedKey::User { app, user: name.parse().unwrap() },
            }
        };
        Self {
            mode,
            seed,
            shown,
            random: seed.wrapping_mul(0x2545_F491_4F6C_DD1D) ^ mode as u64,
            now: Duration::ZERO,
            keys: (0..KEYS).map(key).collect(),
            next: 1,
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            facts: vec![Vec::new(); KEYS],
            before: vec![false; KEYS],
            occupied: vec![false; KEYS],
            tainted: BTreeSet::new(),
            counted: BTreeMap::new(),
        }
    }

    pub(super) fn join(&mut self) {
        let id = NodeId::from_random(self.next);
        self.next += 1;
        let mut roster = BTreeSet::from([id]);
        for other in self.ids() {
            self.send(id, other, Packet::Here);
            if self.nodes[&other].state == (SimState::Stopped { long: true }) {
                // silent until it goes on
            } else if roster.len() > 2 && self.chance(3) {
                // it knows of others when it begins, if there are any: that is the glue's to wait for
                self.send(other, id, Packet::Here);
            } else {
                roster.insert(other);
            }
        }
        self.show(|| format!("{id} comes, sees {roster:?}"));
        let mut coordinator = Coordinator::new(id, GRACE, Arc::new(ChannelTable::of_one_stripe()));
        coordinator.at(self.now);
        self.nodes.insert(
            id,
            SimNode {
                coordinator,
                state: SimState::Up,
                roster,
                late: false,
                held: BTreeSet::new(),
                follows: BTreeMap::new(),
                told: BTreeMap::new(),
            },
        );
        self.see_roster(id);
    }

    pub(super) fn goodbye(&mut self, id: NodeId) {
        self.wake(id);
        self.show(|| format!("{id} says goodbye"));
        if self.chance(2) {
            for key in self.nodes[&id].held.clone() {
                self.toggle(id, key);
            }
        }
        self.nodes.get_mut(&id).unwrap().roster.remove(&id);
        self.see_roster(id);
        self.remove(id, false);
    }

    pub(super) fn kill(&mut self, id: NodeId) {
        self.show(|| format!("{id} dies"));
        for other in self.ids() {
            self.lose(id, other, true);
        }
        self.remove(id, true);
    }

    fn remove(&mut self, id: NodeId, lease: bool) {
        self.nodes.remove(&id);
        self.links.retain(|(_, to), link| *to != id && !link.is_empty());
        for other in self.ids() {
            self.send(id, other, Packet::Gone { lease });
        }
    }

    pub(super) fn stop(&mut self, id: NodeId, long: bool) {
        if self.nodes[&id].state != SimState::Up {
            return;
        }
        self.show(|| format!("{id} stops, {}", if long { "long" } else { "shortly" }));
        self.nodes.get_mut(&id).unwrap().state = SimState::Stopped { long };
        if long {
            for other in self.ids() {
                self.send(id, other, Packet::Gone { lease: true });
            }
        }
    }

    pub(super) fn wake(&mut self, id: NodeId) {
        let SimState::Stopped { long } = self.nodes[&id].state else { return };
        self.show(|| format!("{id} goes on"));
        let node = self.nodes.get_mut(&id).unwrap();
        node.state = SimState::Up;
        node.coordinator.at(self.now);
        if long {
            for other in self.ids() {
                self.send(id, other, Packet::Here);
            }
            if self.chance(2) {
                for other in self.ids() {
                    self.lose(other, id, false);
                }
            }
            self.cut(id);
        }
    }

    /// What is under way to and from `id` is lost, and it notices.
    pub(super) fn lose_bus(&mut self, id: NodeId) {
        if self.nodes[&id].state != SimState::Up {
            return;
        }
        self.show(|| format!("{id} loses its bus for a moment"));
        for other in self.ids() {
            self.lose(other, id, false);
            self.lose(id, other, false);
        }
        self.cut(id);
    }

    fn cut(&mut self, id: NodeId) {
        self.nodes.get_mut(&id).unwrap().coordinator.detach();
        self.see_roster(id);
    }

    /// The end of what is under way from one to another is lost; all of it, if the bus is.
    fn lose(&mut self, from: NodeId, to: NodeId, taints: bool) {
        let kept = if taints { self.below(8) } else { 0 };
        let Some(link) = self.links.get_mut(&(from, to)) else { return };
        let mut place = 0;
        let mut lost = Vec::new();
        link.retain(|packet| {
            place += 1;
            match packet {
                Packet::CoordinationMessage(report) if place > kept => {
                    lost.push(report.clone());
                    false
                }
                _ => true,
            }
        });
        for report in lost {
            self.show(|| format!("lost from {from} to {to}: {report:?}"));
            if let (true, CoordinationMessage::Handover { key, .. }) = (taints, report) {
                self.tainted.insert(self.number(&key));
            }
        }
    }

    pub(super) fn toggle(&mut self, id: NodeId, key: usize) {
        let node = self.nodes.get_mut(&id).unwrap();
        let held = node.held.insert(key) || !node.held.remove(&key);
        let mut out = Outcome::default();
        let named = LedgerKey::of(node.coordinator.ledger.names(), &self.keys[key]);
        match held {
            true => node.coordinator.claim(&named, Some("of ann"), &mut out),
            false => node.coordinator.withdraw(&named, &mut out),
        }
        self.show(|| format!("{id} {} {key}", if held { "holds" } else { "leaves" }));
        self.take(id, out);
    }

    /// Another number of sockets follows a channel or a user.
    pub(super) fn follow(&mut self, id: NodeId, key: usize) {
        let count = match self.keys[key] {
            CoordinatedKey::Channel(_) => self.below(4) * self.below(60),
            _ => usize::from(!self.nodes[&id].follows.contains_key(&key)),
        } as u64;
        self.show(|| format!("{id} follows {key} with {count}"));
        let node = self.nodes.get_mut(&id).unwrap();
        let asks = count > node.follows.get(&key).copied().unwrap_or(0);
        if count == 0 {
            node.follows.remove(&key);
            node.told.remove(&key);
        } else {
            node.follows.insert(key, count);
        }
        let mut out = Outcome::default();
        node.coordinator.follow(&self.keys[key], count, asks, &mut out);
        self.take(id, out);
    }

    fn see_roster(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.late = false;
        let slaves: Vec<_> = node.roster.iter().copied().collect();
        let mut out = Outcome::default();
        node.coordinator.slaves_changed(&slaves, &mut out);
        self.show(|| format!("{id} sees {slaves:?}"));
        self.take(id, out);
    }

    fn take(&mut self, id: NodeId, out: Outcome) {
        for (to, report) in out.messages {
            assert_ne!(to, id, "nobody tells itself, {}", self.replay());
            self.send(id, to, Packet::CoordinationMessage(report));
        }
        for FollowUpdate { key, count, all } in out.told {
            let key = self.number(&key);
            self.show(|| format!("{id} is told: {count} of {key}, {}", if all { "for all" } else { "for newcomers" }));
            let known = all.then(|| self.nodes.get_mut(&id).unwrap().told.insert(key, count)).flatten();
            assert!(known != Some(count), "{id} is told twice of {key}, {}", self.replay());
        }
        for fact in out.facts {
            let (occupied, key) = match fact {
                Fact::Occupied(channel) => (true, channel.into()),
                Fact::Vacated(channel) => (false, channel.into()),
                Fact::MemberAdded(channel, member) => (true, CoordinatedKey::Member { channel, user: member.user }),
                Fact::MemberRemoved(channel, user) => (false, CoordinatedKey::Member { channel, user }),
                Fact::UserOnline(app, user) => (true, CoordinatedKey::User { app, user }),
                Fact::UserOffline(app, user) => (false, CoordinatedKey::User { app, user }),
                Fact::SubscriptionCount(channel, count) => {
                    let key = self.number(&channel.into());
                    self.show(|| format!("{id} announces: {count} are on {key}"));
                    self.counted.insert(key, count);
                    continue;
                }
                Fact::ClientEvent(..) | Fact::DecidedBy(..) | Fact::Leaving(_) => continue,
            };
            let key = self.number(&key);
            self.show(|| format!("{id} announces: {key} is {}", if occupied { "occupied" } else { "vacant" }));
            let known = self.mode == Mode::Chaos || self.tainted.contains(&key);
            let before = std::mem::replace(&mut self.occupied[key], occupied);
            assert!(before != occupied || known, "two equal facts of key {key} in a row, {}", self.replay());
            self.facts[key].push(occupied);
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, packet: Packet) {
        if from != to {
            self.links.entry((from, to)).or_default().push_back(packet);
        }
    }

    pub(super) fn deliver_one(&mut self) -> bool {
        let awake = |id: &NodeId| self.nodes.get(id).is_some_and(|node| node.state == SimState::Up);
        let ready = self.links.iter().filter(|((_, to), link)| !link.is_empty() && awake(to));
        let ready: Vec<_> = ready.map(|(&ends, _)| ends).collect();
        if ready.is_empty() {
            let late = self.nodes.iter().find(|(_, node)| node.late && node.state == SimState::Up).map(|(&id, _)| id);
            late.into_iter().for_each(|id| self.see_roster(id));
            return late.is_some();
        }
        let (from, to) = ready[self.below(ready.len())];
        // a lease takes its time
        if matches!(self.links[&(from, to)].front(), Some(Packet::Gone { lease: true })) && !self.chance(6) {
            return true;
        }
        match self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front).unwrap() {
            Packet::CoordinationMessage(report) => {
                self.show(|| format!("{from} tells {to}: {report:?}"));
                let mut out = Outcome::default();
                self.nodes.get_mut(&to).unwrap().coordinator.receive(from, report, &mut out);
                self.take(to, out);
            }
            Packet::Here => {
                let node = self.nodes.get_mut(&to).unwrap();
                node.late |= node.roster.insert(from);
            }
            Packet::Gone { .. } => {
                let node = self.nodes.get_mut(&to).unwrap();
                node.late |= node.roster.remove(&from);
            }
        }
        // several changes may be seen as one
        if self.nodes[&to].late && self.chance(2) {
            self.see_roster(to);
        }
        true
    }

    /// Time passes for those that run.
    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.show(|| format!("it is {:?}", self.now));
        for id in self.ids() {
            let node = self.nodes.get_mut(&id).unwrap();
            if node.state == SimState::Up {
                let mut out = Outcome::default();
                node.coordinator.at(self.now);
                node.coordinator.tick(&mut out);
                node.coordinator.tick_counts(&mut out);
                self.take(id, out);
            }
        }
    }

    /// Everything is heard, and every grace is over.
    pub(super) fn drain(&mut self) {
        let due = |coordinator: &Coordinator| coordinator.due().is_some() || coordinator.counts_due().is_some();
        let waits = |node: &SimNode| node.state == SimState::Up && due(&node.coordinator);
        for _ in 0..1_000_000 {
            if self.deliver_one() {
                continue;
            }
            if !self.nodes.values().any(waits) {
                return;
            }
            self.pass(GRACE);
        }
        panic!("they never stop talking, {}", self.replay());
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    fn number(&self, key: &CoordinatedKey) -> usize {
        self.keys.iter().position(|one| one == key).expect("there are no others")
    }

    /// splitmix64
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.random;
        bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((bits ^ bits >> 31) % limit as u64) as usize
    }

    pub(super) fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    #[expect(clippy::print_stderr, reason = "only when a single seed is looked at")]
    fn show(&self, line: impl FnOnce() -> String) {
        if self.shown {
            eprintln!("{}", line());
        }
    }

    pub(super) fn replay(&self) -> String {
        format!("COORDINATOR_SEED={:?}:{}", self.mode, self.seed)
    }
}
