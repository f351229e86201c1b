//! Real processes of a cluster, and what is done to them: killed, stopped, restarted, cut off. Each test counts what was
//! lost, and holds everything that arrived to the promises (see `support/ledger.rs`).

mod clocks;
mod coordinator;
mod faults;
pub mod field;
mod forged;
mod formats;
mod gaps;
mod load;
mod mixed;
mod partition;
mod restarts;
mod tokens;
mod users;
