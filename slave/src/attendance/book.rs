//! Who is on the presence channels that this slave has members on: its own members, counted, and a copy of what the
//! keeper has announced. Pure.
//!
//! The copy is what this slave's sockets were told, always: a newcomer is given it (and itself), and from then on every
//! change of it. It is made from the keeper's own list. What is announced while that is on its way is applied at once,
//! if there is a copy, and again on top of the list when it has come: the list may be older. Whatever was lost (this node
//! was cut off, a keeper died) shows as a difference when the list is fetched anew.

use std::collections::{BTreeMap, HashMap};

use bytestring::ByteString;
use tokio::sync::oneshot;
use wellhead_proto::{
    ids::{ChannelKey, UserId},
    member::{Member, MemberChange},
    notice::Bar,
};

/// All of them.
#[derive(Default)]
pub struct Book {
    pages: HashMap<ChannelKey, Page>,
    /// Changes of any copy so far. Never begins anew: a channel that is left and joined again has no old numbers.
    changes: u64,
    /// Lists that were sent for.
    tickets: u64,
}

/// One channel.
#[derive(Default)]
struct Page {
    /// Members with sockets here, and how many.
    own: HashMap<UserId, usize>,
    /// Sockets that are about to come.
    guests: usize,
    /// The copy.
    members: BTreeMap<UserId, ByteString>,
    /// The keeper's list has come once.
    known: bool,
    fetch: Option<Fetch>,
    /// Told when the list has come.
    waiting: Vec<oneshot::Sender<()>>,
}

/// A list that was sent for.
struct Fetch {
    ticket: u64,
    /// What was announced since, the last of each member.
    since: BTreeMap<UserId, MemberChange>,
}

/// A member came.
#[derive(Debug, Eq, PartialEq)]
pub struct Came {
    /// All members, this one among them.
    pub members: BTreeMap<UserId, ByteString>,
    /// Changes up to this one are in them.
    pub number: u64,
    /// No other socket of the slave was there as this member.
    pub first: bool,
}

/// Something that this slave's sockets are to be told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Told {
    /// Its number.
    pub number: u64,
    /// What has changed.
    pub change: MemberChange,
}

impl Book {
    /// A socket is about to come to `channel`; until [`Book::came`] or [`Book::turned_back`] it is kept. `true` if nothing
    /// is known of it: the list is to be fetched.
    pub fn comes(&mut self, channel: &ChannelKey) -> bool {
        let page = self.pages.entry(channel.clone()).or_default();
        page.guests += 1;
        !page.known && page.fetch.is_none()
    }

    /// Resolves once the keeper's list has come; `None` if it has.
    pub fn wait(&mut self, channel: &ChannelKey) -> Option<oneshot::Receiver<()>> {
        let page = self.pages.get_mut(channel).filter(|page| !page.known)?;
        let (known, wait) = oneshot::channel();
        page.waiting.push(known);
        Some(wait)
    }

    /// A socket that was about to come did, or did not.
    pub fn turned_back(&mut self, channel: &ChannelKey) {
        if let Some(page) = self.pages.get_mut(channel) {
            page.guests = page.guests.saturating_sub(1);
        }
        self.tidy(channel);
    }

    /// A socket comes to `channel` as `member`.
    ///
    /// # Errors
    ///
    /// There are `most` members, and it is none of them.
    pub fn came(&mut self, channel: &ChannelKey, member: &Member, most: usize) -> Result<Came, Bar> {
        let number = self.changes;
        let page = self.pages.entry(channel.clone()).or_default();
        // who came here and is not announced yet counts, too
        let there = page.members.len() + page.own.keys().filter(|user| !page.members.contains_key(*user)).count();
        let known = page.members.contains_key(&member.user) || page.own.contains_key(&member.user);
        if !known && there >= most {
            self.tidy(channel);
            return Err(Bar::Full { most });
        }
        let sockets = page.own.entry(member.user.clone()).or_default();
        *sockets += 1;
        let first = *sockets == 1;
        let mut members = page.members.clone();
        members.entry(member.user.clone()).or_insert_with(|| member.info.clone());
        Ok(Came { members, number, first })
    }

