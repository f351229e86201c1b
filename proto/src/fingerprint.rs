//! Short keyed hashes of what all nodes must have in common, so that nodes can compare it without sending it.

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// A keyed hash of a text, cut to 8 bytes: enough to notice that two nodes differ. It reveals nothing about the text, and
/// nothing about a secret that cannot be guessed (those of clusters have 32 bytes or more).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// The fingerprint of `secret` itself.
    #[must_use]
    pub fn of_secret(secret: &[u8]) -> Self {
        Self::of(secret, [&b"wellhead: the secret of a cluster"[..]])
    }

    /// The fingerprint of `parts`, by `secret`. Where one part ends and the next begins counts.
    ///
    /// # Panics
    ///
    /// Never: HMAC takes a key of any length.
    #[must_use]
    pub fn of<'p>(secret: &[u8], parts: impl IntoIterator<Item = &'p [u8]>) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
        for part in parts {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        let bytes = mac.finalize().into_bytes();
        Self(bytes.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// As a part of another fingerprint.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_secret_another_text_or_another_place_of_the_cut_is_another_fingerprint() {
        let of = |secret: &[u8], parts: &[&[u8]]| Fingerprint::of(secret, parts.iter().copied());
        let all = [
            of(b"a", &[b"xy"]),
            of(b"b", &[b"xy"]),
            of(b"a", &[b"x", b"y"]),
            of(b"a", &[b"xy", b""]),
            of(b"a", &[]),
            Fingerprint::of_secret(b"a"),
            Fingerprint::of_secret(b"b"),
            Fingerprint::default(),
        ];
        for (no, one) in all.iter().enumerate() {
            assert!(!all[..no].contains(one), "{no}");
        }
        assert_eq!(of(b"a", &[b"xy"]), of(b"a", &[b"xy"]));
    }
}
