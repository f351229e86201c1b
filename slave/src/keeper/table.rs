//! What a slave knows of channels that are its to keep or to watch: who holds them, and what was announced.

use std::{
    collections::{BTreeMap, VecDeque, btree_map},
    sync::Arc,
};

use smallvec::SmallVec;
use wellhead_proto::{
    ids::{ChannelKey, NodeId, UserId},
    report::Post,
};

/// Vacant channels that are remembered at least, see [`Table::vacated`].
const VACANT: usize = 65_536;

/// Epochs above it are nobody's: so many changes do not happen.
const LAST_EPOCH: u64 = u64::MAX >> 1;

/// Channels by key. Ordered, so that no choice of names makes it slow, and a run of the simulation can be repeated.
pub struct Table {
    entries: BTreeMap<Post, Entry>,
    /// Vacated channels with the epoch they had then, oldest first.
    vacant: VecDeque<(Post, u64)>,
    /// How many of them are remembered.
    most: usize,
}

/// A channel.
#[derive(Default)]
pub struct Entry {
    /// Other slaves that said that they hold it.
    pub holders: SmallVec<[NodeId; 2]>,
    /// Changes that were announced: odd is occupied, even is vacant.
    pub epoch: u64,
    /// What was announced of a member that is there, or else what the first holder says.
    pub info: Option<Arc<str>>,
}

impl Entry {
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
}

impl Default for Table {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), vacant: VecDeque::new(), most: VACANT }
    }
}

impl Table {
    /// The posts of the members of `channel`.
    pub fn members<'a>(&'a self, channel: &'a ChannelKey) -> impl Iterator<Item = (&'a UserId, &'a Entry)> {
        let first = Post { channel: channel.clone(), member: Some(UserId::nobody()) };
        let posts = self.entries.range(first..).take_while(move |(post, _)| post.channel == *channel);
        posts.filter_map(|(post, entry)| Some((post.member.as_ref()?, entry)))
    }

    pub fn iter(&self) -> btree_map::Iter<'_, Post, Entry> {
        self.entries.iter()
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn get(&self, post: &Post) -> Option<&Entry> {
        self.entries.get(post)
    }

    /// The entry of `post`, made if there is none.
    pub fn open(&mut self, post: &Post) -> &mut Entry {
        if !self.entries.contains_key(post) {
            self.entries.insert(post.clone(), Entry::default());
        }
        self.entries.get_mut(post).expect("it was inserted if it was missing")
    }

    /// `slave` holds `post`.
    pub fn hold(&mut self, post: &Post, slave: NodeId, info: Option<Arc<str>>) -> &Entry {
        let entry = self.open(post);
        if entry.info.is_none() {
            entry.info = info;
        }
        if !entry.holders.contains(&slave) {
            entry.holders.push(slave);
        }
        entry
    }

    /// `slave` does not hold `post` any more. `keep`: what was announced of it is still to be known.
    pub fn release(&mut self, post: &Post, slave: NodeId, keep: bool) {
        if let Some(entry) = self.entries.get_mut(post) {
            entry.holders.retain(|holder| *holder != slave);
            if entry.holders.is_empty() && !entry.announced_occupied() {
                entry.info = None;
            }
            if entry.holders.is_empty() && (entry.epoch == 0 || !keep) {
                self.entries.remove(post);
            }
        }
    }

    /// Slaves that are `gone` hold nothing, as far as is known here.
    pub fn release_all(&mut self, gone: impl Fn(NodeId) -> bool) {
        for entry in self.entries.values_mut() {
            entry.holders.retain(|holder| !gone(*holder));
        }
    }

    /// Somebody hands over what was announced of `post`. `true` if it is news.
    pub fn announced(&mut self, post: &Post, epoch: u64) -> bool {
        if !(1..=LAST_EPOCH).contains(&epoch) {
            return false;
        }
        let entry = self.open(post);
        if epoch <= entry.epoch {
            return false;
        }
        entry.epoch = epoch;
        if !entry.announced_occupied() {
            self.vacated(post, false);
        }
        true
    }

    /// The roster changed. As many vacant channels are remembered as there are channels now: a slave that comes back
    /// held no more of them.
    pub fn roster_changed(&mut self) {
        self.most = self.entries.len().max(VACANT);
    }

    /// Forget what nobody holds and is not to be kept.
    pub fn retain(&mut self, keep: impl Fn(&Post) -> bool) {
        self.entries.retain(|post, entry| !entry.holders.is_empty() || entry.epoch != 0 && keep(post));
    }

    /// `post` was announced as vacant. That is remembered for a while, for who still knows an older epoch of it; a
    /// slave that never met another (`alone`) forgets it at once.
    pub fn vacated(&mut self, post: &Post, alone: bool) {
        if alone {
            self.entries.remove(post);
            return;
        }
        let Some(entry) = self.entries.get(post) else { return };
        self.vacant.push_back((post.clone(), entry.epoch));
        while self.vacant.len() > self.most {
            let (post, epoch) = self.vacant.pop_front().expect("it is longer than nothing");
            let entry = self.entries.get(&post);
            if entry.is_some_and(|entry| entry.epoch == epoch && entry.holders.is_empty()) {
                self.entries.remove(&post);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(no: usize) -> Post {
        ChannelKey { app: "app".parse().unwrap(), name: no.to_string().parse().unwrap() }.into()
    }

    #[test]
    fn vacant_channels_are_forgotten_oldest_first_and_occupied_ones_never() {
        let mut table = Table::default();
        for no in 0..=VACANT + 1 {
            table.open(&post(no)).epoch = 2;
            table.vacated(&post(no), false);
            if no == 0 {
                table.open(&post(0)).epoch = 3;
            }
        }
        assert_eq!(table.get(&post(0)).map(|entry| entry.epoch), Some(3));
        assert!(table.get(&post(1)).is_none());
        assert!(table.get(&post(2)).is_some());
        assert_eq!((table.len(), table.vacant.len()), (VACANT + 1, VACANT));

        table.open(&post(2)).epoch = 2;
        table.vacated(&post(2), true);
        assert!(table.get(&post(2)).is_none());
    }

    #[test]
    fn it_remembers_as_many_vacant_channels_as_it_had_when_the_roster_changed() {
        let mut table = Table::default();
        for no in 0..VACANT + 10 {
            table.open(&post(no)).epoch = 1;
        }
        table.roster_changed();
        for no in 0..VACANT + 10 {
            table.open(&post(no)).epoch = 2;
            table.vacated(&post(no), false);
        }
        assert_eq!(table.len(), VACANT + 10);
        table.roster_changed();
        table.retain(|_| true);
        assert_eq!(table.len(), VACANT + 10);
    }

    #[test]
    fn an_epoch_that_nobody_can_have_counted_to_is_not_learnt() {
        let mut entry = Entry::default();
        entry.learn(u64::MAX);
        assert_eq!(entry.epoch, 0);
        entry.learn(LAST_EPOCH);
        entry.learn(3);
        assert_eq!(entry.epoch, LAST_EPOCH);
    }
}
