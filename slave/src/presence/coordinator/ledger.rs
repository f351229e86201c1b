//! What a slave knows of what is coordinated: what it claims itself, who else claims it, and what was announced. Channels
//! are in a dense table by their numbers; members and users, which most channels have none of, in ordered maps. So no
//! choice of names makes it slow, and a run of the simulation can be repeated.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use wellhead_proto::{
    coordination::CoordinatedKey,
    ids::{AppId, ChannelKey, NodeId, UserId},
    membership::{place_of_channel, place_of_user},
};

use crate::{
    channels::{ChannelId, ChannelRef, ChannelTable},
    pages::Pages,
};

/// Vacant keys that are remembered at least, see [`Ledger::vacated`].
const VACANT: usize = 65_536;

/// Epochs above it are refused: so many changes do not happen.
const LAST_EPOCH: u64 = u64::MAX >> 1;

/// A [`CoordinatedKey`] with its channel by number. As long as it lives, the number is that channel's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LedgerKey {
    /// A channel.
    Channel(ChannelRef),
    /// A member of a channel.
    Member(ChannelRef, UserId),
    /// A user.
    User(AppId, UserId),
}

/// The same, of something that the ledger has a record of.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum KeyRef<'a> {
    /// A channel.
    Channel(ChannelId),
    /// A member of a channel.
    Member(ChannelId, &'a UserId),
    /// A user.
    User(&'a AppId, &'a UserId),
}

impl LedgerKey {
    /// The key of what another slave names.
    pub fn of(names: &Arc<ChannelTable>, key: &CoordinatedKey) -> Self {
        let refer = |channel: &ChannelKey| names.refer(&channel.app, &channel.name);
        match key {
            CoordinatedKey::Channel(channel) => Self::Channel(refer(channel)),
            CoordinatedKey::Member { channel, user } => Self::Member(refer(channel), user.clone()),
            CoordinatedKey::User { app, user } => Self::User(app.clone(), user.clone()),
        }
    }

    pub fn borrow(&self) -> KeyRef<'_> {
        match self {
            Self::Channel(channel) => KeyRef::Channel(channel.id()),
            Self::Member(channel, user) => KeyRef::Member(channel.id(), user),
            Self::User(app, user) => KeyRef::User(app, user),
        }
    }

    /// As other slaves understand it.
    pub fn named(&self) -> CoordinatedKey {
        match self {
            Self::Channel(channel) => CoordinatedKey::Channel(channel.key()),
            Self::Member(channel, user) => CoordinatedKey::Member { channel: channel.key(), user: user.clone() },
            Self::User(app, user) => CoordinatedKey::User { app: app.clone(), user: user.clone() },
        }
    }

    /// What it is hashed to.
    fn place(&self) -> u64 {
        match self {
            Self::Channel(channel) | Self::Member(channel, _) => place_of_channel(&channel.key()),
            Self::User(app, user) => place_of_user(app, user),
        }
    }

    /// Is it gone only after its grace?
    pub fn has_grace(&self) -> bool {
        match self {
            Self::Channel(_) => false,
            Self::Member(..) | Self::User(..) => true,
        }
    }
}

impl KeyRef<'_> {
    /// The same with a reference of its own to its channel, which is referred to.
    pub fn referring(self, names: &Arc<ChannelTable>) -> LedgerKey {
        match self {
            Self::Channel(channel) => LedgerKey::Channel(names.refer_to(channel)),
            Self::Member(channel, user) => LedgerKey::Member(names.refer_to(channel), user.clone()),
            Self::User(app, user) => LedgerKey::User(app.clone(), user.clone()),
        }
    }
}

impl PartialOrd for LedgerKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for LedgerKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.borrow().cmp(&other.borrow())
    }
}

/// What is known of one key.
#[derive(Debug)]
pub struct Record {
    /// What it is hashed to, which picks its coordinator.
    pub place: u64,
    /// This slave claims it. The number: changes that it knows to be announced, as a claimant.
    pub claim: Option<u64>,
    /// Changes that were announced, as this slave knows as coordinator or standby: odd is occupied, even is vacant.
    pub epoch: u64,
    /// Other slaves that claim it.
    pub claimants: Claimants,
}

