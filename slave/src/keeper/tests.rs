//! The rules of keepers, one by one; `sim.rs` mixes them.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use wellhead_proto::{
    ids::{ChannelKey, NodeId},
    member::Member,
    report::{Post, Report},
    roster::keepers,
};

use super::{Fact, GRACE, Keeper, Outcome};

fn node(no: u32) -> NodeId {
    NodeId::from_random(no)
}

fn nodes(nos: &[u32]) -> Vec<NodeId> {
    nos.iter().map(|&no| node(no)).collect()
}

/// A channel of which, of `slaves`, the first is the keeper, the second the deputy, and so on.
fn channel_of(slaves: &[u32]) -> ChannelKey {
    let in_order = |channel: &ChannelKey| {
        (0..slaves.len()).all(|from| keepers(nodes(&slaves[from..]).into_iter(), channel).0 == Some(node(slaves[from])))
    };
    let name = |no: u32| ChannelKey { app: "app".parse().unwrap(), name: format!("channel-{no}").parse().unwrap() };
    (0..).map(name).find(in_order).expect("some name hashes like that")
}

/// Slaves that hear each other at once, once [`Net::deliver`] is called; [`Net::settle`] lets every grace end, too.
#[derive(Default)]
struct Net {
    now: Duration,
    slaves: BTreeMap<NodeId, Keeper>,
    under_way: VecDeque<(NodeId, NodeId, Report)>,
    facts: Vec<(NodeId, Fact)>,
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

