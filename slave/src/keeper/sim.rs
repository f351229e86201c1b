//! Keepers on a simulated network: one queue from each slave to each other, delivered in random order; slaves that
//! come, go, die, stop and lose their bus; every slave sees that at its own time. Everything follows from a seed: a
//! failing one is printed, and `KEEPER_SEED=<mode>:<seed>` runs it alone. `KEEPER_SEEDS` says how many of each mode.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use wellhead_proto::{
    ids::{ChannelKey, NodeId},
    report::Report,
};

use super::{Fact, Keeper, Outcome};

const CHANNELS: usize = 4;
const OPERATIONS: usize = 40;

/// What may happen, and so what is promised.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    /// Anything, but one thing after the other: exactly one fact for each change of the cluster.
    Calm,
    /// Slaves come, say goodbye, stop, lose reports both ways, while sockets come and go: facts alternate, and end right.
    Busy,
    /// Slaves die as well, one at a time, with what they had not sent yet: the same, but for channels of which such a
    /// word was lost.
    Deadly,
    /// Anything at any time, several at once: what the last who knew it took along is lost, and what sides that went
    /// their own way announced stands side by side; but all agree again, and from then on one change is one fact.
    Chaos,
}

#[test]
fn facts_come_once_for_each_change() {
    run(Mode::Calm);
}

#[test]
fn facts_alternate_and_end_right_while_slaves_come_and_go() {
    run(Mode::Busy);
}

#[test]
fn facts_alternate_and_end_right_while_slaves_die() {
    run(Mode::Deadly);
}

#[test]
fn everything_heals_after_any_failure() {
    run(Mode::Chaos);
}

fn run(mode: Mode) {
    if let Ok(one) = std::env::var("KEEPER_SEED") {
        let (of, seed) = one.split_once(':').expect("KEEPER_SEED is a mode, a colon and a number");
        if of.eq_ignore_ascii_case(&format!("{mode:?}")) {
            World::new(mode, seed.parse().expect("a seed is a number"), true).live();
        }
        return;
    }
    let seeds = std::env::var("KEEPER_SEEDS").map_or(1_000, |seeds| seeds.parse().expect("KEEPER_SEEDS is a number"));
    for seed in 0..seeds {
        World::new(mode, seed, false).live();
    }
}

/// What travels from one slave to another.
enum Packet {
    Report(Report),
    /// The sender was heard of.
    Here,
    /// Its lease is over (or it said goodbye).
    Gone { lease: bool },
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum State {
    Up,
    /// Stopped; do the others forget it?
    Stopped { long: bool },
}

struct Node {
    keeper: Keeper,
    state: State,
    roster: BTreeSet<NodeId>,
    held: BTreeSet<usize>,
}

struct World {
    mode: Mode,
    seed: u64,
    shown: bool,
    random: u64,
    channels: Vec<ChannelKey>,
    next: u32,
    nodes: BTreeMap<NodeId, Node>,
    links: BTreeMap<(NodeId, NodeId), VecDeque<Packet>>,
    facts: Vec<Vec<bool>>,
    /// Channels that were held when that was last compared with the facts.
    before: Vec<bool>,
    /// What was announced last.
    occupied: Vec<bool>,
    /// Channels of which somebody died with news that it alone had.
    tainted: BTreeSet<usize>,
}

impl World {
    fn new(mode: Mode, seed: u64, shown: bool) -> Self {
        let name = |no: usize| ChannelKey { app: "app".parse().unwrap(), name: format!("{seed}-{no}").parse().unwrap() };
        Self {
            mode,
            seed,
            shown,
            random: seed.wrapping_mul(0x2545_F491_4F6C_DD1D) ^ mode as u64,
            channels: (0..CHANNELS).map(name).collect(),
            next: 1,
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            facts: vec![Vec::new(); CHANNELS],
            before: vec![false; CHANNELS],
            occupied: vec![false; CHANNELS],
            tainted: BTreeSet::new(),
        }
    }

    fn live(&mut self) {
        for _ in 0..1 + self.below(3) {
            self.join();
        }
        self.drain();
        for _ in 0..OPERATIONS {
            self.operate();
            match self.mode {
                Mode::Calm => {
                    self.drain();
                    self.check_changes();
                }
                _ => {
                    for _ in 0..self.below(12) {
                        self.deliver_one();
                    }
                }
            }
        }
        for node in self.ids() {
            self.wake(node);
        }
        self.drain();
        self.check_end();
        self.check_healed();
    }

    fn operate(&mut self) {
        let ids = self.ids();
        let node = ids[self.below(ids.len())];
        match self.below(20) {
            0 | 1 if ids.len() < 5 => self.join(),
            2 if ids.len() > 1 => {
                self.one_at_a_time();
                self.goodbye(node);
            }
            3 if ids.len() > 1 && self.mode != Mode::Busy => {
                self.one_at_a_time();
                self.kill(node);
            }
            4 if ids.len() > 1 || self.mode == Mode::Chaos => {
                if self.mode != Mode::Chaos {
                    for node in self.ids() {
                        self.wake(node);
                    }
                }
                self.one_at_a_time();
                let long = self.mode == Mode::Calm || self.chance(2);
                self.stop(node, long);
            }
            5 => self.wake(node),
            6 => {
                self.one_at_a_time();
                self.lose_bus(node);
            }
            _ if self.nodes[&node].state == State::Up => {
                let channel = self.below(CHANNELS);
                self.toggle(node, channel);
            }
            _ => {}
        }
    }

