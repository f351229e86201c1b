//! Which worker threads have subscribers of which channel, so that a push reaches only those, and for as long as any has,
//! the slave's interest on the bus. Shared by all threads of a slave; cut into stripes, so that they rarely wait for
//! each other.

use std::{
    hash::BuildHasher,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use wellhead_proto::{
    bus::{Bus, Hold},
    ids::{AppId, ChannelKey, ChannelName},
};

use crate::keeping::Keeping;

/// The largest number of worker threads: a set of them is one `u64`.
pub const MAX_WORKERS: usize = 64;

const STRIPES: usize = 64;

/// Channels, each with the set of workers that have subscribers of it.
pub struct Interests {
    /// One hash finds the stripe and the place in it. Keyed: clients choose names.
    hasher: RandomState,
    stripes: Vec<Mutex<Stripe>>,
    channels: AtomicUsize,
    bus: Arc<dyn Bus>,
    keeping: Arc<Keeping>,
}

type Stripe = HashTable<Followed>;

struct Followed {
    channel: ChannelKey,
    workers: Workers,
    /// Keeps the interest on the bus alive.
    _hold: Option<Hold>,
}

/// A set of workers, one bit each; in ascending order.
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

impl Interests {
    /// Nothing is followed yet; `bus` brings what will be, and `keeping` hears of it.
    pub fn new(bus: Arc<dyn Bus>, keeping: Arc<Keeping>) -> Self {
        Self {
            hasher: RandomState::default(),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            channels: AtomicUsize::new(0),
            bus,
            keeping,
        }
    }

    /// From now on `worker` gets the pushes of `channel`.
    pub fn add(&self, channel: &ChannelKey, worker: usize) {
        let hash = self.hash(&channel.app, &channel.name);
        let mut stripe = self.stripe(hash);
        if let Some(followed) = stripe.find_mut(hash, |followed| followed.channel == *channel) {
            followed.workers = followed.workers.with(worker);
        } else {
            // whoever joins holds a confirmed interest of its own until it has joined: nothing is missed in between
            let _hold = self.bus.interest(channel).map(|interest| interest.hold);
            let followed = Followed { channel: channel.clone(), workers: Workers::default().with(worker), _hold };
            stripe.insert_unique(hash, followed, |other| self.hash(&other.channel.app, &other.channel.name));
            self.channels.fetch_add(1, Ordering::Relaxed);
            // under the stripe's lock, so that coming and leaving are told in their order
            self.keeping.came(&channel.clone().into(), None);
        }
    }

    /// From now on it does not.
    pub fn remove(&self, channel: &ChannelKey, worker: usize) {
        let hash = self.hash(&channel.app, &channel.name);
        let mut stripe = self.stripe(hash);
        if let Ok(mut place) = stripe.find_entry(hash, |followed| followed.channel == *channel) {
            let followed = place.get_mut();
            followed.workers = followed.workers.without(worker);
            if followed.workers == Workers::default() {
                place.remove();
                self.channels.fetch_sub(1, Ordering::Relaxed);
                self.keeping.left(&channel.clone().into());
            }
        }
    }

    /// Workers with subscribers of `channel`.
    pub fn workers(&self, app: &AppId, channel: &ChannelName) -> Workers {
        let hash = self.hash(app, channel);
        let is_it = |followed: &Followed| followed.channel.name == *channel && followed.channel.app == *app;
        self.stripe(hash).find(hash, is_it).map_or_else(Workers::default, |followed| followed.workers)
    }

    /// Channels that somebody of this slave is on.
    pub fn channels(&self) -> usize {
        self.channels.load(Ordering::Relaxed)
    }

    fn hash(&self, app: &AppId, channel: &ChannelName) -> u64 {
        self.hasher.hash_one((app, channel))
    }

    fn stripe(&self, hash: u64) -> MutexGuard<'_, Stripe> {
        // the table looks at the lowest and the highest bits: those in the middle are left
        let stripe = &self.stripes[(hash >> 32) as usize % STRIPES];
        // a thread that panicked while it held a stripe has left a whole map behind
        stripe.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use wellhead_proto::{ids::NodeId, testkit::RecordingBus};

    use super::*;
    use crate::{keeper::GRACE, metrics::Metrics};

    #[test]
    fn a_push_goes_to_workers_with_subscribers_of_that_app_only() {
        let bus = Arc::new(RecordingBus::default());
        let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default());
        let keeping = Keeping::new(NodeId::from_random(1), GRACE, bus.clone(), metrics);
        let interests = Interests::new(bus, Arc::new(keeping));
        let key = |app: &str| ChannelKey { app: app.parse().unwrap(), name: "news".parse().unwrap() };
        for worker in [0, 5, 63] {
            interests.add(&key("a"), worker);
        }
        interests.add(&key("a"), 5);
        interests.remove(&key("a"), 0);
        let workers = |app: &str| interests.workers(&key(app).app, &key(app).name).collect::<Vec<_>>();
        assert_eq!(workers("a"), [5, 63]);
        assert!(workers("b").is_empty());
        assert_eq!(interests.channels(), 1);
        interests.remove(&key("a"), 5);
        interests.remove(&key("a"), 63);
        interests.remove(&key("b"), 63);
        assert_eq!(interests.channels(), 0);
    }
    #[test]
    fn the_first_workers_are_as_many_as_there_are() {
        for count in [0, 1, 2, 63, 64, 65] {
            assert_eq!(Workers::first(count).collect::<Vec<_>>(), (0..count.min(MAX_WORKERS)).collect::<Vec<_>>());
        }
    }
}
