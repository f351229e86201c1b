//! The replica, rule by rule, and then on a simulated network: a coordinator, slaves with sockets, and everything between them late.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use super::*;
use crate::channels::ChannelTable;

thread_local! {
    static NAMES: Arc<ChannelTable> = Arc::default();
}

fn channel() -> ChannelRef {
    named("presence-a")
}

fn named(name: &str) -> ChannelRef {
    NAMES.with(|names| names.refer(&"app".parse().unwrap(), &name.parse().unwrap()))
}

fn member(user: &str, info: &str) -> Member {
    Member { user: user.parse().unwrap(), info: info.into() }
}

fn added(user: &str) -> MemberChange {
    MemberChange::Added(member(user, "{}"))
}

fn removed(user: &str) -> MemberChange {
    MemberChange::Removed(user.parse().unwrap())
}

fn list(users: &[&str]) -> BTreeMap<UserId, ByteString> {
    users.iter().map(|user| (user.parse().unwrap(), "{}".into())).collect()
}

/// A replica that knows these members, and of which somebody is about to come.
fn knowing(users: &[&str]) -> MemberReplica {
    let mut replica = MemberReplica::default();
    assert!(replica.invite(&channel()));
    let ticket = replica.fetch(channel().id()).expect("somebody comes");
    replica.fetched(channel().id(), ticket, list(users));
    replica
}

#[test]
fn a_newcomer_is_given_the_list_with_itself_and_who_was_there_first_stays_who_it_is() {
    let mut replica = knowing(&["ann", "bob"]);
    let came = replica.add(&channel(), &member("eve", "new"), 100).unwrap();
    let shown: Vec<_> = came.members.iter().map(|(user, info)| (user.as_str(), &**info)).collect();
    assert_eq!(shown, [("ann", "{}"), ("bob", "{}"), ("eve", "new")]);
    assert!(came.first);
    let again = replica.add(&channel(), &member("ann", "other"), 100).unwrap();
    assert_eq!(&*again.members[&"ann".parse::<UserId>().unwrap()], "{}");
    assert!(again.first && !replica.add(&channel(), &member("ann", "third"), 100).unwrap().first);
    assert!(!replica.remove(channel().id(), &"ann".parse().unwrap()));
    assert!(replica.remove(channel().id(), &"ann".parse().unwrap()));
    assert!(!replica.remove(channel().id(), &"ann".parse().unwrap()), "it left before");
}

#[test]
fn a_change_is_told_once_and_only_if_it_is_one() {
    let mut replica = knowing(&["ann"]);
    assert_eq!(replica.apply(channel().id(), added("ann")), None);
    assert_eq!(replica.apply(channel().id(), added("bob")), Some(MemberUpdate { number: 2, change: added("bob") }));
    assert_eq!(replica.apply(channel().id(), added("bob")), None);
    assert_eq!(replica.apply(channel().id(), removed("eve")), None);
    assert_eq!(replica.apply(channel().id(), removed("ann")), Some(MemberUpdate { number: 3, change: removed("ann") }));
    let elsewhere = named("presence-b");
    assert_eq!(replica.apply(elsewhere.id(), added("bob")), None);
}

#[test]
fn a_full_channel_lets_in_its_members_only() {
    let mut replica = knowing(&["ann", "bob"]);
    replica.add(&channel(), &member("eve", "{}"), 3).unwrap();
    // eve is not announced yet, and counts
    assert_eq!(replica.add(&channel(), &member("joe", "{}"), 3), Err(Denial::Full { most: 3 }));
    for there in ["ann", "eve"] {
        assert!(replica.add(&channel(), &member(there, "{}"), 3).is_ok(), "{there}");
    }
    replica.apply(channel().id(), added("eve"));
    assert_eq!(replica.add(&channel(), &member("joe", "{}"), 3), Err(Denial::Full { most: 3 }));
    replica.apply(channel().id(), removed("bob"));
    assert!(replica.add(&channel(), &member("joe", "{}"), 3).is_ok());
}

#[test]
fn newcomers_wait_for_the_list_and_what_is_announced_meanwhile_counts() {
    let mut replica = MemberReplica::default();
    assert!(replica.invite(&channel()));
    let ticket = replica.fetch(channel().id()).unwrap();
    assert!(!replica.invite(&channel()), "it is being fetched");
    let mut waits = [replica.wait(channel().id()).unwrap(), replica.wait(channel().id()).unwrap()];
    assert!(
        replica.apply(channel().id(), added("bob")).is_some()
            && replica.apply(channel().id(), removed("ann")).is_none()
    );
    assert!(waits.iter_mut().all(|wait| wait.try_recv().is_err()));
    let told = replica.fetched(channel().id(), ticket, list(&["ann", "eve"]));
    assert_eq!(told.into_iter().map(|told| told.change).collect::<Vec<_>>(), [added("eve")]);
    assert_eq!(replica.members(channel().id()), Some(vec!["bob", "eve"]));
    assert!(waits.iter_mut().all(|wait| wait.try_recv().is_ok()) && replica.wait(channel().id()).is_none());
}

