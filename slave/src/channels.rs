//! The channels of a slave, numbered: a name is held once, here, and everything else (the threads' registries, interests,
//! presence, the coordinator) goes by the number. Shared by all threads; cut into stripes, so that they rarely wait for each
//! other. Its locks are the innermost: nothing else is called while one is held.
//!
//! A number is that of one channel for as long as somebody holds a [`ChannelRef`] to it, and afterwards perhaps another's. So
//! whoever gets a number without holding a reference (a push on its way to a thread) compares names before using it.

use std::{
    collections::HashMap,
    fmt,
    hash::BuildHasher,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use wellhead_proto::ids::{AppId, ChannelKey, ChannelName};

use crate::pages::Pages;

/// The largest number of worker threads: a set of them is one `u64`.
pub const MAX_WORKERS: usize = 64;

const STRIPES: usize = 64;

/// The number of a channel in this process. Not that of the same channel in another process, or later.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ChannelId(NonZeroU32);

impl ChannelId {
    /// As the number of a place in a dense table.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0.get() - 1
    }

    /// The id with that number.
    #[must_use]
    pub fn of_number(number: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(number))
    }
}

/// A set of worker threads, one bit each; in ascending order.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Workers(u64);

impl Workers {
    /// The first so many.
    pub fn first(count: usize) -> Self {
        Self(u64::MAX.checked_shr((MAX_WORKERS - count.min(MAX_WORKERS)) as u32).unwrap_or_default())
    }

    fn with(self, worker: usize) -> Self {
        Self(self.0 | 1 << worker)
    }

    fn without(self, worker: usize) -> Self {
        Self(self.0 & !(1 << worker))
    }
}

impl Iterator for Workers {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let worker = self.0.trailing_zeros() as usize;
        self.0 &= self.0.wrapping_sub(1);
        (worker < MAX_WORKERS).then_some(worker)
    }
}

/// Every channel that something in this process refers to.
pub struct ChannelTable {
    /// One hash finds the stripe and the place in it. Keyed: clients choose names.
    hasher: RandomState,
    stripes: Box<[Mutex<Stripe>]>,
}

#[derive(Default)]
struct Stripe {
    channels: Pages<Channel>,
    by_name: HashTable<u32>,
    /// The apps of these channels, each name once.
    apps: Pages<App>,
    by_app: HashMap<AppId, u32, RandomState>,
}

struct Channel {
    name: ChannelName,
    app: u32,
    references: u32,
    /// Threads with subscribers.
    workers: Workers,
}

struct App {
    id: AppId,
    channels: u32,
}

impl Default for ChannelTable {
    fn default() -> Self {
        let stripes = (0..STRIPES).map(|_| Mutex::default()).collect();
        Self { hasher: RandomState::default(), stripes }
    }
}

impl ChannelTable {
    /// Numbers depend on nothing but the order in which channels come: a run of a simulation can be repeated.
    #[cfg(test)]
    pub fn of_one_stripe() -> Self {
        Self { hasher: RandomState::default(), stripes: std::iter::once(Mutex::default()).collect() }
    }

    /// A channel that something refers to, and the threads with subscribers of it. The way of every push.
    pub fn find(&self, app: &AppId, name: &ChannelName) -> Option<(ChannelId, Workers)> {
        let hash = self.hash(app, name);
        let (stripe_no, stripe) = self.stripe_of(hash);
        let &place = stripe.by_name.find(hash, |&place| stripe.is(place, app, name))?;
        Some((self.id(stripe_no, place), stripe.channels[place].workers))
    }

    /// Refer to a channel, which is given a number if it has none.
    pub fn refer(self: &Arc<Self>, app: &AppId, name: &ChannelName) -> ChannelRef {
        let hash = self.hash(app, name);
        let (stripe_no, mut stripe) = self.stripe_of(hash);
        let found = stripe.by_name.find(hash, |&place| stripe.is(place, app, name)).copied();
        let place = found.unwrap_or_else(|| {
            let app = stripe.app(app);
            let channel = Channel { name: name.clone(), app, references: 0, workers: Workers::default() };
            let place = stripe.channels.insert(channel);
            let Stripe { channels, by_name, apps, .. } = &mut *stripe;
            let hash_of = |&place: &u32| {
                let Channel { name, app, .. } = &channels[place];
                self.hash(&apps[*app].id, name)
            };
            by_name.insert_unique(hash, place, hash_of);
            place
        });
        stripe.channels[place].references += 1;
        drop(stripe);
        ChannelRef { table: Some(self.clone()), id: self.id(stripe_no, place) }
    }

