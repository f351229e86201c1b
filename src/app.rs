//! From settings to a running process and to its end: bus, roles, listeners, servers, and all of it in reverse.

use std::{
    net::{SocketAddr, TcpListener},
    num::NonZero,
    sync::Arc,
    thread,
};

use actix_rt::task::JoinHandle;
use actix_server::{Server, ServerHandle};
use anyhow::{Context, Result, anyhow};
use log::{debug, info, warn};
use prometheus_client::registry::Registry;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::sync::Semaphore;
use wellhead_master::Master;
use wellhead_proto::{
    bus::Bus,
    dialect,
    ids::{NodeId, SocketIdSeal},
};
use wellhead_slave::{
    Slave,
    settings::{Limits, Tokens},
};

use crate::{
    admin::{self, Admin},
    bus::{self, local::Hub},
    development::Development,
    health::{Health, VERSION},
    http::{self, door::Door, metrics::AllRequests, try_page::TryPage},
    settings::{Settings, load::Loaded, place::SettingsError, plan::Plan},
};

/// Connections that the kernel keeps for us before we accept them: a herd that comes back after a restart.
const BACKLOG: i32 = 4_096;
/// File descriptors that sockets of clients leave to everything else.
const SPARE_FDS: u64 = 256;
/// How long requests under way may take to end once all sockets are closed, in seconds.
const SHUTDOWN_SECONDS: u64 = 5;

/// Everything is set up and the listeners are bound, but nobody is served yet.
pub struct Bound {
    master: Master,
    slave: Slave,
    bus: Arc<Hub>,
    health: Health,
    requests: AllRequests,
    registry: Registry,
    listeners: Listeners,
    warnings: Vec<String>,
    /// What there is in development mode only.
    pub development: Option<Development>,
}

struct Listeners {
    master: TcpListener,
    slave: TcpListener,
    admin: Option<TcpListener>,
}

/// A process that serves.
pub struct Running {
    /// Where backends call.
    pub master: SocketAddr,
    /// Where clients connect.
    pub slave: SocketAddr,
    /// Where health and metrics are served.
    pub admin: Option<SocketAddr>,
    /// What there is in development mode only.
    pub development: Option<Development>,
    /// The slave itself, for tests and benches.
    pub floor: Slave,
    bus: Arc<Hub>,
    health: Health,
    server: ServerHandle,
    task: JoinHandle<std::io::Result<()>>,
    /// Second handles to the listeners, to close them at the end.
    listeners: Vec<TcpListener>,
}

/// Run both roles with `settings` in this process.
///
/// # Errors
///
/// The settings contradict each other, or an address cannot be listened on.
pub async fn start(settings: Settings) -> Result<Running> {
    bind(&settings.into())?.serve().await
}

/// Set everything up and bind the listeners. Within an actix system.
///
/// # Errors
///
/// The settings contradict each other (a [`SettingsError`]), or an address cannot be listened on.
pub fn bind(loaded: &Loaded) -> Result<Bound> {
    let plan = Plan::new(loaded)?;
    let settings = &loaded.settings;
    let max_connections = max_connections(loaded)?;
    let (development, keys) = match plan.development {
        true => {
            let (development, keys) = Development::start(settings)?;
            (Some(development), keys)
        }
        false => (None, plan.keys.clone()),
    };
    let secret = match &plan.secret {
        Some(secret) => secret.clone(),
        None => random::<32>()?.to_vec(),
    };
    let apps = Arc::new(plan.apps(settings, keys));
    let dialects = dialect::all(&dialect::Settings { gusher: plan.prefixes.clone() }, &SocketIdSeal::new(&secret));

    let node = NodeId::from_random(u32::from_le_bytes(random()?));
    let bus = bus::open(&settings.cluster, node);
    let mut registry = Registry::with_prefix("wellhead");
    admin::register(&mut registry);
    let requests = AllRequests::new(&mut registry);
    let master = Master::new(
        wellhead_master::Setup {
            bus: bus.clone(),
            apps: apps.clone(),
            dialects: dialects.clone(),
            keys: settings.push_keys.clone(),
            body_limit: settings.limits.body.bytes(),
            open: settings.master.open && !plan.master.ip().is_loopback(),
        },
        &mut registry,
    );
    let jwt = &settings.jwt;
    let limits = &settings.limits;
    let slave = Slave::new(
        wellhead_slave::Setup {
            node,
            settings: wellhead_slave::settings::Settings { max_connections, ..settings.slave.clone() },
            limits: Limits {
                message: limits.message,
                queue: limits.queue,
                stall: limits.stall,
                send_buffer: limits.send_buffer,
                subscriptions: limits.subscriptions,
                body: limits.body,
            },
            tokens: Tokens { ttl: jwt.token_ttl, one_time: jwt.one_time_tokens, accept_jwt: jwt.accept_jwt_as_token },
            cluster: settings.cluster.name.clone(),
            secret,
            apps,
            dialects,
            bus: bus.clone(),
        },
        &mut registry,
    );
    bus.attach(slave.inbox());
    let listeners = Listeners {
        master: listener("master.listen", plan.master)?,
        slave: listener("slave.listen", plan.slave)?,
        admin: plan.admin.map(|address| listener("master.admin", address)).transpose()?,
    };
    let health = Health::new(bus.clone());
    Ok(Bound { master, slave, bus, health, requests, registry, listeners, warnings: plan.warnings, development })
}

impl Bound {
    /// Where backends call and where clients connect.
    ///
    /// # Errors
    ///
    /// The system does not say.
    pub fn addresses(&self) -> Result<(SocketAddr, SocketAddr)> {
        Ok((self.listeners.master.local_addr()?, self.listeners.slave.local_addr()?))
    }

