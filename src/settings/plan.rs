//! What the settings mean for a process: addresses, keys, apps, its way to the other nodes. Only what its roles open is
//! checked; what is impossible is found here, before anything is opened.

mod bus;
mod exposure;
mod keys;

use std::{
    collections::HashSet,
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use wellhead_proto::{
    dialect::{
        self,
        contract::Dialect,
        mount::{BadSetting, OwnCredentials},
    },
    http_api::ambiguous_paths,
    ids::SocketIdSeal,
    jwt::Key,
    tenants::Tenants,
};

pub use self::bus::Topology;
use super::{
    BusAddress, Dialects, Settings, Unlisted,
    load::Loaded,
    place::{Places, SettingsError},
};
use crate::telemetry;

/// What a process is to be.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Roles {
    /// Both.
    #[default]
    Standalone,
    /// The master, where backends push.
    Master,
    /// The slave, where clients connect.
    Slave,
}

impl Roles {
    /// Do backends come here?
    #[must_use]
    pub fn master(self) -> bool {
        self != Self::Slave
    }

    /// Do clients come here?
    #[must_use]
    pub fn slave(self) -> bool {
        self != Self::Master
    }

    /// The setting of its admin listener: two roles side by side have one each.
    #[must_use]
    pub fn admin(self) -> &'static str {
        if self.master() { "master.admin" } else { "slave.admin" }
    }
}

/// Settings that fit together, with everything that they name read and understood.
#[derive(Clone)]
pub struct Plan {
    /// What the process is to be.
    pub roles: Roles,
    /// Where backends call, if they do so here.
    pub master: Option<SocketAddr>,
    /// Where clients connect, if they do so here.
    pub slave: Option<SocketAddr>,
    /// Is that one address, with one listener (`standalone.listen`)?
    pub one_port: bool,
    /// Where health and metrics are served.
    pub admin: Option<SocketAddr>,
    /// The way to the other nodes.
    pub topology: Topology,
    /// The dialects that are served.
    pub dialects: Dialects,
    /// Their settings, as they are used.
    pub of_dialects: dialect::Settings,
    /// The apps and who may use them, without the key of development mode.
    pub tenants: Tenants,
    /// Verifies clients' HS256 tokens, if one was set; among the keys of `tenants` it is, too.
    pub jwt_secret: Option<Vec<u8>>,
    /// Signs connection tokens, if one was set.
    pub secret: Option<Vec<u8>>,
    /// No key is configured, and only this machine is served: the process makes a throw-away one, or is given the one of its master.
    pub development: bool,
    /// Warnings: what is allowed, but should be known.
    pub warnings: Vec<String>,
}

impl Plan {
    /// The plan that `loaded` settings make for a process with these `roles`.
    ///
    /// # Errors
    ///
    /// Something that they name cannot be used, or they contradict each other.
    pub fn new(loaded: &Loaded, roles: Roles) -> Result<Self, SettingsError> {
        let Loaded { settings, places, dialects, .. } = loaded;
        let check = Check { settings, places };
        check.values()?;
        check.push_keys()?;

        let jwt_secret = check.secret("jwt", "secret", &settings.jwt.secret, &settings.jwt.secret_file)?;
        let secret = check.secret("cluster", "secret", &settings.cluster.secret, &settings.cluster.secret_file)?;
        let keys = check.keys(jwt_secret.as_deref())?;
        let origins = check.origins("slave.allowed_origins", &settings.slave.allowed_origins)?;
        let mut listed = check.listed()?;
        check.records(dialects, &mut listed)?;
        let mut of_dialects = settings.dialects.clone();
        for dialect in *dialects {
            dialect.check(&mut of_dialects).map_err(|bad| check.placed(bad))?;
        }
        let tenants = Tenants::new(keys, listed, settings.apps.unlisted == Unlisted::Allow, origins)
            .with_push_keys(settings.push_keys.clone());
        let tenants = check.own_records(dialects, &of_dialects, tenants)?;
        let keyless = !tenants.verify_tokens();
        let address = |opens: bool, key: &str, text: &str| match opens {
            true => check.address(key, text).map(Some),
            false => Ok(None),
        };
        let admin = if roles.master() { &settings.master.admin } else { &settings.slave.admin };
        let one_port = settings.is_one_port(roles);
        let [(master_key, master), (slave_key, slave)] = match one_port {
            true => [(ONE_PORT, &settings.standalone.listen); 2],
            false => [("master.listen", &settings.master.listen), ("slave.listen", &settings.slave.listen)],
        };
        let plan = Self {
            roles,
            master: address(roles.master(), master_key, master)?,
            slave: address(roles.slave(), slave_key, slave)?,
            one_port,
            admin: address(!admin.is_empty(), roles.admin(), admin)?,
            topology: check.topology(roles)?,
            dialects,
            of_dialects,
            tenants,
            jwt_secret,
            secret,
            development: keyless,
            warnings: Vec::new(),
        };
        // whose clients all have credentials of their dialect needs no key for tokens: then nobody comes with one
        let reached = plan.is_exposed() || plan.one_port;
        let development = keyless && !(plan.own_credentials().next().is_some() && reached);
        let plan = Self { development, ..plan };
        check.clashes(&plan)?;
        check.paths(&plan)?;
        check.exposure(&plan)?;
        check.shared(&plan)?;
        let warnings = [loaded.warnings.clone(), check.warnings(&plan)].concat();
        Ok(Self { warnings, ..plan })
    }

