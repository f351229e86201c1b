//! What is measured, and the figures to reach.

mod fanout;
pub mod measure;
mod several;
mod single;

use anyhow::{Result, ensure};

pub use self::measure::{Goal, Measure};
use super::{bench::Bench, contender::Contender, nchan, peer::PeerServer, uws};
use crate::load::{Job, ServerProtocol};

/// Something that is measured with several servers.
pub struct Workload {
    /// What `--only` calls it.
    pub name: String,
    /// What tables call it.
    pub title: String,
    /// Who takes part.
    pub contenders: Vec<Contender>,
    /// Whose figures they are about.
    pub ours: Contender,
    /// Whom it is compared with.
    pub base: Option<Contender>,
    /// What the generator does.
    pub job: Job,
    /// Settings of Wellhead.
    pub settings: Vec<(&'static str, String)>,
    /// What is read from the reports.
    pub measures: Vec<Measure>,
    /// How often.
    pub rounds: usize,
}

/// What all workloads are made from.
pub struct WorkloadSetup {
    quick: bool,
    rounds: usize,
    plain: Job,
    /// Nchan, uWebSockets.js and peers, as far as they are there.
    others: Vec<Contender>,
}

impl WorkloadSetup {
    fn workload(
        &self,
        name: &str,
        title: &str,
        contenders: &[Contender],
        job: Job,
        measures: Vec<Measure>,
    ) -> Workload {
        let is_base = |one: &Contender| one.is_baseline() && *one != Contender::Textbook;
        let base = contenders.iter().copied().find(|one| is_base(one) || *one == Contender::Undisturbed);
        Workload {
            name: name.to_owned(),
            title: title.to_owned(),
            contenders: contenders.to_vec(),
            ours: Contender::Wellhead,
            base,
            job,
            settings: Vec::new(),
            measures,
            rounds: self.rounds,
        }
    }

    fn with_others(&self, contenders: &[Contender]) -> Vec<Contender> {
        [contenders, &self.others].concat()
    }

    /// Peers that speak Pusher.
    fn pushers(&self) -> Vec<Contender> {
        let speaks =
            |one: &Contender| matches!(one, Contender::Peer(PeerServer { protocol: ServerProtocol::Pusher(_), .. }));
        self.others.iter().copied().filter(speaks).collect()
    }
}

/// All of them, or those that `only` names: one by its name, or those whose names begin with one of its words.
pub fn chosen(bench: &Bench, quick: bool, peers: &[PeerServer], only: Option<&str>) -> Result<Vec<Workload>> {
    let nchan = nchan::module().map(|_| Contender::Nchan);
    let uws = uws::is_there().then_some(Contender::Uws);
    // they live as long as the program
    let peers = peers.iter().map(|peer| Contender::Peer(Box::leak(Box::new(peer.clone()))));
    let setup = WorkloadSetup {
        quick,
        rounds: if quick { 1 } else { 3 },
        plain: bench.job()?,
        others: nchan.into_iter().chain(uws).chain(peers).collect(),
    };
    let mut all = fanout::all(&setup);
    all.extend(single::channels(&setup));
    all.extend(single::connections(bench, &setup)?);
    all.extend(single::overload(&setup));
    all.extend(single::patterns_and_clock(&setup));
    all.extend(several::cluster(&setup));
    if only.is_none_or(|only| only.split(',').any(|word| "pusher".starts_with(word) || word.starts_with("pusher"))) {
        all.extend(several::pusher(bench, &setup));
    }
    if only.is_none_or(|only| only.split(',').any(|word| "phoenix".starts_with(word) || word.starts_with("phoenix"))) {
        all.extend(several::phoenix(bench, &setup));
    }
    if only.is_none_or(|only| only.split(',').any(|word| "conveyor".starts_with(word) || word.starts_with("conveyor")))
    {
        all.extend(several::conveyor(bench, &setup));
    }
    let Some(only) = only else { return Ok(all) };
    let names: Vec<_> = all.iter().map(|workload| workload.name.clone()).collect();
    let is_wanted = |name: &str| {
        only.split(',').any(|word| name == word || (name.starts_with(word) && names.iter().all(|name| name != word)))
    };
    all.retain(|workload| is_wanted(&workload.name));
    ensure!(!all.is_empty(), "\"{only}\" is none of {}", names.join(", "));
    Ok(all)
}
