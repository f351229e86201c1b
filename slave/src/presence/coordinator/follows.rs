//! Who follows what: slaves with sockets on a channel, which are counted over the cluster, and slaves whose clients watch a
//! user. A slave tells only the coordinator, by the rules of claims: before it says by which list it goes, and to the
//! former one that it no longer does, after that. So once all agree the coordinator has heard from everybody, and sums up
//! what is true. Each who follows is told how it stands, over the same stream.
//!
//! | state | of | says |
//! | --- | --- | --- |
//! | `own` | a key | how many sockets of this slave follow it, and what they were told last |
//! | `followed` | a key that this slave coordinates, or did or will | who follows it with how many sockets |
//! | `Followed::announced` | a key | what was told to all who follow it; a count of another coordinator's they tell |
//! | `Followed::disputed` | a channel | they were not told the same |
//! | `FollowingSlave::asks` | a slave on it | it has sockets that know nothing yet, or something else |
//! | `Followed::due` | a channel | when its count is told next |

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use smallvec::SmallVec;
use wellhead_proto::{
    coordination::{CoordinatedKey, CoordinationMessage},
    ids::NodeId,
    membership::{place_of_channel, place_of_user},
};

use super::{Coordinator, Fact, LedgerKey, Outcome, both};

/// A count waits so long for further changes before it is told.
const MOMENT: Duration = Duration::from_millis(50);
/// A channel with more sockets than that …
const FEW: u64 = 100;
/// … is told its count no more often than after this time.
const CALM: Duration = Duration::from_secs(5);

/// How something stands that this slave follows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FollowUpdate {
    /// The channel or the user.
    pub key: CoordinatedKey,
    /// The sockets on the channel; 1 if the user is online.
    pub count: u64,
    /// It is news for all sockets of this slave, and not only for those that were told nothing yet.
    pub all: bool,
}

/// All of them.
#[derive(Default)]
pub(super) struct Follows {
    now: Duration,
    own: BTreeMap<CoordinatedKey, OwnFollow>,
    followed: BTreeMap<CoordinatedKey, Followed>,
    in_order: BTreeSet<(Duration, CoordinatedKey)>,
}

#[derive(Default)]
struct OwnFollow {
    count: u64,
    told: Option<u64>,
    asks: bool,
}

#[derive(Default)]
struct Followed {
    by: SmallVec<[FollowingSlave; 2]>,
    announced: Option<u64>,
    disputed: bool,
    /// When that was.
    last: Option<Duration>,
    due: Option<Duration>,
}

struct FollowingSlave {
    slave: NodeId,
    count: u64,
    asks: bool,
}

impl Followed {
    fn total(&self) -> u64 {
        self.by.iter().map(|follower| follower.count).fold(0, u64::saturating_add)
    }

    /// Those who are to be told now: `all`, or who asks.
    fn tell(&mut self, all: bool) -> SmallVec<[NodeId; 2]> {
        let told = self.by.iter_mut().filter_map(|follower| {
            let asks = std::mem::take(&mut follower.asks);
            (asks || all).then_some(follower.slave)
        });
        told.collect()
    }

    /// Is the count another than what is known of it?
    fn is_news(&self) -> bool {
        self.disputed || self.announced.unwrap_or(0) != self.total()
    }

    /// Must it wait, since it has many sockets that were told something just now?
    fn calm_until(&self) -> Option<Duration> {
        self.last.filter(|_| self.total() > FEW).map(|last| last.saturating_add(CALM))
    }
}

impl Follows {
    /// It is `now`.
    pub(super) fn at(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    /// These slaves follow nothing, as far as is known here.
    pub(super) fn remove_slaves(&mut self, gone: impl Fn(NodeId) -> bool) {
        self.stop();
        self.followed.retain(|_, followed| {
            followed.by.retain(|follower| !gone(follower.slave));
            !followed.by.is_empty()
        });
    }

    /// Nothing is told any more, until it is decided anew.
    pub(super) fn stop(&mut self) {
        self.in_order.clear();
        self.followed.retain(|_, followed| {
            followed.due = None;
            !followed.by.is_empty()
        });
    }

    /// What other slaves said is void.
    pub(super) fn detach(&mut self) {
        self.followed.clear();
        self.in_order.clear();
    }

    fn set_due(&mut self, key: &CoordinatedKey, due: Option<Duration>) {
        let Some(followed) = self.followed.get_mut(key) else { return };
        if let Some(before) = std::mem::replace(&mut followed.due, due) {
            self.in_order.remove(&(before, key.clone()));
        }
        if let Some(due) = due {
            self.in_order.insert((due, key.clone()));
        } else if followed.by.is_empty() {
            self.followed.remove(key);
        }
    }

    fn remove(&mut self, key: &CoordinatedKey, slave: NodeId) {
        if let Some(followed) = self.followed.get_mut(key) {
            followed.by.retain(|follower| follower.slave != slave);
        }
    }

    fn message(&self, key: &CoordinatedKey) -> CoordinationMessage {
        let OwnFollow { count, told, asks } =
            self.own.get(key).unwrap_or(&OwnFollow { count: 0, told: None, asks: false });
        CoordinationMessage::Follow { key: key.clone(), count: *count, told: *told, asks: *asks }
    }
}

impl Coordinator {
    /// So many sockets of this slave follow `key` now. `asks`: one of them came since and was told nothing.
    pub fn follow(&mut self, key: &CoordinatedKey, count: u64, asks: bool, out: &mut Outcome) {
        if count == 0 {
            self.follows.own.remove(key);
        } else {
            let own = self.follows.own.entry(key.clone()).or_default();
            own.count = count;
            own.asks |= asks;
        }
        if let Some(coordinator) = self.coordinators(place_of(key)).next() {
            self.tell_follow(coordinator, key, out);
        }
    }

