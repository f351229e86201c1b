//! What the settings come down to for a process: addresses, keys, apps, its way to the others. Only what its roles open
//! is looked at; whatever is impossible is found here, before anything is opened.

mod bus;
mod exposure;
mod keys;
mod pusher;

use std::{
    collections::{HashMap, HashSet},
    net::{SocketAddr, ToSocketAddrs},
    time::Duration,
};

use wellhead_proto::{
    app::{App, Apps},
    dialect::{gusher::Prefixes, pusher::Settings as PusherSettings},
    ids::AppId,
    jwt::{Key, Keyring},
    origin::Origins,
};

pub use self::bus::Topology;
use super::{
    BusAddress, Settings, Unlisted,
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
    /// The counter where backends come.
    Master,
    /// The floor where clients stand.
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
    /// Where health and metrics are served.
    pub admin: Option<SocketAddr>,
    /// The way to the other nodes.
    pub topology: Topology,
    /// Where the v1 rows stand.
    pub prefixes: Prefixes,
    /// Where Pusher's rows stand, and the apps that it serves.
    pub pusher: PusherSettings,
    /// Verify clients' tokens; empty in development mode.
    pub keys: Keyring,
    /// Origins that may open sockets of apps that do not say so themselves.
    pub origins: Origins,
    /// Listed apps.
    pub listed: HashMap<AppId, App>,
    /// Verifies clients' HS256 tokens, if one was set; among `keys` it is, too.
    pub jwt_secret: Option<Vec<u8>>,
    /// Signs connection tokens, if one was set.
    pub secret: Option<Vec<u8>>,
    /// No key is configured, and only this machine is served: the process makes a throw-away one, or is given the one of its master.
    pub development: bool,
    /// What the operator should know, though it is allowed.
    pub warnings: Vec<String>,
}

impl Plan {
    /// The plan that `loaded` settings make for a process with these `roles`.
    ///
    /// # Errors
    ///
    /// Something that they name cannot be used, or they contradict each other.
    pub fn new(loaded: &Loaded, roles: Roles) -> Result<Self, SettingsError> {
        let Loaded { settings, places, .. } = loaded;
        let check = Check { settings, places };
        check.values()?;
        check.push_keys()?;

        let jwt_secret = check.secret("jwt", "secret", &settings.jwt.secret, &settings.jwt.secret_file)?;
        let secret = check.secret("cluster", "secret", &settings.cluster.secret, &settings.cluster.secret_file)?;
        let keys = check.keys(jwt_secret.as_deref())?;
        let origins = check.origins("slave.allowed_origins", &settings.slave.allowed_origins)?;
        let listed = check.listed()?;
        let keyless = keys.is_empty() && listed.values().all(|app| app.keys.is_none());
        let address = |opens: bool, key: &str, text: &str| match opens {
            true => check.address(key, text).map(Some),
            false => Ok(None),
        };
        let admin = if roles.master() { &settings.master.admin } else { &settings.slave.admin };
        let plan = Self {
            roles,
            master: address(roles.master(), "master.listen", &settings.master.listen)?,
            slave: address(roles.slave(), "slave.listen", &settings.slave.listen)?,
            admin: address(!admin.is_empty(), roles.admin(), admin)?,
            topology: check.topology(roles)?,
            prefixes: Prefixes {
                master: check.prefix("master.prefix", &settings.master.prefix)?,
                slave: check.prefix("slave.prefix", &settings.slave.prefix)?,
            },
            pusher: check.pusher()?,
            keys,
            origins,
            listed,
            jwt_secret,
            secret,
            development: keyless,
            warnings: Vec::new(),
        };
        // whose apps are all Pusher's needs no key for tokens: then nobody comes with one
        let development = keyless && !(plan.serves_pusher() && plan.is_exposed());
        let plan = Self { development, ..plan };
        check.clashes(&plan)?;
        check.exposure(&plan)?;
        check.shared(&plan)?;
        let warnings = [loaded.warnings.clone(), check.warnings(&plan)].concat();
        Ok(Self { warnings, ..plan })
    }

    /// Do Pusher's libraries have an app here?
    #[must_use]
    pub fn serves_pusher(&self) -> bool {
        !self.pusher.apps.is_empty()
    }

    /// The listeners that this process opens, with the settings that name them.
    fn listeners(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        [("master.listen", self.master), ("slave.listen", self.slave), (self.roles.admin(), self.admin)]
            .into_iter()
            .filter_map(|(key, address)| Some((key, address?)))
    }

    /// The apps of this cluster, their tokens verified by `keys` unless they have keys of their own; and the one of
    /// development mode.
    #[must_use]
    pub fn apps(&self, settings: &Settings, keys: Keyring, demo: Option<&AppId>) -> Apps {
        let serve_unlisted = settings.apps.unlisted == Unlisted::Allow;
        let mut listed = self.listed.clone();
        listed.extend(demo.map(|demo| (demo.clone(), App::default())));
        Apps::new(keys, listed, serve_unlisted, self.origins.clone())
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

    /// A prefix of paths without its last slash.
    fn prefix(&self, key: &str, text: &str) -> Result<String, SettingsError> {
        let prefix = text.trim_end_matches('/');
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
        let begins = prefix.is_empty() || prefix.starts_with('/');
        if begins && !prefix.contains("//") && prefix.bytes().all(fits) {
            return Ok(prefix.to_owned());
        }
        Err(self.error(key, format!("{text:?} is no prefix of paths")).hint("write it as in \"/api\"; \"\" is none"))
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
