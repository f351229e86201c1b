//! A node that serves, and its shutdown: first its listeners, then the bus, its sockets, its requests.

use std::{
    fmt,
    net::{SocketAddr, TcpListener},
    num::NonZero,
    sync::Arc,
    thread,
    time::Duration,
};

use actix_rt::task::JoinHandle;
use actix_server::{Server, ServerHandle};
use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use log::{debug, info, warn};
use prometheus_client::registry::Registry;
use socket2::SockRef;
use tokio::{
    sync::{Semaphore, watch},
    time::sleep,
};
use wellhead_master::Master;
use wellhead_proto::tenants::TenantDirectory;
use wellhead_slave::Slave;

use super::{Capacity, ListenAddresses, welcome::Welcome};
use crate::{
    admin::{Admin, MetricsGuard},
    bus::BusHandle,
    development::Development,
    health::{Health, VERSION},
    http::{
        self,
        both_roles::BothRoles,
        budget::Budget,
        connections::{Bounds, Descriptors},
        metrics::AllRequests,
        service::HttpService,
        try_page::TryPage,
    },
    webhooks::Webhooks,
};

/// How long requests under way may take to end once all sockets are closed, in seconds.
const SHUTDOWN_SECONDS: u64 = 5;

/// HTTP connections that the admin listener may have, whatever the others have.
const ADMIN_CONNECTIONS: usize = 64;

/// How long the server takes to let go of its listeners.
const LET_GO: Duration = Duration::from_millis(20);

/// What the master of this machine gave a slave, and what it gives next.
pub(super) type Welcomed = (Welcome, watch::Receiver<Option<Bytes>>);

/// A node that is set up, with its listeners bound, that serves nobody yet.
pub struct Bound {
    pub(super) master: Option<Master>,
    pub(super) slave: Option<Slave>,
    pub(super) webhooks: Option<Webhooks>,
    pub(super) bus: BusHandle,
    pub(super) welcomed: Option<Welcomed>,
    pub(super) health: Health,
    pub(super) requests: AllRequests,
    pub(super) registry: Registry,
    pub(super) listeners: Listeners,
    pub(super) outlive: Outlive,
    pub(super) addresses: ListenAddresses,
    /// Where clients connect, here or in another process.
    pub(super) clients: Option<SocketAddr>,
    pub(super) tenants: Arc<TenantDirectory>,
    pub(super) warnings: Vec<String>,
    pub(super) development: Option<Development>,
    pub(super) capacity: Capacity,
    /// What unfinished requests and unsent replies may hold, in bytes.
    pub(super) http_memory: usize,
}

#[derive(Default)]
pub(super) struct Listeners {
    /// The one of both roles, instead of one for each.
    pub(super) both: Option<TcpListener>,
    pub(super) master: Option<TcpListener>,
    pub(super) slave: Option<TcpListener>,
    pub(super) admin: Option<TcpListener>,
}

/// Which listening sockets outlive the process, since it did not open them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outlive {
    both: bool,
    master: bool,
    slave: bool,
    admin: bool,
}

impl Listeners {
    pub(super) fn addresses(&self) -> Result<ListenAddresses> {
        let address = |listener: &Option<TcpListener>| listener.as_ref().map(TcpListener::local_addr).transpose();
        let both = address(&self.both)?;
        Ok(ListenAddresses {
            master: address(&self.master)?.or(both),
            slave: address(&self.slave)?.or(both),
            admin: address(&self.admin)?,
        })
    }

    /// Those that are open.
    pub(super) fn opened(&self) -> Outlive {
        let Self { both, master, slave, admin } = self;
        let [both, master, slave, admin] = [both, master, slave, admin].map(Option::is_some);
        Outlive { both, master, slave, admin }
    }

    /// Second handles.
    pub(super) fn try_clone(&self) -> Result<Self> {
        let clone = |listener: &Option<TcpListener>| listener.as_ref().map(TcpListener::try_clone).transpose();
        Ok(Self {
            both: clone(&self.both)?,
            master: clone(&self.master)?,
            slave: clone(&self.slave)?,
            admin: clone(&self.admin)?,
        })
    }