    fn tell_follow(&mut self, coordinator: NodeId, key: &CoordinatedKey, out: &mut Outcome) {
        if coordinator == self.me {
            self.receive_follow(self.me, self.follows.message(key), out);
        } else {
            self.tell(coordinator, || self.follows.message(key), out);
        }
    }

    /// A slave says what it follows.
    pub(super) fn receive_follow(&mut self, from: NodeId, message: CoordinationMessage, out: &mut Outcome) {
        let CoordinationMessage::Follow { key, count, told, asks } = message else { return };
        if count == 0 {
            self.follows.remove(&key, from);
            return self.schedule(&key);
        }
        let followed = self.follows.followed.entry(key.clone()).or_default();
        let is_new = followed.by.iter().all(|follower| follower.slave != from);
        // what all of its sockets were told is not what others were
        followed.disputed |= is_new && told.is_some_and(|told| followed.announced.is_some_and(|other| other != told));
        if matches!(key, CoordinatedKey::Channel(_)) {
            followed.announced = followed.announced.or(told);
        }
        match followed.by.iter_mut().find(|follower| follower.slave == from) {
            Some(follower) => (follower.count, follower.asks) = (count, follower.asks | asks),
            None => followed.by.push(FollowingSlave { slave: from, count, asks: asks | told.is_none() }),
        }
        match key {
            CoordinatedKey::User { .. } => {
                // what it knows may have changed while this was under way
                followed.by.iter_mut().filter(|follower| follower.slave == from).for_each(|one| one.asks = true);
                self.tell_watchers(&key, out);
            }
            _ => self.schedule(&key),
        }
    }

    /// A coordinator says how something stands.
    pub(super) fn receive_told(&mut self, from: NodeId, key: CoordinatedKey, count: u64, all: bool, out: &mut Outcome) {
        // a former one may not know yet that it is
        if self.coordinators(place_of(&key)).next() == Some(from) {
            self.take_told(key, count, all, out);
        }
    }

    fn take_told(&mut self, key: CoordinatedKey, count: u64, all: bool, out: &mut Outcome) {
        let Some(own) = self.follows.own.get_mut(&key) else { return };
        let news = all && own.told != Some(count);
        own.asks = false;
        if all {
            own.told = Some(count);
        }
        if news || matches!(key, CoordinatedKey::Channel(_)) {
            out.told.push(FollowUpdate { key, count, all: news });
        }
    }

    fn tell_standing(&mut self, to: NodeId, key: &CoordinatedKey, count: u64, all: bool, out: &mut Outcome) {
        if to == self.me {
            self.take_told(key.clone(), count, all, out);
        } else {
            self.tell(to, || CoordinationMessage::Told { key: key.clone(), count, all }, out);
        }
    }

    /// Tell who watches a user whether it is online, and does not know.
    pub(super) fn tell_watchers(&mut self, key: &CoordinatedKey, out: &mut Outcome) {
        if !self.may_tell(key) {
            return;
        }
        let online = u64::from(self.is_announced(key));
        let Some(followed) = self.follows.followed.get_mut(key) else { return };
        let news = followed.announced.replace(online) != Some(online);
        let told = followed.tell(news);
        for slave in told {
            self.tell_standing(slave, key, online, true, out);
        }
    }

    fn is_announced(&self, key: &CoordinatedKey) -> bool {
        let key = LedgerKey::of(self.ledger.names(), key);
        self.ledger.get(key.borrow()).is_some_and(super::ledger::Record::announced_occupied)
    }

