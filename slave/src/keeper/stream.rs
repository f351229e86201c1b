//! What slaves tell each other: one ordered stream from each to each, which begins with an answer.

use std::collections::BTreeSet;

use wellhead_proto::{
    ids::NodeId,
    report::{Post, Report},
};

use super::{Held, Keeper, Outcome, both, is_one_of};

/// Another slave on the roster.
#[derive(Default)]
pub(super) struct Other {
    /// The number of what it was asked.
    asked: u64,
    /// What it has said since.
    said: Said,
    /// Its question that was answered: from then on it is told what is new.
    answered: Option<u64>,
    /// What it has handed over since it last said by which roster, and perhaps by one that is not known here yet.
    handed: BTreeSet<Post>,
    /// The last turn of its that was heard.
    turn: u64,
    /// The last turn of this slave that it has heard.
    heard: u64,
}

#[derive(Default)]
enum Said {
    /// Nothing: what it says is not heard, since it continues something that is not known here.
    #[default]
    Nothing,
    /// A part of its answer.
    Some,
    /// All of its answer, by this roster.
    All(Vec<NodeId>),
}

impl Other {
    pub(super) fn agrees(&self, roster: &[NodeId]) -> bool {
        matches!(&self.said, Said::All(slaves) if slaves == roster)
    }
}

impl Keeper {
    /// `from` has nothing of what this slave said.
    pub(super) fn question(&mut self, from: NodeId, no: u64, out: &mut Outcome) {
        // who is not on the roster yet is asked when it comes, and asks again then
        let Some(other) = self.others.get_mut(&from) else { return };
        if other.answered == Some(no) {
            return;
        }
        if matches!(other.said, Said::Nothing) {
            // it may have missed the question, if it did not see this slave then; twice is harmless
            out.tell.push((from, Report::Ask { no: other.asked }));
        } else {
            // it has forgotten what it had told: since then it may have kept things to itself
            self.ask(from, out);
        }
        let other = self.other(from);
        other.answered = Some(no);
        other.heard = 0;
        self.tell(from, Report::Answer { no }, out);
        for post in self.held.keys().filter(|post| is_one_of(from, self.keepers(post))) {
            self.tell(from, self.holds(post), out);
        }
        for (post, entry) in self.table.iter() {
            if entry.epoch != 0 && is_one_of(from, self.keepers(post)) {
                self.tell(from, Report::Kept { post: post.clone(), epoch: entry.epoch }, out);
            }
        }
        self.tell(from, self.settled(from), out);
    }

    /// `from` tells everything anew from here on, if this answers the last question.
    pub(super) fn answer(&mut self, from: NodeId, no: u64) {
        if let Some(other) = self.others.get_mut(&from)
            && other.asked == no
            && matches!(other.said, Said::Nothing)
        {
            other.said = Said::Some;
        }
    }

    /// Begin with `slave`, or begin again.
    pub(super) fn ask(&mut self, slave: NodeId, out: &mut Outcome) {
        self.agreed = false;
        self.untidy = true;
        self.asked += 1;
        let other = self.others.entry(slave).or_default();
        other.asked = self.asked;
        other.turn = 0;
        if !matches!(std::mem::replace(&mut other.said, Said::Nothing), Said::Nothing) {
            self.table.release_all(|holder| holder == slave);
        }
        out.tell.push((slave, Report::Ask { no: self.asked }));
    }

    pub(super) fn other_holds(&mut self, from: NodeId, post: &Post, told: Option<Held>, out: &mut Outcome) {
        if let Some(Held { epoch, info }) = told {
            self.learn(from, post, epoch, out);
            self.comes_back(post, info.as_deref(), out);
            let entry = self.table.hold(post, from, info);
            let known = entry.epoch;
            let announced = entry.announced_occupied();
            self.decide(post, out);
            if announced && epoch < known && self.keeps(post) {
                self.tell(from, Report::Announced { post: post.clone(), epoch: known }, out);
            }
        } else {
            let keep = self.untidy || self.is_to_be_known(post);
            self.table.release(post, from, keep);
            self.decide(post, out);
        }
    }

    /// What was announced stays announced, whoever says so.
    pub(super) fn learn(&mut self, from: NodeId, post: &Post, epoch: u64, out: &mut Outcome) {
        let news = self.table.announced(post, epoch);
        let agrees = self.others.get(&from).is_some_and(|other| other.agrees(&self.slaves));
        if news && !agrees {
            // it may go before it has told whom this slave takes for the keepers, or may be one of them and forget it
            for slave in self.keepers(post) {
                self.tell(slave, Report::Kept { post: post.clone(), epoch }, out);
            }
        }
        if epoch != 0
            && !(agrees && self.is_mine(post))
            && let Some(other) = self.others.get_mut(&from)
        {
            other.handed.insert(post.clone());
        }
    }

