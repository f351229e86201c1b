//! From settings to a node that serves: its end of the bus, its roles, its listeners. What becomes of it then is
//! `serving`'s matter.

mod common;
mod handed;
mod joining;
mod memory;
mod serving;
#[cfg(test)]
mod tests;
mod welcome;

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use anyhow::{Context, Result, anyhow};
use prometheus_client::registry::Registry;
use socket2::{Domain, Socket, Type};
use wellhead_master::Master;
use wellhead_proto::{
    bus::Bus,
    dialect::contract::Dialect,
    ids::{NodeId, SocketIdSeal},
    membership::Heartbeat,
    tenants::TenantDirectory,
    units::Size,
};
use wellhead_slave::{
    Slave,
    settings::{Limits, TokenSettings},
};

pub use self::{
    handed::Handed,
    serving::{Again, Bound, RunningNode, Then},
};
use self::{
    joining::JoinBy,
    serving::{Listeners, Outlive},
    welcome::Welcome,
};
use crate::{
    admin,
    bus::local::LocalLimits,
    development::{self, Development},
    health::Health,
    http::metrics::AllRequests,
    remote::{self, RemoteSender},
    settings::{
        Settings,
        load::Loaded,
        place::SettingsError,
        plan::{Plan, Roles},
    },
    webhooks::{self, Webhooks},
};

/// Connections that the kernel queues before they are accepted: all clients come back at once after a restart.
const BACKLOG: i32 = 4_096;
/// File descriptors that connections of clients leave to everything else: the admin listener, the bus, files.
const SPARE_FDS: u64 = 256;

/// What outlives a node in its process: a node is built anew when another has its id, or its master changes.
pub struct NodeProcess {
    loaded: Loaded,
    plan: Plan,
    capacity: Capacity,
    /// The apps and who may use them, for whatever node there is.
    tenants: Arc<TenantDirectory>,
    /// How its nodes join the others, and the secret that all must share, unless the master of this machine is to give it.
    join: JoinBy,
    /// What there is in development mode only, where there is a master.
    development: Option<Development>,
    /// Where the first node listened: the next one takes the same ports.
    addresses: ListenAddresses,
    /// Second handles to what is listened to: clients of one node wait for the next.
    listening: Listeners,
    /// Which of them were open before this process, and stay so after it.
    outlive: Outlive,
}

/// Where a node listens. Backends and clients may have one address.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListenAddresses {
    /// Where backends call.
    pub master: Option<SocketAddr>,
    /// Where clients connect.
    pub slave: Option<SocketAddr>,
    /// Where health and metrics are served.
    pub admin: Option<SocketAddr>,
}

/// Run both roles with `settings` in this process.
///
/// # Errors
///
/// The settings contradict each other, or an address cannot be listened on.
pub async fn start(settings: Settings) -> Result<RunningNode> {
    NodeProcess::new(settings.into(), Roles::Standalone)?.bind().await?.serve().await
}

impl NodeProcess {
    /// A process with these `roles`.
    ///
    /// # Errors
    ///
    /// The settings contradict each other (a [`SettingsError`]).
    pub fn new(loaded: Loaded, roles: Roles) -> Result<Self> {
        Self::on_sockets(loaded, roles, Handed::default())
    }

    /// The same, on sockets that were handed over, as far as there are some.
    ///
    /// # Errors
    ///
    /// As [`NodeProcess::new`]; and if there is a socket that this process has no use for.
    pub fn on_sockets(mut loaded: Loaded, roles: Roles, mut handed: Handed) -> Result<Self> {
        let mut listening = handed.by_name(roles, &mut loaded.settings)?;
        let (mut plan, capacity) = check(&loaded, roles)?;
        handed.by_address(&plan, &mut listening)?;
        let outlive = listening.opened();
        let tenants = Arc::new(TenantDirectory::new(std::mem::take(&mut plan.tenants)));
        let mut development = None;
        let join = JoinBy::new(&plan.topology, roles, || {
            let secret = plan.secret.clone().map_or_else(|| random::<32>().map(Vec::from), Ok)?;
            if plan.development {
                let (made, throw_away) = Development::start(&loaded.settings, &secret)?;
                tenants.swap(development::tenants(&tenants.load(), &loaded.settings, throw_away, &secret));
                development = Some(made);
            }
            Ok(secret)
        })?;
        let addresses = ListenAddresses { master: plan.master, slave: plan.slave, admin: plan.admin };
        Ok(Self { loaded, plan, capacity, tenants, join, development, addresses, listening, outlive })
    }

