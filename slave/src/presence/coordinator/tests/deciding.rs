//! What is decided, and when.

use super::*;

#[test]
fn alone_a_slave_announces_at_once_tells_nobody_and_keeps_nothing() {
    let channel = channel_of(&[1]);
    let mut net = Net::of(&[1]);
    net.held(1, &channel, true);
    net.held(1, &channel, true);
    net.held(1, &channel, false);
    assert_eq!(net.under_way, []);
    assert_eq!(net.facts(), [occupied(1, &channel), vacated(1, &channel)]);
    assert!(coordinated(net.slave(1)) == 0);
}

#[test]
fn nothing_is_announced_before_a_list_is_known() {
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
fn the_coordinator_announces_the_first_and_the_last_of_all_slaves() {
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
fn the_coordinator_knows_who_claims_a_channel_and_nobody_else_says_so() {
    let channel = channel_of(&[2, 1, 3]);
    let mut net = Net::of(&[1, 2, 3]);
    assert_eq!(net.slave(2).claimants(&channel), Some(vec![]));
    net.holds(1, &channel);
    net.holds(2, &channel);
    let mut claimants = net.slave(2).claimants(&channel).expect("it coordinates the channel");
    claimants.sort();
    assert_eq!(claimants, nodes(&[1, 2]));
    assert_eq!((net.slave(1).claimants(&channel), net.slave(3).claimants(&channel)), (None, None));
    net.leaves(1, &channel);
    assert_eq!(net.slave(2).claimants(&channel), Some(nodes(&[2])));
    // not before everybody sees the same slaves
    net.sees(2, &[1, 2]);
    assert_eq!(net.slave(2).claimants(&channel), None);
}

#[test]
fn the_same_list_again_changes_nothing() {
    let mut net = Net::of(&[1, 2]);
    net.sees(1, &[2, 1, 2]);
    assert_eq!(net.under_way, []);
    assert!(net.slave(1).agreed());
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
