//! What slaves tell each other: one ordered stream from each to each, which begins with an answer.

use std::{collections::BTreeSet, sync::Arc};

use wellhead_proto::{coordination::CoordinationMessage, ids::NodeId};

use super::{
    Coordinator, Outcome, both, is_one_of,
    ledger::{KeyRef, LedgerKey},
};
use crate::channels::ChannelTable;

/// Another live slave. The table of the module above says what each field means.
#[derive(Default)]
pub(super) struct Peer {
    /// The number of what it was asked.
    request: u64,
    answer: Answered,
    /// The number of its request that was answered.
    served: Option<u64>,
    handed_over: BTreeSet<LedgerKey>,
    round: u64,
    confirmed: u64,
}

/// How much of its answer a peer has given.
#[derive(Default)]
enum Answered {
    /// Nothing: what it says is ignored, since it continues something that is not known here.
    #[default]
    Nothing,
    /// A part.
    Part,
    /// All, by this list of slaves; what it says since is news.
    All(Vec<NodeId>),
}

impl Peer {
    pub(super) fn agrees(&self, slaves: &[NodeId]) -> bool {
        matches!(&self.answer, Answered::All(seen) if seen == slaves)
    }
}

impl Coordinator {
    /// `from` has nothing of what this slave said.
    pub(super) fn serve(&mut self, from: NodeId, number: u64, out: &mut Outcome) {
        // who is not on the list yet is asked when it comes, and asks again then
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if peer.served == Some(number) {
            return;
        }
        if matches!(peer.answer, Answered::Nothing) {
            // it may have missed the request, if it did not see this slave then; twice is harmless
            out.messages.push((from, CoordinationMessage::Request { number: peer.request }));
        } else {
            // it has forgotten what it had told: since then it may have kept things to itself
            self.request(from, out);
        }
        let peer = self.peer(from);
        peer.served = Some(number);
        peer.confirmed = 0;
        self.tell(from, || CoordinationMessage::Answer { number }, out);
        for (key, record) in self.ledger.iter() {
            if record.claim.is_some() && is_one_of(from, self.coordinators(record.place)) {
                self.tell(from, || self.claim_message(key), out);
            }
        }
        for (key, record) in self.ledger.iter() {
            if record.epoch != 0 && is_one_of(from, self.coordinators(record.place)) {
                self.tell(from, || self.handover_message(key, record.epoch), out);
            }
        }
        self.serve_follows(from, out);
        self.tell(from, || self.synced(from), out);
    }

    /// `from` tells everything anew from here on, if this answers the last request.
    pub(super) fn begin_answer(&mut self, from: NodeId, number: u64) {
        if let Some(peer) = self.peers.get_mut(&from)
            && peer.request == number
            && matches!(peer.answer, Answered::Nothing)
        {
            peer.answer = Answered::Part;
        }
    }

    /// Begin with `slave`, or begin again.
    pub(super) fn request(&mut self, slave: NodeId, out: &mut Outcome) {
        self.agreed = false;
        self.sweep_due = true;
        self.requests += 1;
        let peer = self.peers.entry(slave).or_default();
        peer.request = self.requests;
        peer.round = 0;
        if !matches!(std::mem::replace(&mut peer.answer, Answered::Nothing), Answered::Nothing) {
            self.ledger.remove_claimants(|claimant| claimant == slave);
            self.follows.remove_slaves(|follower| follower == slave);
        }
        out.messages.push((slave, CoordinationMessage::Request { number: self.requests }));
    }

    pub(super) fn peer_claims(
        &mut self,
        from: NodeId,
        key: &LedgerKey,
        epoch: u64,
        info: Option<Arc<str>>,
        out: &mut Outcome,
    ) {
        self.learn(from, key, epoch, out);
        self.comes_back(key, info.as_deref(), out);
        let record = self.ledger.add_claimant(key, from, info);
        let (known, announced, place) = (record.epoch, record.announced_occupied(), record.place);
        self.decide(key, out);
        if announced && epoch < known && self.is_coordinator(place) {
            self.tell(from, || CoordinationMessage::Announced { key: key.named(), epoch: known }, out);
        }
    }

    pub(super) fn peer_withdraws(&mut self, from: NodeId, key: &LedgerKey, out: &mut Outcome) {
        let keep = self.sweep_due || self.is_to_be_known(key.borrow(), self.ledger.place(key));
        self.ledger.remove_claimant(key.borrow(), from, keep);
        self.decide(key, out);
    }

    /// What was announced stays announced, whoever says so.
    pub(super) fn learn(&mut self, from: NodeId, key: &LedgerKey, epoch: u64, out: &mut Outcome) {
        let news = self.ledger.hand_over(key, epoch);
        let agrees = self.peers.get(&from).is_some_and(|peer| peer.agrees(&self.slaves));
        let place = self.ledger.place(key);
        if news && !agrees {
            // it may go before it has told whom this slave takes for the coordinators, or may be one of them and forget it
            for slave in self.coordinators(place) {
                self.tell(slave, || self.handover_message(key.borrow(), epoch), out);
            }
        }
        if epoch != 0
            && !(agrees && self.is_mine(place))
            && let Some(peer) = self.peers.get_mut(&from)
        {
            peer.handed_over.insert(key.clone());
        }
    }

