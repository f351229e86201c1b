//! What must happen once in the cluster is decided by one slave for each key (a channel, a member of one, a user): its
//! coordinator, which rendezvous hashing picks from the live slaves, with a standby that takes over from it. Pure: messages
//! and the time in, messages and facts out. `docs/decisions/0008-coordinator.md` says why, and what is promised.
//!
//! Only a claimant says what it claims, to the coordinator and the standby, over one ordered stream to each. What was
//! announced is a number that only grows, the epoch of a key, and is merged by the higher one, whoever says it.
//!
//! # State
//!
//! | state | of | says | changes when |
//! | --- | --- | --- | --- |
//! | `slaves` | this slave | the live slaves; empty: it is *detached* and decides nothing | the membership changes, reports were lost (`detach`) |
//! | `agreed` | this slave | every slave on the list has synced by that very list: it may decide | a peer syncs, the list changes |
//! | `round` | this slave | numbers what must have arrived everywhere before something is forgotten | the list changes, something was handed over |
//! | `sweep_due` | this slave | something may be known here that is others' to know | the list changes, a peer is asked, something was handed over |
//! | `alone` | this slave | it never met another: nothing vacant need be remembered | the first other slave comes |
//! | `Peer::request`, `Peer::answer` | a peer | what this slave asked it for, and how much of the answer has come: nothing, a part, all by a list | it answers, syncs, is asked anew |
//! | `Peer::served` | a peer | its request that was answered: from then on it is told what is new | it asks |
//! | `Peer::handed_over` | a peer | what it told of keys that are not this slave's by all that is known: not to be forgotten yet | it hands over; it syncs |
//! | `Peer::round`, `Peer::confirmed` | a peer | its last round that arrived here; the last one of this slave that arrived there | it syncs |
//! | `Record::claim` | a key | a socket of this slave is there; the epoch that this slave knows as a claimant | sockets come and go, it is announced |
//! | `Record::claimants` | a key | other slaves that claim it | they say so, or leave |
//! | `Record::epoch` | a key | what was announced, as coordinator or standby: odd is occupied | it is decided, or handed over |
//! | `Graces` | a key | nobody is there, and that is not announced yet | the last claimant withdraws; one comes back; the time is over |
//!
//! # A peer, from its coming to its going
//!
//! ```text
//! time   this slave                                        the peer
//!  │     sees it on the list: Request(n) ───────────────▶  sees this slave: Request(m)
//!  │     answer: nothing                                   (what one hears before its request is answered is ignored)
//!  │                                      ◀─ Answer(n), Claim…, Handover…, Synced(list, round, confirmed)
//!  │     answer: a part … all, by that list
//!  │     Answer(m), Claim…, Handover…, Synced(…) ───────▶
//!  │     every peer's list is this one's: agreed ── decides what waited: facts, Handover ▶ standby, Announced ▶ claimants
//!  │     from now on both tell what is new: Claim ▶ coordinator and standby
//!  │
//!  │     the list changes: not agreed; Synced with the new list, then Claims and Handovers of what moved, withdrawals last
//!  │     all are synced by the new list: agreed; all have confirmed the round: what is others' is forgotten (sweep)
//!  │
//!  ▼     it leaves the list: it claims nothing any more
//! ```

mod follows;
mod grace;
mod ledger;
mod peers;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytestring::ByteString;
use wellhead_proto::{
    coordination::{CoordinatedKey, CoordinationMessage},
    event::Event,
    ids::{AppId, ChannelKey, NodeId, SocketId, UserId},
    member::Member,
    membership::{coordinators_at, place_of_channel},
};

pub use self::{follows::FollowUpdate, grace::GRACE, ledger::LedgerKey};
use self::{
    follows::Follows,
    grace::Graces,
    ledger::{KeyRef, Ledger},
    peers::Peer,
};
use crate::channels::ChannelTable;

/// The info of a member of whom nothing is known: an empty object.
const NO_INFO: &str = "{}";

