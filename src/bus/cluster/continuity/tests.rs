use super::*;

fn node(no: u32) -> NodeId {
    NodeId::from_random(no)
}

fn message(by: u32, count: u64) -> u64 {
    (u64::from(by) << SENDER) + count
}

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn messages(by: u32, counts: impl IntoIterator<Item = u64>) -> Option<Vec<u64>> {
    Some(counts.into_iter().map(|count| message(by, count)).collect())
}

/// A node that is up and knows node 1, whose message 10 it heard last, just now.
fn sure() -> Continuity {
    let mut all = Continuity::default();
    all.up(1, at(0));
    all.heard(message(1, 10), 0, at(100));
    all.member(node(1), at(100));
    assert_eq!(all.question(node(1), 1, at(100)), None);
    all
}

fn interrupted() -> Continuity {
    let mut all = sure();
    all.interrupted(|_| true, at(200));
    all.up(7, at(300));
    all
}

fn missed(from: u32, lost: usize, opened: u32) -> Gap {
    Gap::Missed { from: node(from), lost, opened_before: Some(opened) }
}

fn unknown(from: u32, opened: u32) -> Gap {
    Gap::Unknown { from: node(from), opened_before: Some(opened) }
}

#[test]
fn as_long_as_both_keep_their_connections_nothing_is_asked() {
    let mut all = sure();
    for second in 1..10 {
        all.heard(message(1, 10 + second), 0, at(100 + 1_000 * second));
        assert_eq!(all.question(node(1), 1, at(100 + 1_000 * second)), None);
        assert_eq!(all.tick(at(100 + 1_000 * second)), []);
    }
}

#[test]
fn an_outage_in_which_nothing_was_pushed_is_no_gap() {
    let mut all = interrupted();
    let question = all.question(node(1), 8, at(400)).unwrap();
    assert_eq!(question.after, message(1, 10));
    assert_eq!(all.question(node(1), 8, at(500)), None, "it is asked already");
    assert_eq!(all.answered(node(1), question.no, messages(1, []), at(600)), None);
    assert_eq!(all.question(node(1), 8, at(5_000)), None);
    assert_eq!(all.tick(at(20_000)), []);
}

#[test]
fn what_was_pushed_meanwhile_and_does_not_come_is_a_gap_for_the_sockets_of_before() {
    let mut all = interrupted();
    // pushed after this node was back, and heard before the answer
    all.heard(message(1, 14), 0, at(350));
    let question = all.question(node(1), 8, at(400)).unwrap();
    assert_eq!(all.answered(node(1), question.no, messages(1, [12, 14, 15]), at(500)), None);
    // on its way while the node answered
    all.heard(message(1, 15), 0, at(510));
    assert_eq!(all.tick(at(1_499)), []);
    assert_eq!(all.tick(at(1_500)), [missed(1, 1, 8)]);
    assert_eq!(all.tick(at(30_000)), [], "once");
}

#[test]
fn what_comes_late_is_not_missing() {
    let mut all = interrupted();
    let question = all.question(node(1), 8, at(400)).unwrap();
    assert_eq!(all.answered(node(1), question.no, messages(1, [12]), at(500)), None);
    all.heard(message(1, 12), 0, at(900));
    assert_eq!(all.tick(at(1_500)), []);
    assert_eq!(all.question(node(1), 8, at(1_600)), None, "nothing is in doubt any more");
}

#[test]
fn a_sender_that_was_connected_anew_is_asked_whatever_comes_first() {
    let mut all = sure();
    all.heard(message(1, 15), 1, at(300));
    // of its former connection, overtaken
    all.heard(message(1, 11), 0, at(310));
    all.heard(message(1, 16), 1, at(320));
    let question = all.question(node(1), 5, at(400)).unwrap();
    assert_eq!(question.after, message(1, 10), "the last that came for sure");
    assert_eq!(all.answered(node(1), question.no, messages(1, [11, 13, 15, 16]), at(500)), None);
    assert_eq!(all.tick(at(1_500)), [missed(1, 1, 5)]);
}

#[test]
fn a_silence_longer_than_a_heartbeat_is_asked_about() {
    let mut all = sure();
    all.heard(message(1, 30), 0, at(100 + 1_600));
    let question = all.question(node(1), 5, at(1_800)).unwrap();
    assert_eq!(question.after, message(1, 10));
    // its lease ends and it comes back: the same
    let mut all = sure();
    all.expired(node(1));
    all.heard(message(1, 30), 0, at(9_000));
    assert_eq!(all.question(node(1), 5, at(9_000)).unwrap().after, message(1, 10));
}

