//! The master: the HTTP API of backends, their push keys, and the way onto the bus.

mod api;
mod dispatch;
mod error;
pub mod keys;
mod metrics;
pub mod settings;

use std::sync::Arc;

use prometheus_client::registry::Registry;
use wellhead_proto::{
    bus::Bus,
    dialect::contract::{Dialect, Headers, Right, Role},
    http_api::Router,
    refusal::Refusal,
    tenants::TenantDirectory,
};

pub use api::AdmittedRequest;

use crate::{dispatch::Dispatcher, metrics::Metrics};

/// Who may use the routes that need a push key, as long as none is configured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Keyless {
    /// Programs of this machine, but no request that a browser or a proxy forwards: for a master on a loopback address.
    ThisMachine,
    /// Everybody, because the settings say so.
    Everybody,
    /// Nobody: other credentials protect what other machines can reach.
    Nobody,
}

/// What a master needs to start.
pub struct MasterSetup {
    /// The way to the slaves.
    pub bus: Arc<dyn Bus>,
    /// The apps that are served, the keys of their tokens, and who may call: if no push key is there, local programs may.
    pub tenants: Arc<TenantDirectory>,
    /// The dialects that are served.
    pub dialects: Vec<Arc<dyn Dialect>>,
    /// The largest body that is read, in bytes.
    pub body_limit: usize,
    /// What the permissions of a user may come to, written as a JSON list, in bytes.
    pub grants_limit: usize,
    /// Whom the routes that push keys guard serve, as long as there are none.
    pub keyless: Keyless,
}

/// A master. Clones are the same one.
#[derive(Clone)]
pub struct Master(Arc<MasterInner>);

struct MasterInner {
    tenants: Arc<TenantDirectory>,
    keyless: Keyless,
    router: Router,
    dispatcher: Dispatcher,
    metrics: Metrics,
    body_limit: usize,
}

impl Master {
    /// A master that counts into `metrics`, whose names bear the prefix that the binary chose.
    pub fn new(setup: MasterSetup, metrics: &mut Registry) -> Self {
        let metrics = Metrics::new(metrics);
        Self(Arc::new(MasterInner {
            tenants: setup.tenants,
            keyless: setup.keyless,
            router: Router::new(Role::Master, setup.dialects),
            dispatcher: Dispatcher::new(setup.bus, setup.grants_limit, metrics.clone()),
            metrics,
            body_limit: setup.body_limit,
        }))
    }

    /// Does the request bear a push key with `right`? Without any keys configured, none does.
    ///
    /// # Errors
    ///
    /// It does not.
    pub fn authorise(&self, headers: &dyn Headers, right: Right) -> Result<(), Refusal> {
        let admitted = keys::admit_holder(&self.0.tenants.load(), headers, right);
        admitted.map(drop).inspect_err(|why| self.0.metrics.not_admitted(why))
    }
}

#[cfg(test)]
mod tests;