/// What happened once in the cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fact {
    /// Somebody is on the channel now, where nobody was.
    Occupied(ChannelKey),
    /// Nobody is on it any more.
    Vacated(ChannelKey),
    /// The first socket of a member came to the channel.
    MemberAdded(ChannelKey, Member),
    /// The last one left, and none came back within the grace.
    MemberRemoved(ChannelKey, UserId),
    /// The first socket of a user came.
    UserOnline(AppId, UserId),
    /// The last one left, and none came back within the grace.
    UserOffline(AppId, UserId),
    /// So many subscriptions the channel has now, in an app that counts them.
    SubscriptionCount(ChannelKey, u64),
    /// A client published this on the channel, from this socket. Nobody decides that: it enters the stream where the client
    /// is, and only if somebody outside wants it.
    ClientEvent(ChannelKey, SocketId, Event),
    /// Another slave decided this, for which this one stands by.
    DecidedBy(NodeId, Box<Fact>),
    /// Another slave is about to go, in order.
    Leaving(NodeId),
}

impl Fact {
    /// Another slave says what it announced of `key` last.
    pub fn decided_by(by: NodeId, key: CoordinatedKey, occupied: bool) -> Self {
        Self::DecidedBy(by, Box::new(Self::new(key, occupied, None)))
    }

    /// What became of `key`. `info`: what the others may know of a member that came.
    fn new(key: CoordinatedKey, occupied: bool, info: Option<Arc<str>>) -> Self {
        match (key, occupied) {
            (CoordinatedKey::Channel(channel), true) => Self::Occupied(channel),
            (CoordinatedKey::Channel(channel), false) => Self::Vacated(channel),
            (CoordinatedKey::Member { channel, user }, true) => {
                let info = info.as_deref().unwrap_or(NO_INFO).into();
                Self::MemberAdded(channel, Member { user, info })
            }
            (CoordinatedKey::Member { channel, user }, false) => Self::MemberRemoved(channel, user),
            (CoordinatedKey::User { app, user }, true) => Self::UserOnline(app, user),
            (CoordinatedKey::User { app, user }, false) => Self::UserOffline(app, user),
        }
    }
}

/// What came of a call.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Outcome {
    /// What to tell whom. What one slave is told must reach it in this order.
    pub messages: Vec<(NodeId, CoordinationMessage)>,
    /// What this slave announces.
    pub facts: Vec<Fact>,
    /// Another coordinator dropped announcements: lists of members are to be fetched anew.
    pub lists_are_stale: bool,
    /// How what this slave follows stands.
    pub told: Vec<FollowUpdate>,
}

impl Outcome {
    /// The messages, slave by slave, in messages of at most `most`; none are left then.
    pub fn batches(&mut self, most: usize) -> Vec<(NodeId, Vec<CoordinationMessage>)> {
        let mut open = BTreeMap::new();
        let mut batches: Vec<(NodeId, Vec<CoordinationMessage>)> = Vec::new();
        for (to, message) in self.messages.drain(..) {
            let batch = *open.entry(to).or_insert(usize::MAX);
            match batches.get_mut(batch) {
                Some((_, messages)) if messages.len() < most => messages.push(message),
                _ => {
                    open.insert(to, batches.len());
                    batches.push((to, vec![message]));
                }
            }
        }
        batches
    }
}

/// A slave's part in coordinating the cluster. The table above says what each field means.
pub struct Coordinator {
    me: NodeId,
    slaves: Vec<NodeId>,
    peers: BTreeMap<NodeId, Peer>,
    ledger: Ledger,
    graces: Graces,
    follows: Follows,
    /// Numbers the requests of this slave.
    requests: u64,
    round: u64,
    sweep_due: bool,
    agreed: bool,
    alone: bool,
}

