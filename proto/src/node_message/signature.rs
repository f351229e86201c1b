//! What nodes sign their messages with.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// What the key is derived under: the secret of a cluster has other uses, too.
const LABEL: &[u8] = b"wellhead: signs messages between nodes";

/// Signs messages, and verifies them: HMAC-SHA-256, cut to 128 bits. Derived from the secret of the cluster, so that
/// whoever does not know that can neither make a message nor change one.
#[derive(Clone)]
pub struct MessageKey(Hmac<Sha256>);

impl MessageKey {
    /// Bytes of a signature.
    pub const SIGNATURE: usize = 16;

    /// The key of the cluster with this secret.
    ///
    /// # Panics
    ///
    /// Never: HMAC takes a key of any length.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        let derived = keyed(secret).chain_update(LABEL).finalize().into_bytes();
        Self(keyed(&derived))
    }

    /// Put the signature of `message` behind it.
    pub(super) fn sign(&self, message: &mut Vec<u8>) {
        let signature = self.0.clone().chain_update(&*message).finalize().into_bytes();
        message.extend_from_slice(&signature[..Self::SIGNATURE]);
    }

    /// The message before its signature; `None` if the signature is not that of the message. Takes the same time wherever
    /// the two differ.
    pub(super) fn verify<'m>(&self, signed: &'m [u8]) -> Option<&'m [u8]> {
        let (message, signature) = signed.split_at_checked(signed.len().checked_sub(Self::SIGNATURE)?)?;
        self.0.clone().chain_update(message).verify_truncated_left(signature).is_ok().then_some(message)
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

/// Shows nothing of the key.
impl fmt::Debug for MessageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MessageKey")
    }
}
