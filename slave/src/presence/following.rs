//! What the clients of this slave follow over the cluster, in apps that want it: how many sockets are on a channel, and which
//! users are online. The threads say what changes among their sockets; the coordinators are told of the slave's sum, and tell
//! how it stands in the cluster; that is passed on to the threads. Each step gathers for a moment what happens meanwhile,
//! so that a crowd costs few messages.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use foldhash::fast::RandomState;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use tokio::{sync::watch, time::sleep};
use wellhead_proto::{
    coordination::CoordinatedKey,
    ids::{AppId, ChannelKey, ChannelName, UserId},
    tenants::TenantDirectory,
};

use super::{
    coordination::Coordination,
    coordinator::{FollowUpdate, LedgerKey},
};
use crate::channels::{ChannelId, ChannelRef};

/// What happens within it is told together.
const MOMENT: Duration = Duration::from_millis(50);

/// All that this slave follows.
pub struct Following {
    coordination: Arc<Coordination>,
    tenants: Arc<TenantDirectory>,
    users: Mutex<FollowedUsers>,
    /// Users that are claimed: most slaves claim none.
    claimed: AtomicUsize,
    counts: Mutex<LocalCounts>,
    /// Channels that are counted: most slaves count none.
    counted: AtomicUsize,
    has_counted: watch::Sender<()>,
}

/// A user of an app.
type AppUser = (AppId, UserId);

/// Worker threads, a bit for each.
type WorkerBits = u64;

#[derive(Default)]
struct FollowedUsers {
    /// Users with sockets here, and on which threads.
    here: HashMap<AppUser, WorkerBits, RandomState>,
    watched: HashMap<AppUser, FollowedUser, RandomState>,
    /// Changes of any of them so far. Never begins anew: a user who is watched again has no old numbers.
    changes: u64,
}

#[derive(Default)]
struct FollowedUser {
    /// Threads with sockets that watch the user.
    by: WorkerBits,
    online: Option<bool>,
    number: u64,
}

#[derive(Default)]
struct LocalCounts {
    channels: FxHashMap<ChannelId, LocalCount>,
    /// Those whose count has changed.
    changed: Vec<ChannelId>,
}

struct LocalCount {
    channel: ChannelRef,
    /// The sockets on it, of each thread that has some.
    of_workers: SmallVec<[(usize, usize); 2]>,
    asks: bool,
    has_changed: bool,
}

/// How a watched user stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UserStanding {
    /// The app.
    pub app: AppId,
    /// The user.
    pub user: UserId,
    /// Is it online?
    pub online: bool,
    /// The number of the change: what has a lower one is older.
    pub number: u64,
}

/// Tells threads of this slave how something stands. Must not wait.
pub trait FollowNotifier: Send + Sync + 'static {
    /// So these users stand; for that thread.
    fn tell_watchers(&self, worker: usize, users: Vec<UserStanding>);

    /// So many sockets are on the channel. `all` who are there are to know, or those who were told nothing yet.
    fn tell_count(&self, channel: &ChannelRef, count: u64, all: bool);
}

impl Following {
    /// Nothing is followed yet.
    pub(super) fn new(coordination: Arc<Coordination>, tenants: Arc<TenantDirectory>) -> Self {
        Self {
            coordination,
            tenants,
            users: Mutex::default(),
            claimed: AtomicUsize::new(0),
            counts: Mutex::default(),
            counted: AtomicUsize::new(0),
            has_counted: watch::Sender::default(),
        }
    }

    /// The first socket of a user came to a thread.
    pub fn user_came(&self, app: &AppId, user: &UserId, worker: usize) {
        if !self.tenants.load().wants(app).watchlists {
            return;
        }
        let mut users = self.users();
        let before = {
            let threads = users.here.entry((app.clone(), user.clone())).or_default();
            std::mem::replace(threads, *threads | bit(worker))
        };
        if before == 0 {
            self.claimed.fetch_add(1, Ordering::Relaxed);
            // under the lock, so that coming and leaving are told in their order
            self.coordination.claim(&LedgerKey::User(app.clone(), user.clone()), None);
        }
    }

    /// The last socket of a user has gone from a thread.
    pub fn user_left(&self, app: &AppId, user: &UserId, worker: usize) {
        if self.claimed.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut users = self.users();
        let key = (app.clone(), user.clone());
        let Some(threads) = users.here.get_mut(&key) else { return };
        *threads &= !bit(worker);
        if *threads == 0 {
            users.here.remove(&key);
            shrink(&mut users.here);
            self.claimed.fetch_sub(1, Ordering::Relaxed);
            self.coordination.withdraw(&LedgerKey::User(app.clone(), user.clone()));
        }
    }

