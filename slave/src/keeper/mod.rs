//! What must happen once in the cluster, decided by one slave for each channel: its keeper, which rendezvous hashing
//! picks from the roster, with a deputy that takes over from it. Pure: words in, words and facts out.
//!
//! Only a holder says what it holds, to the keeper and the deputy, over one ordered stream to each; who comes, or has
//! lost something, asks for all of it anew. What was announced is a number that only grows, and is merged by the higher
//! one. A keeper decides only while every slave on its roster has said that it sees the same roster: then it has heard
//! of every holder, and nobody else decides. `docs/decisions/0008-keeper.md` says why, and what is promised.
//!
//! A member that leaves is announced as gone when it has been away for its grace. The time is passed in, as a span since
//! any fixed moment.

mod grace;
#[cfg(test)]
mod sim;
mod stream;
mod table;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytestring::ByteString;
use wellhead_proto::{
    ids::{ChannelKey, NodeId, UserId},
    member::Member,
    report::{Post, Report},
    roster::keepers,
};

pub use self::grace::GRACE;
use self::{grace::Graces, stream::Other, table::Table};

/// What is told of a member of whom nothing is known: an empty object.
const NO_INFO: &str = "{}";

/// What happened once in the cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fact {
    /// Somebody is on the channel now, where nobody was.
    Occupied(ChannelKey),
    /// Nobody is on it any more.
    Vacated(ChannelKey),
    /// The first socket of a member came to the channel.
    Added(ChannelKey, Member),
    /// The last one left, and none came back within the grace.
    Removed(ChannelKey, UserId),
}

/// What came of a call.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Outcome {
    /// What to tell whom. What one slave is told must reach it in this order.
    pub tell: Vec<(NodeId, Report)>,
    /// What this slave announces.
    pub facts: Vec<Fact>,
}

impl Outcome {
    /// The reports of `tell`, slave by slave, in letters of at most `most` reports; `tell` is empty then.
    pub fn letters(&mut self, most: usize) -> Vec<(NodeId, Vec<Report>)> {
        let mut open = BTreeMap::new();
        let mut letters: Vec<(NodeId, Vec<Report>)> = Vec::new();
        for (to, report) in self.tell.drain(..) {
            let letter = *open.entry(to).or_insert(usize::MAX);
            match letters.get_mut(letter) {
                Some((_, reports)) if reports.len() < most => reports.push(report),
                _ => {
                    open.insert(to, letters.len());
                    letters.push((to, vec![report]));
                }
            }
        }
        letters
    }
}

/// What a slave holds.
#[derive(Clone, Debug, Default)]
struct Held {
    /// Changes that it knows to be announced.
    epoch: u64,
    /// What the others may know of a member.
    info: Option<Arc<str>>,
}

/// A slave's part in keeping the channels of the cluster.
pub struct Keeper {
    me: NodeId,
    /// The live slaves in ascending order, this one among them; empty while it knows of none and decides nothing.
    slaves: Vec<NodeId>,
    others: BTreeMap<NodeId, Other>,
    /// Channels that somebody of this slave is on, and as which members.
    held: BTreeMap<Post, Held>,
    table: Table,
    graces: Graces,
    /// Numbers the questions of this slave.
    asked: u64,
    /// Grows when the roster changes, or something was passed on that must arrive before it is forgotten here.
    turn: u64,
    /// There may be something that is not this slave's, to be forgotten once all agree and have heard of this turn.
    untidy: bool,
    /// Everybody on the roster sees the same one: this slave may decide.
    agreed: bool,
    /// No other slave was ever on the roster.
    alone: bool,
}

impl Keeper {
    /// The part of the slave `me`, which knows of no roster yet. A member may be away for `grace` without having left.
    #[must_use]
    pub fn new(me: NodeId, grace: Duration) -> Self {
        Self {
            me,
            slaves: Vec::new(),
            others: BTreeMap::new(),
            held: BTreeMap::new(),
            table: Table::default(),
            graces: Graces::new(grace),
            asked: 0,
            turn: 0,
            untidy: false,
            agreed: false,
            alone: true,
        }
    }

    /// The first of this slave's sockets came to `post`. `info`: what the others may know of a member.
    pub fn came(&mut self, post: &Post, info: Option<&str>, out: &mut Outcome) {
        if !self.held.contains_key(post) {
            self.comes_back(post, info, out);
            self.held.insert(post.clone(), Held { epoch: 0, info: info.map(Arc::from) });
            self.tell_held(post, out);
        }
    }

