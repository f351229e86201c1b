//! The keeper on its feet: what this slave's channels and the bus tell it, and what becomes of what it says. Facts are
//! counted and logged; webhooks and presence members will hear of them here.

use std::sync::{Arc, Mutex, PoisonError};

use log::debug;
use wellhead_proto::{
    bus::{Bus, BusState},
    ids::{ChannelKey, NodeId},
    report::Report,
};

use crate::{
    keeper::{Fact, Keeper, Outcome},
    metrics::Metrics,
};

/// Reports that travel in one letter.
const TOGETHER: usize = 1_000;

/// This slave's keeper, shared by its threads and its bus.
pub struct Keeping {
    me: NodeId,
    keeper: Mutex<Keeper>,
    bus: Arc<dyn Bus>,
    metrics: Metrics,
}

impl Keeping {
    /// The keeper of the slave `me`, which reports over `bus`.
    pub fn new(me: NodeId, bus: Arc<dyn Bus>, metrics: Metrics) -> Self {
        Self { me, keeper: Mutex::new(Keeper::new(me)), bus, metrics }
    }

    /// The first of this slave's sockets came to `channel`, or the last one left. Called in the order in which it
    /// happened, channel by channel.
    pub fn held(&self, channel: &ChannelKey, held: bool) {
        self.with(|keeper, out| keeper.held(channel, held, out));
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

    /// What comes of it leaves under the lock, so that it leaves in the order in which it was decided.
    fn with(&self, act: impl FnOnce(&mut Keeper, &mut Outcome)) {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = Outcome::default();
        act(&mut keeper, &mut out);
        for (to, reports) in out.letters(TOGETHER) {
            self.bus.report(to, reports);
        }
        for fact in out.facts {
            let (what, ChannelKey { app, name }) = match &fact {
                Fact::Occupied(channel) => ("channel_occupied", channel),
                Fact::Vacated(channel) => ("channel_vacated", channel),
            };
            self.metrics.fact(what);
            debug!(fact = what, app_id:% = app, channel:% = name; "{what}: {name} of {app}");
        }
    }
}