    #[expect(clippy::mutable_key_type, reason = "keys are compared by their numbers, which do not change")]
    pub(super) fn peer_synced(
        &mut self,
        from: NodeId,
        slaves: Vec<NodeId>,
        round: u64,
        confirmed: u64,
        out: &mut Outcome,
    ) {
        let peer = self.peer(from);
        peer.answer = Answered::All(slaves);
        peer.confirmed = confirmed;
        let news = peer.round != round;
        peer.round = round;
        let handed_over = std::mem::take(&mut peer.handed_over);
        if handed_over.iter().any(|key| !self.is_mine(self.ledger.place(key))) {
            self.sweep_due = true;
            self.next_round(out);
        } else if news {
            self.tell(from, || self.synced(from), out);
        }
        self.agree(out);
        self.sweep();
    }

    /// Have everybody say that all that was told them until now has arrived.
    pub(super) fn next_round(&mut self, out: &mut Outcome) {
        self.round += 1;
        for &slave in self.peers.keys() {
            self.tell(slave, || self.synced(slave), out);
        }
    }

    /// Forget what is not this slave's, once everybody agrees and has what was told: the list may as well change back
    /// before, or to a third.
    pub(super) fn sweep(&mut self) {
        if !self.sweep_due || !self.agreed || self.peers.values().any(|peer| peer.confirmed != self.round) {
            return;
        }
        self.sweep_due = false;
        let (slaves, me, peers, names) = (&self.slaves, self.me, &self.peers, self.ledger.names().clone());
        self.ledger.retain(|key, record| {
            let is_mine = is_one_of(me, both(slaves, record.place));
            is_mine || peers.values().any(|peer| peer.has_handed_over(key, &names))
        });
    }

    /// Tell the coordinators that the keys which this slave claims have now and had not `before`; what is to be told to
    /// those that are no longer theirs.
    pub(super) fn tell_moved(&self, before: &[NodeId], out: &mut Outcome) -> Vec<(NodeId, CoordinationMessage)> {
        let mut withdrawn = Vec::new();
        for (key, record) in self.ledger.iter().filter(|(_, record)| record.claim.is_some()) {
            let (old, new) = (both(before, record.place), self.coordinators(record.place));
            for slave in new.clone().filter(|&slave| !is_one_of(slave, old.clone())) {
                self.tell(slave, || self.claim_message(key), out);
            }
            for slave in old.filter(|&slave| !is_one_of(slave, new.clone())) {
                let key = self.ledger.named(key);
                withdrawn.push((slave, CoordinationMessage::Claim { key, claimed: false, epoch: 0, info: None }));
            }
        }
        withdrawn
    }

    /// Tell the new coordinators of every key what was announced of it. What is no longer this slave's is remembered
    /// until all agree that it is not: the list may as well change back.
    pub(super) fn hand_over(&self, before: &[NodeId], out: &mut Outcome) {
        for (key, record) in self.ledger.iter().filter(|(_, record)| record.epoch != 0) {
            let old = both(before, record.place);
            for slave in self.coordinators(record.place).filter(|&slave| !is_one_of(slave, old.clone())) {
                self.tell(slave, || self.handover_message(key, record.epoch), out);
            }
        }
    }

    /// When all agree: is what was announced of `key` this slave's to know, or is it about to be?
    fn is_to_be_known(&self, key: KeyRef<'_>, place: u64) -> bool {
        self.is_mine(place) || self.peers.values().any(|peer| peer.has_handed_over(key, self.ledger.names()))
    }

    pub(super) fn claim_message(&self, key: KeyRef<'_>) -> CoordinationMessage {
        let record = self.ledger.get(key);
        let claim = record.and_then(|record| record.claim);
        let epoch = record.map_or(0, |record| record.epoch).max(claim.unwrap_or(0));
        let info = self.ledger.infos(key).and_then(|infos| infos.claimed.clone());
        CoordinationMessage::Claim { key: self.ledger.named(key), claimed: claim.is_some(), epoch, info }
    }

    fn handover_message(&self, key: KeyRef<'_>, epoch: u64) -> CoordinationMessage {
        CoordinationMessage::Handover { key: self.ledger.named(key), epoch }
    }

    pub(super) fn synced(&self, to: NodeId) -> CoordinationMessage {
        let confirmed = self.peers.get(&to).map_or(0, |peer| peer.round);
        CoordinationMessage::Synced { slaves: self.slaves.clone(), round: self.round, confirmed }
    }

    /// Tell another slave, if it has asked: before, it could make nothing of it.
    pub(super) fn tell(&self, to: NodeId, message: impl FnOnce() -> CoordinationMessage, out: &mut Outcome) {
        if self.peers.get(&to).is_some_and(|peer| peer.served.is_some()) {
            out.messages.push((to, message()));
        }
    }

    /// Does what `from` says continue something that is known here?
    pub(super) fn is_answering(&self, from: NodeId) -> bool {
        self.peers.get(&from).is_some_and(|peer| !matches!(peer.answer, Answered::Nothing))
    }

    fn peer(&mut self, slave: NodeId) -> &mut Peer {
        self.peers.get_mut(&slave).expect("it was looked up before")
    }
}

impl Peer {
    fn has_handed_over(&self, key: KeyRef<'_>, names: &Arc<ChannelTable>) -> bool {
        // most of the time nobody has handed over anything
        !self.handed_over.is_empty() && self.handed_over.contains(&key.referring(names))
    }
}
