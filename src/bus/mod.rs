//! Settings to bus: the only `match` over backends.

mod confirms;
mod lobby;
pub mod cluster;
pub mod local;
pub mod metrics;
pub mod nats;
mod outage;
pub mod wire;

use std::sync::Arc;

use wellhead_proto::ids::NodeId;

use crate::settings::{self, Cluster};

/// The bus that `cluster` asks for, for a process whose slave is `node`.
#[must_use]
pub fn open(cluster: &Cluster, node: NodeId) -> Arc<local::Hub> {
    match cluster.bus {
        settings::Bus::Local => Arc::new(local::Hub::new(node)),
    }
}