    /// Who comes with credentials of a dialect's own.
    fn own_credentials(&self) -> impl Iterator<Item = OwnCredentials> {
        self.dialects.iter().filter_map(|dialect| dialect.own_credentials(&self.tenants))
    }

    /// The dialects that are served.
    #[must_use]
    pub fn speak(&self, seal: &SocketIdSeal) -> Vec<Arc<dyn Dialect>> {
        self.dialects.iter().map(|dialect| dialect.build(&self.of_dialects, seal)).collect()
    }

    /// The listeners that this process opens, with the settings that name them.
    fn listeners(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let slave = self.slave.filter(|_| !self.one_port);
        [(self.master_key(), self.master), ("slave.listen", slave), (self.roles.admin(), self.admin)]
            .into_iter()
            .filter_map(|(key, address)| Some((key, address?)))
    }

    /// The setting that says where backends call.
    #[must_use]
    pub fn master_key(&self) -> &'static str {
        if self.one_port { ONE_PORT } else { "master.listen" }
    }
}

/// The setting of the one listener that serves both roles.
const ONE_PORT: &str = "standalone.listen";

impl Settings {
    /// Do both roles share one listener in a process with these `roles`?
    #[must_use]
    pub fn is_one_port(&self, roles: Roles) -> bool {
        roles == Roles::Standalone && !self.standalone.listen.is_empty()
    }
}

struct Check<'a> {
    settings: &'a Settings,
    places: &'a Places,
}

