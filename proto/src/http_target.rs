//! Addresses that Wellhead sends requests of its own to: a URL, and a header that may be a secret.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize, Serializer};
use url::{Host, Url};

use crate::secret::Secret;

/// The longest URL or header.
const MAX_BYTES: usize = 8 * 1_024;

/// Headers that are the sender's own.
const RESERVED: [&str; 11] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// What others begin with that it sets.
const RESERVED_PREFIXES: [&str; 2] = ["x-pusher-", "x-wellhead-"];

/// Where a request goes. Only scheme, host and port are shown: path and query may hold secrets, as the header may.
#[derive(Clone, Eq, PartialEq)]
pub struct HttpTarget {
    url: Url,
    header: Option<TargetHeader>,
}

#[derive(Clone, Eq, PartialEq)]
struct TargetHeader {
    name: String,
    value: Secret,
}

/// Why something cannot be a target. It shows neither the URL nor the header.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadTarget {
    /// It is no URL.
    #[error("is not a URL: {0}")]
    NotUrl(url::ParseError),
    /// Another scheme.
    #[error("must begin with http:// or https://")]
    Scheme,
    /// A user or a password is in it.
    #[error("has a user name or password in it")]
    Userinfo,
    /// More than anybody needs.
    #[error("is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// The header is no header.
    #[error("is not a header such as \"Authorization: Bearer secret\"")]
    Header,
    /// The header is set already.
    #[error("names a header that is set by Wellhead itself")]
    Reserved,
}

impl HttpTarget {
    /// The target at `url`.
    ///
    /// # Errors
    ///
    /// See [`BadTarget`].
    pub fn new(url: &str) -> Result<Self, BadTarget> {
        if url.len() > MAX_BYTES {
            return Err(BadTarget::TooLong);
        }
        let mut url = Url::parse(url).map_err(BadTarget::NotUrl)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(BadTarget::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BadTarget::Userinfo);
        }
        url.set_fragment(None);
        Ok(Self { url, header: None })
    }

    /// The same with a header of its own, as in `Name: value`.
    ///
    /// # Errors
    ///
    /// See [`BadTarget`].
    pub fn with_header(self, header: &str) -> Result<Self, BadTarget> {
        if header.len() > MAX_BYTES {
            return Err(BadTarget::TooLong);
        }
        let (name, value) = header.split_once(':').ok_or(BadTarget::Header)?;
        let (name, value) = (name.to_ascii_lowercase(), value.trim());
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let is_visible = |byte: u8| matches!(byte, b' '..=b'~');
        if name.is_empty() || value.is_empty() || !name.bytes().all(is_token) || !value.bytes().all(is_visible) {
            return Err(BadTarget::Header);
        }
        if RESERVED.contains(&&*name) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            return Err(BadTarget::Reserved);
        }
        Ok(Self { header: Some(TargetHeader { name, value: value.into() }), ..self })
    }

    /// The whole URL; not to be shown.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Its header's name, in lower case, and value; not to be shown.
    #[must_use]
    pub fn header(&self) -> Option<(&str, &str)> {
        self.header.as_ref().map(|header| (&*header.name, header.value.expose()))
    }

    /// The address that stands in the URL instead of a name, however it is spelt.
    #[must_use]
    pub fn literal_address(&self) -> Option<IpAddr> {
        match self.url.host()? {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
        }
    }
}

impl fmt::Display for HttpTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.url.host_str().unwrap_or_default();
        write!(f, "{}://{host}:{}", self.url.scheme(), self.url.port_or_known_default().unwrap_or_default())
    }
}

/// Never shows a secret.
impl fmt::Debug for HttpTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpTarget({self})")
    }
}

/// A URL in the settings. Shown as targets are.
#[derive(Clone, Default, Deserialize, Eq, PartialEq)]
#[serde(transparent)]
pub struct TargetUrl(String);

impl TargetUrl {
    /// The whole of it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    fn shown(&self) -> String {
        match HttpTarget::new(&self.0) {
            _ if self.0.is_empty() => String::new(),
            Ok(target) => target.to_string(),
            Err(_) => "…".to_owned(),
        }
    }
}

impl From<&str> for TargetUrl {
    fn from(url: &str) -> Self {
        Self(url.to_owned())
    }
}

impl fmt::Debug for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.shown())
    }
}

impl Serialize for TargetUrl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_shows_scheme_host_and_port_and_nothing_else() {
        for (url, shown) in [
            ("http://hooks.example.com/pusher?key=hush#hush", "http://hooks.example.com:80"),
            ("https://Hooks.Example.com/hush", "https://hooks.example.com:443"),
            ("https://[2001:4860::1]:8443/", "https://[2001:4860::1]:8443"),
        ] {
            let target = HttpTarget::new(url).unwrap().with_header("X-Token: hush").unwrap();
            assert_eq!(target.to_string(), shown);
            assert_eq!(target.header(), Some(("x-token", "hush")));
            assert!(!format!("{target:?}").contains("hush"), "{target:?}");
        }
    }

    #[test]
    fn what_cannot_be_a_target_is_refused_without_being_shown() {
        let refused = |url: &str| HttpTarget::new(url).unwrap_err();
        assert_eq!(refused("ftp://example.com/"), BadTarget::Scheme);
        assert_eq!(refused("unix:/run/socket"), BadTarget::Scheme);
        assert_eq!(refused("http://user@example.com/"), BadTarget::Userinfo);
        assert_eq!(refused("http://:hush@example.com/"), BadTarget::Userinfo);
        assert_eq!(refused(&format!("http://example.com/{}", "a".repeat(MAX_BYTES))), BadTarget::TooLong);
        for url in ["", "example.com/path", "http://", "http://exa mple.com/", "http://example.com:99999/"] {
            assert!(matches!(refused(url), BadTarget::NotUrl(_)), "{url}");
        }
        let target = HttpTarget::new("http://example.com/").unwrap();
        for header in ["hush", ": hush", "X-Token:", "X Token: hush", "X-Token: hush\r\nX: y", "X-Token: h\u{fc}sh"] {
            assert_eq!(target.clone().with_header(header), Err(BadTarget::Header), "{header}");
        }
        for header in ["Host: hush", "content-length: 1", "X-Pusher-Signature: hush", "X-Wellhead-Signature: hush"] {
            assert_eq!(target.clone().with_header(header), Err(BadTarget::Reserved), "{header}");
        }
        let long = format!("X-Token: {}", "a".repeat(MAX_BYTES));
        assert_eq!(target.with_header(&long), Err(BadTarget::TooLong));
    }

    #[test]
    fn an_address_is_known_however_it_is_spelt() {
        for host in ["127.0.0.1", "127.1", "0x7f.1", "0177.0.0.1", "2130706433", "0x7f000001", "127.0.0.1."] {
            let target = HttpTarget::new(&format!("http://{host}/")).unwrap();
            assert_eq!(target.literal_address(), Some(IpAddr::from([127, 0, 0, 1])), "{host}");
        }
        let literal = |url| HttpTarget::new(url).unwrap().literal_address();
        assert_eq!(literal("http://[::ffff:7f00:1]/"), Some("::ffff:127.0.0.1".parse().unwrap()));
        assert_eq!(literal("http://\u{ff11}\u{ff12}\u{ff17}.0.0.1/"), Some(IpAddr::from([127, 0, 0, 1])));
        assert_eq!(literal("http://localhost/"), None);
    }
}
