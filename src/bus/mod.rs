//! Settings to bus: the only `match` over backends.

pub mod local;

use std::sync::Arc;

use crate::settings::{self, Cluster};

/// The bus that `cluster` asks for.
#[must_use]
pub fn open(cluster: &Cluster) -> Arc<local::Hub> {
    match cluster.bus {
        settings::Bus::Local => Arc::new(local::Hub::default()),
    }
}
