//! Keys that move to another coordinator, since slaves come and go.

use super::*;

#[test]
fn a_new_coordinator_goes_on_where_the_old_one_was() {
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
fn nothing_is_announced_while_slaves_see_different_lists() {
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
    // the coordinator still sees the old list when the claimant withdraws what is not its any more
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
    assert!(coordinated(net.slave(1)) == 0, "what all know to be others' is forgotten");
    net.leaves(2, &channel);
    assert_eq!(net.facts(), [vacated(3, &channel)]);
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
        let handed = (node(1), node(3), CoordinationMessage::Handover { key: channel.into(), epoch: 1 });
        assert!(net.under_way.contains(&handed), "{:?}", net.under_way);
    }
    assert_eq!(net.under_way.len(), 2);
    assert_eq!(net.facts(), []);
}