    /// Set a node up and bind its listeners. Within an actix system. A slave that shares the machine with its master waits
    /// until that is there.
    ///
    /// # Errors
    ///
    /// The master's ways cannot be joined, the bus cannot be opened, or an address cannot be listened on.
    pub async fn bind(&mut self) -> Result<Bound> {
        let node = NodeId::from_random(u32::from_le_bytes(random()?));
        let me = Heartbeat::new(node, self.plan.roles.slave(), u64::from_le_bytes(random()?));
        let mut all = Registry::default();
        let registry = admin::register(&mut all);
        let limits = self.local_limits();
        let given = |welcome: &Welcome| {
            let (secret, keys) = welcome.secret_and_keys(&self.loaded, &self.plan)?;
            if let Some(keys) = keys {
                let tenants = self.tenants.load();
                self.tenants.swap(development::tenants(&tenants, &self.loaded.settings, keys, &secret));
            }
            Ok(secret)
        };
        let (prepared, secret) = self.join.prepare(me, limits, registry, given).await?;
        prepared.share(common::common(&self.loaded.settings, &self.plan, &self.tenants.load(), &secret));
        let handle = prepared.bus.clone();
        let bus = handle.bus();
        let dialects = self.plan.speak(&SocketIdSeal::new(&secret));
        let roles = self.plan.roles;
        let requests = AllRequests::new(registry);
        let master = roles.master().then(|| self.master(&bus, &dialects, registry));
        let webhooks = roles.slave().then(|| self.webhooks(node, registry));
        let slave =
            webhooks.as_ref().map(|webhooks| self.slave(node, &secret, &bus, dialects, webhooks.clone(), registry));
        if let Some(slave) = &slave {
            bus.attach(slave.bus_handler());
        }
        if let (Some(slave), Some(webhooks)) = (&slave, &webhooks) {
            webhooks.start(slave, &*bus);
        }
        let name = &self.loaded.settings.cluster.name;
        let welcome = || Welcome::new(name, &secret, self.development.as_ref());
        let welcomed = prepared.join(name, limits, welcome)?;
        let listeners = match self.listeners() {
            Ok(listeners) => listeners,
            Err(error) => {
                // the socket goes with us, and nobody waits for this node
                handle.stop().await;
                return Err(error);
            }
        };
        self.addresses = listeners.addresses()?;
        self.listening = listeners.try_clone()?;
        Ok(Bound {
            health: Health::new(bus),
            master,
            slave,
            webhooks,
            bus: handle,
            welcomed,
            requests,
            registry: all,
            listeners,
            outlive: self.outlive,
            addresses: self.addresses,
            clients: self.addresses.slave.or_else(|| self.loaded.settings.slave.listen.parse().ok()),
            tenants: self.tenants.clone(),
            warnings: self.plan.warnings.clone(),
            development: self.development.clone(),
            capacity: self.capacity,
            http_memory: self.loaded.settings.limits.http_memory.bytes(),
        })
    }

    /// What is printed for a newcomer, in development mode.
    #[must_use]
    pub fn notice(&self) -> Option<String> {
        let development = self.development.as_ref()?;
        let start_slave = (self.plan.roles == Roles::Master).then_some(self.loaded.file.as_deref());
        // a slave in another process is found where the settings say
        let settings = &self.loaded.settings.slave.listen;
        let slave = self.addresses.slave.map_or_else(|| settings.clone(), |address| address.to_string());
        Some(development.notice(self.addresses.master?, &slave, start_slave))
    }

    /// Is it development mode, here or at the master?
    #[must_use]
    pub fn is_development(&self) -> bool {
        self.plan.development
    }

    fn master(&self, bus: &Arc<dyn Bus>, dialects: &[Arc<dyn Dialect>], registry: &mut Registry) -> Master {
        let settings = &self.loaded.settings;
        let setup = wellhead_master::MasterSetup {
            bus: bus.clone(),
            tenants: self.tenants.clone(),
            dialects: dialects.to_vec(),
            body_limit: settings.limits.body.bytes(),
            grants_limit: settings.limits.grants.bytes(),
            keyless: self.plan.keyless(settings.master.open),
        };
        Master::new(setup, registry)
    }

    fn slave(
        &self,
        node: NodeId,
        secret: &[u8],
        bus: &Arc<dyn Bus>,
        dialects: Vec<Arc<dyn Dialect>>,
        webhooks: Webhooks,
        registry: &mut Registry,
    ) -> Slave {
        let settings = &self.loaded.settings;
        let jwt = &settings.jwt;
        let setup = wellhead_slave::SlaveSetup {
            node,
            settings: wellhead_slave::settings::Settings {
                max_connections: self.capacity.sockets,
                ..settings.slave.clone()
            },
            limits: match settings.limits.memory {
                Size(0) => Limits { memory: Size(memory::for_sockets()), ..settings.limits },
                _ => settings.limits,
            },
            tokens: TokenSettings {
                ttl: jwt.token_ttl,
                one_time: jwt.one_time_tokens,
                accept_jwt: jwt.accept_jwt_as_token,
                reference_memory: jwt.reference_memory,
                references_per_user: jwt.references_per_user,
                reference_lookups: jwt.reference_lookups,
            },
            cluster: settings.cluster.name.clone(),
            secret: secret.to_vec(),
            tenants: self.tenants.clone(),
            dialects,
            bus: bus.clone(),
            remote: Arc::new(RemoteSender::new(settings.webhooks.allow_private)),
            webhooks: Arc::new(webhooks),
        };
        Slave::new(setup, registry)
    }