    /// A thread has sockets from now on that watch these users, which none of it watched: how each stands, if that is known,
    /// and with which change it came to be so. It is told all later ones.
    pub fn watch(&self, app: &AppId, watched: &[UserId], worker: usize) -> Vec<(Option<bool>, u64)> {
        let mut users = self.users();
        let (mut standings, mut new) = (Vec::with_capacity(watched.len()), Vec::new());
        for user in watched {
            let followed = users.watched.entry((app.clone(), user.clone())).or_default();
            if followed.by == 0 {
                new.push((user_key(app, user), 1, false));
            }
            followed.by |= bit(worker);
            standings.push((followed.online, followed.number));
        }
        self.coordination.follow(new);
        standings
    }

    /// No socket of the thread watches these users any more.
    pub fn unwatch(&self, app: &AppId, watched: &[UserId], worker: usize) {
        let mut users = self.users();
        let mut ended = Vec::new();
        for user in watched {
            let key = (app.clone(), user.clone());
            let Some(followed) = users.watched.get_mut(&key) else { continue };
            followed.by &= !bit(worker);
            if followed.by == 0 {
                users.watched.remove(&key);
                ended.push((user_key(app, user), 0, false));
            }
        }
        shrink(&mut users.watched);
        self.coordination.follow(ended);
    }

    /// Are the sockets on that channel counted?
    pub fn is_counted(&self, app: &AppId, channel: &ChannelName) -> bool {
        self.tenants.load().wants(app).counts.is_some_and(|counted| counted(channel))
    }

    /// Are the sockets on counted channels of `app` told how many they are? If not, only somebody outside wants to know.
    pub fn is_told(&self, app: &AppId) -> bool {
        self.tenants.load().wants(app).tells_counts
    }

    /// Is any channel counted?
    pub fn counts(&self) -> bool {
        self.counted.load(Ordering::Relaxed) > 0
    }

    /// So many sockets of a thread are on a channel now, which is counted if it was before, or if one of them came just now
    /// (`came`).
    pub fn count(&self, channel: &ChannelRef, worker: usize, sockets: usize, came: bool) {
        let mut counts = self.lock_counts();
        let LocalCounts { channels, changed } = &mut *counts;
        if !came && !channels.contains_key(&channel.id()) {
            return;
        }
        let count = channels.entry(channel.id()).or_insert_with(|| {
            self.counted.fetch_add(1, Ordering::Relaxed);
            LocalCount { channel: channel.clone(), of_workers: SmallVec::new(), asks: false, has_changed: false }
        });
        count.of_workers.retain(|(other, _)| *other != worker);
        if sockets > 0 {
            count.of_workers.push((worker, sockets));
        }
        count.asks |= came;
        if !std::mem::replace(&mut count.has_changed, true) {
            changed.push(channel.id());
            self.has_counted.send_replace(());
        }
    }

    /// Counts that have changed since the last call.
    fn take_changed(&self) -> Vec<(CoordinatedKey, u64, bool)> {
        let mut counts = self.lock_counts();
        let LocalCounts { channels, changed } = &mut *counts;
        let mut taken = Vec::with_capacity(changed.len());
        for id in std::mem::take(changed) {
            let Some(count) = channels.get_mut(&id) else { continue };
            count.has_changed = false;
            let sockets: usize = count.of_workers.iter().map(|(_, sockets)| sockets).sum();
            taken.push((count.channel.key().into(), sockets as u64, std::mem::take(&mut count.asks)));
            if sockets == 0 {
                channels.remove(&id);
                self.counted.fetch_sub(1, Ordering::Relaxed);
            }
        }
        if channels.capacity() > 64 + 8 * channels.len() {
            let len = channels.len();
            channels.shrink_to(2 * len);
        }
        taken
    }

    /// Pass on how what is followed stands.
    fn pass_on(&self, notifier: &impl FollowNotifier) {
        let mut of_workers: HashMap<usize, Vec<UserStanding>> = HashMap::new();
        // told under the lock, so that a thread which begins to watch is told what comes after what it was given
        let mut users = self.users();
        for FollowUpdate { key, count, all } in self.coordination.take_told() {
            match key {
                CoordinatedKey::User { app, user } => users.stands((app, user), count > 0, &mut of_workers),
                CoordinatedKey::Channel(ChannelKey { app, name }) if self.is_told(&app) => {
                    notifier.tell_count(&self.coordination.names().refer(&app, &name), count, all);
                }
                CoordinatedKey::Channel(_) | CoordinatedKey::Member { .. } => {}
            }
        }
        for (worker, standings) in of_workers {
            notifier.tell_watchers(worker, standings);
        }
    }

