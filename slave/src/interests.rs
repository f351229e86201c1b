//! Which worker threads have subscribers of which channel, so that a push reaches only those, and for as long as any has,
//! the slave's interest on the bus. Shared by all threads of a slave; cut into stripes, so that they rarely wait for
//! each other.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use wellhead_proto::{
    bus::{Bus, Hold},
    ids::ChannelKey,
};

use crate::keeping::Keeping;

/// The largest number of worker threads: a set of them is one `u64`.
pub const MAX_WORKERS: usize = 64;

const STRIPES: usize = 64;

/// Channels, each with the set of workers that have subscribers of it.
pub struct Interests {
    hasher: RandomState,
    stripes: Vec<Mutex<HashMap<ChannelKey, Followed>>>,
    channels: AtomicUsize,
    bus: Arc<dyn Bus>,
    keeping: Arc<Keeping>,
}

struct Followed {
    /// The workers, one bit each.
    workers: u64,
    /// Keeps the interest on the bus alive.
    _hold: Option<Hold>,
}

impl Interests {
    /// Nothing is followed yet; `bus` brings what will be, and `keeping` hears of it.
    pub fn new(bus: Arc<dyn Bus>, keeping: Arc<Keeping>) -> Self {
        Self {
            hasher: RandomState::new(),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            channels: AtomicUsize::new(0),
            bus,
            keeping,
        }
    }

    /// From now on `worker` gets the pushes of `channel`.
    pub fn add(&self, channel: &ChannelKey, worker: usize) {
        let mut stripe = self.stripe(channel);
        if let Some(followed) = stripe.get_mut(channel) {
            followed.workers |= 1 << worker;
        } else {
            // whoever joins holds a confirmed interest of its own until it has joined: nothing is missed in between
            let _hold = self.bus.interest(channel).map(|interest| interest.hold);
            stripe.insert(channel.clone(), Followed { workers: 1 << worker, _hold });
            self.channels.fetch_add(1, Ordering::Relaxed);
            // under the stripe's lock, so that coming and leaving are told in their order
            self.keeping.came(&channel.clone().into(), None);
        }
    }

    /// From now on it does not.
    pub fn remove(&self, channel: &ChannelKey, worker: usize) {
        let mut stripe = self.stripe(channel);
        if let Some(followed) = stripe.get_mut(channel) {
            followed.workers &= !(1 << worker);
            if followed.workers == 0 {
                stripe.remove(channel);
                self.channels.fetch_sub(1, Ordering::Relaxed);
                self.keeping.left(&channel.clone().into());
            }
        }
    }

    /// Workers with subscribers of `channel`, in ascending order.
    pub fn workers(&self, channel: &ChannelKey) -> impl Iterator<Item = usize> + use<> {
        let mut set = self.stripe(channel).get(channel).map_or(0, |followed| followed.workers);
        std::iter::from_fn(move || {
            let worker = set.trailing_zeros() as usize;
            set &= set.wrapping_sub(1);
            (worker < MAX_WORKERS).then_some(worker)
        })
    }

    /// Channels that somebody of this slave is on.
    pub fn channels(&self) -> usize {
        self.channels.load(Ordering::Relaxed)
    }

    fn stripe(&self, channel: &ChannelKey) -> MutexGuard<'_, HashMap<ChannelKey, Followed>> {
        let stripe = &self.stripes[self.hasher.hash_one(channel) as usize % STRIPES];
        // a thread that panicked while it held a stripe has left a whole map behind
        stripe.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use wellhead_proto::{ids::NodeId, testkit::RecordingBus};

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn a_push_goes_to_workers_with_subscribers_of_that_app_only() {
        let bus = Arc::new(RecordingBus::default());
        let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default());
        let keeping = Keeping::new(NodeId::from_random(1), bus.clone(), metrics);
        let interests = Interests::new(bus, Arc::new(keeping));
        let key = |app: &str| ChannelKey { app: app.parse().unwrap(), name: "news".parse().unwrap() };
        for worker in [0, 5, 63] {
            interests.add(&key("a"), worker);
        }
        interests.add(&key("a"), 5);
        interests.remove(&key("a"), 0);
        assert_eq!(interests.workers(&key("a")).collect::<Vec<_>>(), [5, 63]);
        assert_eq!(interests.workers(&key("b")).count(), 0);
        assert_eq!(interests.channels(), 1);
        interests.remove(&key("a"), 5);
        interests.remove(&key("a"), 63);
        interests.remove(&key("b"), 63);
        assert_eq!(interests.channels(), 0);
    }
}