    fn slave(&mut self, no: u32) -> &mut Keeper {
        self.slaves.entry(node(no)).or_insert_with(|| Keeper::new(node(no), GRACE))
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

    fn sees(&mut self, no: u32, roster: &[u32]) {
        let mut out = Outcome::default();
        self.slave(no).roster(&nodes(roster), &mut out);
        self.take(node(no), out);
    }

    fn all_see(&mut self, roster: &[u32]) {
        for &no in roster {
            self.sees(no, roster);
        }
        self.settle();
    }

    fn held(&mut self, no: u32, channel: &ChannelKey, held: bool) {
        self.held_post(no, &channel.clone().into(), held);
    }

    fn held_post(&mut self, no: u32, post: &Post, held: bool) {
        let info = post.member.as_ref().map(|user| format!("{user} of {no}"));
        self.held_as(no, post, held, info);
    }

    fn held_as(&mut self, no: u32, post: &Post, held: bool, info: Option<String>) {
        let mut out = Outcome::default();
        match held {
            true => self.slave(no).came(post, info.as_deref(), &mut out),
            false => self.slave(no).left(post, &mut out),
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

    fn hears(&mut self, no: u32, from: u32, report: Report) {
        let mut out = Outcome::default();
        self.slave(no).reported(node(from), report, &mut out);
        self.take(node(no), out);
    }

    /// It is gone, with what it had not sent yet.
    fn dies(&mut self, no: u32) {
        self.slaves.remove(&node(no));
        self.under_way.retain(|(from, ..)| *from != node(no));
    }

    fn take(&mut self, from: NodeId, out: Outcome) {
        self.under_way.extend(out.tell.into_iter().map(|(to, report)| (from, to, report)));
        self.facts.extend(out.facts.into_iter().map(|fact| (from, fact)));
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
                slave.reported(from, report, &mut out);
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

#[test]
fn alone_a_slave_announces_at_once_tells_nobody_and_keeps_nothing() {
    let channel = channel_of(&[1]);
    let mut net = Net::of(&[1]);
    net.held(1, &channel, true);
    net.held(1, &channel, true);
    net.held(1, &channel, false);
    assert_eq!(net.under_way, []);
    assert_eq!(net.facts(), [occupied(1, &channel), vacated(1, &channel)]);
    assert!(net.slave(1).is_empty());
}

#[test]
fn nothing_is_announced_before_a_roster_is_known() {
    let (held, left) = (channel_of(&[1, 2]), channel_of(&[1, 3]));
    let mut net = Net::default();
    net.held(1, &held, true);
    net.held(1, &left, true);
    net.held(1, &left, false);
    assert_eq!((net.facts(), net.slave(1).agreed()), (vec![], false));
    net.sees(1, &[1]);
    assert_eq!((net.facts(), net.slave(1).agreed()), (vec![occupied(1, &held)], true));
}

#[test]
fn the_keeper_announces_the_first_and_the_last_of_all_slaves() {
    let channel = channel_of(&[2, 1, 3]);
    let mut net = Net::of(&[1, 2, 3]);
    for no in [1, 3, 2] {
        net.holds(no, &channel);
    }
    assert_eq!(net.facts(), [occupied(2, &channel)]);
    for no in [1, 2, 3] {
        assert_eq!(net.facts(), []);
        net.leaves(no, &channel);
    }
    assert_eq!(net.facts(), [vacated(2, &channel)]);
}

#[test]
fn the_deputy_goes_on_when_the_keeper_dies() {
    let channel = channel_of(&[1, 2, 3]);
    let mut net = Net::of(&[1, 2, 3]);
    net.holds(3, &channel);
    net.facts();
    net.dies(1);
    net.all_see(&[2, 3]);
    assert_eq!(net.facts(), []);
    net.leaves(3, &channel);
    assert_eq!(net.facts(), [vacated(2, &channel)]);
}

#[test]
fn what_the_keeper_did_not_live_to_announce_the_deputy_does() {
    let channel = channel_of(&[1, 2, 3]);
    let mut net = Net::of(&[1, 2, 3]);
    net.dies(1);
    net.holds(3, &channel);
    assert_eq!(net.facts(), []);
    net.all_see(&[2, 3]);
    assert_eq!(net.facts(), [occupied(2, &channel)]);
}

#[test]
fn who_dies_holds_nothing() {
    let (by_other, by_keeper) = (channel_of(&[1, 2, 3]), channel_of(&[3, 2, 1]));
    let mut net = Net::of(&[1, 2, 3]);
    net.holds(3, &by_other);
    net.holds(3, &by_keeper);
    net.facts();
    net.dies(3);
    net.all_see(&[1, 2]);
    let facts = net.facts();
    assert!(facts.contains(&vacated(1, &by_other)) && facts.contains(&vacated(2, &by_keeper)), "{facts:?}");
    assert_eq!(facts.len(), 2);
}

#[test]
fn when_keeper_and_deputy_die_at_once_a_holder_knows_what_was_announced() {
    let channel = channel_of(&[1, 2, 3, 4]);
    let mut net = Net::of(&[1, 2, 3, 4]);
    net.holds(3, &channel);
    net.holds(4, &channel);
    net.leaves(3, &channel);
    net.facts();
    net.dies(1);
    net.dies(2);
    net.all_see(&[3, 4]);
    assert_eq!(net.facts(), []);
    net.leaves(4, &channel);
    assert_eq!(net.facts(), [vacated(3, &channel)]);
}

#[test]
fn a_new_keeper_goes_on_where_the_old_one_was() {
    let channel = channel_of(&[3, 1, 2]);
    let mut net = Net::of(&[1, 2]);
    net.holds(2, &channel);
    assert_eq!(net.facts(), [occupied(1, &channel)]);
    net.all_see(&[1, 2, 3]);
    assert_eq!(net.facts(), []);
    net.leaves(2, &channel);
    assert_eq!(net.facts(), [vacated(3, &channel)]);
}

#[test]
fn nothing_is_announced_while_slaves_see_different_rosters() {
    let (of_new, of_old) = (channel_of(&[3, 1, 2]), channel_of(&[1, 2, 3]));
    let mut net = Net::of(&[1, 2]);
    net.sees(1, &[1, 2, 3]);
    net.sees(3, &[1, 2, 3]);
    net.settle();
    // the second does not see the third yet, and tells the first
    net.holds(2, &of_new);
    net.holds(2, &of_old);
    net.holds(3, &of_old);
    assert_eq!(net.facts(), []);
    net.sees(2, &[1, 2, 3]);
    net.settle();
    let facts = net.facts();
    assert!(facts.contains(&occupied(3, &of_new)) && facts.contains(&occupied(1, &of_old)), "{facts:?}");
    assert_eq!(facts.len(), 2);
}

#[test]
fn a_channel_that_moves_away_is_not_taken_for_vacant() {
    // the keeper still sees the old roster when the holder withdraws what is not its any more
    let channel = channel_of(&[3, 4, 1, 2]);
    let mut net = Net::of(&[1, 2]);
    net.holds(2, &channel);
    assert_eq!(net.facts(), [occupied(1, &channel)]);
    for no in [3, 4, 2] {
        net.sees(no, &[1, 2, 3, 4]);
        net.settle();
    }
    assert_eq!(net.facts(), []);
    net.sees(1, &[1, 2, 3, 4]);
    net.settle();
    assert_eq!(net.facts(), []);
    assert!(net.slave(1).is_empty(), "what all know to be others' is forgotten");
    net.leaves(2, &channel);
    assert_eq!(net.facts(), [vacated(3, &channel)]);
}

#[test]
fn who_was_forgotten_and_comes_back_holds_its_channels_again() {
    let (kept, held) = (channel_of(&[3, 1, 2]), channel_of(&[1, 2, 3]));
    let mut net = Net::of(&[1, 2, 3]);
    net.holds(3, &kept);
    net.holds(3, &held);
    net.facts();
    // the third is stopped: it hears nothing
    let stopped = net.slaves.remove(&node(3)).unwrap();
    net.sees(1, &[1, 2]);
    net.sees(2, &[1, 2]);
    net.settle();
    assert_eq!(net.facts().len(), 2);
    net.slaves.insert(node(3), stopped);
    net.slave(3).cut();
    net.all_see(&[1, 2, 3]);
    let facts = net.facts();
    assert!(facts.contains(&occupied(3, &kept)) && facts.contains(&occupied(1, &held)), "{facts:?}");
    assert_eq!(facts.len(), 2);
}

#[test]
fn who_is_told_that_it_was_forgotten_announces_nothing_any_more() {
    let channel = channel_of(&[2, 1]);
    let mut net = Net::of(&[1, 2]);
    net.sees(1, &[1]);
    net.settle();
    net.holds(2, &channel);
    assert_eq!(net.facts(), []);
    // the first saw it again: it has forgotten what the second said, and asks
    net.sees(1, &[1, 2]);
    net.settle();
    assert_eq!(net.facts(), [occupied(2, &channel)]);
}

#[test]
fn lost_reports_are_told_again() {
    let (to_first, to_second) = (channel_of(&[1, 2, 3]), channel_of(&[2, 1, 3]));
    let mut net = Net::of(&[1, 2, 3]);
    net.held(1, &to_second, true);
    net.held(3, &to_first, true);
    net.held(2, &to_first, true);
    // all that is under way to the first and from it
    net.under_way.retain(|(from, to, _)| *from != node(1) && *to != node(1));
    net.settle();
    assert_eq!(net.facts(), []);
    net.slave(1).cut();
    net.sees(1, &[1, 2, 3]);
    net.settle();
    let facts = net.facts();
    assert!(facts.contains(&occupied(1, &to_first)) && facts.contains(&occupied(2, &to_second)), "{facts:?}");
    assert_eq!(facts.len(), 2);
}

#[test]
fn who_says_goodbye_hands_over_and_is_silent() {
    let (kept, watched) = (channel_of(&[1, 2, 3]), channel_of(&[2, 1, 3]));
    let mut net = Net::of(&[1, 2, 3]);
    net.holds(2, &kept);
    net.holds(2, &watched);
    net.facts();
    net.sees(1, &[2, 3]);
    net.held(1, &channel_of(&[1, 3, 2]), true);
    assert!(!net.slave(1).agreed());
    for channel in [kept, watched] {
        let handed = (node(1), node(3), Report::Kept { post: channel.into(), epoch: 1 });
        assert!(net.under_way.contains(&handed), "{:?}", net.under_way);
    }
    assert_eq!(net.under_way.len(), 2);
    assert_eq!(net.facts(), []);
}

#[test]
fn only_answers_to_the_last_question_are_heard() {
    let channel = channel_of(&[1, 2]);
    let holds = || Report::Holds { post: channel.clone().into(), held: true, epoch: 0, info: None };
    let settled = || Report::Settled { slaves: nodes(&[1, 2]), turn: 1, heard: 0 };
    let mut net = Net::default();
    net.hears(1, 2, holds());
    net.sees(1, &[1, 2]);
    let Some((_, _, Report::Ask { no })) = net.under_way.pop_back() else { panic!("who comes is asked") };
    for report in [holds(), settled(), Report::Answer { no: no + 1 }, holds(), settled()] {
        net.hears(1, 2, report);
    }
    assert_eq!((net.facts(), net.slave(1).agreed(), net.slave(1).len()), (vec![], false, 0));
    for report in [Report::Answer { no }, holds(), settled()] {
        net.hears(1, 2, report);
    }
    assert_eq!((net.facts(), net.slave(1).agreed()), (vec![occupied(1, &channel)], true));
    // from a slave that is not on the roster
    net.hears(1, 3, Report::Ask { no: 1 });
    net.hears(1, 3, holds());
    net.hears(1, 3, settled());
    assert!(net.under_way.iter().all(|(_, to, _)| *to == node(2)), "{:?}", net.under_way);
}

#[test]
fn a_question_is_answered_once() {
    let mut net = Net::of(&[1, 2]);
    net.sees(1, &[1]);
    net.sees(1, &[1, 2]);
    net.settle();
    let mut out = Outcome::default();
    for _ in 0..2 {
        net.slave(1).reported(node(2), Report::Ask { no: 77 }, &mut out);
    }
    assert_eq!(out.tell.iter().filter(|(_, report)| *report == Report::Answer { no: 77 }).count(), 1);
}

#[test]
fn no_number_from_outside_makes_it_panic_or_repeat_itself() {
    let channel = channel_of(&[1, 2]);
    let mut net = Net::of(&[1, 2]);
    for epoch in [u64::MAX, u64::MAX - 1, 0] {
        net.hears(1, 2, Report::Kept { post: channel.clone().into(), epoch });
        net.hears(1, 2, Report::Announced { post: channel.clone().into(), epoch });
        net.hears(1, 2, Report::Holds { post: channel.clone().into(), held: true, epoch, info: None });
        net.hears(1, 2, Report::Holds { post: channel.clone().into(), held: false, epoch, info: None });
    }
    net.settle();
    let pair = [occupied(1, &channel), vacated(1, &channel)];
    assert_eq!(net.facts(), [&pair[..], &pair, &pair].concat());
}

#[test]
fn the_same_roster_again_changes_nothing() {
    let mut net = Net::of(&[1, 2]);
    net.sees(1, &[2, 1, 2]);
    assert_eq!(net.under_way, []);
    assert!(net.slave(1).agreed());
}

#[test]
fn letters_keep_the_order_and_the_limit() {
    let report = |no| Report::Ask { no };
    let tell = [(1, 1), (2, 2), (1, 3), (1, 4), (2, 5)].map(|(to, no)| (node(to), report(no)));
    let mut out = Outcome { tell: tell.to_vec(), facts: vec![] };
    assert_eq!(
        out.letters(2),
        [(node(1), vec![report(1), report(3)]), (node(2), vec![report(2), report(5)]), (node(1), vec![report(4)]),]
    );
    assert_eq!(out, Outcome::default());
}

fn member(channel: &ChannelKey, user: &str) -> Post {
    Post { channel: channel.clone(), member: Some(user.parse().unwrap()) }
}

fn added(no: u32, channel: &ChannelKey, user: &str, info: &str) -> (NodeId, Fact) {
    let member = Member { user: user.parse().unwrap(), info: info.into() };
    (node(no), Fact::Added(channel.clone(), member))
}

fn removed(no: u32, channel: &ChannelKey, user: &str) -> (NodeId, Fact) {
    (node(no), Fact::Removed(channel.clone(), user.parse().unwrap()))
}

#[test]
fn a_member_is_added_by_its_first_slave_and_removed_with_its_last() {
    let channel = channel_of(&[2, 3, 1]);
    let mut net = Net::of(&[1, 2, 3]);
    let (ann, bob) = (member(&channel, "ann"), member(&channel, "bob"));
    for (no, post) in [(1, &ann), (3, &ann), (3, &bob), (2, &bob)] {
        net.held_post(no, post, true);
        net.settle();
    }
    // who came first is who it is
    assert_eq!(net.facts(), [added(2, &channel, "ann", "ann of 1"), added(2, &channel, "bob", "bob of 3")]);
    let attendance = net.slave(2).attendance(&channel).expect("it keeps the channel");
    let there: Vec<_> = attendance.iter().map(|(user, info)| (user.as_str(), &**info)).collect();
    assert_eq!(there, [("ann", "ann of 1"), ("bob", "bob of 3")]);
    assert_eq!(net.slave(1).attendance(&channel), None);
    net.held_post(1, &ann, false);
    net.settle();
    assert_eq!(net.facts(), []);
    net.dies(3);
    net.all_see(&[1, 2]);
    assert_eq!(net.facts(), [removed(2, &channel, "ann")]);
    net.held_post(2, &bob, false);
    net.settle();
    assert_eq!(net.facts(), [removed(2, &channel, "bob")]);
    assert_eq!(net.slave(2).attendance(&channel), Some(BTreeMap::new()));
}

#[test]
fn a_channel_and_its_members_have_one_keeper_which_knows_them_when_all_agree() {
    let channel = channel_of(&[3, 1, 2]);
    let mut net = Net::of(&[1, 2]);
    net.holds(2, &channel);
    for user in ["ann", "bob"] {
        net.held_post(2, &member(&channel, user), true);
    }
    net.settle();
    assert!(net.facts().iter().all(|(slave, _)| *slave == node(1)));
    net.sees(3, &[1, 2, 3]);
    assert_eq!(net.slave(3).attendance(&channel), None, "it does not know yet");
    net.all_see(&[1, 2, 3]);
    assert_eq!(net.facts(), []);
    assert_eq!(net.slave(1).attendance(&channel), None, "it is no longer its own");
    assert_eq!(net.slave(3).attendance(&channel).expect("it knows").len(), 2);
    net.held_post(2, &member(&channel, "ann"), false);
    net.settle();
    assert_eq!(net.facts(), [removed(3, &channel, "ann")]);
}

#[test]
fn a_keeper_that_takes_over_knows_its_own_members_by_what_is_known_of_them() {
    let channel = channel_of(&[1, 2, 3]);
    let mut net = Net::of(&[1, 2, 3]);
    for (no, user) in [(2, "ann"), (3, "bob")] {
        net.held_post(no, &member(&channel, user), true);
    }
    net.settle();
    assert_eq!(net.facts(), [added(1, &channel, "ann", "ann of 2"), added(1, &channel, "bob", "bob of 3")]);
    net.dies(1);
    net.all_see(&[2, 3]);
    assert_eq!(net.facts(), []);
    let attendance = net.slave(2).attendance(&channel).expect("it keeps the channel");
    let there: Vec<_> = attendance.iter().map(|(user, info)| (user.as_str(), &**info)).collect();
    assert_eq!(there, [("ann", "ann of 2"), ("bob", "bob of 3")]);
}

#[test]
fn a_member_that_moves_between_slaves_within_the_grace_is_not_announced() {
    for keeper in [[1, 2, 3], [2, 1, 3], [3, 1, 2]] {
        let channel = channel_of(&keeper);
        let mut net = Net::of(&[1, 2, 3]);
        let ann = member(&channel, "ann");
        net.held_as(1, &ann, true, Some("ann".to_owned()));
        net.settle();
        assert_eq!(net.facts(), [added(keeper[0], &channel, "ann", "ann")]);
        for (from, to) in [(1, 2), (2, 1), (1, 1)] {
            net.held_post(from, &ann, false);
            net.deliver();
            net.pass(GRACE - Duration::from_millis(1));
            // it is a member as before, for who joins meanwhile, too
            assert_eq!(net.slave(keeper[0]).attendance(&channel).expect("it keeps the channel").len(), 1);
            net.held_as(to, &ann, true, Some("ann".to_owned()));
            net.settle();
            assert_eq!(net.facts(), [], "{keeper:?}: from {from} to {to}");
        }
        net.held_post(1, &ann, false);
        net.deliver();
        net.pass(GRACE - Duration::from_millis(1));
        assert_eq!(net.facts(), [], "the last move left no grace that is over too soon");
        net.pass(Duration::from_millis(1));
        assert_eq!(net.facts(), [removed(keeper[0], &channel, "ann")]);
        assert_eq!(net.slave(keeper[0]).attendance(&channel), Some(BTreeMap::new()));
    }
}

#[test]
fn a_member_that_comes_back_with_other_info_has_left_first() {
    let channel = channel_of(&[2, 1]);
    let mut net = Net::of(&[1, 2]);
    let ann = member(&channel, "ann");
    for (no, other) in [(1, 2), (2, 1)] {
        net.held_post(no, &ann, true);
        net.deliver();
        net.facts();
        net.held_post(no, &ann, false);
        net.deliver();
        net.held_post(other, &ann, true);
        net.deliver();
        let now = added(2, &channel, "ann", &format!("ann of {other}"));
        assert_eq!(net.facts(), [removed(2, &channel, "ann"), now]);
        net.held_post(other, &ann, false);
        net.settle();
        assert_eq!(net.facts(), [removed(2, &channel, "ann")]);
    }
}

#[test]
fn a_grace_that_its_keeper_does_not_live_to_see_ends_with_the_next_one() {
    let channel = channel_of(&[1, 2, 3]);
    let mut net = Net::of(&[1, 2, 3]);
    let (ann, bob) = (member(&channel, "ann"), member(&channel, "bob"));
    for post in [&ann, &bob] {
        net.held_post(3, post, true);
    }
    net.settle();
    net.facts();
    for post in [&ann, &bob] {
        net.held_post(3, post, false);
    }
    net.deliver();
    net.dies(1);
    for no in [2, 3] {
        net.sees(no, &[2, 3]);
    }
    net.deliver();
    net.held_as(2, &bob, true, Some("bob of 3".to_owned()));
    net.deliver();
    assert_eq!(net.facts(), []);
    net.settle();
    assert_eq!(net.facts(), [removed(2, &channel, "ann")]);
}

#[test]
fn a_channel_is_vacant_at_once() {
    let channel = channel_of(&[1, 2]);
    let mut net = Net::of(&[1, 2]);
    net.held(2, &channel, true);
    net.held(2, &channel, false);
    net.deliver();
    assert_eq!(net.facts(), [occupied(1, &channel), vacated(1, &channel)]);
}