    /// One more reference to a channel that is referred to.
    pub fn refer_to(self: &Arc<Self>, id: ChannelId) -> ChannelRef {
        self.stripe(id).channels[self.place(id)].references += 1;
        ChannelRef { table: Some(self.clone()), id }
    }

    /// A reference that was put aside by [`ChannelRef::into_id`].
    pub fn adopt(self: &Arc<Self>, id: ChannelId) -> ChannelRef {
        ChannelRef { table: Some(self.clone()), id }
    }

    /// The channel of a number that is referred to.
    pub fn key(&self, id: ChannelId) -> ChannelKey {
        let stripe = self.stripe(id);
        let Channel { name, app, .. } = &stripe.channels[self.place(id)];
        ChannelKey { app: stripe.apps[*app].id.clone(), name: name.clone() }
    }

    /// The threads with subscribers of a channel that is referred to.
    pub fn workers(&self, id: ChannelId) -> Workers {
        self.stripe(id).channels[self.place(id)].workers
    }

    /// Thread `worker` has subscribers of a channel that is referred to. `true` if no thread had.
    pub fn add_worker(&self, id: ChannelId, worker: usize) -> bool {
        let workers = &mut self.stripe(id).channels[self.place(id)].workers;
        let before = std::mem::replace(workers, workers.with(worker));
        before == Workers::default()
    }

    /// It has none any more. `true` if it was the last.
    pub fn remove_worker(&self, id: ChannelId, worker: usize) -> bool {
        let workers = &mut self.stripe(id).channels[self.place(id)].workers;
        let before = std::mem::replace(workers, workers.without(worker));
        before != *workers && *workers == Workers::default()
    }

    /// How many channels are referred to.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        let count = |stripe: &Mutex<Stripe>| stripe.lock().unwrap_or_else(PoisonError::into_inner).channels.len();
        self.stripes.iter().map(count).sum()
    }

    fn release(&self, id: ChannelId) {
        let mut stripe = self.stripe(id);
        let channel = &mut stripe.channels[self.place(id)];
        channel.references -= 1;
        if channel.references > 0 {
            return;
        }
        let Channel { name, app, .. } = stripe.channels.remove(self.place(id)).expect("it was there just now");
        let hash = self.hash(&stripe.apps[app].id, &name);
        if let Ok(entry) = stripe.by_name.find_entry(hash, |&place| place == self.place(id)) {
            entry.remove();
        }
        stripe.leave_app(app);
        // what a crowd needed is given back when it has gone
        let (len, capacity) = (stripe.by_name.len(), stripe.by_name.capacity());
        if capacity > 64 + 8 * len {
            let Stripe { channels, by_name, apps, .. } = &mut *stripe;
            by_name.shrink_to(2 * len, |&place| {
                let Channel { name, app, .. } = &channels[place];
                self.hash(&apps[*app].id, name)
            });
        }
    }

    /// The remainder of a number says its stripe.
    fn id(&self, stripe: usize, place: u32) -> ChannelId {
        let number = place as usize * self.stripes.len() + stripe;
        ChannelId::of_number(u32::try_from(number).expect("memory ends before numbers do"))
    }

    fn place(&self, id: ChannelId) -> u32 {
        id.number() / self.stripes.len() as u32
    }

    fn hash(&self, app: &AppId, name: &ChannelName) -> u64 {
        self.hasher.hash_one((app, name))
    }

    fn stripe_of(&self, hash: u64) -> (usize, MutexGuard<'_, Stripe>) {
        // the table looks at the lowest and the highest bits: those in the middle are left
        let no = (hash >> 32) as usize % self.stripes.len();
        (no, self.lock(no))
    }

    fn stripe(&self, id: ChannelId) -> MutexGuard<'_, Stripe> {
        self.lock(id.number() as usize % self.stripes.len())
    }

    fn lock(&self, stripe: usize) -> MutexGuard<'_, Stripe> {
        // a thread that panicked while it held a stripe has left a whole table behind
        self.stripes[stripe].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ChannelTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelTable").finish_non_exhaustive()
    }
}

impl Stripe {
    fn is(&self, place: u32, app: &AppId, name: &ChannelName) -> bool {
        let channel = &self.channels[place];
        channel.name == *name && self.apps[channel.app].id == *app
    }

    /// The number of an app, for one more channel.
    fn app(&mut self, id: &AppId) -> u32 {
        let app = match self.by_app.get(id) {
            Some(&app) => app,
            None => {
                let app = self.apps.insert(App { id: id.clone(), channels: 0 });
                self.by_app.insert(id.clone(), app);
                app
            }
        };
        self.apps[app].channels += 1;
        app
    }

