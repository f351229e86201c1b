//! Presence: which sockets are members of which presence channels, what their clients are told of the others, and what the
//! cluster decides about it. All state of members is in this folder; what a thread does with it is in `registry/shard/members.rs`.
//!
//! ```text
//!   a socket of this slave                 this slave's replica              the channel's coordinator (on any slave)
//!
//!   asks to subscribe as a member
//!        │ Presence::invite
//!   invited ······ kept, while ·········▶ fetching the list ──────────────▶ Coordinator::members
//!        │                                 │ the list has come               (what was announced)
//!        │ known, or 2 s have passed ◀──── known
//!        │ Presence::subscribe
//!   member (LocalMembers of its thread) ─▶ own member ── the first: claim ─▶ claimed
//!        │                                                                    │ nobody was: MemberAdded ─┐
//!        │                                                                    │                          │
//!        │ told what changes ◀──────────── copy ◀═══ announced to every slave (Bus::announce) ═══════════╪═
//!        │                                                                    │                          │
//!        │ unsubscribes, or ends                                              │                          │
//!   gone (Presence::unsubscribe) ────────▶ no own ── the last: withdraw ───▶ away for its grace          │
//!                                                                             │ nobody came back: MemberRemoved
//! ```
//!
//! | module | holds | who locks it |
//! | --- | --- | --- |
//! | [`local`] | which sockets of a thread are members, and as whom | nobody: its thread's |
//! | [`replica`] | own members of the slave, counted, and copies of what was announced | [`Presence`] |
//! | [`coordinator`] | what is decided for the cluster, and what this slave claims | [`coordination`] |
//! | [`Following`] | which users are online here, which are watched and how they stand, and how many sockets are on counted channels | itself |
//! | [`watchers`] | which sockets of a thread watch which users, and what they were told | nobody: its thread's |
//! | [`facts`] | what was decided, for those who read it | each reader's queue |
//!
//! **Locks** are taken in this order, and no other: the replica's (here), or one of [`Following`]'s, a stripe of the interests, the coordinator's, then one
//! of the innermost (the table of channels, a queue of facts, what was told, what the bus locks), under which nothing else is called.

pub mod coordination;
pub mod coordinator;
pub mod facts;
mod following;
pub mod local;
mod replica;
pub mod watchers;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bytestring::ByteString;
use futures_util::future::join_all;
use tokio::{sync::oneshot, time::sleep};
use wellhead_proto::{
    bus::Bus,
    ids::{ChannelKey, NodeId, UserId},
    member::{Member, MemberChange},
    membership::coordinators,
    notice::Denial,
    tenants::TenantDirectory,
};

use self::{coordination::Coordination, coordinator::LedgerKey, replica::MemberReplica};
pub use self::{
    following::{FollowNotifier, Following, UserStanding},
    replica::MemberUpdate,
};
use crate::channels::{ChannelId, ChannelRef};

/// Lists that are asked for at once.
const TOGETHER: usize = 64;
/// Between two attempts to get a list: at first, and at most.
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long a newcomer waits for the list. Then it is let in with what is known, and told of the others later.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// The members on this slave, shared by its threads.
pub struct Presence {
    replica: Mutex<MemberReplica>,
    coordination: Arc<Coordination>,
    bus: Arc<dyn Bus>,
    /// What the clients of this slave follow: counts of channels, and users.
    pub following: Following,
}

/// Tells the sockets of this slave what has changed on a channel. Called in the order of the numbers, so it must not wait.
pub trait MemberNotifier: Send + Sync + 'static {
    /// This has changed.
    fn notify(&self, channel: &ChannelRef, update: MemberUpdate);
}

/// A socket that is about to subscribe as a member: as long as it lives, the channel is followed.
pub struct Invitation {
    presence: Arc<Presence>,
    channel: ChannelRef,
}

impl Drop for Invitation {
    fn drop(&mut self) {
        self.presence.lock().uninvite(self.channel.id());
    }
}

impl Presence {
    /// Nobody is there yet.
    pub fn new(coordination: Arc<Coordination>, bus: Arc<dyn Bus>, tenants: Arc<TenantDirectory>) -> Self {
        let following = Following::new(coordination.clone(), tenants);
        Self { replica: Mutex::default(), coordination, bus, following }
    }

    /// A socket of this thread is about to subscribe to a channel whose pushes the bus brings already; when the list of its
    /// members is known.
    pub fn invite(
        self: &Arc<Self>,
        channel: &ChannelKey,
        notifier: &Arc<impl MemberNotifier>,
    ) -> (Invitation, Option<oneshot::Receiver<()>>) {
        let channel = self.refer(channel);
        let mut replica = self.lock();
        if replica.invite(&channel) {
            self.begin(&mut replica, vec![channel.clone()], notifier);
        }
        let wait = replica.wait(channel.id());
        drop(replica);
        (Invitation { presence: self.clone(), channel }, wait)
    }

    /// A socket subscribes as `member`. `local_socket` gives it its place, given the number of the last change that its list knows of,
    /// before any later one is told.
    ///
    /// # Errors
    ///
    /// There are `most` members, and it is none of them: it was not subscribed.
    pub fn subscribe(
        &self,
        channel: &ChannelKey,
        member: &Member,
        most: usize,
        local_socket: impl FnOnce(u64),
    ) -> Result<BTreeMap<UserId, ByteString>, Denial> {
        let channel = self.refer(channel);
        let mut replica = self.lock();
        let added = replica.add(&channel, member, most)?;
        local_socket(added.number);
        if added.first {
            self.coordination.claim(&LedgerKey::Member(channel, member.user.clone()), Some(&member.info));
        }
        Ok(added.members)
    }

