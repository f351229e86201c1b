//! The registries of a slave's worker threads, as the other threads reach them.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use actix::Addr;
use wellhead_proto::refusal::CloseCause;

use crate::{
    backlog::Backlog,
    channels::{ChannelRef, MAX_WORKERS},
    interests::Interests,
    presence::{FollowNotifier, MemberNotifier, MemberUpdate, UserStanding},
    registry::{CountUpdate, Drain, Registry, TellMembers, UsersStand},
};

/// All of them, in the order of the threads' numbers.
pub struct Registries {
    all: RwLock<Vec<Addr<Registry>>>,
    interests: Arc<Interests>,
    backlog: Arc<Backlog>,
}

impl Registries {
    /// None yet; `interests` says which of them are concerned by a channel.
    pub fn new(interests: Arc<Interests>, backlog: Arc<Backlog>) -> Self {
        Self { all: RwLock::default(), interests, backlog }
    }

    /// One more, which `start` starts for the thread of that number; the number.
    ///
    /// # Panics
    ///
    /// Beyond 64 threads.
    pub fn add(&self, start: impl FnOnce(usize) -> Addr<Registry>) -> usize {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let worker = all.len();
        assert!(worker < MAX_WORKERS, "a slave has at most {MAX_WORKERS} worker threads");
        all.push(start(worker));
        worker
    }

    /// All of them.
    pub fn all(&self) -> RwLockReadGuard<'_, Vec<Addr<Registry>>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Close every socket, a few at a time; only those that were opened before the socket of that number, if it is about
    /// some.
    pub fn close_sockets(&self, cause: CloseCause, opened_before: Option<u32>) {
        for worker in self.all().iter() {
            worker.do_send(Drain { cause, at_once: None, opened_before });
        }
    }
}

impl MemberNotifier for Registries {
    fn notify(&self, channel: &ChannelRef, update: MemberUpdate) {
        let all = self.all();
        let with_subscribers = self.interests.names().workers(channel.id());
        for worker in with_subscribers.filter_map(|worker| all.get(worker)) {
            let (channel, update, permit) = (channel.clone(), update.clone(), self.backlog.admit(0));
            worker.do_send(TellMembers { channel, update, permit });
        }
    }
}

impl FollowNotifier for Registries {
    fn tell_watchers(&self, worker: usize, users: Vec<UserStanding>) {
        if let Some(worker) = self.all().get(worker) {
            worker.do_send(UsersStand(users));
        }
    }

    fn tell_count(&self, channel: &ChannelRef, count: u64, all: bool) {
        let workers = self.all();
        let with_subscribers = self.interests.names().workers(channel.id());
        for worker in with_subscribers.filter_map(|worker| workers.get(worker)) {
            worker.do_send(CountUpdate { channel: channel.clone(), count, all, permit: self.backlog.admit(0) });
        }
    }
}
