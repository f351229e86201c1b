//! Members of channels and users, and their graces.

use super::*;

fn member(channel: &ChannelKey, user: &str) -> CoordinatedKey {
    CoordinatedKey::Member { channel: channel.clone(), user: user.parse().unwrap() }
}

fn added(no: u32, channel: &ChannelKey, user: &str, info: &str) -> (NodeId, Fact) {
    let member = Member { user: user.parse().unwrap(), info: info.into() };
    (node(no), Fact::MemberAdded(channel.clone(), member))
}

fn removed(no: u32, channel: &ChannelKey, user: &str) -> (NodeId, Fact) {
    (node(no), Fact::MemberRemoved(channel.clone(), user.parse().unwrap()))
}

#[test]
fn a_member_is_added_by_its_first_slave_and_removed_with_its_last() {
    let channel = channel_of(&[2, 3, 1]);
    let mut net = Net::of(&[1, 2, 3]);
    let (ann, bob) = (member(&channel, "ann"), member(&channel, "bob"));
    for (no, key) in [(1, &ann), (3, &ann), (3, &bob), (2, &bob)] {
        net.held_key(no, key, true);
        net.settle();
    }
    // who came first is who it is
    assert_eq!(net.facts(), [added(2, &channel, "ann", "ann of 1"), added(2, &channel, "bob", "bob of 3")]);
    let presence = net.slave(2).members(&channel).expect("it keeps the channel");
    let there: Vec<_> = presence.iter().map(|(user, info)| (user.as_str(), &**info)).collect();
    assert_eq!(there, [("ann", "ann of 1"), ("bob", "bob of 3")]);
    assert_eq!(net.slave(1).members(&channel), None);
    net.held_key(1, &ann, false);
    net.settle();
    assert_eq!(net.facts(), []);
    net.dies(3);
    net.all_see(&[1, 2]);
    assert_eq!(net.facts(), [removed(2, &channel, "ann")]);
    net.held_key(2, &bob, false);
    net.settle();
    assert_eq!(net.facts(), [removed(2, &channel, "bob")]);
    assert_eq!(net.slave(2).members(&channel), Some(BTreeMap::new()));
}

#[test]
fn a_channel_and_its_members_have_one_coordinator_which_knows_them_when_all_agree() {
    let channel = channel_of(&[3, 1, 2]);
    let mut net = Net::of(&[1, 2]);
    net.holds(2, &channel);
    for user in ["ann", "bob"] {
        net.held_key(2, &member(&channel, user), true);
    }
    net.settle();
    assert!(net.facts().iter().all(|(slave, _)| *slave == node(1)));
    net.sees(3, &[1, 2, 3]);
    assert_eq!(net.slave(3).members(&channel), None, "it does not know yet");
    net.all_see(&[1, 2, 3]);
    assert_eq!(net.facts(), []);
    assert_eq!(net.slave(1).members(&channel), None, "it is no longer its own");
    assert_eq!(net.slave(3).members(&channel).expect("it knows").len(), 2);
    net.held_key(2, &member(&channel, "ann"), false);
    net.settle();
    assert_eq!(net.facts(), [removed(3, &channel, "ann")]);
}

#[test]
fn a_coordinator_that_takes_over_knows_its_own_members_by_what_is_known_of_them() {
    let channel = channel_of(&[1, 2, 3]);
    let mut net = Net::of(&[1, 2, 3]);
    for (no, user) in [(2, "ann"), (3, "bob")] {
        net.held_key(no, &member(&channel, user), true);
    }
    net.settle();
    assert_eq!(net.facts(), [added(1, &channel, "ann", "ann of 2"), added(1, &channel, "bob", "bob of 3")]);
    net.dies(1);
    net.all_see(&[2, 3]);
    assert_eq!(net.facts(), []);
    let presence = net.slave(2).members(&channel).expect("it keeps the channel");
    let there: Vec<_> = presence.iter().map(|(user, info)| (user.as_str(), &**info)).collect();
    assert_eq!(there, [("ann", "ann of 2"), ("bob", "bob of 3")]);
}