/// Most keys are claimed by one slave, or by two.
#[derive(Debug, Default)]
#[expect(clippy::box_collection, reason = "a vector in each record would cost every channel 8 bytes")]
pub enum Claimants {
    #[default]
    None,
    One(NodeId),
    Two([NodeId; 2]),
    Many(Box<Vec<NodeId>>),
}

impl Claimants {
    pub fn as_slice(&self) -> &[NodeId] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Two(two) => two,
            Self::Many(many) => many,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    fn add(&mut self, slave: NodeId) {
        match self {
            _ if self.as_slice().contains(&slave) => {}
            Self::None => *self = Self::One(slave),
            Self::One(one) => *self = Self::Two([*one, slave]),
            Self::Two([one, two]) => *self = Self::Many(Box::new(vec![*one, *two, slave])),
            Self::Many(many) => many.push(slave),
        }
    }

    fn retain(&mut self, keep: impl Fn(NodeId) -> bool) {
        if self.as_slice().iter().all(|&slave| keep(slave)) {
            return;
        }
        let left: Vec<_> = self.as_slice().iter().copied().filter(|&slave| keep(slave)).collect();
        *self = match left[..] {
            [] => Self::None,
            [one] => Self::One(one),
            [one, two] => Self::Two([one, two]),
            _ => Self::Many(Box::new(left)),
        };
    }
}

impl Record {
    fn new(place: u64) -> Self {
        Self { place, claim: None, epoch: 0, claimants: Claimants::None }
    }

    /// Was it announced as occupied last?
    pub fn announced_occupied(&self) -> bool {
        self.epoch % 2 == 1
    }

    /// Take over what somebody else knows to be announced.
    pub fn learn(&mut self, epoch: u64) {
        if epoch <= LAST_EPOCH {
            self.epoch = self.epoch.max(epoch);
        }
    }

    /// Is there something to remember as coordinator or standby?
    pub fn is_coordinated(&self) -> bool {
        self.epoch != 0 || !self.claimants.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.claim.is_none() && !self.is_coordinated()
    }
}

/// What the others may know of a member.
#[derive(Debug, Default)]
pub struct Infos {
    /// What this slave says as a claimant.
    pub claimed: Option<Arc<str>>,
    /// What was announced of a member that is there, or else what the first claimant says.
    pub announced: Option<Arc<str>>,
}

/// All records.
pub struct Ledger {
    names: Arc<ChannelTable>,
    /// Each refers to its channel.
    channels: Pages<Record>,
    /// So does each of these.
    members: BTreeMap<(ChannelId, UserId), (Record, Infos)>,
    users: BTreeMap<(AppId, UserId), Record>,
    /// Vacated keys with the epoch they had then, oldest first.
    vacant: VecDeque<(LedgerKey, u64)>,
    /// How many of them are remembered.
    most_vacant: usize,
}

impl Ledger {
    /// Nothing is known yet.
    pub fn new(names: Arc<ChannelTable>) -> Self {
        Self {
            names,
            channels: Pages::default(),
            members: BTreeMap::new(),
            users: BTreeMap::new(),
            vacant: VecDeque::new(),
            most_vacant: VACANT,
        }
    }

    /// The table that holds the names of channels.
    pub fn names(&self) -> &Arc<ChannelTable> {
        &self.names
    }

    /// The members of `channel` that something is known of.
    pub fn members(&self, channel: ChannelId) -> impl Iterator<Item = (&UserId, &Record, &Infos)> {
        let members = self.members.range((channel, UserId::nobody())..);
        let of_it = members.take_while(move |((of, _), _)| *of == channel);
        of_it.map(|((_, user), (record, infos))| (user, record, infos))
    }