impl Coordinator {
    /// The part of the slave `me`, which knows of no slaves yet. A member may be away for `grace` without having left; `names`
    /// holds the names of channels.
    #[must_use]
    pub fn new(me: NodeId, grace: Duration, names: Arc<ChannelTable>) -> Self {
        Self {
            me,
            slaves: Vec::new(),
            peers: BTreeMap::new(),
            ledger: Ledger::new(names),
            graces: Graces::new(grace),
            follows: Follows::default(),
            requests: 0,
            round: 0,
            sweep_due: false,
            agreed: false,
            alone: true,
        }
    }

    /// The first of this slave's sockets came to `key`. `info`: what the others may know of a member.
    pub fn claim(&mut self, key: &LedgerKey, info: Option<&str>, out: &mut Outcome) {
        if self.ledger.get(key.borrow()).is_none_or(|record| record.claim.is_none()) {
            self.comes_back(key, info, out);
            self.ledger.open(key).claim = Some(0);
            if let Some(infos) = self.ledger.infos_mut(key.borrow()) {
                infos.claimed = info.map(Arc::from);
            }
            self.tell_claim(key, out);
        }
    }

    /// The last of them left.
    pub fn withdraw(&mut self, key: &LedgerKey, out: &mut Outcome) {
        if self.ledger.get_mut(key.borrow()).is_some_and(|record| record.claim.take().is_some()) {
            if let Some(infos) = self.ledger.infos_mut(key.borrow()) {
                infos.claimed = None;
            }
            self.tell_claim(key, out);
            self.ledger.tidy(key.borrow());
        }
    }

    fn tell_claim(&mut self, key: &LedgerKey, out: &mut Outcome) {
        let place = self.ledger.place(key);
        for slave in self.coordinators(place) {
            self.tell(slave, || self.claim_message(key.borrow()), out);
        }
        self.decide(key, out);
    }

    /// It is `now`. To be said before anything else is, and never less than before.
    pub fn at(&mut self, now: Duration) {
        self.graces.at(now);
        self.follows.at(now);
    }

    /// Announce who has been away for long enough.
    pub fn tick(&mut self, out: &mut Outcome) {
        if self.agreed {
            for key in self.graces.due() {
                self.decide(&key, out);
                self.graces.end(&key);
            }
        }
    }