    /// A socket unsubscribes from a channel that is referred to, where it is `user`.
    pub fn unsubscribe(&self, channel: ChannelId, user: &UserId) {
        let mut replica = self.lock();
        let reference = self.coordination.names().refer_to(channel);
        if replica.remove(channel, user) {
            self.coordination.withdraw(&LedgerKey::Member(reference, user.clone()));
        }
    }

    /// The channel's coordinator announces a change.
    pub fn announced(&self, channel: &ChannelKey, change: MemberChange, notifier: &impl MemberNotifier) {
        // notified under the lock, so that changes are told in the order of their numbers
        let mut replica = self.lock();
        // as long as a channel is followed, its number is its own
        let Some((id, _)) = self.coordination.names().find(&channel.app, &channel.name) else { return };
        if let Some(update) = replica.apply(id, change) {
            notifier.notify(&self.coordination.names().refer_to(id), update);
        }
    }

    /// Fetch every list anew: coordinators have changed, or what was announced may have been lost.
    pub fn refetch(self: &Arc<Self>, notifier: &Arc<impl MemberNotifier>) {
        let mut replica = self.lock();
        let channels = replica.channels().map(|channel| self.coordination.names().refer_to(channel)).collect();
        self.begin(&mut replica, channels, notifier);
    }

    /// Fetch these lists, in the background, unless this slave coordinates them itself.
    fn begin(
        self: &Arc<Self>,
        replica: &mut MemberReplica,
        channels: Vec<ChannelRef>,
        notifier: &Arc<impl MemberNotifier>,
    ) {
        let fetch =
            |channel: ChannelRef| Some(AskedList { ticket: replica.fetch(channel.id())?, key: channel.key(), channel });
        let fetches = channels.into_iter().filter_map(fetch).collect();
        let rest = self.take_own(replica, fetches, &**notifier);
        if !rest.is_empty() {
            actix_rt::spawn(fetch_all(Arc::downgrade(self), rest, Arc::downgrade(notifier)));
        }
    }

    /// Lists that this slave coordinates; the others are left.
    fn take_own(
        &self,
        replica: &mut MemberReplica,
        fetches: Vec<AskedList>,
        notifier: &impl MemberNotifier,
    ) -> Vec<AskedList> {
        let own = self.coordination.members(fetches.iter().map(|fetch| &fetch.key));
        self.take(replica, fetches, own, notifier)
    }

    /// Lists have come; the fetches of those that have not, and are still waited for.
    fn take(
        &self,
        replica: &mut MemberReplica,
        mut fetches: Vec<AskedList>,
        mut lists: Lists,
        notifier: &impl MemberNotifier,
    ) -> Vec<AskedList> {
        fetches.retain(|AskedList { channel, key, ticket }| {
            let Some(list) = lists.remove(key) else { return replica.is_awaited(channel.id(), *ticket) };
            for update in replica.fetched(channel.id(), *ticket, list) {
                notifier.notify(channel, update);
            }
            false
        });
        fetches
    }

    fn refer(&self, channel: &ChannelKey) -> ChannelRef {
        self.coordination.names().refer(&channel.app, &channel.name)
    }

    fn lock(&self) -> MutexGuard<'_, MemberReplica> {
        self.replica.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A list that was sent for.
struct AskedList {
    channel: ChannelRef,
    key: ChannelKey,
    ticket: u64,
}

/// Members by channel.
type Lists = BTreeMap<ChannelKey, BTreeMap<UserId, ByteString>>;

/// Ask the coordinators for lists, until all have come or nobody waits for them any more. Who coordinates a channel is looked
/// up each time: that changes.
async fn fetch_all(presence: Weak<Presence>, mut fetches: Vec<AskedList>, notifier: Weak<impl MemberNotifier>) {
    let mut pause = PAUSE;
    loop {
        let asked = {
            let (Some(presence), Some(notifier)) = (presence.upgrade(), notifier.upgrade()) else { return };
            let mut replica = presence.lock();
            let rest = presence.take_own(&mut replica, std::mem::take(&mut fetches), &*notifier);
            let slaves = presence.bus.state().borrow().slaves.clone();
            let mut by_coordinator = BTreeMap::<Option<NodeId>, Vec<AskedList>>::new();
            for fetch in rest {
                // this slave itself cannot say yet: see above
                let (coordinator, _) = coordinators(slaves.iter().copied(), &fetch.key);
                let other = coordinator.filter(|coordinator| *coordinator != presence.coordination.me());
                by_coordinator.entry(other).or_default().push(fetch);
            }
            let ask = |(coordinator, fetches)| ask(presence.bus.clone(), coordinator, fetches);
            by_coordinator.into_iter().map(ask).collect::<Vec<_>>()
        };
        for (some, lists) in join_all(asked).await {
            let (Some(presence), Some(notifier)) = (presence.upgrade(), notifier.upgrade()) else { return };
            let mut replica = presence.lock();
            fetches.extend(presence.take(&mut replica, some, lists, &*notifier));
        }
        if fetches.is_empty() {
            return;
        }
        sleep(pause).await;
        pause = LONGEST_PAUSE.min(2 * pause);
    }
}

/// Ask one coordinator for its lists, a few at a time.
async fn ask(bus: Arc<dyn Bus>, coordinator: Option<NodeId>, fetches: Vec<AskedList>) -> (Vec<AskedList>, Lists) {
    let mut lists = Lists::new();
    for some in fetches.chunks(TOGETHER) {
        let Some(coordinator) = coordinator else { break };
        let channels = some.iter().map(|fetch| fetch.key.clone()).collect();
        match bus.member_lists(coordinator, channels).await {
            Ok(more) => lists.extend(more),
            // who is asked in vain once is asked again later
            Err(_) => break,
        }
    }
    (fetches, lists)
}
