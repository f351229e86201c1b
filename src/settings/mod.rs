//! The whole tree of settings. Each role and each dialect owns its part; here they are stacked. Where values come from is
//! `load`'s matter, who of the parts reads which is `read`'s, what they mean together is `plan`'s.

mod bus;
mod environment;
pub mod load;
pub mod place;
pub mod plan;
mod read;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};
use wellhead_master::keys::PushKey;
pub use wellhead_proto::secret::Secret;
use wellhead_proto::{
    dialect,
    http_target::TargetUrl,
    membership,
    units::{Size, Span},
};

pub use self::{
    bus::{BusAddress, NatsSection, NatsTlsSection, without_user},
    read::Dialects,
};
pub use crate::telemetry::{LogFormat, LogSection};

/// Everything that can be set. Its default is what `config.toml` states.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What all nodes share.
    pub cluster: ClusterSection,
    /// How NATS is spoken to.
    pub nats: NatsSection,
    /// Both roles in one process.
    pub standalone: StandaloneSection,
    /// The master, where backends push.
    pub master: wellhead_master::settings::Settings,
    /// The slave, where clients connect.
    pub slave: wellhead_slave::settings::Settings,
    /// How clients prove who they are.
    pub jwt: Jwt,
    /// How backends prove who they are.
    #[serde(skip_serializing)]
    pub push_keys: Vec<PushKey>,
    /// The apps that are served.
    pub apps: AppsSection,
    /// Limits.
    pub limits: wellhead_slave::settings::Limits,
    /// The log.
    pub log: LogSection,
    /// Requests to addresses that the settings of apps name.
    pub webhooks: WebhooksSection,
    /// What belongs to dialects.
    #[serde(skip)]
    pub dialects: dialect::Settings,
}

/// `[cluster]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterSection {
    /// Its name: connection tokens of another cluster are worth nothing here.
    pub name: String,
    /// What carries pushes from masters to slaves.
    pub bus: BusAddress,
    /// Where the processes of one machine meet.
    pub socket: String,
    /// Signs connection tokens; empty: drawn at random at every start, and given to the slaves on this machine.
    pub secret: Secret,
    /// A file that holds the secret instead.
    pub secret_file: String,
    /// Is everything refused that a node says without signing it with the secret? The previous release signs nothing.
    pub require_signed: bool,
    /// How many nodes are let in.
    pub max_nodes: usize,
    /// How much of a difference between the clocks of two nodes is allowed for.
    pub clock_tolerance: Span,
}

/// `[standalone]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct StandaloneSection {
    /// Where backends call and clients connect, both; empty: each role listens for itself.
    pub listen: String,
}

/// `[webhooks]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhooksSection {
    /// May requests go to addresses that are not globally routable?
    pub allow_private: bool,
    /// How long a webhook is tried before it is given up.
    pub retry_for: Span,
}

/// `[jwt]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jwt {
    /// Public keys that verify clients' tokens.
    pub public_keys: Vec<PublicKey>,
    /// A shared secret that verifies HS256, HS384 and HS512 tokens.
    pub secret: Secret,
    /// A file that holds the secret instead.
    pub secret_file: String,
    /// How long a connection token lives.
    pub token_ttl: Span,
    /// Is a connection token good for one socket only?
    pub one_time_tokens: bool,
    /// Does a client's JWT open a socket without being exchanged first?
    pub accept_jwt_as_token: bool,
    /// Are tokens refused that never expire?
    pub require_exp: bool,
    /// What all references to connection tokens may take in memory.
    pub reference_memory: Size,
    /// References that a user may have; the oldest goes first.
    pub references_per_user: usize,
    /// References of other slaves that a slave asks for at a time.
    pub reference_lookups: usize,
}

/// One key of `public_keys`: a path, or a table when there is more to say.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PublicKey {
    /// The PEM file.
    pub file: String,
    /// Its name in the headers of tokens.
    pub kid: Option<String>,
    /// The one algorithm that it verifies; without it, all that its kind allows.
    pub algorithm: Option<String>,
}

/// `[apps]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AppsSection {
    /// What becomes of apps that are not listed.
    pub unlisted: Unlisted,
    /// Apps with settings of their own.
    pub listed: Vec<ListedApp>,
}

/// What becomes of an app that a valid token names and the settings do not.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unlisted {
    /// It is served: whoever may sign tokens may name apps.
    #[default]
    Allow,
    /// Its tokens are refused.
    Refuse,
}

/// One of `[[apps.listed]]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ListedApp {
    /// Its key, as it stands in paths and tokens.
    pub key: String,
    /// Origins that may open its sockets; without it, `slave.allowed_origins` hold.
    #[serde(default)]
    pub allowed_origins: Option<Vec<String>>,
    /// Keys of its own: they alone verify its tokens, and no other app's.
    #[serde(default)]
    pub public_keys: Vec<PublicKey>,
    /// Where remote commands of its clients are posted.
    #[serde(default)]
    pub remote: RemoteSection,
    /// What belongs to dialects.
    #[serde(skip)]
    pub dialects: dialect::Settings,
}

/// `remote` of an app. Without a URL, nobody takes remote commands.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table such as { url = \"https://app.example.com/commands\" }")]
pub struct RemoteSection {
    /// Where they are posted.
    pub url: TargetUrl,
    /// A header that goes with them, as in `Name: value`.
    pub header: Secret,
    /// A file that holds the header instead.
    pub header_file: String,
}

impl Default for ClusterSection {
    fn default() -> Self {
        Self {
            name: "wellhead".to_owned(),
            bus: BusAddress::Local,
            socket: "run/bus.sock".to_owned(),
            secret: Secret::default(),
            secret_file: String::new(),
            require_signed: false,
            max_nodes: membership::MAX_NODES,
            clock_tolerance: Span::seconds(60),
        }
    }
}

impl Default for WebhooksSection {
    fn default() -> Self {
        Self { allow_private: false, retry_for: Span::seconds(300) }
    }
}

impl Default for Jwt {
    fn default() -> Self {
        let tokens = wellhead_slave::settings::TokenSettings::default();
        Self {
            public_keys: Vec::new(),
            secret: Secret::default(),
            secret_file: String::new(),
            token_ttl: tokens.ttl,
            one_time_tokens: tokens.one_time,
            accept_jwt_as_token: tokens.accept_jwt,
            require_exp: false,
            reference_memory: tokens.reference_memory,
            references_per_user: tokens.references_per_user,
            reference_lookups: tokens.reference_lookups,
        }
    }
}

/// By hand, since serde's untagged enums cannot say which field is wrong.
impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct PublicKeyTable {
            file: String,
            kid: Option<String>,
            algorithm: Option<String>,
        }
        struct PathOrTable;
        impl<'de> de::Visitor<'de> for PathOrTable {
            type Value = PublicKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the path of a PEM file, or { file, kid, algorithm }")
            }

            fn visit_str<E: de::Error>(self, file: &str) -> Result<PublicKey, E> {
                Ok(PublicKey { file: file.to_owned(), kid: None, algorithm: None })
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<PublicKey, A::Error> {
                let PublicKeyTable { file, kid, algorithm } =
                    PublicKeyTable::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(PublicKey { file, kid, algorithm })
            }
        }
        from.deserialize_any(PathOrTable)
    }
}