    fn may_tell(&self, key: &CoordinatedKey) -> bool {
        self.agreed && self.is_coordinator(place_of(key))
    }

    /// See to it that a channel's count is told when its time has come, if it is to be told.
    fn schedule(&mut self, key: &CoordinatedKey) {
        let is_told = self.may_tell(key) && matches!(key, CoordinatedKey::Channel(_));
        let Some(followed) = self.follows.followed.get(key) else { return };
        let asked = followed.by.iter().any(|follower| follower.asks);
        let news = followed.is_news();
        let due = (is_told && (asked || news)).then(|| {
            let soon = self.follows.now.saturating_add(MOMENT);
            let calm = followed.calm_until().filter(|_| !asked);
            let due = calm.map_or(soon, |calm| calm.max(soon));
            followed.due.map_or(due, |before| before.min(due))
        });
        self.follows.set_due(key, due);
    }

    /// When [`Coordinator::tick_counts`] has something to do, unless something else happens before.
    #[must_use]
    pub fn counts_due(&self) -> Option<Duration> {
        self.follows.in_order.first().map(|(due, _)| *due).filter(|_| self.agreed)
    }

    /// Tell the counts whose time has come.
    pub fn tick_counts(&mut self, out: &mut Outcome) {
        let now = self.follows.now;
        let due = self.follows.in_order.iter().take_while(|(due, _)| *due <= now);
        let due: Vec<_> = due.map(|(_, key)| key.clone()).collect();
        for key in due {
            self.tell_count(&key, out);
        }
    }

    fn tell_count(&mut self, key: &CoordinatedKey, out: &mut Outcome) {
        let now = self.follows.now;
        self.follows.set_due(key, None);
        if !self.may_tell(key) {
            return;
        }
        let Some(followed) = self.follows.followed.get_mut(key) else { return self.tell_none(key, out) };
        let total = followed.total();
        let news = followed.is_news();
        let announced = news && followed.calm_until().is_none_or(|calm| calm <= now);
        let told = followed.tell(announced);
        if announced {
            (followed.announced, followed.last, followed.disputed) = (Some(total), Some(now), false);
            if let CoordinatedKey::Channel(channel) = key {
                out.facts.push(Fact::SubscriptionCount(channel.clone(), total));
            }
        }
        for slave in told {
            self.tell_standing(slave, key, total, announced || !news, out);
        }
        self.schedule(key);
    }

    /// Nobody is left on a channel.
    fn tell_none(&self, key: &CoordinatedKey, out: &mut Outcome) {
        if let CoordinatedKey::Channel(channel) = key {
            out.facts.push(Fact::SubscriptionCount(channel.clone(), 0));
        }
    }

    /// All agree: everybody has said what it follows. Tell who does not know how it stands.
    pub(super) fn tell_followers(&mut self, out: &mut Outcome) {
        let keys: Vec<_> = self.follows.followed.keys().cloned().collect();
        for key in keys {
            match key {
                CoordinatedKey::User { .. } => self.tell_watchers(&key, out),
                _ => self.schedule(&key),
            }
        }
    }

    /// Tell `to` all that it coordinates and this slave follows.
    pub(super) fn serve_follows(&self, to: NodeId, out: &mut Outcome) {
        for key in self.follows.own.keys().filter(|key| self.coordinators(place_of(key)).next() == Some(to)) {
            self.tell(to, || self.follows.message(key), out);
        }
    }

    /// Tell the coordinators of the keys that this slave follows and that had others `before`; what is to be told to those.
    pub(super) fn tell_moved_follows(
        &mut self,
        before: &[NodeId],
        out: &mut Outcome,
    ) -> Vec<(NodeId, CoordinationMessage)> {
        let mut ended = Vec::new();
        for key in self.follows.own.keys().cloned().collect::<Vec<_>>() {
            let (old, new) = (both(before, place_of(&key)).next(), self.coordinators(place_of(&key)).next());
            if old == new {
                continue;
            }
            match old {
                Some(old) if old == self.me => {
                    self.follows.remove(&key, old);
                    self.schedule(&key);
                }
                Some(old) => {
                    let key = key.clone();
                    ended.push((old, CoordinationMessage::Follow { key, count: 0, told: None, asks: false }));
                }
                None => {}
            }
            if let Some(new) = new {
                self.tell_follow(new, &key, out);
            }
        }
        ended
    }
}

/// What a key is hashed to.
fn place_of(key: &CoordinatedKey) -> u64 {
    match key {
        CoordinatedKey::Channel(channel) | CoordinatedKey::Member { channel, .. } => place_of_channel(channel),
        CoordinatedKey::User { app, user } => place_of_user(app, user),
    }
}