    pub(super) fn other_settled(
        &mut self,
        from: NodeId,
        slaves: Vec<NodeId>,
        turn: u64,
        heard: u64,
        out: &mut Outcome,
    ) {
        let other = self.other(from);
        other.said = Said::All(slaves);
        other.heard = heard;
        let news = other.turn != turn;
        other.turn = turn;
        let handed = std::mem::take(&mut other.handed);
        if handed.iter().any(|post| !self.is_mine(post)) {
            self.untidy = true;
            self.take_turn(out);
        } else if news {
            self.tell(from, self.settled(from), out);
        }
        self.agree(out);
        self.tidy();
    }

    /// Have everybody say that all that was told them until now has arrived.
    pub(super) fn take_turn(&mut self, out: &mut Outcome) {
        self.turn += 1;
        for &slave in self.others.keys() {
            self.tell(slave, self.settled(slave), out);
        }
    }

    /// Forget what is not this slave's, once everybody agrees and has what was told: the roster may as well change back
    /// before, or to a third.
    pub(super) fn tidy(&mut self) {
        if !self.untidy || !self.agreed || self.others.values().any(|other| other.heard != self.turn) {
            return;
        }
        self.untidy = false;
        let mut table = std::mem::take(&mut self.table);
        table.retain(|post| self.is_to_be_known(post));
        self.table = table;
    }

    /// Tell the keepers that the channels which this slave holds have now and had not `before`; what is to be told to
    /// those that are no longer theirs.
    pub(super) fn tell_moved(&self, before: &[NodeId], out: &mut Outcome) -> Vec<(NodeId, Report)> {
        let mut withdrawn = Vec::new();
        for post in self.held.keys() {
            let (old, new) = (both(before, post), self.keepers(post));
            for slave in new.clone().filter(|&slave| !is_one_of(slave, old.clone())) {
                self.tell(slave, self.holds(post), out);
            }
            for slave in old.filter(|&slave| !is_one_of(slave, new.clone())) {
                let report = Report::Holds { post: post.clone(), held: false, epoch: 0, info: None };
                withdrawn.push((slave, report));
            }
        }
        withdrawn
    }

    /// Tell the new keepers of every channel what was announced of it. What is no longer this slave's is remembered
    /// until all agree that it is not: the roster may as well change back.
    pub(super) fn hand_over(&self, before: &[NodeId], out: &mut Outcome) {
        for (post, entry) in self.table.iter().filter(|(_, entry)| entry.epoch != 0) {
            let old = both(before, post);
            for slave in self.keepers(post).filter(|&slave| !is_one_of(slave, old.clone())) {
                self.tell(slave, Report::Kept { post: post.clone(), epoch: entry.epoch }, out);
            }
        }
    }

    /// When all agree: is what was announced of `post` this slave's to know, or is it about to be?
    fn is_to_be_known(&self, post: &Post) -> bool {
        self.is_mine(post) || self.others.values().any(|other| other.handed.contains(post))
    }

    pub(super) fn holds(&self, post: &Post) -> Report {
        let held = self.held.get(post);
        let known = held.map_or(0, |held| held.epoch);
        let kept = self.table.get(post).map_or(0, |entry| entry.epoch);
        let info = held.and_then(|held| held.info.clone());
        Report::Holds { post: post.clone(), held: held.is_some(), epoch: known.max(kept), info }
    }

    pub(super) fn settled(&self, to: NodeId) -> Report {
        let heard = self.others.get(&to).map_or(0, |other| other.turn);
        Report::Settled { slaves: self.slaves.clone(), turn: self.turn, heard }
    }

    /// Tell another slave, if it has asked: before, it could make nothing of it.
    pub(super) fn tell(&self, to: NodeId, report: Report, out: &mut Outcome) {
        if self.others.get(&to).is_some_and(|other| other.answered.is_some()) {
            out.tell.push((to, report));
        }
    }

    pub(super) fn hears(&self, from: NodeId) -> bool {
        self.others.get(&from).is_some_and(|other| !matches!(other.said, Said::Nothing))
    }

    fn other(&mut self, slave: NodeId) -> &mut Other {
        self.others.get_mut(&slave).expect("it was looked up before")
    }
}