impl Check<'_> {
    fn error(&self, key: &str, message: impl std::fmt::Display) -> SettingsError {
        SettingsError::new(format!("{key}: {message}")).at(self.places.of(key).cloned())
    }

    /// The same of what somebody found who knows no places.
    fn placed(&self, bad: BadSetting) -> SettingsError {
        SettingsError::of(bad, self.places)
    }

    /// Values that are wrong by themselves.
    fn values(&self) -> Result<(), SettingsError> {
        let Settings { cluster, slave, jwt, limits, log, .. } = self.settings;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if cluster.name.is_empty() {
            return Err(self.error("cluster.name", "is empty"));
        }
        if !cluster.name.bytes().all(fits) {
            let error = self.error("cluster.name", format!("{:?} cannot be part of a subject", cluster.name));
            return Err(error.hint("a name of letters, digits, - and _"));
        }
        for (key, span) in [
            ("jwt.token_ttl", jwt.token_ttl),
            ("slave.ping_interval", slave.ping_interval),
            ("slave.pong_timeout", slave.pong_timeout),
            ("limits.stall", limits.stall),
        ] {
            if span.0 < Duration::from_millis(1) {
                return Err(self.error(key, "must be longer than nothing").hint("for example \"60s\""));
            }
        }
        for (key, size) in [
            ("limits.message", limits.message.0),
            ("limits.queue", limits.queue.0),
            ("limits.send_buffer", limits.send_buffer.0),
            ("limits.body", limits.body.0),
            ("limits.grants", limits.grants.0),
            ("limits.subscriptions", limits.subscriptions as u64),
            ("jwt.reference_memory", jwt.reference_memory.0),
            ("jwt.references_per_user", jwt.references_per_user as u64),
            ("jwt.reference_lookups", jwt.reference_lookups as u64),
            ("cluster.max_nodes", cluster.max_nodes as u64),
        ] {
            if size == 0 {
                return Err(self.error(key, "must be more than nothing"));
            }
        }
        if jwt.one_time_tokens && jwt.accept_jwt_as_token {
            return Err(self
                .error("jwt.one_time_tokens", "cannot be true while jwt.accept_jwt_as_token is true")
                .hint("a client could use its JWT again and again: set jwt.accept_jwt_as_token = false"));
        }
        telemetry::check_level(&log.level).map_err(|why| {
            self.error("log.level", why)
                .hint("off, error, warn, info, debug or trace; per target: \"info,wellhead_slave=debug\"")
        })
    }

    fn push_keys(&self) -> Result<(), SettingsError> {
        let mut names = HashSet::new();
        for (index, key) in self.settings.push_keys.iter().enumerate() {
            if !names.insert(&key.name) {
                let message = format!("there is another key named {:?}", key.name);
                return Err(self.error(&format!("push_keys.{index}"), message));
            }
        }
        Ok(())
    }

    fn address(&self, key: &str, text: &str) -> Result<SocketAddr, SettingsError> {
        if let Ok(address) = text.parse() {
            return Ok(address);
        }
        let bad = |why: &str| {
            self.error(key, format!("{text:?} is not an address{why}")).hint(
                "write host:port, as in \"127.0.0.1:7777\", \"[::1]:7777\" or, for every interface, \"0.0.0.0:7777\"",
            )
        };
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                let mut found = text.to_socket_addrs().map_err(|error| bad(&format!(" ({error})")))?;
                found.next().ok_or_else(|| bad(" (the name has none)"))
            }
            _ => Err(bad("")),
        }
    }

    /// Two listeners of this process at one address.
    fn clashes(&self, plan: &Plan) -> Result<(), SettingsError> {
        let meet = |a: SocketAddr, b: SocketAddr| {
            a.port() == b.port()
                && a.port() != 0
                && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
        };
        let mut earlier: Vec<(&str, SocketAddr)> = Vec::new();
        for (key, address) in plan.listeners() {
            if let Some((other, _)) = earlier.iter().find(|(_, other)| meet(address, *other)) {
                let error = self.error(key, format!("{address} is where {other} listens already"));
                return Err(error.hint("give each listener a port of its own"));
            }
            earlier.push((key, address));
        }
        Ok(())
    }

    /// At one address the paths of the two roles must differ.
    fn paths(&self, plan: &Plan) -> Result<(), SettingsError> {
        if !plan.one_port {
            return Ok(());
        }
        // paths do not depend on the seal
        let Some((master, slave)) = ambiguous_paths(&plan.speak(&SocketIdSeal::new(b""))) else { return Ok(()) };
        let message = format!("at one address {master} of the master and {slave} of the slave could not be told apart");
        let hint = "give the roles other prefixes (master.prefix, slave.prefix), or each a listener of its own";
        Err(self.error(ONE_PORT, message).hint(hint))
    }

    /// The cluster's secret, and what nodes on several machines must have in common, since nobody hands it to them.
    fn shared(&self, plan: &Plan) -> Result<(), SettingsError> {
        let hint = "`head -c 48 /dev/urandom | base64 > cluster-secret` makes one; give every node the same file as \
                    cluster.secret_file";
        if let Some(secret) = &plan.secret
            && secret.len() < Key::MIN_SECRET_BYTES
        {
            let file = &self.settings.cluster.secret_file;
            let key = if file.is_empty() { "cluster.secret" } else { "cluster.secret_file" };
            let message = format!(
                "a secret of {} bytes is shorter than {} bytes: it could be guessed from one token",
                secret.len(),
                Key::MIN_SECRET_BYTES
            );
            return Err(self.error(key, message).hint(hint));
        }
        if self.settings.cluster.bus == BusAddress::Local {
            return Ok(());
        }
        if plan.development {
            let error = self.error("jwt.public_keys", "no key for clients' tokens, which nodes on NATS must share");
            let hint = "`wellhead keys generate` makes a key pair; then set jwt.public_keys = [\"public.pem\"]";
            return Err(error.hint(hint));
        }
        if plan.secret.is_none() {
            let error = self.error("cluster.secret", "is empty, and nodes on NATS must share one");
            return Err(error.hint(hint));
        }
        Ok(())
    }
}