    fn users(&self) -> MutexGuard<'_, FollowedUsers> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_counts(&self) -> MutexGuard<'_, LocalCounts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FollowedUsers {
    fn stands(&mut self, key: AppUser, online: bool, of_workers: &mut HashMap<usize, Vec<UserStanding>>) {
        let Some(followed) = self.watched.get_mut(&key) else { return };
        if followed.online == Some(online) {
            return;
        }
        self.changes += 1;
        (followed.online, followed.number) = (Some(online), self.changes);
        let (by, (app, user)) = (followed.by, key);
        for worker in (0..WorkerBits::BITS as usize).filter(|&worker| by & bit(worker) != 0) {
            let standing = UserStanding { app: app.clone(), user: user.clone(), online, number: self.changes };
            of_workers.entry(worker).or_default().push(standing);
        }
    }
}

impl super::Presence {
    /// Begin to tell the coordinators and the threads, on the calling thread.
    pub fn start_following(self: &Arc<Self>, notifier: &Arc<impl FollowNotifier>) {
        let Following { coordination, has_counted, .. } = &self.following;
        actix_rt::spawn(report_counts(Arc::downgrade(self), has_counted.subscribe()));
        actix_rt::spawn(pass_on(Arc::downgrade(self), Arc::downgrade(notifier), coordination.has_told()));
    }
}

async fn report_counts(presence: Weak<super::Presence>, mut changed: watch::Receiver<()>) {
    while changed.changed().await.is_ok() {
        sleep(MOMENT).await;
        let Some(presence) = presence.upgrade() else { return };
        presence.following.coordination.follow(presence.following.take_changed());
    }
}

async fn pass_on(presence: Weak<super::Presence>, notifier: Weak<impl FollowNotifier>, mut told: watch::Receiver<()>) {
    while told.changed().await.is_ok() {
        sleep(MOMENT).await;
        let (Some(presence), Some(notifier)) = (presence.upgrade(), notifier.upgrade()) else { return };
        presence.following.pass_on(&*notifier);
    }
}

fn bit(worker: usize) -> WorkerBits {
    1 << worker
}

fn user_key(app: &AppId, user: &UserId) -> CoordinatedKey {
    CoordinatedKey::User { app: app.clone(), user: user.clone() }
}

/// What a crowd needed is given back when it has gone.
fn shrink<V>(map: &mut HashMap<AppUser, V, RandomState>) {
    if map.capacity() > 64 + 8 * map.len() {
        map.shrink_to(2 * map.len());
    }
}

#[cfg(test)]
mod tests {
    use wellhead_proto::{
        ids::NodeId,
        jwt::Keyring,
        origin::Origins,
        tenants::{AppWants, ListedTenant, Tenants},
        testkit::RecordingBus,
    };

    use super::*;
    use crate::{metrics::Metrics, presence::coordinator::GRACE};

    fn app() -> AppId {
        "app".parse().unwrap()
    }

    fn following() -> Following {
        let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default());
        let bus = Arc::new(RecordingBus::default());
        let coordination = Coordination::new(NodeId::from_random(1), Arc::default(), GRACE, bus, metrics);
        let wants = AppWants { watchlists: true, ..AppWants::default() };
        let listed = [(app(), ListedTenant { wants, ..ListedTenant::default() })];
        let tenants = Tenants::new(Keyring::default(), listed, true, Origins::any());
        Following::new(Arc::new(coordination), Arc::new(TenantDirectory::new(tenants)))
    }

    #[test]
    fn ten_thousand_who_come_at_once_are_one_report() {
        let following = following();
        let channel = following.coordination.names().refer(&app(), &"news".parse().unwrap());
        for sockets in 1..=10_000 {
            following.count(&channel, sockets % 2, sockets / 2, true);
        }
        let key = || CoordinatedKey::from(channel.key());
        assert_eq!(following.take_changed(), [(key(), 4_999 + 5_000, true)]);
        assert_eq!(following.take_changed(), []);
        following.count(&channel, 0, 0, false);
        following.count(&channel, 1, 0, false);
        assert_eq!((following.take_changed(), following.counts()), (vec![(key(), 0, false)], false));
        following.count(&channel, 1, 7, false);
        assert_eq!(following.take_changed(), [], "one that is not counted is left");
    }

    #[test]
    fn a_user_is_claimed_for_its_first_thread_and_only_where_somebody_may_watch() {
        let following = following();
        let (ann, other): (UserId, AppId) = ("ann".parse().unwrap(), "other".parse().unwrap());
        let claimed = || following.claimed.load(Ordering::Relaxed);
        following.user_came(&other, &ann, 0);
        following.user_left(&other, &ann, 0);
        assert_eq!(claimed(), 0);
        following.user_came(&app(), &ann, 0);
        following.user_came(&app(), &ann, 1);
        following.user_left(&app(), &ann, 0);
        following.user_left(&app(), &ann, 0);
        assert_eq!(claimed(), 1);
        following.user_left(&app(), &ann, 1);
        assert_eq!((claimed(), following.users().here.len()), (0, 0));
    }
}
