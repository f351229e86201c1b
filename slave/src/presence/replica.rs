//! Who is on the presence channels that this slave has members on: its own members, counted, and a copy of what the
//! coordinator has announced. Pure.
//!
//! The copy is what this slave's sockets were told, always: a newcomer is given it (and itself), and from then on every
//! change of it. It is made from the coordinator's own list. What is announced while that is on its way is applied at once,
//! if there is a copy, and again on top of the list when it has come: the list may be older. Whatever was lost (this node
//! was cut off, a coordinator died) shows as a difference when the list is fetched anew.

use std::collections::{BTreeMap, HashMap};

use bytestring::ByteString;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;
use wellhead_proto::{
    ids::UserId,
    member::{Member, MemberChange},
    notice::Denial,
};

use crate::channels::{ChannelId, ChannelRef};

/// All of them.
#[derive(Default)]
pub struct MemberReplica {
    channels: FxHashMap<ChannelId, ReplicatedChannel>,
    /// Changes of any copy so far. Never begins anew: a channel that is left and joined again has no old numbers.
    changes: u64,
    /// Lists that were sent for.
    tickets: u64,
}

/// One channel.
struct ReplicatedChannel {
    /// Keeps its number its own.
    _channel: ChannelRef,
    /// Members with sockets here, and how many.
    own: HashMap<UserId, usize>,
    /// Sockets that are about to subscribe.
    invited: usize,
    /// The copy.
    members: BTreeMap<UserId, ByteString>,
    /// The coordinator's list has come once.
    known: bool,
    fetch: Option<ListFetch>,
    /// Told when the list has come.
    waiting: Vec<oneshot::Sender<()>>,
}

/// A list that was sent for.
struct ListFetch {
    ticket: u64,
    /// What was announced since, the last of each member.
    since: BTreeMap<UserId, MemberChange>,
}

/// A member was added to this slave's own.
#[derive(Debug, Eq, PartialEq)]
pub struct Added {
    /// All members, this one among them.
    pub members: BTreeMap<UserId, ByteString>,
    /// Changes up to this one are in them.
    pub number: u64,
    /// No other socket of the slave was there as this member.
    pub first: bool,
}

/// A change of the copy, which this slave's sockets are to be told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MemberUpdate {
    /// Its number.
    pub number: u64,
    /// What has changed.
    pub change: MemberChange,
}

impl MemberReplica {
    /// A socket is about to subscribe to `channel`, which is kept until [`MemberReplica::uninvite`]. `true` if nothing is known
    /// of it: the list is to be fetched.
    pub fn invite(&mut self, channel: &ChannelRef) -> bool {
        let replicated = self.open(channel);
        replicated.invited += 1;
        !replicated.known && replicated.fetch.is_none()
    }

    fn open(&mut self, channel: &ChannelRef) -> &mut ReplicatedChannel {
        self.channels.entry(channel.id()).or_insert_with(|| ReplicatedChannel {
            _channel: channel.clone(),
            own: HashMap::new(),
            invited: 0,
            members: BTreeMap::new(),
            known: false,
            fetch: None,
            waiting: Vec::new(),
        })
    }

    /// Resolves once the coordinator's list has come; `None` if it has.
    pub fn wait(&mut self, channel: ChannelId) -> Option<oneshot::Receiver<()>> {
        let replicated = self.channels.get_mut(&channel).filter(|replicated| !replicated.known)?;
        let (known, wait) = oneshot::channel();
        replicated.waiting.push(known);
        Some(wait)
    }

    /// A socket that was about to subscribe did, or did not.
    pub fn uninvite(&mut self, channel: ChannelId) {
        if let Some(replicated) = self.channels.get_mut(&channel) {
            replicated.invited = replicated.invited.saturating_sub(1);
        }
        self.tidy(channel);
    }

    /// A socket subscribes to `channel` as `member`.
    ///
    /// # Errors
    ///
    /// There are `most` members, and it is none of them.
    pub fn add(&mut self, channel: &ChannelRef, member: &Member, most: usize) -> Result<Added, Denial> {
        let number = self.changes;
        let replicated = self.open(channel);
        // who came here and is not announced yet counts, too
        let there = replicated.members.len()
            + replicated.own.keys().filter(|user| !replicated.members.contains_key(*user)).count();
        let known = replicated.members.contains_key(&member.user) || replicated.own.contains_key(&member.user);
        if !known && there >= most {
            self.tidy(channel.id());
            return Err(Denial::Full { most });
        }
        let sockets = replicated.own.entry(member.user.clone()).or_default();
        *sockets += 1;
        let first = *sockets == 1;
        let mut members = replicated.members.clone();
        members.entry(member.user.clone()).or_insert_with(|| member.info.clone());
        Ok(Added { members, number, first })
    }