    /// The last of them left.
    pub fn left(&mut self, post: &Post, out: &mut Outcome) {
        if self.held.remove(post).is_some() {
            self.tell_held(post, out);
        }
    }

    fn tell_held(&mut self, post: &Post, out: &mut Outcome) {
        for slave in self.keepers(post) {
            self.tell(slave, self.holds(post), out);
        }
        self.decide(post, out);
    }

    /// It is `now`. To be said before anything else is, and never less than before.
    pub fn at(&mut self, now: Duration) {
        self.graces.at(now);
    }

    /// Announce who has been away for long enough.
    pub fn tick(&mut self, out: &mut Outcome) {
        if self.agreed {
            for post in self.graces.due() {
                self.decide(&post, out);
                self.graces.end(&post);
            }
        }
    }

    /// When [`Keeper::tick`] has something to do, unless something else happens before.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.graces.next().filter(|_| self.agreed)
    }

    /// Another slave said something.
    pub fn reported(&mut self, from: NodeId, report: Report, out: &mut Outcome) {
        match report {
            Report::Ask { no } => self.question(from, no, out),
            Report::Answer { no } => self.answer(from, no),
            Report::Holds { post, held, epoch, info } => {
                if self.hears(from) {
                    self.other_holds(from, &post, held.then_some(Held { epoch, info }), out);
                }
            }
            Report::Kept { post, epoch } => {
                self.learn(from, &post, epoch, out);
                self.decide(&post, out);
            }
            Report::Announced { post, epoch } => {
                if let Some(known) = self.held.get_mut(&post) {
                    known.epoch = epoch.max(known.epoch);
                }
            }
            Report::Settled { slaves, turn, heard } => {
                if self.hears(from) {
                    self.other_settled(from, slaves, turn, heard, out);
                }
            }
        }
    }

    /// These slaves are alive now. If this one is not among them, it is about to go: it hands over what it keeps, and
    /// says and decides nothing any more.
    pub fn roster(&mut self, slaves: &[NodeId], out: &mut Outcome) {
        let mut slaves = slaves.to_vec();
        slaves.sort_unstable();
        slaves.dedup();
        if slaves == self.slaves {
            return;
        }
        let going = !slaves.contains(&self.me);
        let before = std::mem::replace(&mut self.slaves, slaves);
        if going {
            self.hand_over(&before, out);
            self.cut();
            return;
        }
        self.agreed = false;
        self.untidy = true;
        // whoever decides from now on gives a grace of its own
        self.graces.clear();
        self.alone &= self.slaves.len() == 1;
        let gone: Vec<_> = before.iter().copied().filter(|slave| !self.slaves.contains(slave)).collect();
        for slave in &gone {
            // should it live after all, it must not decide for who does not see it any more
            self.tell(*slave, self.settled(*slave), out);
            self.others.remove(slave);
        }
        if !gone.is_empty() {
            self.table.release_all(|slave| gone.contains(&slave));
        }
        self.table.roster_changed();
        let withdrawn = self.tell_moved(&before, out);
        self.hand_over(&before, out);
        self.take_turn(out);
        // after the new roster: who still sees the old one must not take it for a channel that was left
        for (slave, report) in withdrawn {
            self.tell(slave, report, out);
        }
        for slave in self.slaves.clone() {
            if slave != self.me && !self.others.contains_key(&slave) {
                self.ask(slave, out);
            }
        }
        self.agree(out);
        self.tidy();
    }

    /// Reports to this slave or from it were lost, or it may have been forgotten meanwhile (its bus was down, it was
    /// too slow for it, the process was stopped). It decides nothing until it is given the roster again; then everybody
    /// asks and tells everything anew.
    pub fn cut(&mut self) {
        self.slaves.clear();
        self.agreed = false;
        self.graces.clear();
        self.others.clear();
        self.table.release_all(|_| true);
    }

    /// The members of `channel`, as this slave has announced them; if it keeps the channel, and may decide.
    #[must_use]
    pub fn attendance(&self, channel: &ChannelKey) -> Option<BTreeMap<UserId, ByteString>> {
        if !self.agreed || keepers(self.slaves.iter().copied(), channel).0 != Some(self.me) {
            return None;
        }
        let there = self.table.members(channel).filter(|(_, entry)| entry.announced_occupied());
        Some(there.map(|(user, entry)| (user.clone(), entry.info.as_deref().unwrap_or(NO_INFO).into())).collect())
    }

    /// May this slave decide: does everybody on its roster see the same one?
    #[cfg(test)]
    pub fn agreed(&self) -> bool {
        self.agreed
    }

    /// How many channels it has something to remember of.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Has it nothing to remember?
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Does everybody see the same roster now? Then everything that waited for it is decided.
    fn agree(&mut self, out: &mut Outcome) {
        let agreed = !self.slaves.is_empty() && self.others.values().all(|other| other.agrees(&self.slaves));
        if agreed == self.agreed {
            return;
        }
        self.agreed = agreed;
        if !agreed {
            self.untidy = true;
            return;
        }
        let mut posts: Vec<_> = self.table.iter().map(|(post, _)| post.clone()).collect();
        posts.extend(self.held.keys().filter(|post| self.table.get(post).is_none()).cloned());
        for post in posts {
            self.decide(&post, out);
        }
    }

    /// Announce a change of `post`, if there is one and it is this slave's to announce.
    fn decide(&mut self, post: &Post, out: &mut Outcome) {
        let mut keepers = self.keepers(post);
        if !self.agreed || keepers.next() != Some(self.me) {
            return;
        }
        let held = self.held.get(post).cloned();
        let Some(entry) = (held.is_some() || self.table.get(post).is_some()).then(|| self.table.open(post)) else {
            return;
        };
        entry.learn(held.as_ref().map_or(0, |held| held.epoch));
        let occupied = held.is_some() || !entry.holders.is_empty();
        if occupied && entry.info.is_none() {
            // another keeper may have announced it, and only a holder knows this of a member
            entry.info = held.and_then(|held| held.info);
        }
        if occupied == entry.announced_occupied() {
            self.graces.end(post);
            return;
        }
        if !occupied && post.member.is_some() && !self.graces.is_over(post) {
            return;
        }
        entry.epoch += 1;
        let info = if occupied { entry.info.clone() } else { entry.info.take() };
        let epoch = entry.epoch;
        let holders = entry.holders.clone();
        let deputy = keepers.next();
        if let Some(deputy) = deputy {
            self.tell(deputy, Report::Kept { post: post.clone(), epoch }, out);
        }
        for holder in holders.into_iter().filter(|&holder| Some(holder) != deputy) {
            self.tell(holder, Report::Announced { post: post.clone(), epoch }, out);
        }
        if !occupied {
            self.table.vacated(post, self.alone);
        }
        let channel = post.channel.clone();
        out.facts.push(match (&post.member, occupied) {
            (None, true) => Fact::Occupied(channel),
            (None, false) => Fact::Vacated(channel),
            (Some(user), true) => {
                let info = info.as_deref().unwrap_or(NO_INFO).into();
                Fact::Added(channel, Member { user: user.clone(), info })
            }
            (Some(user), false) => Fact::Removed(channel, user.clone()),
        });
    }

    /// Somebody comes to `post`. A member that is away and comes back with other `info` has left first: nobody would be told
    /// of the new one otherwise.
    fn comes_back(&mut self, post: &Post, info: Option<&str>, out: &mut Outcome) {
        let as_another = || self.table.get(post).is_some_and(|entry| entry.info.as_deref() != info);
        if self.graces.has(post) && as_another() {
            self.graces.cut_short(post);
            self.decide(post, out);
        }
    }

    /// The keeper of `post`, then its deputy.
    fn keepers(&self, post: &Post) -> impl Iterator<Item = NodeId> + Clone + use<> {
        both(&self.slaves, post)
    }

    /// Is it this slave's to keep or to watch?
    fn is_mine(&self, post: &Post) -> bool {
        is_one_of(self.me, self.keepers(post))
    }

    fn keeps(&self, post: &Post) -> bool {
        self.keepers(post).next() == Some(self.me)
    }
}

/// The keeper of `post` among `slaves`, then its deputy.
fn both(slaves: &[NodeId], post: &Post) -> impl Iterator<Item = NodeId> + Clone + use<> {
    let (keeper, deputy) = keepers(slaves.iter().copied(), &post.channel);
    keeper.into_iter().chain(deputy)
}

fn is_one_of(slave: NodeId, mut slaves: impl Iterator<Item = NodeId>) -> bool {
    slaves.any(|one| one == slave)
}