#[test]
fn only_the_last_list_counts_and_shows_what_was_lost() {
    let mut replica = knowing(&["ann", "bob"]);
    let (old, new) = (replica.fetch(channel().id()).unwrap(), replica.fetch(channel().id()).unwrap());
    assert_eq!((replica.is_awaited(channel().id(), old), replica.is_awaited(channel().id(), new)), (false, true));
    assert_eq!(replica.fetched(channel().id(), old, list(&[])), []);
    let told: Vec<_> =
        replica.fetched(channel().id(), new, list(&["bob", "eve"])).into_iter().map(|told| told.change).collect();
    assert_eq!(told, [removed("ann"), added("eve")]);
    assert_eq!(replica.fetched(channel().id(), new, list(&[])), [], "a ticket is good once");
}

#[test]
fn a_channel_that_nobody_is_on_is_forgotten_and_its_numbers_are_not() {
    let mut replica = knowing(&["ann"]);
    replica.add(&channel(), &member("bob", "{}"), 9).unwrap();
    replica.uninvite(channel().id());
    assert_eq!(replica.channels().count(), 1);
    let before = replica.apply(channel().id(), added("bob")).unwrap().number;
    assert!(replica.remove(channel().id(), &"bob".parse().unwrap()));
    assert_eq!((replica.channels().count(), replica.apply(channel().id(), removed("ann"))), (0, None));
    // somebody turned back, and somebody barred
    assert!(replica.invite(&channel()));
    replica.uninvite(channel().id());
    assert!(replica.add(&channel(), &member("eve", "{}"), 0).is_err());
    assert_eq!(replica.channels().count(), 0);
    assert!(replica.invite(&channel()) && replica.add(&channel(), &member("eve", "{}"), 9).unwrap().number >= before);
}

const USERS: [&str; 3] = ["ann", "bob", "eve"];

struct ReplicaSocket {
    user: &'static str,
    since: u64,
    told: BTreeSet<String>,
}

/// A slave with its sockets, and what is under way to it and from it.
#[derive(Default)]
struct ReplicaSlave {
    replica: MemberReplica,
    sockets: Vec<ReplicaSocket>,
    to_coordinator: VecDeque<(&'static str, bool)>,
    facts: VecDeque<MemberChange>,
    lists: VecDeque<(u64, BTreeMap<UserId, ByteString>)>,
    coming: Vec<&'static str>,
    lost: bool,
}

struct ReplicaWorld {
    random: u64,
    slaves: Vec<ReplicaSlave>,
    /// The coordinator's table: who holds whom.
    held: BTreeMap<&'static str, BTreeSet<usize>>,
}

impl ReplicaWorld {
    fn below(&mut self, limit: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % limit
    }

    fn tell(&mut self, no: usize, told: Vec<MemberUpdate>) {
        let slave = &mut self.slaves[no];
        for MemberUpdate { number, change } in told {
            for socket in slave.sockets.iter_mut().filter(|socket| socket.since < number) {
                let user = change.user().as_str();
                if user == socket.user {
                    continue;
                }
                let news = match &change {
                    MemberChange::Added(_) => socket.told.insert(user.to_owned()),
                    MemberChange::Removed(_) => socket.told.remove(user),
                };
                assert!(news, "{change:?} was told before");
            }
        }
    }

    fn come(&mut self, no: usize, user: &'static str) {
        let slave = &mut self.slaves[no];
        if slave.replica.invite(&channel()) {
            let ticket = slave.replica.fetch(channel().id()).expect("somebody comes");
            self.send_for(no, ticket);
        }
        let slave = &mut self.slaves[no];
        if slave.replica.wait(channel().id()).is_some() {
            slave.coming.push(user);
        } else {
            self.local_socket(no, user);
        }
    }

    fn local_socket(&mut self, no: usize, user: &'static str) {
        let slave = &mut self.slaves[no];
        let came = slave.replica.add(&channel(), &member(user, "{}"), 9).expect("there is room");
        slave.replica.uninvite(channel().id());
        let mut told: BTreeSet<_> = came.members.keys().map(ToString::to_string).collect();
        assert!(told.remove(user));
        slave.sockets.push(ReplicaSocket { user, since: came.number, told });
        if came.first {
            slave.to_coordinator.push_back((user, true));
        }
    }

