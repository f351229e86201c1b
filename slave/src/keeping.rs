//! The keeper on its feet: what this slave's channels and the bus tell it, and what becomes of what it says. Facts are
//! counted and logged; those about members are announced to every slave, in the order in which they were decided.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use bytestring::ByteString;
use log::{debug, warn};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use wellhead_proto::{
    bus::{Bus, BusError, BusState},
    ids::{ChannelKey, NodeId, UserId},
    member::{MemberAnnouncement, MemberChange},
    report::{Post, Report},
};

use crate::{
    keeper::{Fact, GRACE, Keeper, Outcome},
    metrics::Metrics,
};

/// Reports that travel in one letter.
const TOGETHER: usize = 1_000;
/// Announcements that are published at once.
const AT_ONCE: usize = 256;
/// Between two attempts to publish what the bus does not take.
const PAUSE: Duration = Duration::from_millis(200);

/// This slave's keeper, shared by its threads and its bus.
pub struct Keeping {
    me: NodeId,
    /// The keeper's time is measured from here.
    start: Instant,
    /// How long a member may be away.
    grace: Duration,
    keeper: Mutex<Keeper>,
    /// When somebody will have been away for long enough.
    due: watch::Sender<Option<Duration>>,
    bus: Arc<dyn Bus>,
    metrics: Metrics,
    /// What is to be announced. One queue, filled under the keeper's lock: so that it keeps the order.
    announce: mpsc::UnboundedSender<MemberAnnouncement>,
    announcements: Mutex<Option<mpsc::UnboundedReceiver<MemberAnnouncement>>>,
}

impl Keeping {
    /// The keeper of the slave `me`, which reports over `bus`. A member may be away for `grace` without having left.
    pub fn new(me: NodeId, grace: Duration, bus: Arc<dyn Bus>, metrics: Metrics) -> Self {
        let (announce, announcements) = mpsc::unbounded_channel();
        let announcements = Mutex::new(Some(announcements));
        Self {
            me,
            start: Instant::now(),
            grace,
            keeper: Mutex::new(Keeper::new(me, grace)),
            due: watch::Sender::new(None),
            bus,
            metrics,
            announce,
            announcements,
        }
    }

    /// The first of this slave's sockets came to `post`. `info`: what the others may know of a member. Called in the order
    /// in which it happened, post by post.
    pub fn came(&self, post: &Post, info: Option<&str>) {
        self.with(|keeper, out| keeper.came(post, info, out));
    }

    /// The last of them left; the same holds.
    pub fn left(&self, post: &Post) {
        self.with(|keeper, out| keeper.left(post, out));
    }

    /// Another slave said something.
    pub fn reported(&self, from: NodeId, reports: Vec<Report>) {
        self.with(|keeper, out| {
            for report in reports {
                keeper.reported(from, report, out);
            }
        });
    }

    /// It stands so with the bus. While it is down what is said is lost, and as long as not everybody is known nothing can
    /// be decided: from then on this slave begins anew with everybody.
    pub fn roster(&self, state: &BusState) {
        self.with(|keeper, out| match state.up && state.roster_known {
            true => keeper.roster(&state.slaves, out),
            false => keeper.cut(),
        });
    }

    /// Reports were lost although the bus is up: begin anew with everybody.
    pub fn lost(&self, state: &BusState) {
        self.with(|keeper, _| keeper.cut());
        self.roster(state);
    }

    /// This slave is about to go: hand over what it keeps, to those of `slaves` that stay.
    pub fn hand_over(&self, slaves: &[NodeId]) {
        self.with(|keeper, out| {
            let stay: Vec<_> = slaves.iter().copied().filter(|&slave| slave != self.me).collect();
            keeper.roster(&stay, out);
        });
    }