    fn webhooks(&self, node: NodeId, registry: &mut Registry) -> Webhooks {
        Webhooks::new(node, self.tenants.clone(), &self.loaded.settings.webhooks, registry)
    }

    fn listeners(&self) -> Result<Listeners> {
        let ListenAddresses { master, slave, admin } = self.addresses;
        let one_port = self.plan.one_port;
        let open = |listening: &Option<TcpListener>, key, address: Option<SocketAddr>| match (listening, address) {
            (Some(listening), _) => listening.try_clone().map(Some).context("cannot copy the handle of a listener"),
            (None, address) => address.map(|address| listener(key, address)).transpose(),
        };
        Ok(Listeners {
            both: open(&self.listening.both, self.plan.master_key(), master.filter(|_| one_port))?,
            master: open(&self.listening.master, "master.listen", master.filter(|_| !one_port))?,
            slave: open(&self.listening.slave, "slave.listen", slave.filter(|_| !one_port))?,
            admin: open(&self.listening.admin, self.plan.roles.admin(), admin)?,
        })
    }

    /// The local bus carries whatever a body may hold.
    fn local_limits(&self) -> LocalLimits {
        const NAMES: usize = 64 * 1_024;
        const MOST: usize = 1 << 30;
        let LocalLimits { message, queue } = LocalLimits::default();
        let message = message.max(self.loaded.settings.limits.body.bytes().min(MOST) + NAMES);
        LocalLimits { message, queue: queue.max(4 * message) }
    }
}

/// Whatever can be known of the settings before anything is opened or anybody asked: all that `wellhead check-config` says.
/// Left to a start are the ports, which a running process may hold, and what only others know: the master of this machine,
/// and NATS.
///
/// # Errors
///
/// The settings contradict each other, or ask for more than this process may have (a [`SettingsError`]).
pub fn check(loaded: &Loaded, roles: Roles) -> Result<(Plan, Capacity)> {
    let plan = Plan::new(loaded, roles)?;
    if roles.slave() {
        webhooks::check(&plan.tenants, loaded.settings.webhooks.allow_private)
            .map_err(|bad| SettingsError::of(bad, &loaded.places))?;
        let settings = &loaded.settings;
        remote::check(&settings.apps.listed, &plan.tenants, settings.webhooks.allow_private)
            .map_err(|bad| SettingsError::of(bad, &loaded.places))?;
    }
    let capacity = Capacity::new(loaded, roles, plan.one_port)?;
    Ok((plan, capacity))
}

fn listener(key: &str, address: SocketAddr) -> Result<TcpListener> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok::<_, std::io::Error>(socket.into())
    };
    open().with_context(|| format!("cannot listen on {address} ({key})"))
}

/// How many connections the file descriptors of this process allow.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// WebSockets and HTTP connections of the slave's listener, or of the one of both roles, together.
    clients: usize,
    /// HTTP connections of that listener, each of which may become a WebSocket.
    slave_http: usize,
    /// HTTP connections of the master's listener.
    master_http: usize,
    /// WebSockets.
    sockets: usize,
}

impl Capacity {
    /// With as many file descriptors as this process can get.
    fn new(loaded: &Loaded, roles: Roles, one_port: bool) -> Result<Self> {
        let fds = rlimit::increase_nofile_limit(u64::MAX).context("cannot read the limit of file descriptors")?;
        let all = usize::try_from(fds.saturating_sub(SPARE_FDS).max(fds / 2)).unwrap_or(usize::MAX);
        let settings = &loaded.settings;
        let wanted = match settings.limits.http_connections {
            0 => usize::MAX,
            wanted => wanted,
        };
        // no client of the slave keeps a backend out
        let master_http = match (roles.master(), roles.slave()) {
            (true, true) => (all / 8).clamp(1, 512).min(wanted),
            _ => all.min(wanted),
        };
        let beside_master = if roles.master() && roles.slave() { all - master_http } else { all };
        // at one address who connects is not yet known to be a backend, but no socket takes a backend's place
        let clients = if one_port { all } else { beside_master };
        // all clients come at once after a restart, so that each place may be one for HTTP
        let slave_http = clients.min(wanted);
        // some are left to those who ask for tokens, or are told that there is no room for their sockets
        let most_sockets = beside_master - (beside_master / 8).min(128);
        let sockets = match settings.slave.max_connections {
            0 => most_sockets,
            wanted if wanted <= most_sockets || !roles.slave() => wanted,
            wanted => {
                let message = format!(
                    "slave.max_connections: {wanted} are more than the {most_sockets} that the limit of {fds} file \
                     descriptors leaves room for"
                );
                let place = loaded.places.of("slave.max_connections").cloned();
                let error = SettingsError::new(message).at(place);
                return Err(error.hint("raise the limit (ulimit -Hn, LimitNOFILE=)").into());
            }
        };
        Ok(Self { clients, slave_http, master_http, sockets })
    }
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("the system has no randomness: {error}"))?;
    Ok(bytes)
}
