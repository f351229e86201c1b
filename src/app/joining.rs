//! How a node joins its cluster: a state per way to join, each holding what that way needs and nothing else.
//!
//! ```text
//! JoinBy ──prepare──▶ Prepared ──join──▶ the bus carries
//!         (a slave that shares the machine with its master waits for it here)
//! ```

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use log::info;
use prometheus_client::registry::Registry;
use tokio::time::timeout;
use wellhead_proto::membership::Heartbeat;

use super::{serving::Welcomed, welcome::Welcome};
use crate::{
    bus::{
        BusHandle, ClusterBuilder,
        cluster::Common,
        local::{InProcessBus, LocalLimits, UnixClient},
        nats::NatsSettings,
    },
    settings::plan::{Roles, Topology},
};

/// A slave that finds its master within this time says nothing about waiting.
const SOON: Duration = Duration::from_millis(200);

/// What all nodes of the cluster share: it signs connection tokens, and what nodes say to each other.
type ClusterSecret = Vec<u8>;

/// The way a process joins, and what it signs with, unless that is to be given.
pub(super) enum JoinBy {
    /// There are no other nodes.
    Alone(ClusterSecret),
    /// Over NATS servers.
    Nats(Box<NatsSettings>, ClusterSecret),
    /// As the owner of the socket of this machine, who gives the others what they need.
    Owner(PathBuf, ClusterSecret),
    /// Through the socket of this machine; its owner gives what this node needs.
    Guest(PathBuf),
}

/// A node that is about to join: its bus can be held, and carries nothing yet.
pub(super) struct Prepared {
    pub(super) bus: BusHandle,
    last: LastStep,
}

/// What is left to be done.
enum LastStep {
    None,
    Nats(ClusterBuilder, Box<NatsSettings>),
    Owner(ClusterBuilder, PathBuf),
    Guest(ClusterBuilder, UnixClient, Welcome),
}

impl JoinBy {
    /// The way that `topology` tells of; `secret` makes what this process is not given.
    ///
    /// # Errors
    ///
    /// As `secret`.
    pub(super) fn new(
        topology: &Topology,
        roles: Roles,
        secret: impl FnOnce() -> Result<ClusterSecret>,
    ) -> Result<Self> {
        Ok(match topology {
            Topology::Inside => Self::Alone(secret()?),
            Topology::Nats(settings) => Self::Nats(settings.clone(), secret()?),
            Topology::Socket(path) if roles == Roles::Slave => Self::Guest(path.clone()),
            Topology::Socket(path) => Self::Owner(path.clone(), secret()?),
        })
    }

    /// Prepare the node whose heartbeat is `me`; what it signs with, which `given` makes of the owner's welcome where
    /// it is given.
    ///
    /// # Errors
    ///
    /// The socket cannot be one, or its owner and this node do not belong together.
    pub(super) async fn prepare(
        &self,
        me: Heartbeat,
        limits: LocalLimits,
        registry: &mut Registry,
        given: impl FnOnce(&Welcome) -> Result<ClusterSecret>,
    ) -> Result<(Prepared, ClusterSecret)> {
        let mut builder = || ClusterBuilder::new(me, &actix_rt::Arbiter::current(), registry);
        Ok(match self {
            Self::Alone(secret) => {
                let bus = BusHandle::Inside(Arc::new(InProcessBus::new(me.node)));
                (Prepared { bus, last: LastStep::None }, secret.clone())
            }
            Self::Nats(settings, secret) => {
                let builder = builder();
                let bus = builder.bus();
                (Prepared { bus, last: LastStep::Nats(builder, settings.clone()) }, secret.clone())
            }
            Self::Owner(path, secret) => {
                let builder = builder();
                let bus = builder.bus();
                (Prepared { bus, last: LastStep::Owner(builder, path.clone()) }, secret.clone())
            }
            Self::Guest(path) => {
                let builder = builder();
                let mut client = builder.find_owner(path, limits)?;
                let welcome = welcomed(&mut client, path).await?;
                let secret = given(&welcome)?;
                let bus = builder.bus();
                (Prepared { bus, last: LastStep::Guest(builder, client, welcome) }, secret)
            }
        })
    }
}

/// What the owner of the socket gives, as soon as there is one.
async fn welcomed(client: &mut UnixClient, path: &Path) -> Result<Welcome> {
    let mut come = Box::pin(client.welcome.wait_for(Option::is_some));
    if timeout(SOON, &mut come).await.is_err() {
        info!(path:% = path.display(); "waiting for the master at {}", path.display());
        let _ = come.as_mut().await;
    }
    drop(come);
    let payload = client.welcome.borrow_and_update().clone().context("the local bus ended")?;
    Welcome::decode(&payload)
}

impl Prepared {
    /// What this node must have in common with the others, if there can be any. To be told before it joins.
    pub(super) fn share(&self, common: Common) {
        match &self.last {
            LastStep::None => {}
            LastStep::Nats(builder, _) | LastStep::Owner(builder, _) | LastStep::Guest(builder, ..) => {
                builder.share(common);
            }
        }
    }

    /// Join the cluster called `name`. An owner gives `welcome` to everybody who comes; of a guest, what it was given, and will be
    /// given next.
    ///
    /// # Errors
    ///
    /// The bus cannot be opened.
    pub(super) fn join(
        self,
        name: &str,
        limits: LocalLimits,
        welcome: impl FnOnce() -> Welcome,
    ) -> Result<Option<Welcomed>> {
        match self.last {
            LastStep::None => {}
            LastStep::Nats(builder, settings) => builder.over_nats(*settings, name).context("no bus")?,
            LastStep::Owner(builder, path) => builder.as_owner(&path, welcome().encode(), limits)?,
            LastStep::Guest(builder, client, welcome) => {
                builder.as_guest(client.pubsub);
                return Ok(Some((welcome, client.welcome)));
            }
        }
        Ok(None)
    }
}