    /// When [`Coordinator::tick`] has something to do, unless something else happens before.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.graces.next().filter(|_| self.agreed)
    }

    /// Another slave said something.
    pub fn receive(&mut self, from: NodeId, message: CoordinationMessage, out: &mut Outcome) {
        match message {
            CoordinationMessage::Request { number } => self.serve(from, number, out),
            CoordinationMessage::Answer { number } => self.begin_answer(from, number),
            CoordinationMessage::Claim { key, claimed, epoch, info } => {
                if self.is_answering(from) {
                    let key = LedgerKey::of(self.ledger.names(), &key);
                    match claimed {
                        true => self.peer_claims(from, &key, epoch, info, out),
                        false => self.peer_withdraws(from, &key, out),
                    }
                }
            }
            CoordinationMessage::Handover { key, epoch } => {
                let key = LedgerKey::of(self.ledger.names(), &key);
                self.learn(from, &key, epoch, out);
                self.decide(&key, out);
                self.ledger.tidy(key.borrow());
            }
            CoordinationMessage::Announced { key, epoch } => {
                let key = LedgerKey::of(self.ledger.names(), &key);
                if let Some(known) = self.ledger.get_mut(key.borrow()).and_then(|record| record.claim.as_mut()) {
                    *known = epoch.max(*known);
                }
            }
            CoordinationMessage::Synced { slaves, round, confirmed } => {
                if self.is_answering(from) {
                    self.peer_synced(from, slaves, round, confirmed, out);
                }
            }
            message @ CoordinationMessage::Follow { .. } => {
                if self.is_answering(from) {
                    self.receive_follow(from, message, out);
                }
            }
            CoordinationMessage::Told { key, count, all } => self.receive_told(from, key, count, all, out),
            // what is told outside is no matter of the decision
            CoordinationMessage::Leaving => {}
            CoordinationMessage::AnnouncementsLost => out.lists_are_stale |= self.peers.contains_key(&from),
        }
    }

    /// These slaves are alive now. If this one is not among them, it is about to go: it hands over what it coordinates, and
    /// says and decides nothing any more.
    pub fn slaves_changed(&mut self, slaves: &[NodeId], out: &mut Outcome) {
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
            self.detach();
            return;
        }
        self.agreed = false;
        self.sweep_due = true;
        // whoever decides from now on gives a grace of its own
        self.graces.clear();
        self.follows.stop();
        self.alone &= self.slaves.len() == 1;
        let gone: Vec<_> = before.iter().copied().filter(|slave| !self.slaves.contains(slave)).collect();
        for slave in &gone {
            // should it live after all, it must not decide for who does not see it any more
            self.tell(*slave, || self.synced(*slave), out);
            self.peers.remove(slave);
        }
        if !gone.is_empty() {
            self.ledger.remove_claimants(|slave| gone.contains(&slave));
            self.follows.remove_slaves(|slave| gone.contains(&slave));
        }
        self.ledger.slaves_changed();
        let mut withdrawn = self.tell_moved(&before, out);
        withdrawn.extend(self.tell_moved_follows(&before, out));
        self.hand_over(&before, out);
        self.next_round(out);
        // after the new list: who still sees the old one must not take it for a channel that was left
        for (slave, message) in withdrawn {
            self.tell(slave, || message, out);
        }
        for slave in self.slaves.clone() {
            if slave != self.me && !self.peers.contains_key(&slave) {
                self.request(slave, out);
            }
        }
        self.agree(out);
        self.sweep();
    }

    /// Messages to this slave or from it were lost, or it may have been forgotten meanwhile (its bus was down, it was
    /// too slow for it, the process was stopped). It decides nothing until it is given the slaves again; then everybody
    /// asks and tells everything anew.
    pub fn detach(&mut self) {
        self.slaves.clear();
        self.agreed = false;
        self.graces.clear();
        self.peers.clear();
        self.follows.detach();
        self.ledger.remove_claimants(|_| true);
    }

    /// Announcements of members that this slave decided were dropped: whoever follows them fetches the lists anew.
    pub fn announcements_lost(&self, out: &mut Outcome) {
        for &slave in self.peers.keys() {
            self.tell(slave, || CoordinationMessage::AnnouncementsLost, out);
        }
    }

    /// The members of `channel`, as this slave has announced them; if it coordinates the channel, and may decide.
    #[must_use]
    pub fn members(&self, channel: &ChannelKey) -> Option<BTreeMap<UserId, ByteString>> {
        if !self.agreed || !self.is_coordinator(place_of_channel(channel)) {
            return None;
        }
        let Some((channel, _)) = self.ledger.names().find(&channel.app, &channel.name) else {
            return Some(BTreeMap::new());
        };
        let there = self.ledger.members(channel).filter(|(_, record, _)| record.announced_occupied());
        let info = |infos: &ledger::Infos| infos.announced.as_deref().unwrap_or(NO_INFO).into();
        Some(there.map(|(user, _, infos)| (user.clone(), info(infos))).collect())
    }

    /// May this slave decide: does everybody on its list see the same one?
    #[cfg(test)]
    pub fn agreed(&self) -> bool {
        self.agreed
    }

    /// Does everybody see the same slaves now? Then everything that waited for it is decided.
    fn agree(&mut self, out: &mut Outcome) {
        let agreed = !self.slaves.is_empty() && self.peers.values().all(|peer| peer.agrees(&self.slaves));
        if agreed == self.agreed {
            return;
        }
        self.agreed = agreed;
        if !agreed {
            self.sweep_due = true;
            return;
        }
        let mine = |(key, record): (KeyRef<'_>, &ledger::Record)| {
            self.is_coordinator(record.place).then(|| self.ledger.key(key))
        };
        let keys: Vec<_> = self.ledger.iter().filter_map(mine).collect();
        for key in keys {
            self.decide(&key, out);
        }
        self.tell_followers(out);
    }

    /// Announce a change of `key`, if there is one and it is this slave's to announce.
    fn decide(&mut self, key: &LedgerKey, out: &mut Outcome) {
        self.announce(key, out);
        if let LedgerKey::User(..) = key {
            // also what another coordinator has announced, of which this one learns
            self.tell_watchers(&key.named(), out);
        }
    }

    fn announce(&mut self, key: &LedgerKey, out: &mut Outcome) {
        if !self.agreed {
            return;
        }
        let Some(record) = self.ledger.get(key.borrow()) else { return };
        let mut coordinators = self.coordinators(record.place);
        if coordinators.next() != Some(self.me) {
            return;
        }
        let record = self.ledger.get_mut(key.borrow()).expect("it was there just now");
        record.learn(record.claim.unwrap_or(0));
        let occupied = record.claim.is_some() || !record.claimants.is_empty();
        let is_news = occupied != record.announced_occupied();
        if occupied
            && let Some(infos) = self.ledger.infos_mut(key.borrow())
            && infos.announced.is_none()
        {
            // another coordinator may have announced it, and only a claimant knows this of a member
            infos.announced.clone_from(&infos.claimed);
        }
        if !is_news {
            self.graces.end(key);
            return;
        }
        if !occupied && key.has_grace() && !self.graces.is_over(key) {
            return;
        }
        let infos = self.ledger.infos_mut(key.borrow());
        let info = infos.and_then(|infos| if occupied { infos.announced.clone() } else { infos.announced.take() });
        let record = self.ledger.get_mut(key.borrow()).expect("it was there just now");
        record.epoch += 1;
        let epoch = record.epoch;
        let claimants = record.claimants.as_slice().to_vec();
        let standby = coordinators.next();
        let named = key.named();
        if let Some(standby) = standby {
            self.tell(standby, || CoordinationMessage::Handover { key: named.clone(), epoch }, out);
        }
        for claimant in claimants.into_iter().filter(|&claimant| Some(claimant) != standby) {
            self.tell(claimant, || CoordinationMessage::Announced { key: named.clone(), epoch }, out);
        }
        if !occupied {
            self.ledger.vacated(key, self.alone);
        }
        out.facts.push(Fact::new(named, occupied, info));
    }

    /// Somebody comes to `key`. A member that is away and comes back with other `info` has left first: nobody would be told
    /// of the new one otherwise.
    fn comes_back(&mut self, key: &LedgerKey, info: Option<&str>, out: &mut Outcome) {
        let as_another = || self.ledger.infos(key.borrow()).is_some_and(|infos| infos.announced.as_deref() != info);
        if self.graces.has(key) && as_another() {
            self.graces.cut_short(key);
            self.decide(key, out);
        }
    }

    /// The coordinator of what is hashed to `place`, then its standby.
    fn coordinators(&self, place: u64) -> impl Iterator<Item = NodeId> + Clone + use<> {
        both(&self.slaves, place)
    }

    /// Is it this slave's to coordinate or to stand by for?
    fn is_mine(&self, place: u64) -> bool {
        is_one_of(self.me, self.coordinators(place))
    }

    fn is_coordinator(&self, place: u64) -> bool {
        self.coordinators(place).next() == Some(self.me)
    }
}

/// The coordinator of what is hashed to `place` among `slaves`, then its standby.
fn both(slaves: &[NodeId], place: u64) -> impl Iterator<Item = NodeId> + Clone + use<> {
    let (coordinator, standby) = coordinators_at(slaves.iter().copied(), place);
    coordinator.into_iter().chain(standby)
}

fn is_one_of(slave: NodeId, mut slaves: impl Iterator<Item = NodeId>) -> bool {
    slaves.any(|one| one == slave)
}
