//! From settings to a node that serves: its end of the bus, its roles, its listeners. What becomes of it then is
//! `serving`'s matter.

mod serving;
#[cfg(test)]
mod tests;
mod welcome;

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use log::info;
use prometheus_client::registry::Registry;
use socket2::{Domain, Socket, Type};
use tokio::time::timeout;
use wellhead_master::Master;
use wellhead_proto::{
    app::Apps,
    bus::Bus,
    dialect::{self, contract::Dialect},
    ids::{NodeId, SocketIdSeal},
    jwt::Keyring,
    roster::Beat,
};
use wellhead_slave::{Slave, settings::Tokens};

pub use self::serving::{Again, Bound, Running};
use self::{serving::Listeners, welcome::Welcome};
use crate::{
    admin,
    bus::{Joining, Line, local::Hub, local::LocalLimits},
    development::Development,
    health::Health,
    http::metrics::AllRequests,
    settings::{
        Settings,
        load::Loaded,
        place::SettingsError,
        plan::{Plan, Roles, Way},
    },
};

/// Connections that the kernel keeps for us before we accept them: a herd that comes back after a restart.
const BACKLOG: i32 = 4_096;
/// File descriptors that sockets of clients leave to everything else.
const SPARE_FDS: u64 = 256;
/// A slave that finds its master within this time says nothing about waiting.
const SOON: Duration = Duration::from_millis(200);

/// What stays the same in a process, however often its node is built anew.
pub struct App {
    loaded: Loaded,
    plan: Plan,
    max_connections: usize,
    /// What everybody in the cluster must share, unless the master of this machine is to give it.
    trust: Option<Trust>,
    /// What there is in development mode only, where there is a master.
    development: Option<Development>,
    /// Where the first node listened: the next one takes the same ports.
    addresses: Addresses,
}

/// What tokens are signed and verified with.
#[derive(Clone)]
struct Trust {
    keys: Keyring,
    secret: Vec<u8>,
}

/// Where a node listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Addresses {
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
pub async fn start(settings: Settings) -> Result<Running> {
    App::new(settings.into(), Roles::Standalone)?.bind().await?.serve().await
}

impl App {
    /// A process with these `roles`.
    ///
    /// # Errors
    ///
    /// The settings contradict each other (a [`SettingsError`]).
    pub fn new(loaded: Loaded, roles: Roles) -> Result<Self> {
        let plan = Plan::new(&loaded, roles)?;
        let max_connections = max_connections(&loaded, roles)?;
        let given = roles == Roles::Slave && matches!(plan.way, Way::Socket(_));
        let mut development = None;
        let trust = match given {
            true => None,
            false => {
                let mut keys = plan.keys.clone();
                if plan.development {
                    let (made, throw_away) = Development::start(&loaded.settings)?;
                    (development, keys) = (Some(made), throw_away);
                }
                let secret = plan.secret.clone().map_or_else(|| random::<32>().map(Vec::from), Ok)?;
                Some(Trust { keys, secret })
            }
        };
        let addresses = Addresses { master: plan.master, slave: plan.slave, admin: plan.admin };
        Ok(Self { loaded, plan, max_connections, trust, development, addresses })
    }