#[test]
fn a_member_that_moves_between_slaves_within_the_grace_is_not_announced() {
    for coordinator in [[1, 2, 3], [2, 1, 3], [3, 1, 2]] {
        let channel = channel_of(&coordinator);
        let mut net = Net::of(&[1, 2, 3]);
        let ann = member(&channel, "ann");
        net.held_as(1, &ann, true, Some("ann".to_owned()));
        net.settle();
        assert_eq!(net.facts(), [added(coordinator[0], &channel, "ann", "ann")]);
        for (from, to) in [(1, 2), (2, 1), (1, 1)] {
            net.held_key(from, &ann, false);
            net.deliver();
            net.pass(GRACE - Duration::from_millis(1));
            // it is a member as before, for who joins meanwhile, too
            assert_eq!(net.slave(coordinator[0]).members(&channel).expect("it keeps the channel").len(), 1);
            net.held_as(to, &ann, true, Some("ann".to_owned()));
            net.settle();
            assert_eq!(net.facts(), [], "{coordinator:?}: from {from} to {to}");
        }
        net.held_key(1, &ann, false);
        net.deliver();
        net.pass(GRACE - Duration::from_millis(1));
        assert_eq!(net.facts(), [], "the last move left no grace that is over too soon");
        net.pass(Duration::from_millis(1));
        assert_eq!(net.facts(), [removed(coordinator[0], &channel, "ann")]);
        assert_eq!(net.slave(coordinator[0]).members(&channel), Some(BTreeMap::new()));
    }
}

#[test]
fn a_member_that_comes_back_with_other_info_has_left_first() {
    let channel = channel_of(&[2, 1]);
    let mut net = Net::of(&[1, 2]);
    let ann = member(&channel, "ann");
    for (no, other) in [(1, 2), (2, 1)] {
        net.held_key(no, &ann, true);
        net.deliver();
        net.facts();
        net.held_key(no, &ann, false);
        net.deliver();
        net.held_key(other, &ann, true);
        net.deliver();
        let now = added(2, &channel, "ann", &format!("ann of {other}"));
        assert_eq!(net.facts(), [removed(2, &channel, "ann"), now]);
        net.held_key(other, &ann, false);
        net.settle();
        assert_eq!(net.facts(), [removed(2, &channel, "ann")]);
    }
}

#[test]
fn a_grace_that_its_coordinator_does_not_live_to_see_ends_with_the_next_one() {
    let channel = channel_of(&[1, 2, 3]);
    let mut net = Net::of(&[1, 2, 3]);
    let (ann, bob) = (member(&channel, "ann"), member(&channel, "bob"));
    for key in [&ann, &bob] {
        net.held_key(3, key, true);
    }
    net.settle();
    net.facts();
    for key in [&ann, &bob] {
        net.held_key(3, key, false);
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

fn user(name: &str) -> CoordinatedKey {
    CoordinatedKey::User { app: "app".parse().unwrap(), user: name.parse().unwrap() }
}

#[test]
fn a_user_is_online_from_its_first_slave_on_and_offline_after_the_grace_of_its_last() {
    let (mut net, ann) = (Net::of(&[1, 2, 3]), user("ann"));
    for no in [1, 2, 3] {
        net.held_key(no, &ann, true);
        net.settle();
    }
    let facts = net.facts();
    let [(coordinator, Fact::UserOnline(app, online))] = &facts[..] else { panic!("{facts:?}") };
    assert_eq!((app.as_str(), online.as_str()), ("app", "ann"));
    let mut others = vec![1, 2, 3];
    others.retain(|no| node(*no) != *coordinator);
    // the standby knows it, too
    net.dies(u32::from(*coordinator));
    net.all_see(&others);
    assert_eq!(net.facts(), []);
    for &no in &others {
        net.held_key(no, &ann, false);
        net.deliver();
    }
    assert_eq!(net.facts(), [], "it may be back in a moment");
    net.held_key(others[0], &ann, true);
    net.settle();
    assert_eq!(net.facts(), []);
    net.held_key(others[0], &ann, false);
    net.settle();
    let facts = net.facts();
    assert!(matches!(&facts[..], [(_, Fact::UserOffline(_, user))] if user.as_str() == "ann"), "{facts:?}");
}

#[test]
fn a_user_is_no_channel_and_no_member() {
    let mut net = Net::of(&[1]);
    let channel = ChannelKey { app: "app".parse().unwrap(), name: "ann".parse().unwrap() };
    for key in [channel.clone().into(), member(&channel, "ann"), user("ann")] {
        net.held_key(1, &key, true);
    }
    let user: UserId = "ann".parse().unwrap();
    let facts = [
        Fact::Occupied(channel.clone()),
        Fact::MemberAdded(channel.clone(), Member { user: user.clone(), info: "ann of 1".into() }),
        Fact::UserOnline(channel.app.clone(), user),
    ];
    assert_eq!(net.facts(), facts.map(|fact| (node(1), fact)));
}
