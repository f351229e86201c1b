//! Counts of channels and their pace, and users who are watched.

use super::*;

const MOMENT: Duration = Duration::from_millis(50);

impl Net {
    fn follows(&mut self, no: u32, key: &CoordinatedKey, count: u64, asks: bool) {
        let mut out = Outcome::default();
        self.slave(no).follow(key, count, asks, &mut out);
        self.take(node(no), out);
        self.deliver();
    }

    /// Time passes, and counts are told whose time has come.
    fn wait(&mut self, time: Duration) {
        self.pass(time);
        for no in self.slaves.keys().copied().collect::<Vec<_>>() {
            let mut out = Outcome::default();
            self.slaves.get_mut(&no).expect("it is there").tick_counts(&mut out);
            self.take(no, out);
        }
        self.deliver();
    }

    /// What was told: to whom, which number, and is it for all.
    fn told(&mut self) -> Vec<(u32, u64, bool)> {
        let told = std::mem::take(&mut self.told);
        let mut told: Vec<_> = told.into_iter().map(|(to, update)| (to.into(), update.count, update.all)).collect();
        told.sort();
        told
    }

    fn counts(&mut self) -> Vec<u64> {
        let count = |(_, fact)| if let Fact::SubscriptionCount(_, count) = fact { Some(count) } else { None };
        self.facts().into_iter().filter_map(count).collect()
    }
}

#[test]
fn a_count_is_told_after_a_moment_and_to_many_seldom_but_to_who_came_at_once() {
    let key = CoordinatedKey::from(channel_of(&[1, 2]));
    let mut net = Net::of(&[1, 2]);
    net.follows(1, &key, 3, true);
    net.follows(2, &key, 1, true);
    net.follows(2, &key, 40, true);
    assert_eq!(net.told(), []);
    net.wait(MOMENT);
    assert_eq!((net.told(), net.counts()), (vec![(1, 43, true), (2, 43, true)], vec![43]));
    // what is undone within the moment is not told
    net.follows(1, &key, 4, false);
    net.follows(1, &key, 3, false);
    net.wait(MOMENT);
    assert_eq!((net.told(), net.counts()), (vec![], vec![]));
    // the newcomers of one slave are told what the others know
    net.follows(2, &key, 40, true);
    net.wait(MOMENT);
    assert_eq!((net.told(), net.counts()), (vec![(2, 43, false)], vec![]));

    // above a hundred every 5 s, from the last time on
    for count in [200, 201, 202] {
        net.follows(2, &key, count, false);
    }
    net.wait(Duration::from_secs(1));
    assert_eq!(net.told(), []);
    net.follows(1, &key, 4, true);
    net.wait(MOMENT);
    assert_eq!((net.told(), net.counts()), (vec![(1, 206, false)], vec![]), "only who came there");
    net.follows(2, &key, 203, false);
    net.wait(Duration::from_secs(3));
    assert_eq!(net.told(), []);
    net.wait(Duration::from_secs(1));
    assert_eq!((net.told(), net.counts()), (vec![(1, 207, true), (2, 207, true)], vec![207]), "the last one");
    // few again: at once
    net.follows(2, &key, 0, false);
    net.wait(MOMENT);
    assert_eq!((net.told(), net.counts()), (vec![(1, 4, true)], vec![4]));
    net.follows(1, &key, 0, false);
    net.wait(MOMENT);
    assert_eq!((net.told(), net.counts()), (vec![], vec![0]));
    assert!(net.slaves.values().all(|slave| slave.counts_due().is_none()));
}

#[test]
fn a_new_coordinator_tells_a_count_only_if_it_is_another() {
    let key = CoordinatedKey::from(channel_of(&[3, 1, 2]));
    let mut net = Net::of(&[1, 2]);
    net.follows(1, &key, 2, true);
    net.follows(2, &key, 5, true);
    net.wait(MOMENT);
    assert_eq!(net.told(), [(1, 7, true), (2, 7, true)]);
    net.all_see(&[1, 2, 3]);
    net.wait(MOMENT);
    assert_eq!(net.told(), []);
    net.dies(3);
    net.all_see(&[1, 2]);
    net.wait(MOMENT);
    assert_eq!((net.told(), net.counts()), (vec![], vec![7]));
    net.dies(1);
    net.all_see(&[2]);
    net.wait(MOMENT);
    assert_eq!((net.told(), net.counts()), (vec![(2, 5, true)], vec![5]));
}

#[test]
fn who_watches_a_user_is_told_how_it_stands_and_then_each_change() {
    let user = CoordinatedKey::User { app: "app".parse().unwrap(), user: "ann".parse().unwrap() };
    let mut net = Net::of(&[1, 2, 3]);
    net.follows(1, &user, 1, false);
    assert_eq!(net.told(), [(1, 0, true)]);
    net.held_key(3, &user, true);
    net.deliver();
    net.follows(2, &user, 1, false);
    assert_eq!(net.told(), [(1, 1, true), (2, 1, true)]);
    // away and back within the grace
    net.held_key(3, &user, false);
    net.deliver();
    net.pass(GRACE / 2);
    net.held_key(2, &user, true);
    net.settle();
    assert_eq!(net.told(), []);
    net.follows(2, &user, 0, false);
    net.held_key(2, &user, false);
    net.settle();
    assert_eq!(net.told(), [(1, 0, true)]);
}

#[test]
fn a_slave_that_is_not_the_coordinator_any_more_is_not_believed() {
    let key = CoordinatedKey::from(channel_of(&[1, 2]));
    let mut net = Net::of(&[1, 2]);
    net.follows(2, &key, 1, true);
    net.wait(MOMENT);
    assert_eq!(net.told(), [(2, 1, true)]);
    net.hears(2, 3, CoordinationMessage::Told { key: key.clone(), count: 9, all: true });
    assert_eq!(net.told(), []);
    net.hears(1, 3, CoordinationMessage::Follow { key, count: 9, told: None, asks: true });
    net.wait(MOMENT);
    assert_eq!(net.told(), []);
}