    /// A socket leaves, that came as `user`. `true` if it was the last.
    pub fn left(&mut self, channel: &ChannelKey, user: &UserId) -> bool {
        let Some(page) = self.pages.get_mut(channel) else { return false };
        let Some(sockets) = page.own.get_mut(user) else { return false };
        *sockets -= 1;
        let last = *sockets == 0;
        if last {
            page.own.remove(user);
            self.tidy(channel);
        }
        last
    }

    /// The keeper announces a change.
    pub fn announced(&mut self, channel: &ChannelKey, change: MemberChange) -> Option<Told> {
        let page = self.pages.get_mut(channel)?;
        if let Some(fetch) = &mut page.fetch {
            fetch.since.insert(change.user().clone(), change.clone());
        }
        if !apply(&mut page.members, &change) {
            return None;
        }
        self.changes += 1;
        Some(Told { number: self.changes, change })
    }

    /// The list of `channel` is sent for; give it to [`Book::fetched`] with this ticket.
    pub fn fetch(&mut self, channel: &ChannelKey) -> Option<u64> {
        let page = self.pages.get_mut(channel)?;
        self.tickets += 1;
        let since = page.fetch.take().map(|fetch| fetch.since).unwrap_or_default();
        page.fetch = Some(Fetch { ticket: self.tickets, since });
        Some(self.tickets)
    }

    /// Is the list with that ticket still waited for?
    pub fn is_awaited(&self, channel: &ChannelKey, ticket: u64) -> bool {
        self.pages.get(channel).and_then(|page| page.fetch.as_ref()).is_some_and(|fetch| fetch.ticket == ticket)
    }

    /// The list has come. What is different from what was known.
    pub fn fetched(&mut self, channel: &ChannelKey, ticket: u64, list: BTreeMap<UserId, ByteString>) -> Vec<Told> {
        let Some(page) = self.pages.get_mut(channel) else { return Vec::new() };
        let Some(fetch) = page.fetch.take_if(|fetch| fetch.ticket == ticket) else { return Vec::new() };
        let mut members = list;
        for change in fetch.since.values() {
            apply(&mut members, change);
        }
        let gone = page.members.keys().filter(|user| !members.contains_key(*user));
        let gone = gone.map(|user| MemberChange::Removed(user.clone()));
        let new = members.iter().filter(|(user, _)| !page.members.contains_key(*user));
        let new = new.map(|(user, info)| MemberChange::Added(Member { user: user.clone(), info: info.clone() }));
        let changes: Vec<_> = gone.chain(new).collect();
        page.members = members;
        page.known = true;
        for waiting in page.waiting.drain(..) {
            // fails if its socket has ended meanwhile
            let _ = waiting.send(());
        }
        let told = |change| {
            self.changes += 1;
            Told { number: self.changes, change }
        };
        changes.into_iter().map(told).collect()
    }

    /// The copy, as every socket of this slave was told it.
    #[cfg(test)]
    fn members(&self, channel: &ChannelKey) -> Option<Vec<&str>> {
        Some(self.pages.get(channel)?.members.keys().map(UserId::as_str).collect())
    }

    /// Every channel with something on its page.
    pub fn channels(&self) -> impl Iterator<Item = &ChannelKey> {
        self.pages.keys()
    }

    /// Forget a channel that nobody is on and nobody comes to.
    fn tidy(&mut self, channel: &ChannelKey) {
        if self.pages.get(channel).is_some_and(|page| page.own.is_empty() && page.guests == 0) {
            self.pages.remove(channel);
        }
    }
}

/// `false` if it changes nothing.
fn apply(members: &mut BTreeMap<UserId, ByteString>, change: &MemberChange) -> bool {
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
#[path = "book_tests.rs"]
mod tests;