    fn leave(&mut self, no: usize) {
        let count = self.slaves[no].sockets.len();
        if count > 0 {
            let at = self.below(count);
            let slave = &mut self.slaves[no];
            let user = slave.sockets.swap_remove(at).user;
            if slave.replica.remove(channel().id(), &user.parse().unwrap()) {
                slave.to_coordinator.push_back((user, false));
            }
        }
    }

    /// The list is what the coordinator has announced when it is asked.
    fn send_for(&mut self, no: usize, ticket: u64) {
        let users: Vec<_> = self.held.iter().filter(|(_, by)| !by.is_empty()).map(|(user, _)| *user).collect();
        self.slaves[no].lists.push_back((ticket, list(&users)));
    }

    fn renew(&mut self, no: usize) {
        if let Some(ticket) = self.slaves[no].replica.fetch(channel().id()) {
            self.send_for(no, ticket);
        }
    }

    /// One of the things that are under way to or from a slave arrives. `false` if there is none.
    fn deliver(&mut self, no: usize, which: usize) -> bool {
        let slave = &mut self.slaves[no];
        match which {
            0 => {
                let Some((user, comes)) = slave.to_coordinator.pop_front() else { return false };
                let by = self.held.entry(user).or_default();
                let before = by.is_empty();
                let _ = if comes { by.insert(no) } else { by.remove(&no) };
                if before != by.is_empty() {
                    let change = if comes { added(user) } else { removed(user) };
                    self.slaves.iter_mut().for_each(|slave| slave.facts.push_back(change.clone()));
                }
            }
            1 => {
                let Some(fact) = slave.facts.pop_front() else { return false };
                let told = slave.replica.apply(channel().id(), fact);
                self.tell(no, told.into_iter().collect());
            }
            _ => {
                let Some((ticket, list)) = slave.lists.pop_front() else { return false };
                let told = slave.replica.fetched(channel().id(), ticket, list);
                self.tell(no, told);
                if self.slaves[no].replica.wait(channel().id()).is_none() {
                    for user in std::mem::take(&mut self.slaves[no].coming) {
                        self.local_socket(no, user);
                    }
                }
            }
        }
        true
    }

    fn drain(&mut self) {
        loop {
            let some =
                |world: &mut Self| (0..3).any(|which| (0..world.slaves.len()).any(|no| world.deliver(no, which)));
            if !some(self) {
                return;
            }
        }
    }

    /// What each socket was told is the copy of its slave.
    fn check(&self) {
        for slave in &self.slaves {
            let copy = slave.replica.members(channel().id()).unwrap_or_default();
            for socket in &slave.sockets {
                let told: Vec<_> = copy.iter().copied().filter(|user| *user != socket.user).collect();
                assert!(
                    socket.told.iter().eq(told.iter()),
                    "{:?} was told to {}, not {told:?}",
                    socket.told,
                    socket.user
                );
            }
        }
    }
}

fn live(seed: u64) {
    let mut world = ReplicaWorld { random: seed, slaves: Vec::new(), held: BTreeMap::new() };
    world.slaves.resize_with(3, ReplicaSlave::default);
    for _ in 0..80 {
        let no = world.below(3);
        match world.below(12) {
            0..3 => {
                let user = USERS[world.below(3)];
                world.come(no, user);
            }
            3..5 => world.leave(no),
            5 if world.below(4) == 0 => world.renew(no),
            6 if world.below(6) == 0 => {
                // cut off for a moment
                world.slaves[no].lost |= !world.slaves[no].facts.is_empty();
                world.slaves[no].facts.clear();
            }
            which => drop(world.deliver(no, which % 3)),
        }
        world.check();
    }
    world.drain();
    for no in 0..3 {
        if world.slaves[no].lost {
            world.renew(no);
        }
    }
    world.drain();
    world.check();
    let there: Vec<_> = world.held.iter().filter(|(_, by)| !by.is_empty()).map(|(user, _)| *user).collect();
    let users: BTreeSet<_> =
        world.slaves.iter().flat_map(|slave| slave.sockets.iter().map(|socket| socket.user)).collect();
    assert!(users.iter().eq(there.iter()), "{users:?} are there, the coordinator knows {there:?}");
    for slave in world.slaves.iter().filter(|slave| !slave.sockets.is_empty()) {
        assert_eq!(slave.replica.members(channel().id()).unwrap(), there);
    }
}

#[test]
fn what_each_socket_was_told_is_the_copy_and_the_copy_is_right_in_the_end() {
    for seed in 0..3_000 {
        let lived = std::panic::catch_unwind(|| live(seed));
        assert!(lived.is_ok(), "seed {seed}");
    }
}
