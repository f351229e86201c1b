//! Which worker threads have subscribers of which channel, so that a push reaches only those, and for as long as any has,
//! the slave's interest on the bus. Shared by all threads of a slave. The threads themselves are noted in the table of
//! channels, where a push finds number and threads in one step.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use rustc_hash::FxHashMap;
use wellhead_proto::{
    bus::{Bus, Hold},
    ids::{AppId, ChannelName, UserId},
};

use crate::{
    channels::{ChannelId, ChannelTable, Workers},
    presence::{coordination::Coordination, coordinator::LedgerKey},
};

const STRIPES: usize = 64;

/// The channels that somebody of this slave is on.
pub struct Interests {
    /// Each keeps the interests of its channels on the bus alive, and the order in which their first subscribers come and the
    /// last ones leave. Locked before the coordinator and the table of channels.
    stripes: Box<[Mutex<FxHashMap<ChannelId, Hold>>]>,
    channels: AtomicUsize,
    bus: Arc<dyn Bus>,
    coordination: Arc<Coordination>,
}

impl Interests {
    /// Nothing is followed yet; `bus` brings what will be, and `coordination` is told of it.
    pub fn new(bus: Arc<dyn Bus>, coordination: Arc<Coordination>) -> Self {
        let stripes = (0..STRIPES).map(|_| Mutex::default()).collect();
        Self { stripes, channels: AtomicUsize::new(0), bus, coordination }
    }

    /// The table that holds the names.
    pub fn names(&self) -> &Arc<ChannelTable> {
        self.coordination.names()
    }

    /// From now on `worker` gets the pushes of `channel`, to which somebody refers.
    pub fn add(&self, channel: ChannelId, worker: usize) {
        let mut holds = self.stripe(channel);
        if self.names().add_worker(channel, worker) {
            // whoever joins holds a confirmed interest of its own until it has joined: nothing is missed in between
            if let Some(interest) = self.bus.interest(&self.names().key(channel)) {
                holds.insert(channel, interest.hold);
            }
            self.channels.fetch_add(1, Ordering::Relaxed);
            // under the stripe's lock, so that coming and leaving are told in their order
            self.coordination.claim(&self.key(channel), None);
        }
    }

    /// From now on it does not.
    pub fn remove(&self, channel: ChannelId, worker: usize) {
        let mut holds = self.stripe(channel);
        if self.names().remove_worker(channel, worker) {
            holds.remove(&channel);
            // what a crowd needed is given back when it has gone
            if holds.capacity() > 64 + 8 * holds.len() {
                let len = holds.len();
                holds.shrink_to(2 * len);
            }
            self.channels.fetch_sub(1, Ordering::Relaxed);
            self.coordination.withdraw(&self.key(channel));
        }
    }

    /// The first socket of a user came to a thread, which gets what is for that user from now on.
    pub fn user_connected(&self, app: &AppId, user: &UserId) {
        self.bus.retain_user(app, user);
    }

    /// The last socket of a user has gone from a thread.
    pub fn user_disconnected(&self, app: &AppId, user: &UserId) {
        self.bus.release_user(app, user);
    }

    /// The number of a channel, and the workers with subscribers of it.
    pub fn find(&self, app: &AppId, channel: &ChannelName) -> Option<(ChannelId, Workers)> {
        self.names().find(app, channel)
    }

    /// Channels that somebody of this slave is on.
    pub fn channels(&self) -> usize {
        self.channels.load(Ordering::Relaxed)
    }

    fn key(&self, channel: ChannelId) -> LedgerKey {
        LedgerKey::Channel(self.names().refer_to(channel))
    }

    fn stripe(&self, channel: ChannelId) -> std::sync::MutexGuard<'_, FxHashMap<ChannelId, Hold>> {
        let stripe = &self.stripes[channel.number() as usize % STRIPES];
        stripe.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use wellhead_proto::{
        ids::{ChannelKey, NodeId},
        testkit::RecordingBus,
    };

    use super::*;
    use crate::{metrics::Metrics, presence::coordinator::GRACE};

    #[test]
    fn a_push_goes_to_workers_with_subscribers_of_that_app_only() {
        let bus = Arc::new(RecordingBus::default());
        let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default());
        let names = Arc::<ChannelTable>::default();
        let coordination = Coordination::new(NodeId::from_random(1), names.clone(), GRACE, bus.clone(), metrics);
        let interests = Interests::new(bus, Arc::new(coordination));
        let key = |app: &str| ChannelKey { app: app.parse().unwrap(), name: "news".parse().unwrap() };
        let [a, b] = ["a", "b"].map(|app| names.refer(&key(app).app, &key(app).name));
        for worker in [0, 5, 63] {
            interests.add(a.id(), worker);
        }
        interests.add(a.id(), 5);
        interests.remove(a.id(), 0);
        let workers = |app: &str| interests.find(&key(app).app, &key(app).name).unwrap().1.collect::<Vec<_>>();
        assert_eq!(workers("a"), [5, 63]);
        assert!(workers("b").is_empty());
        assert_eq!(interests.channels(), 1);
        interests.remove(a.id(), 5);
        interests.remove(a.id(), 63);
        interests.remove(b.id(), 63);
        assert_eq!(interests.channels(), 0);
        drop((a, b));
        assert_eq!(names.len(), 0);
    }
}
