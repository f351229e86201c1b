//! Remote commands: what a client asks of the backend of its app, by way of its slave. Where they are posted, and what is
//! told to the client.

use std::{fmt, time::Duration};

use bytes::Bytes;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::{frame::Frame, http_target::HttpTarget};

/// How long the backend may take.
pub const REMOTE_WITHIN: Duration = Duration::from_secs(5);

/// Where the remote commands of an app are posted, and what signs them.
#[derive(Clone)]
pub struct RemoteTarget {
    http: HttpTarget,
    /// Initialized with the secret of the app.
    mac: Hmac<Sha256>,
}

impl RemoteTarget {
    /// That target; `secret` is that of the app.
    #[must_use]
    pub fn new(http: HttpTarget, secret: &[u8]) -> Self {
        Self { http, mac: Hmac::new_from_slice(secret).expect("HMAC takes a key of any length") }
    }

    /// The address.
    #[must_use]
    pub fn http(&self) -> &HttpTarget {
        &self.http
    }

    /// HMAC-SHA256 of `body`, in lower-case hexadecimal digits.
    #[must_use]
    pub fn sign(&self, body: &[u8]) -> String {
        format!("{:x}", self.mac.clone().chain_update(body).finalize().into_bytes())
    }
}

/// Never shows a secret.
impl fmt::Debug for RemoteTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteTarget({})", self.http)
    }
}

/// A command that a client may send to the backend of its app.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RemoteCall {
    /// What is posted: JSON.
    pub body: Bytes,
    /// What the client is told if the backend took it.
    pub taken: Option<Frame>,
    /// What the client is told if it did not, or nobody could ask it.
    pub failed: Frame,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_signed_with_the_secret_and_nothing_secret_is_shown() {
        let http = HttpTarget::new("https://example.com/hush").unwrap().with_header("X-Token: hush").unwrap();
        let target = RemoteTarget::new(http, b"hush");
        // openssl dgst -sha256 -hmac hush
        assert_eq!(target.sign(b"{}"), "505c20ac604f662945b662a1f13a9ca2f03bf0b1986f505d5aef48e10da8c918");
        assert_ne!(target.sign(b"{}"), target.sign(b"{ }"));
        assert_eq!(format!("{target:?}"), "RemoteTarget(https://example.com:443)");
    }
}