    /// Which slave this is.
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// The members of those of `channels` that this slave keeps, as far as it has announced them.
    pub fn attendance<'a>(
        &self,
        channels: impl IntoIterator<Item = &'a ChannelKey>,
    ) -> BTreeMap<ChannelKey, BTreeMap<UserId, ByteString>> {
        let keeper = self.lock();
        let known = |channel: &ChannelKey| Some((channel.clone(), keeper.attendance(channel)?));
        channels.into_iter().filter_map(known).collect()
    }

    /// Announce what is to be, for as long as there is a keeper. To be called once.
    pub fn announcing(&self) -> impl Future<Output = ()> + use<> {
        let announcements = self.announcements.lock().unwrap_or_else(PoisonError::into_inner).take();
        let bus = self.bus.clone();
        async move {
            if let Some(announcements) = announcements {
                publish_all(announcements, &*bus).await;
            }
        }
    }

    /// Announce who has left and not come back, for as long as there is a keeper.
    pub fn ending_graces(self: &Arc<Self>) -> impl Future<Output = ()> + use<> {
        end_graces(Arc::downgrade(self), self.due.subscribe())
    }

    fn lock(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What comes of it leaves under the lock, so that it leaves in the order in which it was decided.
    fn with(&self, act: impl FnOnce(&mut Keeper, &mut Outcome)) {
        let mut keeper = self.lock();
        let mut out = Outcome::default();
        keeper.at(self.start.elapsed());
        act(&mut keeper, &mut out);
        let due = keeper.due();
        self.due.send_if_modified(|next| std::mem::replace(next, due) != due);
        for (to, reports) in out.letters(TOGETHER) {
            self.bus.report(to, reports);
        }
        for fact in out.facts {
            self.tell(fact);
        }
    }

    fn tell(&self, fact: Fact) {
        let (what, channel, change) = match fact {
            Fact::Occupied(channel) => ("channel_occupied", channel, None),
            Fact::Vacated(channel) => ("channel_vacated", channel, None),
            Fact::Added(channel, member) => ("member_added", channel, Some(MemberChange::Added(member))),
            Fact::Removed(channel, user) => ("member_removed", channel, Some(MemberChange::Removed(user))),
        };
        self.metrics.fact(what);
        let ChannelKey { app, name } = &channel;
        match &change {
            None => debug!(fact = what, app_id:% = app, channel:% = name; "{what}: {name} of {app}"),
            Some(change) => {
                let user = change.user();
                debug!(fact = what, app_id:% = app, channel:% = name, user_id:% = user; "{what}: {user} on {name} of {app}");
            }
        }
        if let Some(change) = change {
            // fails only when the slave ends
            let _ = self.announce.send(MemberAnnouncement { channel, change });
        }
    }
}

async fn end_graces(keeping: Weak<Keeping>, mut due: watch::Receiver<Option<Duration>>) {
    loop {
        let next = *due.borrow_and_update();
        // every grace is equally long: what begins meanwhile does not end sooner
        match (next, keeping.upgrade().map(|keeping| (keeping.start, keeping.grace))) {
            (_, None) => return,
            (Some(next), Some((start, grace))) => {
                sleep(next.saturating_sub(start.elapsed())).await;
                let late = grace.min(GRACE);
                if start.elapsed() >= next.saturating_add(late) {
                    // this process stood still, and has not read yet who came back
                    sleep(late).await;
                }
                let Some(keeping) = keeping.upgrade() else { return };
                keeping.with(Keeper::tick);
            }
            (None, Some(_)) => {
                if due.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Publish what comes, in order. What the bus does not take is tried again until it does: nobody would ever know of it
/// otherwise; and twice is harmless.
async fn publish_all(mut announcements: mpsc::UnboundedReceiver<MemberAnnouncement>, bus: &dyn Bus) {
    let mut batch = Vec::new();
    while announcements.recv_many(&mut batch, AT_ONCE).await > 0 {
        let mut state = bus.state();
        while let Err(error) = bus.announce(batch.clone()).await {
            if let BusError::TooLarge { .. } = error {
                warn!("members could not be announced: {error}");
                break;
            }
            if announcements.is_closed() {
                return;
            }
            // an error says that the bus is gone for good
            if let Ok(Err(_)) = timeout(PAUSE, state.changed()).await {
                return;
            }
        }
        batch.clear();
    }
}
