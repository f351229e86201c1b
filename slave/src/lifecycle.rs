//! What a slave does from time to time, and when the cluster around it changes. None of it keeps the slave alive.

use std::{
    sync::{Arc, Weak},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use log::warn;
use tokio::{sync::watch, time::timeout};
use wellhead_proto::{bus::BusState, membership::LEASE, refusal::CloseCause};

use crate::state::SlaveState;

/// Between two sweeps of tokens.
const SWEEP: Duration = Duration::from_secs(60);
/// How long sockets stay when the bus is gone: their clients would wait for pushes that cannot come.
const WITHOUT_BUS: Duration = Duration::from_secs(5);

/// Begin, on the calling thread.
pub fn start(state: &Arc<SlaveState>) {
    actix_rt::spawn(sweep(Arc::downgrade(state)));
    actix_rt::spawn(watch_bus(Arc::downgrade(state), state.bus.state()));
    actix_rt::spawn(watch_roster(Arc::downgrade(state), state.bus.state()));
    state.presence.start_following(&state.registries);
    let slave = Arc::downgrade(state);
    state.coordination.start(move || {
        if let Some(slave) = slave.upgrade() {
            slave.presence.refetch(&slave.registries);
        }
    });
}

/// Forget references to tokens that nobody used.
async fn sweep(slave: Weak<SlaveState>) {
    loop {
        actix_rt::time::sleep(SWEEP).await;
        let Some(slave) = slave.upgrade() else { return };
        slave.tokens.sweep(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    }
}

/// Tell every socket to come back, when the bus has been down for too long.
async fn watch_bus(slave: Weak<SlaveState>, mut state: watch::Receiver<BusState>) {
    // an error says that the bus is gone for good, with the process
    while state.wait_for(|state| !state.serves()).await.is_ok() {
        if timeout(WITHOUT_BUS, state.wait_for(BusState::serves)).await.is_ok() {
            continue;
        }
        let Some(slave) = slave.upgrade() else { return };
        let open = slave.admission.open();
        warn!(open; "the bus has been down for {} s: {open} sockets are told to come back", WITHOUT_BUS.as_secs());
        // a client that came back to this node at once would be refused
        slave.registries.close_sockets(CloseCause::ShuttingDownAlone, None);
        drop(slave);
        if state.wait_for(BusState::serves).await.is_err() {
            return;
        }
    }
}

/// Tell the coordinator who is alive, and see to it that what is known of members is right afterwards: once at once, and once
/// more when it has been quiet for a lease, when what a former coordinator announced late has arrived.
async fn watch_roster(slave: Weak<SlaveState>, mut state: watch::Receiver<BusState>) {
    let mut changed = true;
    loop {
        let now = state.borrow_and_update().clone();
        match slave.upgrade() {
            Some(slave) if !slave.admission.is_draining() => {
                slave.coordination.bus_changed(&now);
                if now.up && now.roster_known {
                    slave.presence.refetch(&slave.registries);
                }
            }
            Some(_) => {}
            None => return,
        }
        let patience = if changed { LEASE } else { Duration::MAX };
        changed = match timeout(patience, state.changed()).await {
            Ok(Ok(())) => true,
            Ok(Err(_)) => return,
            Err(_) => false,
        };
    }
}