    /// All records: channels by their numbers, then members, then users.
    pub fn iter(&self) -> impl Iterator<Item = (KeyRef<'_>, &Record)> {
        let channels = self.channels.iter().map(|(no, record)| (KeyRef::Channel(ChannelId::of_number(no)), record));
        let members = self.members.iter();
        let members = members.map(|((channel, user), (record, _))| (KeyRef::Member(*channel, user), record));
        let users = self.users.iter().map(|((app, user), record)| (KeyRef::User(app, user), record));
        channels.chain(members).chain(users)
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Record> {
        let members = self.members.values_mut().map(|(record, _)| record);
        self.channels.values_mut().chain(members).chain(self.users.values_mut())
    }

    /// What was coordinated here and is still remembered.
    #[cfg(test)]
    pub fn coordinated(&self) -> impl Iterator<Item = (KeyRef<'_>, &Record)> {
        self.iter().filter(|(_, record)| record.is_coordinated())
    }

    /// The key of a record.
    pub fn key(&self, key: KeyRef<'_>) -> LedgerKey {
        key.referring(&self.names)
    }

    /// The key of a record as other slaves understand it.
    pub fn named(&self, key: KeyRef<'_>) -> CoordinatedKey {
        match key {
            KeyRef::Channel(channel) => CoordinatedKey::Channel(self.names.key(channel)),
            KeyRef::Member(channel, user) => {
                CoordinatedKey::Member { channel: self.names.key(channel), user: user.clone() }
            }
            KeyRef::User(app, user) => CoordinatedKey::User { app: app.clone(), user: user.clone() },
        }
    }

    pub fn get(&self, key: KeyRef<'_>) -> Option<&Record> {
        match key {
            KeyRef::Channel(channel) => self.channels.get(channel.number()),
            KeyRef::Member(channel, user) => self.members.get(&(channel, user.clone())).map(|(record, _)| record),
            KeyRef::User(app, user) => self.users.get(&(app.clone(), user.clone())),
        }
    }

    pub fn get_mut(&mut self, key: KeyRef<'_>) -> Option<&mut Record> {
        match key {
            KeyRef::Channel(channel) => self.channels.get_mut(channel.number()),
            KeyRef::Member(channel, user) => self.members.get_mut(&(channel, user.clone())).map(|(record, _)| record),
            KeyRef::User(app, user) => self.users.get_mut(&(app.clone(), user.clone())),
        }
    }

    /// What a key is hashed to, whether there is a record of it or not.
    pub fn place(&self, key: &LedgerKey) -> u64 {
        self.get(key.borrow()).map_or_else(|| key.place(), |record| record.place)
    }

    /// What is known of a member; nothing of any other key.
    pub fn infos(&self, key: KeyRef<'_>) -> Option<&Infos> {
        let KeyRef::Member(channel, user) = key else { return None };
        self.members.get(&(channel, user.clone())).map(|(_, infos)| infos)
    }

    pub fn infos_mut(&mut self, key: KeyRef<'_>) -> Option<&mut Infos> {
        let KeyRef::Member(channel, user) = key else { return None };
        self.members.get_mut(&(channel, user.clone())).map(|(_, infos)| infos)
    }

    /// The record of `key`, made if there is none. Whoever leaves it empty calls [`Ledger::tidy`].
    pub fn open(&mut self, key: &LedgerKey) -> &mut Record {
        if self.get(key.borrow()).is_none() {
            let record = Record::new(key.place());
            match key {
                LedgerKey::Channel(channel) => self.channels.put(channel.clone().into_id().number(), record),
                LedgerKey::Member(channel, user) => {
                    let member = (channel.clone().into_id(), user.clone());
                    self.members.insert(member, (record, Infos::default()));
                }
                LedgerKey::User(app, user) => drop(self.users.insert((app.clone(), user.clone()), record)),
            }
        }
        self.get_mut(key.borrow()).expect("it was inserted if it was missing")
    }

    /// Drop a record that holds nothing any more.
    pub fn tidy(&mut self, key: KeyRef<'_>) {
        if self.get(key).is_some_and(Record::is_empty) {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: KeyRef<'_>) {
        match key {
            KeyRef::Channel(channel) => {
                if self.channels.remove(channel.number()).is_some() {
                    drop(self.names.adopt(channel));
                }
            }
            KeyRef::Member(channel, user) => {
                if self.members.remove(&(channel, user.clone())).is_some() {
                    drop(self.names.adopt(channel));
                }
            }
            KeyRef::User(app, user) => drop(self.users.remove(&(app.clone(), user.clone()))),
        }
    }

    /// Forget what was announced of `key`, and who else claims it.
    fn forget(&mut self, key: KeyRef<'_>) {
        if let Some(record) = self.get_mut(key) {
            (record.epoch, record.claimants) = (0, Claimants::None);
        }
        if let Some(infos) = self.infos_mut(key) {
            infos.announced = None;
        }
        self.tidy(key);
    }

    /// `slave` claims `key`.
    pub fn add_claimant(&mut self, key: &LedgerKey, slave: NodeId, info: Option<Arc<str>>) -> &Record {
        self.open(key).claimants.add(slave);
        if let Some(infos) = self.infos_mut(key.borrow())
            && infos.announced.is_none()
        {
            infos.announced = info;
        }
        &*self.open(key)
    }

    /// `slave` does not claim `key` any more. `keep`: what was announced of it is still to be known.
    pub fn remove_claimant(&mut self, key: KeyRef<'_>, slave: NodeId, keep: bool) {
        let Some(record) = self.get_mut(key) else { return };
        record.claimants.retain(|claimant| claimant != slave);
        let (unclaimed, epoch) = (record.claimants.is_empty(), record.epoch);
        if unclaimed && (epoch == 0 || !keep) {
            self.forget(key);
        } else if unclaimed
            && epoch % 2 == 0
            && let Some(infos) = self.infos_mut(key)
        {
            infos.announced = None;
        }
    }

    /// Slaves that are `gone` claim nothing, as far as is known here.
    pub fn remove_claimants(&mut self, gone: impl Fn(NodeId) -> bool) {
        let mut emptied = false;
        for record in self.iter_mut() {
            record.claimants.retain(|claimant| !gone(claimant));
            emptied |= record.is_empty();
        }
        if emptied {
            self.retain(|_, _| true);
        }
    }

    /// Somebody hands over what was announced of `key`. `true` if it is news.
    pub fn hand_over(&mut self, key: &LedgerKey, epoch: u64) -> bool {
        if !(1..=LAST_EPOCH).contains(&epoch) {
            return false;
        }
        let record = self.open(key);
        if epoch <= record.epoch {
            return false;
        }
        record.epoch = epoch;
        if !record.announced_occupied() {
            self.vacated(key, false);
        }
        true
    }

    /// The list of slaves changed. As many vacant keys are remembered as there are records now: a slave that comes back
    /// claimed no more of them.
    pub fn slaves_changed(&mut self) {
        self.most_vacant = (self.channels.len() + self.members.len() + self.users.len()).max(VACANT);
    }

    /// Forget what was announced of keys that no other slave claims and that are not to be kept.
    pub fn retain(&mut self, keep: impl Fn(KeyRef<'_>, &Record) -> bool) {
        let is_over = |(key, record): &(KeyRef<'_>, &Record)| record.claimants.is_empty() && !keep(*key, record);
        let over: Vec<_> =
            self.iter().filter(|one| is_over(one) || one.1.is_empty()).map(|(key, _)| self.key(key)).collect();
        for key in over {
            self.forget(key.borrow());
        }
    }

    /// `key` was announced as vacant. That is remembered for a while, for who still knows an older epoch of it; a
    /// slave that never met another (`alone`) forgets it at once.
    pub fn vacated(&mut self, key: &LedgerKey, alone: bool) {
        if alone {
            return self.forget(key.borrow());
        }
        let Some(record) = self.get(key.borrow()) else { return };
        self.vacant.push_back((key.clone(), record.epoch));
        while self.vacant.len() > self.most_vacant {
            let (key, epoch) = self.vacant.pop_front().expect("it is longer than nothing");
            let record = self.get(key.borrow());
            if record.is_some_and(|record| record.epoch == epoch && record.claimants.is_empty()) {
                self.forget(key.borrow());
            }
        }
    }
}

/// Its references to channels are put aside, so they are taken up again here.
impl Drop for Ledger {
    fn drop(&mut self) {
        let channels = self.channels.iter().map(|(no, _)| ChannelId::of_number(no));
        for channel in channels.chain(self.members.keys().map(|(channel, _)| *channel)) {
            drop(self.names.adopt(channel));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        Ledger::new(Arc::new(ChannelTable::of_one_stripe()))
    }

    fn key(ledger: &Ledger, no: usize) -> LedgerKey {
        let channel = ChannelKey { app: "app".parse().unwrap(), name: no.to_string().parse().unwrap() };
        LedgerKey::of(ledger.names(), &channel.into())
    }

    fn epoch(ledger: &Ledger, no: usize) -> Option<u64> {
        ledger.get(key(ledger, no).borrow()).map(|record| record.epoch)
    }

    fn open(ledger: &mut Ledger, no: usize, epoch: u64) {
        let key = key(ledger, no);
        ledger.open(&key).epoch = epoch;
    }

    fn vacated(ledger: &mut Ledger, no: usize, alone: bool) {
        open(ledger, no, 2);
        let key = key(ledger, no);
        ledger.vacated(&key, alone);
    }

    #[test]
    fn vacant_channels_are_forgotten_oldest_first_and_occupied_ones_never() {
        let mut ledger = ledger();
        for no in 0..=VACANT + 1 {
            vacated(&mut ledger, no, false);
            if no == 0 {
                open(&mut ledger, 0, 3);
            }
        }
        assert_eq!(epoch(&ledger, 0), Some(3));
        assert_eq!(epoch(&ledger, 1), None);
        assert_eq!(epoch(&ledger, 2), Some(2));
        assert_eq!((ledger.iter().count(), ledger.vacant.len()), (VACANT + 1, VACANT));

        vacated(&mut ledger, 2, true);
        assert_eq!(epoch(&ledger, 2), None);
    }

    #[test]
    fn it_remembers_as_many_vacant_channels_as_it_had_when_the_slaves_changed() {
        let mut ledger = ledger();
        for no in 0..VACANT + 10 {
            open(&mut ledger, no, 1);
        }
        ledger.slaves_changed();
        for no in 0..VACANT + 10 {
            vacated(&mut ledger, no, false);
        }
        assert_eq!(ledger.iter().count(), VACANT + 10);
        ledger.slaves_changed();
        ledger.retain(|_, _| true);
        assert_eq!(ledger.iter().count(), VACANT + 10);
    }

    #[test]
    fn an_epoch_that_nobody_can_have_counted_to_is_not_learnt() {
        let mut record = Record::new(0);
        record.learn(u64::MAX);
        assert_eq!(record.epoch, 0);
        record.learn(LAST_EPOCH);
        record.learn(3);
        assert_eq!(record.epoch, LAST_EPOCH);
    }

    #[test]
    fn a_channel_takes_little() {
        assert_eq!(size_of::<Option<Record>>(), 48, "held once for each channel");
    }

    #[test]
    fn names_are_held_as_long_as_something_is_known_and_no_longer() {
        let mut ledger = ledger();
        let names = ledger.names().clone();
        let member =
            LedgerKey::Member(names.refer(&"app".parse().unwrap(), &"m".parse().unwrap()), "ann".parse().unwrap());
        ledger.add_claimant(&member, NodeId::from_random(1), None);
        let user = LedgerKey::User("app".parse().unwrap(), "ann".parse().unwrap());
        ledger.open(&user).claim = Some(0);
        open(&mut ledger, 1, 1);
        assert_eq!(names.len(), 2);
        let keys: Vec<_> = ledger.iter().map(|(key, _)| ledger.key(key)).collect();
        assert_eq!(keys.len(), 3);
        ledger.remove_claimants(|_| true);
        ledger.remove_claimant(member.borrow(), NodeId::from_random(1), true);
        drop((member, keys));
        assert_eq!((names.len(), ledger.iter().count()), (1, 2));
        drop(ledger);
        assert_eq!(names.len(), 0);
    }

    #[test]
    fn claimants_are_each_there_once() {
        let mut claimants = Claimants::default();
        for no in [1, 2, 1, 3, 4, 3] {
            claimants.add(NodeId::from_random(no));
        }
        assert_eq!(claimants.as_slice(), [1, 2, 3, 4].map(NodeId::from_random));
        for left in [3, 2, 1, 0] {
            claimants.retain(|slave| u32::from(slave) <= left);
            assert_eq!(claimants.as_slice().len(), left as usize);
        }
    }
}