    /// Begin to serve; back when every worker does.
    ///
    /// # Errors
    ///
    /// The workers do not start.
    pub async fn serve(self) -> Result<Running> {
        let Self { master, slave, bus, health, requests, registry, listeners, warnings, development } = self;
        let workers = thread::available_parallelism().map_or(1, NonZero::get);
        let master_address = listeners.master.local_addr()?;
        let slave_address = listeners.slave.local_addr()?;
        let admin_address = listeners.admin.as_ref().map(TcpListener::local_addr).transpose()?;
        let mut handles = vec![listeners.master.try_clone()?, listeners.slave.try_clone()?];
        handles.extend(listeners.admin.as_ref().map(TcpListener::try_clone).transpose()?);

        let builder = Server::build()
            .workers(workers)
            .disable_signals()
            .shutdown_timeout(SHUTDOWN_SECONDS)
            // the slave counts its sockets itself, and above the limit a 503 says more than silence
            .max_concurrent_connections(1 << 20);
        let page = development.clone().map(|development| TryPage::new(development, slave_address));
        let admin = Admin::new(registry, master.clone(), admin_address.is_none_or(|at| at.ip().is_loopback()));
        let door = Door::new(master, health.clone(), requests.of("master")).with_page(page);
        let builder = http::listen(builder, listeners.master, door)?;
        let started = Arc::new(Semaphore::new(0));
        let door = Door::new(slave.clone(), health.clone(), requests.of("slave"));
        let mut builder = http::listen_with_sockets(builder, listeners.slave, door, started.clone())?;
        if let Some(listener) = listeners.admin {
            builder = http::listen(builder, listener, Door::new(admin, health.clone(), requests.of("admin")))?;
        }
        let server = builder.run();
        let handle = server.handle();
        let mut task = actix_rt::spawn(server);
        let all = u32::try_from(workers).unwrap_or(u32::MAX);
        tokio::select! {
            permits = started.acquire_many(all) => drop(permits),
            ended = &mut task => {
                ended.context("the servers panicked")?.context("the servers did not start")?;
                return Err(anyhow!("the servers ended before they started"));
            }
        }

        for warning in warnings {
            warn!("{warning}");
        }
        for (role, address) in
            [("master", Some(master_address)), ("slave", Some(slave_address)), ("admin", admin_address)]
        {
            if let Some(address) = address {
                info!(role, address:% = address; "{role} listens on {address}");
            }
        }
        health.serving();
        info!(version = VERSION, workers = workers as u64; "ready");
        Ok(Running {
            master: master_address,
            slave: slave_address,
            admin: admin_address,
            development,
            floor: slave,
            bus,
            health,
            server: handle,
            task,
            listeners: handles,
        })
    }
}

impl Running {
    /// Resolves if the servers end by themselves, which they should not.
    pub async fn ended(&mut self) -> anyhow::Error {
        match (&mut self.task).await {
            Ok(Ok(())) => anyhow!("the servers ended"),
            Ok(Err(error)) => anyhow!(error).context("the servers ended"),
            Err(error) => anyhow!(error).context("the servers ended"),
        }
    }

    /// End in order: want no more work, close the listeners, leave the bus, tell every client to come back elsewhere,
    /// let requests under way finish.
    pub async fn stop(self) {
        info!(connections = self.floor.connections() as u64; "shutting down");
        self.health.ending();
        self.server.pause().await;
        for listener in &self.listeners {
            // paused, the server would still hold its listeners open, and clients would wait for nothing; closed, they
            // are refused at once and go elsewhere
            if let Err(error) = SockRef::from(listener).shutdown(std::net::Shutdown::Both) {
                debug!("closing a listener: {error}");
            }
        }
        self.bus.stop();
        self.floor.drain().await;
        self.server.stop(true).await;
        info!("ended");
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
fn max_connections(loaded: &Loaded) -> Result<usize> {
    let fds = rlimit::increase_nofile_limit(u64::MAX).context("cannot read the limit of file descriptors")?;
    let room = usize::try_from(fds.saturating_sub(SPARE_FDS).max(fds / 2)).unwrap_or(usize::MAX);
    match loaded.settings.slave.max_connections {
        0 => Ok(room),
        wanted if wanted <= room => Ok(wanted),
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut client = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[actix_rt::test]
    async fn a_process_starts_on_any_port_and_leaves_none_behind() {
        let mut settings = Settings::default();
        for listen in [&mut settings.master.listen, &mut settings.slave.listen, &mut settings.master.admin] {
            *listen = "127.0.0.1:0".to_owned();
        }
        let running = start(settings).await.unwrap();
        let all = [running.master, running.slave, running.admin.unwrap()];
        for address in all {
            assert!(get(address, "/readyz").await.ends_with("\r\n\r\nready"));
        }
        assert!(get(running.master, "/try").await.contains("<!doctype html>"));
        assert!(get(running.slave, "/try").await.starts_with("HTTP/1.1 404 "));
        assert!(get(running.slave, "/metrics").await.starts_with("HTTP/1.1 404 "));
        assert!(get(all[2], "/metrics").await.contains("wellhead_build_info"));
        running.stop().await;
        for address in all {
            assert!(TcpStream::connect(address).await.is_err());
        }
    }

    #[test]
    fn more_sockets_than_file_descriptors_are_a_bad_setting() {
        let mut settings = Settings::default();
        settings.slave.max_connections = 1 << 40;
        let error = max_connections(&settings.into()).unwrap_err();
        assert!(error.is::<SettingsError>() && error.to_string().contains("file descriptors"), "{error}");
    }
}