    /// Two that fail at once are the keeper and the deputy of something: only [`Mode::Chaos`] has that.
    fn one_at_a_time(&mut self) {
        if self.mode == Mode::Chaos {
            return;
        }
        for node in self.ids() {
            self.wake(node);
        }
        self.drain();
        if self.mode == Mode::Calm {
            self.check_changes();
        }
        // and yet in the middle of what others do; but what a slave knew alone goes with it
        let alone = self.nodes.len() == 1;
        for _ in 0..self.below(5) {
            let ids = self.ids();
            let node = ids[self.below(ids.len())];
            if self.mode != Mode::Calm {
                if ids.len() < 5 && !alone && self.chance(4) {
                    self.join();
                } else {
                    let channel = self.below(CHANNELS);
                    self.toggle(node, channel);
                }
                for _ in 0..self.below(4) {
                    self.deliver_one();
                }
            }
        }
    }

    fn join(&mut self) {
        let id = NodeId::from_random(self.next);
        self.next += 1;
        let mut roster = BTreeSet::from([id]);
        for other in self.ids() {
            self.send(id, other, Packet::Here);
            if self.nodes[&other].state == (State::Stopped { long: true }) {
                // silent until it goes on
            } else if roster.len() > 2 && self.chance(3) {
                // it knows of others when it begins, if there are any: that is the glue's to wait for
                self.send(other, id, Packet::Here);
            } else {
                roster.insert(other);
            }
        }
        self.show(|| format!("{id} comes, sees {roster:?}"));
        self.nodes.insert(id, Node { keeper: Keeper::new(id), state: State::Up, roster, held: BTreeSet::new() });
        self.see_roster(id);
    }

    fn goodbye(&mut self, id: NodeId) {
        self.wake(id);
        self.show(|| format!("{id} says goodbye"));
        if self.chance(2) {
            for channel in self.nodes[&id].held.clone() {
                self.toggle(id, channel);
            }
        }
        self.nodes.get_mut(&id).unwrap().roster.remove(&id);
        self.see_roster(id);
        self.remove(id, false);
    }

    fn kill(&mut self, id: NodeId) {
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

    fn stop(&mut self, id: NodeId, long: bool) {
        if self.nodes[&id].state != State::Up {
            return;
        }
        self.show(|| format!("{id} stops, {}", if long { "long" } else { "shortly" }));
        self.nodes.get_mut(&id).unwrap().state = State::Stopped { long };
        if long {
            for other in self.ids() {
                self.send(id, other, Packet::Gone { lease: true });
            }
        }
    }

    fn wake(&mut self, id: NodeId) {
        let State::Stopped { long } = self.nodes[&id].state else { return };
        self.show(|| format!("{id} goes on"));
        self.nodes.get_mut(&id).unwrap().state = State::Up;
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
    fn lose_bus(&mut self, id: NodeId) {
        if self.nodes[&id].state != State::Up {
            return;
        }
        self.show(|| format!("{id} loses its bus for a moment"));
        for other in self.ids() {
            self.lose(other, id, false);
            // should it die before it has told that again, it takes it along
            self.lose(id, other, self.mode == Mode::Deadly || self.mode == Mode::Chaos);
        }
        self.cut(id);
    }

    fn cut(&mut self, id: NodeId) {
        self.nodes.get_mut(&id).unwrap().keeper.cut();
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
                Packet::Report(report) if place > kept => {
                    lost.push(report.clone());
                    false
                }
                _ => true,
            }
        });
        for report in lost {
            self.show(|| format!("lost from {from} to {to}: {report:?}"));
            if let (true, Report::Kept { channel, .. }) = (taints, report) {
                self.tainted.insert(self.number(&channel));
            }
        }
    }

    fn toggle(&mut self, id: NodeId, channel: usize) {
        let node = self.nodes.get_mut(&id).unwrap();
        let held = node.held.insert(channel) || !node.held.remove(&channel);
        let mut out = Outcome::default();
        node.keeper.held(&self.channels[channel], held, &mut out);
        self.show(|| format!("{id} {} {channel}", if held { "holds" } else { "leaves" }));
        self.take(id, out);
    }

    fn see_roster(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        let slaves: Vec<_> = node.roster.iter().copied().collect();
        let mut out = Outcome::default();
        node.keeper.roster(&slaves, &mut out);
        self.show(|| format!("{id} sees {slaves:?}"));
        self.take(id, out);
    }

