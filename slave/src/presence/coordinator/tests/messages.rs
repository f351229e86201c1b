//! What is said, and what is ignored.

use super::*;

#[test]
fn only_answers_to_the_last_question_are_heard() {
    let channel = channel_of(&[1, 2]);
    let holds = || CoordinationMessage::Claim { key: channel.clone().into(), claimed: true, epoch: 0, info: None };
    let settled = || CoordinationMessage::Synced { slaves: nodes(&[1, 2]), round: 1, confirmed: 0 };
    let mut net = Net::default();
    net.hears(1, 2, holds());
    net.sees(1, &[1, 2]);
    let Some((_, _, CoordinationMessage::Request { number: no })) = net.under_way.pop_back() else {
        panic!("who comes is asked")
    };
    for report in [holds(), settled(), CoordinationMessage::Answer { number: no + 1 }, holds(), settled()] {
        net.hears(1, 2, report);
    }
    assert_eq!((net.facts(), net.slave(1).agreed(), coordinated(net.slave(1))), (vec![], false, 0));
    for report in [CoordinationMessage::Answer { number: no }, holds(), settled()] {
        net.hears(1, 2, report);
    }
    assert_eq!((net.facts(), net.slave(1).agreed()), (vec![occupied(1, &channel)], true));
    // from a slave that is not on the list
    net.hears(1, 3, CoordinationMessage::Request { number: 1 });
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
        net.slave(1).receive(node(2), CoordinationMessage::Request { number: 77 }, &mut out);
    }
    assert_eq!(
        out.messages.iter().filter(|(_, report)| *report == CoordinationMessage::Answer { number: 77 }).count(),
        1
    );
}

#[test]
fn no_number_from_outside_makes_it_panic_or_repeat_itself() {
    let channel = channel_of(&[1, 2]);
    let mut net = Net::of(&[1, 2]);
    for epoch in [u64::MAX, u64::MAX - 1, 0] {
        net.hears(1, 2, CoordinationMessage::Handover { key: channel.clone().into(), epoch });
        net.hears(1, 2, CoordinationMessage::Announced { key: channel.clone().into(), epoch });
        net.hears(1, 2, CoordinationMessage::Claim { key: channel.clone().into(), claimed: true, epoch, info: None });
        net.hears(1, 2, CoordinationMessage::Claim { key: channel.clone().into(), claimed: false, epoch, info: None });
    }
    net.settle();
    let pair = [occupied(1, &channel), vacated(1, &channel)];
    assert_eq!(net.facts(), [&pair[..], &pair, &pair].concat());
}

#[test]
fn letters_keep_the_order_and_the_limit() {
    let report = |no| CoordinationMessage::Request { number: no };
    let tell = [(1, 1), (2, 2), (1, 3), (1, 4), (2, 5)].map(|(to, no)| (node(to), report(no)));
    let mut out = Outcome { messages: tell.to_vec(), ..Outcome::default() };
    assert_eq!(
        out.batches(2),
        [(node(1), vec![report(1), report(3)]), (node(2), vec![report(2), report(5)]), (node(1), vec![report(4)]),]
    );
    assert_eq!(out, Outcome::default());
}

#[test]
fn who_dropped_announcements_says_so_to_everybody_that_it_knows() {
    let mut net = Net::of(&[1, 2, 3]);
    let mut out = Outcome::default();
    net.slave(1).announcements_lost(&mut out);
    let told: Vec<_> = [2, 3].map(|no| (node(no), CoordinationMessage::AnnouncementsLost)).to_vec();
    assert_eq!(out.messages, told);
    for (from, stale) in [(1, true), (4, false)] {
        let mut out = Outcome::default();
        net.slave(2).receive(node(from), CoordinationMessage::AnnouncementsLost, &mut out);
        assert_eq!(out.lists_are_stale, stale, "from {from}");
    }
}
