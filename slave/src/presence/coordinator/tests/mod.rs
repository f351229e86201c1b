//! The rules of coordinators, one by one; `sim` mixes them.

mod deciding;
mod failures;
mod follows;
mod members;
mod messages;
mod moving;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use wellhead_proto::{
    coordination::{CoordinatedKey, CoordinationMessage},
    ids::{ChannelKey, NodeId, UserId},
    member::Member,
    membership::coordinators,
};

use super::{Coordinator, Fact, FollowUpdate, GRACE, LedgerKey, Outcome};
use crate::channels::ChannelTable;

fn node(no: u32) -> NodeId {
    NodeId::from_random(no)
}

fn coordinator(no: u32) -> Coordinator {
    Coordinator::new(node(no), GRACE, Arc::new(ChannelTable::of_one_stripe()))
}

/// Of how much a slave remembers something as coordinator or standby.
fn coordinated(slave: &Coordinator) -> usize {
    slave.ledger.coordinated().count()
}

fn nodes(nos: &[u32]) -> Vec<NodeId> {
    nos.iter().map(|&no| node(no)).collect()
}

/// A channel of which, of `slaves`, the first is the coordinator, the second the standby, and so on.
fn channel_of(slaves: &[u32]) -> ChannelKey {
    let in_order = |channel: &ChannelKey| {
        (0..slaves.len())
            .all(|from| coordinators(nodes(&slaves[from..]).into_iter(), channel).0 == Some(node(slaves[from])))
    };
    let name = |no: u32| ChannelKey { app: "app".parse().unwrap(), name: format!("channel-{no}").parse().unwrap() };
    (0..).map(name).find(in_order).expect("some name hashes like that")
}

/// Slaves that hear each other at once, once [`Net::deliver`] is called; [`Net::settle`] lets every grace end, too.
#[derive(Default)]
struct Net {
    now: Duration,
    slaves: BTreeMap<NodeId, Coordinator>,
    under_way: VecDeque<(NodeId, NodeId, CoordinationMessage)>,
    facts: Vec<(NodeId, Fact)>,
    /// What each was told of what it follows.
    told: Vec<(NodeId, FollowUpdate)>,
}

impl Net {
    /// Of slaves that know each other.
    fn of(nos: &[u32]) -> Self {
        let mut net = Self::default();
        for &no in nos {
            net.sees(no, nos);
        }
        net.settle();
        net
    }

    fn slave(&mut self, no: u32) -> &mut Coordinator {
        self.slaves.entry(node(no)).or_insert_with(|| coordinator(no))
    }

    /// Time passes, for everybody.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        for no in self.slaves.keys().copied().collect::<Vec<_>>() {
            let mut out = Outcome::default();
            let slave = self.slaves.get_mut(&no).expect("it is there");
            slave.at(self.now);
            slave.tick(&mut out);
            self.take(no, out);
        }
    }

    fn sees(&mut self, no: u32, list: &[u32]) {
        let mut out = Outcome::default();
        self.slave(no).slaves_changed(&nodes(list), &mut out);
        self.take(node(no), out);
    }

    fn all_see(&mut self, list: &[u32]) {
        for &no in list {
            self.sees(no, list);
        }
        self.settle();
    }

    fn held(&mut self, no: u32, channel: &ChannelKey, held: bool) {
        self.held_key(no, &channel.clone().into(), held);
    }

    fn held_key(&mut self, no: u32, key: &CoordinatedKey, held: bool) {
        let info = match key {
            CoordinatedKey::Member { user, .. } => Some(format!("{user} of {no}")),
            _ => None,
        };
        self.held_as(no, key, held, info);
    }

    fn held_as(&mut self, no: u32, key: &CoordinatedKey, held: bool, info: Option<String>) {
        let mut out = Outcome::default();
        let slave = self.slave(no);
        let key = LedgerKey::of(slave.ledger.names(), key);
        match held {
            true => slave.claim(&key, info.as_deref(), &mut out),
            false => slave.withdraw(&key, &mut out),
        }
        self.take(node(no), out);
    }

    fn holds(&mut self, no: u32, channel: &ChannelKey) {
        self.held(no, channel, true);
        self.settle();
    }

    fn leaves(&mut self, no: u32, channel: &ChannelKey) {
        self.held(no, channel, false);
        self.settle();
    }

    fn hears(&mut self, no: u32, from: u32, report: CoordinationMessage) {
        let mut out = Outcome::default();
        self.slave(no).receive(node(from), report, &mut out);
        self.take(node(no), out);
    }

    /// It is gone, with what it had not sent yet.
    fn dies(&mut self, no: u32) {
        self.slaves.remove(&node(no));
        self.under_way.retain(|(from, ..)| *from != node(no));
    }

    fn take(&mut self, from: NodeId, out: Outcome) {
        self.under_way.extend(out.messages.into_iter().map(|(to, message)| (from, to, message)));
        self.facts.extend(out.facts.into_iter().map(|fact| (from, fact)));
        self.told.extend(out.told.into_iter().map(|update| (from, update)));
    }

    fn settle(&mut self) {
        self.deliver();
        while self.slaves.values().any(|slave| slave.due().is_some()) {
            self.pass(GRACE);
            self.deliver();
        }
    }

    fn deliver(&mut self) {
        while let Some((from, to, report)) = self.under_way.pop_front() {
            if let Some(slave) = self.slaves.get_mut(&to) {
                let mut out = Outcome::default();
                slave.receive(from, report, &mut out);
                self.take(to, out);
            }
        }
    }

    fn facts(&mut self) -> Vec<(NodeId, Fact)> {
        std::mem::take(&mut self.facts)
    }
}

fn occupied(by: u32, channel: &ChannelKey) -> (NodeId, Fact) {
    (node(by), Fact::Occupied(channel.clone()))
}

fn vacated(by: u32, channel: &ChannelKey) -> (NodeId, Fact) {
    (node(by), Fact::Vacated(channel.clone()))
}
