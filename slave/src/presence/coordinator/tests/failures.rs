//! Slaves that die, are forgotten, or lose what was under way.

use super::*;

#[test]
fn the_standby_goes_on_when_the_coordinator_dies() {
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
fn what_the_coordinator_did_not_live_to_announce_the_standby_does() {
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
    let (by_other, by_coordinator) = (channel_of(&[1, 2, 3]), channel_of(&[3, 2, 1]));
    let mut net = Net::of(&[1, 2, 3]);
    net.holds(3, &by_other);
    net.holds(3, &by_coordinator);
    net.facts();
    net.dies(3);
    net.all_see(&[1, 2]);
    let facts = net.facts();
    assert!(facts.contains(&vacated(1, &by_other)) && facts.contains(&vacated(2, &by_coordinator)), "{facts:?}");
    assert_eq!(facts.len(), 2);
}

#[test]
fn when_coordinator_and_standby_die_at_once_a_claimant_knows_what_was_announced() {
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
    net.slave(3).detach();
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
    net.slave(1).detach();
    net.sees(1, &[1, 2, 3]);
    net.settle();
    let facts = net.facts();
    assert!(facts.contains(&occupied(1, &to_first)) && facts.contains(&occupied(2, &to_second)), "{facts:?}");
    assert_eq!(facts.len(), 2);
}