    fn take(&mut self, id: NodeId, out: Outcome) {
        for (to, report) in out.tell {
            assert_ne!(to, id, "nobody tells itself, {}", self.replay());
            self.send(id, to, Packet::Report(report));
        }
        for fact in out.facts {
            let (occupied, channel) = match fact {
                Fact::Occupied(channel) => (true, self.number(&channel)),
                Fact::Vacated(channel) => (false, self.number(&channel)),
            };
            self.show(|| format!("{id} announces: {channel} is {}", if occupied { "occupied" } else { "vacant" }));
            let known = self.mode == Mode::Chaos || self.tainted.contains(&channel);
            let before = std::mem::replace(&mut self.occupied[channel], occupied);
            assert!(before != occupied || known, "two equal facts of channel {channel} in a row, {}", self.replay());
            self.facts[channel].push(occupied);
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, packet: Packet) {
        if from != to {
            self.links.entry((from, to)).or_default().push_back(packet);
        }
    }

    fn deliver_one(&mut self) -> bool {
        let awake = |id: &NodeId| self.nodes.get(id).is_some_and(|node| node.state == State::Up);
        let ready = self.links.iter().filter(|((_, to), link)| !link.is_empty() && awake(to));
        let ready: Vec<_> = ready.map(|(&ends, _)| ends).collect();
        if ready.is_empty() {
            return false;
        }
        let (from, to) = ready[self.below(ready.len())];
        // a lease takes its time
        if matches!(self.links[&(from, to)].front(), Some(Packet::Gone { lease: true })) && !self.chance(6) {
            return true;
        }
        match self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front).unwrap() {
            Packet::Report(report) => {
                self.show(|| format!("{from} tells {to}: {report:?}"));
                let mut out = Outcome::default();
                self.nodes.get_mut(&to).unwrap().keeper.reported(from, report, &mut out);
                self.take(to, out);
            }
            Packet::Here => {
                self.nodes.get_mut(&to).unwrap().roster.insert(from);
                self.see_roster(to);
            }
            Packet::Gone { .. } => {
                self.nodes.get_mut(&to).unwrap().roster.remove(&from);
                self.see_roster(to);
            }
        }
        true
    }

    fn drain(&mut self) {
        for _ in 0..1_000_000 {
            if !self.deliver_one() {
                return;
            }
        }
        panic!("they never stop talking, {}", self.replay());
    }

    /// Channels with somebody on them, as far as the cluster can know.
    fn truth(&self) -> Vec<bool> {
        let counts = |node: &&Node| node.state != State::Stopped { long: true };
        let held = |channel| self.nodes.values().filter(counts).any(|node| node.held.contains(&channel));
        (0..CHANNELS).map(held).collect()
    }

    /// Exactly one fact for each change since the last time.
    fn check_changes(&mut self) {
        // who sleeps shortly is waited for
        if self.nodes.values().any(|node| node.state == State::Stopped { long: false }) {
            return;
        }
        let now = self.truth();
        let before = std::mem::replace(&mut self.before, now.clone());
        for (channel, facts) in std::mem::replace(&mut self.facts, vec![Vec::new(); CHANNELS]).into_iter().enumerate() {
            let expected = (now[channel] != before[channel]).then_some(now[channel]);
            assert_eq!(facts, Vec::from_iter(expected), "facts of channel {channel}, {}", self.replay());
        }
    }

    fn check_end(&self) {
        for (id, node) in &self.nodes {
            assert!(node.keeper.agreed(), "{id} does not know that all agree, {}", self.replay());
            for (channel, _) in node.keeper.table.iter() {
                let mine = node.keeper.keepers(channel).any(|keeper| keeper == *id);
                assert!(mine, "{id} remembers what it does not keep, {}", self.replay());
            }
        }
        for (channel, held) in self.truth().into_iter().enumerate() {
            let unknown = self.tainted.contains(&channel) || self.mode == Mode::Chaos;
            assert!(self.occupied[channel] == held || unknown, "end of channel {channel}, {}", self.replay());
        }
    }

    /// Whatever was: from now on, one change is one fact.
    fn check_healed(&mut self) {
        for id in self.ids() {
            for channel in self.nodes[&id].held.clone() {
                self.toggle(id, channel);
                self.drain();
            }
        }
        // what nobody knew of is made good by the next change, which is the second fact of its kind
        self.tainted = (0..CHANNELS).collect();
        for round in 0..2 {
            for channel in 0..CHANNELS {
                let ids = self.ids();
                let id = ids[self.below(ids.len())];
                self.facts[channel].clear();
                self.toggle(id, channel);
                self.drain();
                self.toggle(id, channel);
                self.drain();
                assert_eq!(self.facts[channel], [true, false], "round {round} of channel {channel}, {}", self.replay());
            }
        }
    }

    fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    fn number(&self, channel: &ChannelKey) -> usize {
        self.channels.iter().position(|one| one == channel).expect("there are no others")
    }

    /// splitmix64
    fn below(&mut self, limit: usize) -> usize {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.random;
        bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((bits ^ bits >> 31) % limit as u64) as usize
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    #[expect(clippy::print_stderr, reason = "only when a single seed is looked at")]
    fn show(&self, line: impl FnOnce() -> String) {
        if self.shown {
            eprintln!("{}", line());
        }
    }

    fn replay(&self) -> String {
        format!("KEEPER_SEED={:?}:{}", self.mode, self.seed)
    }
}
