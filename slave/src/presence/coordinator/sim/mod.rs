//! Coordinators on a simulated network: one queue from each slave to each other, delivered in random order; slaves that
//! come, go, die, stop and lose their bus; every slave sees that at its own time. Everything follows from a seed: a
//! failing one is printed, and `COORDINATOR_SEED=<mode>:<seed>` runs it alone. `COORDINATOR_SEEDS` says how many of each mode.

mod world;

use wellhead_proto::{coordination::CoordinatedKey, ids::NodeId};

use self::world::{SimNode, SimState, SimWorld};
use super::{Coordinator, GRACE};

/// Channels, members of channels, and users.
const KEYS: usize = 6;
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
    if let Ok(one) = std::env::var("COORDINATOR_SEED") {
        let (of, seed) = one.split_once(':').expect("COORDINATOR_SEED is a mode, a colon and a number");
        if of.eq_ignore_ascii_case(&format!("{mode:?}")) {
            SimWorld::new(mode, seed.parse().expect("a seed is a number"), true).live();
        }
        return;
    }
    let seeds =
        std::env::var("COORDINATOR_SEEDS").map_or(1_000, |seeds| seeds.parse().expect("COORDINATOR_SEEDS is a number"));
    for seed in 0..seeds {
        SimWorld::new(mode, seed, false).live();
    }
}

impl SimWorld {
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
        self.check_follows();
        self.check_healed();
    }

    fn operate(&mut self) {
        let ids = self.ids();
        let node = ids[self.below(ids.len())];
        match self.below(26) {
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
                self.one_at_a_time();
                let long = self.mode == Mode::Calm || self.chance(2);
                self.stop(node, long);
            }
            5 => self.wake(node),
            6 => {
                self.one_at_a_time();
                self.lose_bus(node);
            }
            7 => self.move_member(node),
            8 => {
                let time = self.below(1_000);
                self.pass(GRACE.mul_f64(time as f64 / 500.0));
            }
            20.. if self.nodes[&node].state == SimState::Up => {
                let (no, kind) = (self.below(KEYS / 3), self.below(2));
                self.follow(node, 3 * no + 2 * kind);
            }
            _ if self.nodes[&node].state == SimState::Up => {
                let key = self.below(KEYS);
                self.toggle(node, key);
            }
            _ => {}
        }
    }

    /// A member moves to another slave within the grace; which of the two is heard first is left to chance.
    fn move_member(&mut self, from: NodeId) {
        let ids = self.ids();
        let to = ids[self.below(ids.len())];
        let up = |id| self.nodes[&id].state == SimState::Up;
        let Some(key) = self.nodes[&from].held.iter().copied().find(|key| key % 3 != 0) else { return };
        if !up(from) || !up(to) {
            return;
        }
        self.toggle(from, key);
        for _ in 0..self.below(6) {
            self.deliver_one();
        }
        let time = self.below(1_000);
        self.pass(GRACE.mul_f64(time as f64 / 1_000.0));
        if !self.nodes[&to].held.contains(&key) {
            self.toggle(to, key);
        }
    }

    /// Two that fail at once are the coordinator and the standby of something: only [`Mode::Chaos`] has that.
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
                    let key = self.below(KEYS);
                    self.toggle(node, key);
                }
                for _ in 0..self.below(4) {
                    self.deliver_one();
                }
            }
        }
    }

    /// Channels with somebody on them, as far as the cluster can know.
    fn truth(&self) -> Vec<bool> {
        let counts = |node: &&SimNode| node.state != SimState::Stopped { long: true };
        let held = |key| self.nodes.values().filter(counts).any(|node| node.held.contains(&key));
        (0..KEYS).map(held).collect()
    }

    /// Exactly one fact for each change since the last time.
    fn check_changes(&mut self) {
        // who sleeps shortly is waited for
        if self.nodes.values().any(|node| node.state == SimState::Stopped { long: false }) {
            return;
        }
        let now = self.truth();
        let before = std::mem::replace(&mut self.before, now.clone());
        for (key, facts) in std::mem::replace(&mut self.facts, vec![Vec::new(); KEYS]).into_iter().enumerate() {
            let expected = (now[key] != before[key]).then_some(now[key]);
            assert_eq!(facts, Vec::from_iter(expected), "facts of key {key}, {}", self.replay());
        }
    }

    fn check_end(&self) {
        for (id, node) in &self.nodes {
            assert!(node.coordinator.agreed(), "{id} does not know that all agree, {}", self.replay());
            self.check_members(&node.coordinator);
            for (_, record) in node.coordinator.ledger.coordinated() {
                assert!(
                    node.coordinator.is_mine(record.place),
                    "{id} remembers what it does not keep, {}",
                    self.replay()
                );
            }
        }
        for (key, held) in self.truth().into_iter().enumerate() {
            let unknown = self.tainted.contains(&key) || self.mode == Mode::Chaos;
            assert!(self.occupied[key] == held || unknown, "end of key {key}, {}", self.replay());
        }
    }

    /// Whoever follows something was told in the end how it stands, whatever was.
    fn check_follows(&self) {
        let online = self.truth();
        for (id, node) in &self.nodes {
            for key in node.follows.keys() {
                let stands = match self.keys[*key] {
                    CoordinatedKey::Channel(_) => self.nodes.values().filter_map(|node| node.follows.get(key)).sum(),
                    _ => u64::from(online[*key]),
                };
                assert_eq!(node.told.get(key), Some(&stands), "what {id} was told of {key}, {}", self.replay());
                if self.mode == Mode::Calm && key % 3 == 0 {
                    assert_eq!(self.counted.get(key), Some(&stands), "the fact of {key}, {}", self.replay());
                }
            }
        }
    }

    /// What a coordinator says of the members of its channels is what was announced.
    fn check_members(&self, coordinator: &Coordinator) {
        for (no, key) in self.keys.iter().enumerate() {
            let CoordinatedKey::Member { channel, user } = key else { continue };
            let members = coordinator.members(channel);
            let known = members.iter().flat_map(|members| members.values()).all(|info| *info == "of ann");
            assert!(known, "what member {no} tells of itself, {}", self.replay());
            if let Some(members) = members
                && !self.tainted.contains(&no)
                && self.mode != Mode::Chaos
            {
                assert_eq!(members.contains_key(user), self.occupied[no], "member {no}, {}", self.replay());
            }
        }
    }

    /// Whatever was: from now on, one change is one fact.
    fn check_healed(&mut self) {
        for id in self.ids() {
            for key in self.nodes[&id].held.clone() {
                self.toggle(id, key);
                self.drain();
            }
        }
        // what nobody knew of is made good by the next change, which is the second fact of its kind
        self.tainted = (0..KEYS).collect();
        for round in 0..2 {
            for key in 0..KEYS {
                let ids = self.ids();
                let id = ids[self.below(ids.len())];
                self.facts[key].clear();
                self.toggle(id, key);
                self.drain();
                self.toggle(id, key);
                self.drain();
                assert_eq!(self.facts[key], [true, false], "round {round} of key {key}, {}", self.replay());
            }
        }
    }
}
