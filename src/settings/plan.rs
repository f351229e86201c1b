//! What the settings come down to for a process that runs both roles: addresses, keys, apps. Whatever is impossible is
//! found here, before anything is opened.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    net::{SocketAddr, ToSocketAddrs},
    str::FromStr,
    time::Duration,
};

use jsonwebtoken::Algorithm;
use wellhead_proto::{
    app::{App, Apps},
    dialect::gusher::Prefixes,
    ids::AppId,
    jwt::{Key, Keyring},
};

use super::{
    PublicKey, Secret, Settings, Unlisted,
    load::Loaded,
    place::{Places, SettingsError},
};
use crate::telemetry;

/// Settings that fit together, with everything that they name read and understood.
#[derive(Clone)]
pub struct Plan {
    /// Where backends call.
    pub master: SocketAddr,
    /// Where clients connect.
    pub slave: SocketAddr,
    /// Where health and metrics are served.
    pub admin: Option<SocketAddr>,
    /// Where the v1 rows stand.
    pub prefixes: Prefixes,
    /// Verify clients' tokens; empty in development mode.
    pub keys: Keyring,
    /// Listed apps.
    pub listed: HashMap<AppId, App>,
    /// Verifies clients' HS256 tokens, if one was set; among `keys` it is, too.
    pub jwt_secret: Option<Vec<u8>>,
    /// Signs connection tokens, if one was set.
    pub secret: Option<Vec<u8>>,
    /// No key is configured: the process makes a throw-away one.
    pub development: bool,
    /// What the operator should know, though it is allowed.
    pub warnings: Vec<String>,
}

impl Plan {
    /// The plan that `loaded` settings make.
    ///
    /// # Errors
    ///
    /// Something that they name cannot be used, or they contradict each other.
    pub fn new(loaded: &Loaded) -> Result<Self, SettingsError> {
        let Loaded { settings, places, .. } = loaded;
        let check = Check { settings, places };
        check.values()?;
        check.push_keys()?;

        let jwt_secret = check.secret("jwt", &settings.jwt.secret, &settings.jwt.secret_file)?;
        let keys = check.keys(jwt_secret.as_deref())?;
        let listed = check.listed()?;
        let development = keys.is_empty() && listed.values().all(|app| app.keys.is_none());
        let plan = Self {
            master: check.address("master.listen", &settings.master.listen)?,
            slave: check.address("slave.listen", &settings.slave.listen)?,
            admin: match settings.master.admin.as_str() {
                "" => None,
                admin => Some(check.address("master.admin", admin)?),
            },
            prefixes: Prefixes {
                master: check.prefix("master.prefix", &settings.master.prefix)?,
                slave: check.prefix("slave.prefix", &settings.slave.prefix)?,
            },
            keys,
            listed,
            jwt_secret,
            secret: check.secret("cluster", &settings.cluster.secret, &settings.cluster.secret_file)?,
            development,
            warnings: Vec::new(),
        };
        check.exposure(&plan)?;
        Ok(Self { warnings: check.warnings(&plan), ..plan })
    }