#[test]
fn who_does_not_say_what_it_pushed_is_feared_to_have() {
    let mut all = interrupted();
    let question = all.question(node(1), 8, at(400)).unwrap();
    assert_eq!(all.answered(node(1), question.no, None, at(500)), Some(unknown(1, 8)), "it does not remember");
    assert_eq!(all.tick(at(30_000)), []);

    let mut all = interrupted();
    assert!(all.question(node(1), 8, at(400)).is_some());
    assert!(all.question(node(1), 9, at(900)).is_some(), "the question may be lost");
    assert_eq!(all.tick(at(5_299)), []);
    assert_eq!(all.tick(at(5_300)), [unknown(1, 9)], "it does not answer");

    let mut all = interrupted();
    all.goodbye(node(1));
    assert_eq!(all.tick(at(5_300)), [unknown(1, 7)], "it went while this node was away");
    all.interrupted(|_| true, at(60_000));
    assert_eq!(all.tick(at(90_000)), [], "and is not asked for ever");

    // before the outage: all that it said was heard
    let mut all = sure();
    all.goodbye(node(1));
    all.interrupted(|_| true, at(200));
    assert_eq!(all.tick(at(90_000)), []);
    let mut all = sure();
    all.interrupted(|_| false, at(200));
    assert_eq!(all.tick(at(90_000)), [], "it went with the bus");
}

#[test]
fn an_answer_to_a_question_of_before_says_nothing() {
    let mut all = interrupted();
    let early = all.question(node(1), 8, at(400)).unwrap();
    all.interrupted(|_| true, at(500));
    all.up(9, at(600));
    assert_eq!(all.answered(node(1), early.no, messages(1, []), at(700)), None);
    let question = all.question(node(1), 9, at(800)).unwrap();
    assert_eq!(question.after, message(1, 10));
    assert_eq!(all.answered(node(1), question.no, messages(1, [11]), at(900)), None);
    assert_eq!(all.tick(at(1_900)), [missed(1, 1, 9)]);
}

#[test]
fn a_connection_that_is_lost_over_and_over_does_not_put_the_answer_off_for_ever() {
    let mut all = sure();
    let mut gaps = Vec::new();
    for second in 1..40 {
        all.interrupted(|_| true, at(second * 1_000));
        all.up(9, at(second * 1_000 + 500));
        gaps.extend(all.tick(at(second * 1_000 + 600)));
    }
    assert_eq!(gaps, [unknown(1, 9)]);
}

#[test]
fn who_was_not_known_is_asked_for_everything_unless_this_node_is_new_itself() {
    let mut all = sure();
    all.heard(message(2, 1), 0, at(100));
    all.member(node(2), at(100));
    assert_eq!(all.question(node(2), 1, at(100)), None);

    all.heard(message(3, 4), 0, at(9_000));
    all.heard(message(4, 1), 0, at(9_000));
    all.member(node(3), at(9_001));
    all.member(node(4), at(9_001));
    let question = all.question(node(3), 6, at(9_002)).unwrap();
    assert_eq!(question.after, message(3, 0));
    // what it said before its first heartbeat was heard counts
    assert_eq!(all.answered(node(3), question.no, messages(3, [4]), at(9_003)), None);
    let question = all.question(node(4), 6, at(9_002)).unwrap();
    assert_eq!(all.answered(node(4), question.no, messages(4, [0, 1]), at(9_003)), None);
    assert_eq!(all.tick(at(10_003)), [missed(4, 1, 6)]);
}

#[test]
fn who_comes_and_dies_at_once_is_feared_only_if_this_node_was_away() {
    let dies_young = |all: &mut Continuity| {
        all.heard(message(3, 1), 0, at(9_000));
        all.member(node(3), at(9_000));
        assert!(all.question(node(3), 6, at(9_000)).is_some());
        all.tick(at(14_000))
    };
    assert_eq!(dies_young(&mut sure()), []);
    let mut all = sure();
    all.interrupted(|_| false, at(3_000));
    all.up(6, at(3_100));
    all.tick(at(8_900));
    assert_eq!(dies_young(&mut all), [unknown(3, 6)]);
}

#[test]
fn forged_nodes_and_letters_cost_little() {
    let mut all = sure();
    for no in 2..20_000 {
        all.heard(message(no, 1), 0, at(200));
        all.member(node(no), at(200));
        all.heard(message(no + 20_000, 1), 0, at(200));
    }
    assert!(all.nodes.len() <= NODES && all.strays.len() <= STRAYS);
    all.heard(message(1, 20), 1, at(300));
    assert!(all.question(node(1), 1, at(300)).is_some(), "the others are as before");
}