    fn leave_app(&mut self, app: u32) {
        let channels = &mut self.apps[app].channels;
        *channels -= 1;
        if *channels == 0
            && let Some(App { id, .. }) = self.apps.remove(app)
        {
            self.by_app.remove(&id);
        }
    }
}

/// Refers to a channel: as long as it lives, the number is that channel's.
pub struct ChannelRef {
    /// `None` once it is put aside.
    table: Option<Arc<ChannelTable>>,
    id: ChannelId,
}

impl ChannelRef {
    /// The number.
    #[must_use]
    pub fn id(&self) -> ChannelId {
        self.id
    }

    /// The channel.
    #[must_use]
    pub fn key(&self) -> ChannelKey {
        self.table().key(self.id)
    }

    /// Put the reference aside: it lives until [`ChannelTable::adopt`] takes it up again. For tables with a reference in each
    /// of very many entries.
    #[must_use]
    pub fn into_id(mut self) -> ChannelId {
        self.table = None;
        self.id
    }

    fn table(&self) -> &Arc<ChannelTable> {
        self.table.as_ref().expect("whoever puts it aside has it no more")
    }
}

impl Drop for ChannelRef {
    fn drop(&mut self) {
        if let Some(table) = &self.table {
            table.release(self.id);
        }
    }
}

impl Clone for ChannelRef {
    fn clone(&self) -> Self {
        self.table().refer_to(self.id)
    }
}

impl fmt::Debug for ChannelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.key(), f)
    }
}

impl PartialEq for ChannelRef {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for ChannelRef {}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(app: &str, name: &str) -> ChannelKey {
        ChannelKey { app: app.parse().unwrap(), name: name.parse().unwrap() }
    }

    fn refer(table: &Arc<ChannelTable>, app: &str, name: &str) -> ChannelRef {
        let ChannelKey { app, name } = key(app, name);
        table.refer(&app, &name)
    }

    fn find(table: &ChannelTable, app: &str, name: &str) -> Option<ChannelId> {
        let ChannelKey { app, name } = key(app, name);
        table.find(&app, &name).map(|(id, _)| id)
    }

    #[test]
    fn a_channel_has_one_number_for_as_long_as_it_is_referred_to() {
        let table = Arc::default();
        let (one, other) = (refer(&table, "a", "news"), refer(&table, "b", "news"));
        assert_ne!(one.id(), other.id());
        let again = refer(&table, "a", "news");
        assert_eq!((again.id(), again.key()), (one.id(), key("a", "news")));
        drop(one);
        let put_aside = again.into_id();
        assert_eq!(find(&table, "a", "news"), Some(put_aside));
        drop(table.adopt(put_aside));
        assert_eq!(find(&table, "a", "news"), None);
        assert_eq!(find(&table, "b", "news"), Some(other.id()));
        drop((other.clone(), other));
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn it_says_which_threads_have_subscribers() {
        let table = Arc::default();
        let channel = refer(&table, "a", "news");
        let key = channel.key();
        let workers = || table.find(&key.app, &key.name).unwrap().1.collect::<Vec<_>>();
        assert_eq!([5, 0, 63, 5].map(|worker| table.add_worker(channel.id(), worker)), [true, false, false, false]);
        assert_eq!(workers(), [0, 5, 63]);
        assert_eq!([0, 63, 5, 5].map(|worker| table.remove_worker(channel.id(), worker)), [false, false, true, false]);
        assert!(workers().is_empty());
    }

    #[test]
    fn numbers_lie_close_together_and_nothing_stays_of_a_crowd() {
        let table = Arc::default();
        let crowd: Vec<_> = (0..20_000).map(|no| refer(&table, "a", &format!("c{no}"))).collect();
        let highest = crowd.iter().map(|channel| channel.id().number()).max();
        assert!(highest < Some(30_000), "{highest:?}: a dense table by number wastes little");
        for no in [0, 1, 19_999] {
            assert_eq!(find(&table, "a", &format!("c{no}")), Some(crowd[no].id()));
        }
        drop(crowd);
        assert_eq!(table.len(), 0);
        for stripe in &table.stripes {
            let stripe = stripe.lock().unwrap();
            assert!(stripe.by_name.capacity() <= 64 && stripe.apps.is_empty() && stripe.by_app.is_empty());
        }
    }

    #[test]
    fn a_channel_takes_little() {
        assert_eq!(size_of::<Option<Channel>>(), 32, "held once for each channel");
        assert_eq!(size_of::<Option<ChannelId>>(), 4);
    }

    #[test]
    fn the_first_workers_are_as_many_as_there_are() {
        for count in [0, 1, 2, 63, 64, 65] {
            assert_eq!(Workers::first(count).collect::<Vec<_>>(), (0..count.min(MAX_WORKERS)).collect::<Vec<_>>());
        }
    }
}