    /// Listen no more, whoever else has a handle; but leave those alone that outlive us.
    fn close(&self, outlive: Outlive) {
        let Self { both, master, slave, admin } = self;
        let all = [(both, outlive.both), (master, outlive.master), (slave, outlive.slave), (admin, outlive.admin)];
        for (listener, _) in all.into_iter().filter(|(_, outlives)| !outlives) {
            if let Some(listener) = listener
                && let Err(error) = SockRef::from(listener).shutdown(std::net::Shutdown::Both)
            {
                debug!("closing a listener: {error}");
            }
        }
    }
}

/// A node that serves.
pub struct RunningNode {
    /// Where.
    pub addresses: ListenAddresses,
    /// The apps and who may use them; swapped while it serves.
    pub tenants: Arc<TenantDirectory>,
    slave: Option<Slave>,
    webhooks: Option<Webhooks>,
    bus: BusHandle,
    welcomed: Option<Welcomed>,
    health: Health,
    server: ServerHandle,
    task: JoinHandle<std::io::Result<()>>,
    /// Second handles to the listeners, to close them at the end.
    listeners: Listeners,
    outlive: Outlive,
}

/// What follows the shutdown of a node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Then {
    /// The end of the process.
    End,
    /// Another node in the same process, on the same sockets.
    Again,
}

/// Why a node is to be stopped and built anew, in the same process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Again {
    /// Another node has its number.
    Clash,
    /// The master of this machine is another one, with another secret or key.
    Welcome,
}

impl fmt::Display for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clash => "another node has the number of this one",
            Self::Welcome => "the master was restarted, with another secret or key",
        })
    }
}

impl Bound {
    /// Begin to serve; back when every worker does.
    ///
    /// # Errors
    ///
    /// The workers do not start.
    pub async fn serve(self) -> Result<RunningNode> {
        let Self { master, slave, bus, welcomed, health, requests, registry, listeners, capacity, .. } = self;
        let (addresses, outlive, tenants, webhooks) = (self.addresses, self.outlive, self.tenants, self.webhooks);
        let workers = thread::available_parallelism().map_or(1, NonZero::get);
        let handles = listeners.try_clone()?;
        let mut builder = Server::build()
            .workers(workers)
            .disable_signals()
            .shutdown_timeout(SHUTDOWN_SECONDS)
            // the slave counts its sockets itself, and above the limit a 503 says more than silence
            .max_concurrent_connections(1 << 20);
        let budget = Budget::new(self.http_memory);
        let descriptors = Descriptors::new(capacity.clients, slave.clone());
        if let Some(listener) = listeners.admin {
            let local = addresses.admin.is_none_or(|at| at.ip().is_loopback());
            let guard = match &master {
                _ if local => MetricsGuard::Nobody,
                Some(master) => MetricsGuard::Master(master.clone()),
                None => MetricsGuard::PushKeys(tenants.clone()),
            };
            let service =
                HttpService::new(Admin::new(registry, guard), health.clone(), requests.of("admin"), budget.clone());
            builder = http::listen(builder, listener, service, Bounds::of_its_own(ADMIN_CONNECTIONS), || ())?;
        }
        let page = self.development.zip(self.clients).map(|(development, at)| TryPage::new(development, at));
        let started = Arc::new(Semaphore::new(0));
        let mut awaited = 0;
        let one_port = listeners.both.is_some();
        if let (Some(listener), Some(master), Some(slave)) = (listeners.both, master.clone(), slave.clone()) {
            let both = BothRoles { master, slave };
            let service = HttpService::new(both, health.clone(), requests.of("standalone"), budget.clone());
            let service = service.with_page(page.clone());
            let started = started.clone();
            let bounds = Bounds::sharing(capacity.slave_http, &descriptors);
            builder = http::listen(builder, listener, service, bounds, move || started.add_permits(1))?;
            awaited = u32::try_from(workers).unwrap_or(u32::MAX);
        }
        if let (Some(listener), Some(master)) = (listeners.master, master) {
            let service =
                HttpService::new(master, health.clone(), requests.of("master"), budget.clone()).with_page(page);
            builder = http::listen(builder, listener, service, Bounds::of_its_own(capacity.master_http), || ())?;
        }
        if let (Some(listener), Some(slave)) = (listeners.slave, slave.clone()) {
            let service = HttpService::new(slave, health.clone(), requests.of("slave"), budget);
            let started = started.clone();
            let bounds = Bounds::sharing(capacity.slave_http, &descriptors);
            builder = http::listen(builder, listener, service, bounds, move || started.add_permits(1))?;
            awaited = u32::try_from(workers).unwrap_or(u32::MAX);
        }
        let server = builder.run();
        let handle = server.handle();
        let mut task = actix_rt::spawn(server);
        tokio::select! {
            permits = started.acquire_many(awaited) => drop(permits),
            ended = &mut task => {
                ended.context("the servers panicked")?.context("the servers did not start")?;
                return Err(anyhow!("the servers ended before they started"));
            }
        }

        for warning in self.warnings {
            warn!("{warning}");
        }
        let ListenAddresses { master, slave: clients, admin } = addresses;
        let roles = match one_port {
            true => [("standalone", master), ("admin", admin), ("", None)],
            false => [("master", master), ("slave", clients), ("admin", admin)],
        };
        for (role, address) in roles {
            if let Some(address) = address {
                info!(role, address:% = address; "{role} listens on {address}");
            }
        }
        health.serving();
        info!(version = VERSION, workers = workers as u64; "ready");
        let listeners = handles;
        let server = handle;
        Ok(RunningNode { addresses, tenants, slave, webhooks, bus, welcomed, health, server, task, listeners, outlive })
    }
}

