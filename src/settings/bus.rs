//! Where pushes travel: `cluster.bus`, and how NATS is spoken to.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Secret;

/// What carries pushes from masters to slaves.
#[derive(Clone, Default, Eq, PartialEq)]
pub enum BusAddress {
    /// This process, or a socket on this machine.
    #[default]
    Local,
    /// Servers of one NATS cluster.
    Nats(Vec<String>),
}

impl BusAddress {
    /// Schemes that we speak.
    const SCHEMES: [&str; 2] = ["nats", "tls"];

    /// What `text` says: the one word, or addresses between commas.
    fn read<'t>(texts: impl Iterator<Item = &'t str>) -> Result<Self, String> {
        let parts = texts.flat_map(|text| text.split(',')).map(str::trim).filter(|part| !part.is_empty());
        let urls: Vec<&str> = parts.collect();
        if urls == ["local"] {
            return Ok(Self::Local);
        }
        let wanted = "write \"local\", or NATS servers as in \"nats://host:4222\"";
        if urls.is_empty() {
            return Err(format!("no bus is named; {wanted}"));
        }
        for url in &urls {
            // an address may hold a password: it is not repeated
            match url.split_once("://") {
                Some((scheme, _)) if Self::SCHEMES.contains(&scheme) => {}
                Some((scheme, _)) if scheme.bytes().all(|byte| byte.is_ascii_lowercase()) => {
                    return Err(format!("{scheme}:// is not spoken here; {wanted}"));
                }
                Some(_) => return Err(format!("what stands before :// is not spoken here; {wanted}")),
                None => return Err(format!("neither \"local\" nor an address; {wanted}")),
            }
        }
        Ok(Self::Nats(urls.into_iter().map(str::to_owned).collect()))
    }
}

/// `url` without what may be a secret: user and password, and anything behind the host.
#[must_use]
pub fn without_user(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host).trim_end_matches('/');
            let whole = rest.trim_end_matches('/').contains(['/', '?', '#']);
            format!("{scheme}://{}", if whole { "…" } else { host })
        }
        None => url.to_owned(),
    }
}

/// As it is written, without passwords.
impl fmt::Display for BusAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Nats(urls) => {
                let shown: Vec<_> = urls.iter().map(|url| without_user(url)).collect();
                f.write_str(&shown.join(","))
            }
        }
    }
}

impl fmt::Debug for BusAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl Serialize for BusAddress {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BusAddress {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> de::Visitor<'de> for OneOrMore {
            type Value = BusAddress;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"local\", \"nats://host:4222\", or a list of such addresses")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<BusAddress, E> {
                BusAddress::read(std::iter::once(text)).map_err(E::custom)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<BusAddress, A::Error> {
                let mut texts: Vec<String> = Vec::new();
                while let Some(text) = items.next_element()? {
                    texts.push(text);
                }
                BusAddress::read(texts.iter().map(String::as_str)).map_err(de::Error::custom)
            }
        }
        from.deserialize_any(OneOrMore)
    }
}

/// `[nats]`: how we prove to NATS who we are. At most one of the three ways.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsSection {
    /// A credentials file: a JWT and its seed.
    pub credentials_file: String,
    /// A user with a password.
    pub user: String,
    /// The password.
    pub password: Secret,
    /// A file that holds the password instead.
    pub password_file: String,
    /// A token.
    pub token: Secret,
    /// A file that holds the token instead.
    pub token_file: String,
    /// Encryption.
    pub tls: NatsTlsSection,
}

/// `[nats.tls]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsTlsSection {
    /// Speak to no server without it; servers named `tls://` always have it.
    pub required: bool,
    /// The authority that signed the servers' certificates, in PEM; without it, those that the system trusts.
    pub ca_file: String,
    /// A certificate of our own, in PEM.
    pub cert_file: String,
    /// Its key, in PEM.
    pub key_file: String,
}