    /// The apps of this cluster, their tokens verified by `keys` unless they have keys of their own.
    #[must_use]
    pub fn apps(&self, settings: &Settings, keys: Keyring) -> Apps {
        let serve_unlisted = settings.apps.unlisted == Unlisted::Allow;
        Apps::new(keys, self.listed.clone(), serve_unlisted, settings.slave.allowed_origins.clone())
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
        if cluster.name.is_empty() {
            return Err(self.error("cluster.name", "is empty"));
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
            ("limits.subscriptions", limits.subscriptions as u64),
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

    fn keys(&self, secret: Option<&[u8]>) -> Result<Keyring, SettingsError> {
        let jwt = &self.settings.jwt;
        let mut keys = self.public_keys("jwt.public_keys", &jwt.public_keys)?;
        if let Some(secret) = secret {
            let key = Key::from_secret(secret)
                .map_err(|why| self.error("jwt.secret", why).hint("`openssl rand -base64 48` makes a good one"))?;
            keys.push(key);
        }
        Ok(Keyring::new(keys, jwt.require_exp))
    }

    fn public_keys(&self, key: &str, files: &[PublicKey]) -> Result<Vec<Key>, SettingsError> {
        files
            .iter()
            .enumerate()
            .map(|(index, public_key)| self.public_key(&format!("{key}.{index}"), public_key))
            .collect()
    }

    fn public_key(&self, key: &str, public_key: &PublicKey) -> Result<Key, SettingsError> {
        let PublicKey { file, kid, algorithm } = public_key;
        let only = algorithm.as_deref().map(|name| {
            Algorithm::from_str(name).map_err(|_| {
                self.error(key, format!("unknown algorithm {name:?}")).hint(
                    "RS256, RS384, RS512, ES256, ES384 or EdDSA; leave it out to allow what the key's kind allows",
                )
            })
        });
        let only = only.transpose()?;
        let pem = fs::read(file).map_err(|error| {
            let error = self.error(key, format!("cannot read {file}: {error}"));
            error.hint("name the PEM file of a public key; `wellhead keys generate` makes a pair")
        })?;
        Key::from_pem(kid.clone(), &pem, only).map_err(|why| {
            self.error(key, format!("{file}: {why}"))
                .hint("`openssl pkey -in private.pem -pubout` prints the public half")
        })
    }

    /// A secret that stands in the settings or in a file, but not in both.
    fn secret(&self, section: &str, secret: &Secret, file: &str) -> Result<Option<Vec<u8>>, SettingsError> {
        let key = format!("{section}.secret_file");
        match (secret.is_empty(), file.is_empty()) {
            (true, true) => Ok(None),
            (false, true) => Ok(Some(secret.expose().as_bytes().to_vec())),
            (false, false) => {
                let message = format!("{section}.secret is set as well");
                Err(self.error(&key, message).hint("say the secret once: keep one of the two"))
            }
            (true, false) => {
                let text = fs::read_to_string(file).map_err(|error| {
                    let why = if error.kind() == io::ErrorKind::InvalidData {
                        "it is not UTF-8".to_owned()
                    } else {
                        error.to_string()
                    };
                    self.error(&key, format!("cannot read {file}: {why}"))
                })?;
                match text.trim_end_matches(['\r', '\n']) {
                    "" => Err(self.error(&key, format!("{file} is empty"))),
                    secret => Ok(Some(secret.as_bytes().to_vec())),
                }
            }
        }
    }

    fn listed(&self) -> Result<HashMap<AppId, App>, SettingsError> {
        let mut listed = HashMap::new();
        for (index, app) in self.settings.apps.listed.iter().enumerate() {
            let key = format!("apps.listed.{index}");
            let id = AppId::try_from(app.key.as_str()).map_err(|why| self.error(&format!("{key}.key"), why))?;
            let keys = self.public_keys(&format!("{key}.public_keys"), &app.public_keys)?;
            let keys = (!keys.is_empty()).then(|| Keyring::new(keys, self.settings.jwt.require_exp));
            let own = App { keys, allowed_origins: app.allowed_origins.clone() };
            if listed.insert(id, own).is_some() {
                return Err(self.error(&format!("{key}.key"), format!("the app {:?} is listed twice", app.key)));
            }
        }
        if listed.is_empty() && self.settings.apps.unlisted == Unlisted::Refuse {
            let error = self.error("apps.unlisted", "no app is listed and others are refused: nobody could connect");
            return Err(error.hint("list your apps under [[apps.listed]], or set apps.unlisted = \"allow\""));
        }
        Ok(listed)
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

    /// What may be reached from other machines.
    fn exposure(&self, plan: &Plan) -> Result<(), SettingsError> {
        let listeners =
            [("master.listen", Some(plan.master)), ("slave.listen", Some(plan.slave)), ("master.admin", plan.admin)];
        let beyond =
            |key: &str| listeners.iter().any(|(k, at)| *k == key && at.is_some_and(|at| !at.ip().is_loopback()));
        if plan.development
            && let Some((key, _)) = listeners.iter().find(|(key, _)| beyond(key))
        {
            let message = "without a key for clients' tokens (development mode) every listener must be on loopback";
            let hint = "`wellhead keys generate` makes a key pair; then set jwt.public_keys = [\"public.pem\"]";
            return Err(self.error(key, message).hint(hint));
        }
        if beyond("master.listen") && self.settings.push_keys.is_empty() && !self.settings.master.open {
            let message = "without push keys the master serves this machine only, since anybody could push";
            let hint = "`wellhead keys push --name backend` makes one; master.open = true serves everybody";
            return Err(self.error("master.listen", message).hint(hint));
        }
        Ok(())
    }

    fn warnings(&self, plan: &Plan) -> Vec<String> {
        let Settings { master, jwt, push_keys, .. } = self.settings;
        let mut warnings = Vec::new();
        if !plan.development && !jwt.require_exp {
            warnings.push(
                "jwt.require_exp is false: a token without exp is valid for ever; set it to true once all your tokens \
                 carry one"
                    .to_owned(),
            );
        }
        if push_keys.is_empty() && !plan.master.ip().is_loopback() && master.open {
            warnings.push(format!("master.open is true: whoever reaches {} may push to everybody", plan.master));
        }
        if push_keys.is_empty() && plan.admin.is_some_and(|admin| !admin.ip().is_loopback()) {
            warnings.push(
                "master.admin is beyond loopback and there is no push key: /metrics refuses everybody".to_owned(),
            );
        }
        if plan.secret.as_ref().is_some_and(|secret| secret.len() < Key::MIN_SECRET_BYTES) {
            warnings.push("cluster.secret is shorter than 32 bytes: it could be guessed from one token".to_owned());
        }
        warnings
    }
}