    /// A socket unsubscribes, that is there as `user`. `true` if it was the last.
    pub fn remove(&mut self, channel: ChannelId, user: &UserId) -> bool {
        let Some(replicated) = self.channels.get_mut(&channel) else { return false };
        let Some(sockets) = replicated.own.get_mut(user) else { return false };
        *sockets -= 1;
        let last = *sockets == 0;
        if last {
            replicated.own.remove(user);
            self.tidy(channel);
        }
        last
    }

    /// The coordinator announces a change.
    pub fn apply(&mut self, channel: ChannelId, change: MemberChange) -> Option<MemberUpdate> {
        let replicated = self.channels.get_mut(&channel)?;
        if let Some(fetch) = &mut replicated.fetch {
            fetch.since.insert(change.user().clone(), change.clone());
        }
        if !apply_to(&mut replicated.members, &change) {
            return None;
        }
        self.changes += 1;
        Some(MemberUpdate { number: self.changes, change })
    }

    /// The list of `channel` is sent for; give it to [`MemberReplica::fetched`] with this ticket.
    pub fn fetch(&mut self, channel: ChannelId) -> Option<u64> {
        let replicated = self.channels.get_mut(&channel)?;
        self.tickets += 1;
        let since = replicated.fetch.take().map(|fetch| fetch.since).unwrap_or_default();
        replicated.fetch = Some(ListFetch { ticket: self.tickets, since });
        Some(self.tickets)
    }

    /// Is the list with that ticket still waited for?
    pub fn is_awaited(&self, channel: ChannelId, ticket: u64) -> bool {
        self.channels
            .get(&channel)
            .and_then(|replicated| replicated.fetch.as_ref())
            .is_some_and(|fetch| fetch.ticket == ticket)
    }

    /// The list has come. What is different from what was known.
    pub fn fetched(
        &mut self,
        channel: ChannelId,
        ticket: u64,
        list: BTreeMap<UserId, ByteString>,
    ) -> Vec<MemberUpdate> {
        let Some(replicated) = self.channels.get_mut(&channel) else { return Vec::new() };
        let Some(fetch) = replicated.fetch.take_if(|fetch| fetch.ticket == ticket) else { return Vec::new() };
        let mut members = list;
        for change in fetch.since.values() {
            apply_to(&mut members, change);
        }
        let gone = replicated.members.keys().filter(|user| !members.contains_key(*user));
        let gone = gone.map(|user| MemberChange::Removed(user.clone()));
        let new = members.iter().filter(|(user, _)| !replicated.members.contains_key(*user));
        let new = new.map(|(user, info)| MemberChange::Added(Member { user: user.clone(), info: info.clone() }));
        let changes: Vec<_> = gone.chain(new).collect();
        replicated.members = members;
        replicated.known = true;
        for waiting in replicated.waiting.drain(..) {
            // fails if its socket has ended meanwhile
            let _ = waiting.send(());
        }
        let told = |change| {
            self.changes += 1;
            MemberUpdate { number: self.changes, change }
        };
        changes.into_iter().map(told).collect()
    }

    /// The copy, as every socket of this slave was told it.
    #[cfg(test)]
    fn members(&self, channel: ChannelId) -> Option<Vec<&str>> {
        Some(self.channels.get(&channel)?.members.keys().map(UserId::as_str).collect())
    }

    /// Every channel that is followed.
    pub fn channels(&self) -> impl Iterator<Item = ChannelId> {
        self.channels.keys().copied()
    }

    /// Forget a channel that nobody is on and nobody is about to subscribe to.
    fn tidy(&mut self, channel: ChannelId) {
        if self.channels.get(&channel).is_some_and(|replicated| replicated.own.is_empty() && replicated.invited == 0) {
            self.channels.remove(&channel);
        }
    }
}

/// `false` if it changes nothing.
fn apply_to(members: &mut BTreeMap<UserId, ByteString>, change: &MemberChange) -> bool {
    match change {
        MemberChange::Added(Member { user, info }) if !members.contains_key(user) => {
            members.insert(user.clone(), info.clone());
            true
        }
        MemberChange::Added(_) => false,
        MemberChange::Removed(user) => members.remove(user).is_some(),
    }
}

#[cfg(test)]
mod tests;