    /// Set a node up and bind its listeners. Within an actix system. A slave that shares the machine with its master waits
    /// until that is there.
    ///
    /// # Errors
    ///
    /// The master's ways cannot be joined, the bus cannot be opened, or an address cannot be listened on.
    pub async fn bind(&mut self) -> Result<Bound> {
        let node = NodeId::from_random(u32::from_le_bytes(random()?));
        let me = Beat { node, slave: self.plan.roles.slave(), incarnation: u64::from_le_bytes(random()?) };
        let mut registry = Registry::with_prefix("wellhead");
        admin::register(&mut registry);
        let limits = self.local_limits();
        let (mut welcomed, mut link) = (None, None);
        let mut trust = self.trust.clone();
        let (line, joining) = match &self.plan.way {
            Way::Inside => (Line::Inside(Arc::new(Hub::new(node))), None),
            way => {
                let joining = Joining::new(me, &mut registry);
                if let (None, Way::Socket(path)) = (&trust, way) {
                    let mut found = joining.find_owner(path, limits)?;
                    let mut come = Box::pin(found.welcome.wait_for(Option::is_some));
                    if timeout(SOON, &mut come).await.is_err() {
                        info!(path:% = path.display(); "waiting for the master at {}", path.display());
                        let _ = come.as_mut().await;
                    }
                    drop(come);
                    let payload = found.welcome.borrow_and_update().clone().context("the local bus ended")?;
                    let welcome = Welcome::decode(&payload)?;
                    trust = Some(welcome.trust(&self.loaded, &self.plan)?);
                    welcomed = Some((welcome, found.welcome));
                    link = Some(found.link);
                }
                (joining.line(), Some(joining))
            }
        };
        let trust = trust.expect("a slave on the local bus was given it, everybody else made it");
        let bus = line.bus();
        let apps = Arc::new(self.plan.apps(&self.loaded.settings, trust.keys.clone()));
        let speaks = dialect::Settings { gusher: self.plan.prefixes.clone(), pusher: self.plan.pusher.clone() };
        let dialects = dialect::all(&speaks, &SocketIdSeal::new(&trust.secret));
        let roles = self.plan.roles;
        let requests = AllRequests::new(&mut registry);
        let master = roles.master().then(|| self.master(&bus, &apps, &dialects, &mut registry));
        let slave = roles.slave().then(|| self.slave(node, &trust, &bus, apps, dialects, &mut registry));
        if let Some(slave) = &slave {
            bus.attach(slave.inbox());
        }
        if let Some(joining) = joining {
            match (&self.plan.way, link) {
                (_, Some(link)) => joining.as_link(link),
                (Way::Nats(settings), None) => {
                    joining.over_nats(settings.clone(), &self.loaded.settings.cluster.name).context("no bus")?;
                }
                (Way::Socket(path), None) => {
                    let welcome = Welcome::new(&self.loaded.settings.cluster.name, &trust, self.development.as_ref());
                    joining.as_owner(path, welcome.encode(), limits)?;
                }
                (Way::Inside, None) => {}
            }
        }
        let listeners = match self.listeners() {
            Ok(listeners) => listeners,
            Err(error) => {
                // the socket goes with us, and nobody waits for this node
                line.stop().await;
                return Err(error);
            }
        };
        self.addresses = listeners.addresses()?;
        Ok(Bound {
            health: Health::new(bus),
            master,
            slave,
            line,
            welcomed,
            requests,
            registry,
            listeners,
            addresses: self.addresses,
            clients: self.addresses.slave.or_else(|| self.loaded.settings.slave.listen.parse().ok()),
            push_keys: self.loaded.settings.push_keys.clone(),
            warnings: self.plan.warnings.clone(),
            development: self.development.clone(),
        })
    }

    /// What is told to a newcomer, in development mode.
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

    fn master(
        &self,
        bus: &Arc<dyn Bus>,
        apps: &Arc<Apps>,
        dialects: &[Arc<dyn Dialect>],
        registry: &mut Registry,
    ) -> Master {
        let settings = &self.loaded.settings;
        let setup = wellhead_master::Setup {
            bus: bus.clone(),
            apps: apps.clone(),
            dialects: dialects.to_vec(),
            keys: settings.push_keys.clone(),
            body_limit: settings.limits.body.bytes(),
            grants_limit: settings.limits.grants.bytes(),
            keyless: self.plan.keyless(settings.master.open),
        };
        Master::new(setup, registry)
    }

    fn slave(
        &self,
        node: NodeId,
        trust: &Trust,
        bus: &Arc<dyn Bus>,
        apps: Arc<Apps>,
        dialects: Vec<Arc<dyn Dialect>>,
        registry: &mut Registry,
    ) -> Slave {
        let settings = &self.loaded.settings;
        let jwt = &settings.jwt;
        let setup = wellhead_slave::Setup {
            node,
            settings: wellhead_slave::settings::Settings {
                max_connections: self.max_connections,
                ..settings.slave.clone()
            },
            limits: settings.limits,
            tokens: Tokens { ttl: jwt.token_ttl, one_time: jwt.one_time_tokens, accept_jwt: jwt.accept_jwt_as_token },
            cluster: settings.cluster.name.clone(),
            secret: trust.secret.clone(),
            apps,
            dialects,
            bus: bus.clone(),
        };
        Slave::new(setup, registry)
    }

    fn listeners(&self) -> Result<Listeners> {
        let Addresses { master, slave, admin } = self.addresses;
        Ok(Listeners {
            master: master.map(|address| listener("master.listen", address)).transpose()?,
            slave: slave.map(|address| listener("slave.listen", address)).transpose()?,
            admin: admin.map(|address| listener(self.plan.roles.admin(), address)).transpose()?,
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

/// How many sockets of clients this process can hold, with as many file descriptors as it can get.
fn max_connections(loaded: &Loaded, roles: Roles) -> Result<usize> {
    let fds = rlimit::increase_nofile_limit(u64::MAX).context("cannot read the limit of file descriptors")?;
    let room = usize::try_from(fds.saturating_sub(SPARE_FDS).max(fds / 2)).unwrap_or(usize::MAX);
    match loaded.settings.slave.max_connections {
        0 => Ok(room),
        wanted if wanted <= room || !roles.slave() => Ok(wanted),
        wanted => {
            let message = format!(
                "slave.max_connections: {wanted} are more than the {room} that the limit of {fds} file descriptors \
                 leaves room for"
            );
            let place = loaded.places.of("slave.max_connections").cloned();
            Err(SettingsError::new(message).at(place).hint("raise the limit (ulimit -n, LimitNOFILE=)").into())
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("the system has no randomness: {error}"))?;
    Ok(bytes)
}
