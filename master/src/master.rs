//! The master itself: what its parts share, and how it is made.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use wellhead_proto::{
    bus::Bus,
    dialect::contract::{Dialect, Headers, Role},
    http_api::Router,
    push_key::Right,
    refusal::Refusal,
    tenants::TenantDirectory,
};

use crate::{
    dispatch::Dispatcher,
    keys::{self, Keyless},
    metrics::Metrics,
};

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
pub struct Master(pub(crate) Arc<MasterInner>);

/// What the clones of a master share.
pub struct MasterInner {
    pub tenants: Arc<TenantDirectory>,
    pub keyless: Keyless,
    pub router: Router,
    pub dispatcher: Dispatcher,
    pub metrics: Metrics,
    pub body_limit: usize,
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