impl RunningNode {
    /// Resolves when this node must be built anew, with the reason.
    ///
    /// # Errors
    ///
    /// The servers ended by themselves, which they should not.
    pub async fn over(&mut self) -> Result<Again> {
        tokio::select! {
            ended = &mut self.task => Err(match ended {
                Ok(Ok(())) => anyhow!("the servers ended"),
                Ok(Err(error)) => anyhow!(error).context("the servers ended"),
                Err(error) => anyhow!(error).context("the servers ended"),
            }),
            () = self.bus.conflict() => Ok(Again::Clash),
            () = changed(&mut self.welcomed) => Ok(Again::Welcome),
        }
    }

    /// End in order: want no more work, close the listeners, say goodbye to the other nodes, tell every client to come
    /// back, let requests under way finish, hang up. Listeners stay open that somebody serves after this node: another
    /// process that they are handed to, or another node of this one.
    pub async fn stop(self, then: Then) {
        let connections = self.slave.as_ref().map_or(0, Slave::connections);
        info!(connections = connections as u64; "shutting down");
        self.health.ending();
        self.server.pause().await;
        let outlived = then == Then::Again || self.outlive.slave || self.outlive.both;
        if then == Then::End {
            // it answers before it has let go of its listeners, and would log an error for each that is closed before
            sleep(LET_GO).await;
            // paused, the server would still hold its listeners open, and clients would wait for nothing; closed, they
            // are refused at once and go elsewhere
            self.listeners.close(self.outlive);
        }
        if let Some(slave) = &self.slave {
            slave.prepare_to_go(outlived);
        }
        self.bus.goodbye().await;
        if let Some(slave) = &self.slave {
            slave.drain().await;
        }
        if let Some(webhooks) = &self.webhooks {
            webhooks.drain().await;
        }
        self.server.stop(true).await;
        self.bus.stop().await;
        info!("ended");
    }
}

/// Resolves when the master of this machine gives something else.
async fn changed(welcomed: &mut Option<Welcomed>) {
    let Some((welcome, given)) = welcomed else { return std::future::pending().await };
    let differs = |given: &Option<Bytes>| {
        // one that cannot be read is another one, too: the next node says why it cannot live with it
        given.as_ref().is_some_and(|given| Welcome::decode(given).ok().as_ref() != Some(&*welcome))
    };
    if given.wait_for(differs).await.is_err() {
        // the link ended, and with it this process
        std::future::pending().await
    }
}
