//! JSON Web Tokens of clients: which keys verify them and what they say (gusher.md §2). The time is passed in.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive, sync::Arc};

use aws_lc_rs::{
    rsa,
    signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, VerificationAlgorithm},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, crypto, decode_header};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::{
    channel::ChannelPattern,
    ids::{AppId, UserId},
};

/// The `typ` of the tokens that slaves issue. A token that carries it is never a client's JWT, whoever signed it.
pub const CONNECTION_TOKEN_TYP: &str = "wellhead-connection";

/// The longest JWT that is looked at, in bytes.
pub const MAX_JWT_BYTES: usize = 64 << 10;

/// What a client's JWT says about it. `null` counts as missing wherever the original takes it so: a name is then `""`, a
/// boolean `false`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Grant {
    /// Who it is; may be empty.
    #[serde(rename = "user_id", default = "UserId::nobody", deserialize_with = "null_is_nobody")]
    pub user: UserId,
    /// The patterns of channels that it may subscribe to; absent or `null` is none.
    #[serde(default, deserialize_with = "null_is_nothing")]
    pub channels: Vec<ChannelPattern>,
    /// The one app that it may connect to.
    #[serde(rename = "app_key")]
    pub app: AppId,
    /// Remote commands that it may send.
    #[serde(default, deserialize_with = "null_is_false")]
    pub remotes: Option<BTreeMap<String, bool>>,
}

/// A verified JWT: the private claim and the registered ones that were present, these as they were written.
#[derive(Clone, Debug, Deserialize)]
pub struct Claims {
    /// The private claim. Its name in tokens is that of the server that they were made for first.
    #[serde(rename = "gusher")]
    pub grant: Grant,
    /// Audience; not checked.
    pub aud: Option<Box<RawValue>>,
    /// When it ends.
    #[serde(default)]
    pub exp: Option<NumericDate>,
    /// Its id; not checked.
    pub jti: Option<Box<RawValue>>,
    /// When it was issued; not checked.
    pub iat: Option<Box<RawValue>>,
    /// Who issued it; not checked.
    pub iss: Option<Box<RawValue>>,
    /// When it begins.
    #[serde(default)]
    pub nbf: Option<NumericDate>,
    /// Its subject; not checked.
    pub sub: Option<Box<RawValue>>,
}

/// A number of seconds since 1970, possibly with a fraction, as it was written.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub struct NumericDate(serde_json::Number);

impl NumericDate {
    /// Seconds since 1970.
    #[must_use]
    pub fn unix_seconds(&self) -> f64 {
        self.0.as_f64().unwrap_or(f64::MAX)
    }
}

impl Claims {
    /// The claims in `message`, the part of a JWT that is signed.
    fn read(message: &str) -> Result<Self, BadToken> {
        let payload = message.rsplit_once('.').ok_or(BadToken::Malformed)?.1;
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| BadToken::Malformed)?;
        serde_json::from_slice(&payload).map_err(|_| BadToken::Malformed)
    }

    /// When the token ends, in seconds since 1970.
    #[must_use]
    pub fn expires_at(&self) -> Option<f64> {
        self.exp.as_ref().map(NumericDate::unix_seconds)
    }
}

/// Why a token is refused. The caller is told only that it is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
pub enum BadToken {
    /// None was given.
    #[error("no token")]
    Missing,
    /// Not a token at all, or claims of the wrong type.
    #[error("malformed token")]
    Malformed,
    /// Signed in a way that none of the keys allows.
    #[error("algorithm not allowed")]
    Algorithm,
    /// Not signed by any of the keys.
    #[error("bad signature")]
    Signature,
    /// Its time is over.
    #[error("expired")]
    Expired,
    /// Its time has not come.
    #[error("not yet valid")]
    NotYetValid,
    /// It has no `exp`, and the settings demand one.
    #[error("no expiry")]
    NoExpiry,
    /// It is for another app than the one asked for, or for one that is not served.
    #[error("wrong app")]
    WrongApp,
    /// One of our own tokens where a client's JWT belongs, or the reverse.
    #[error("wrong kind of token")]
    WrongKind,
    /// A one-time token that was used.
    #[error("already used")]
    Used,
    /// The node that issued it does not say what it stands for.
    #[error("its issuer does not answer")]
    Unanswered,
}

impl BadToken {
    /// Its name in logs and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::NoExpiry => "no_expiry",
            Self::WrongApp => "wrong_app",
            Self::WrongKind => "wrong_kind",
            Self::Used => "used",
            Self::Unanswered => "unanswered",
        }
    }
}

/// One verification key. The algorithms come from here, never from a token's header.
#[derive(Clone)]
pub struct Key {
    kid: Option<String>,
    key: DecodingKey,
    algorithms: Arc<[Algorithm]>,
}

impl Key {
    /// A key that verifies `algorithms`, all of one family; `kid` is its name in token headers, if it has one.
    #[must_use]
    pub fn new(kid: Option<String>, key: DecodingKey, algorithms: &[Algorithm]) -> Self {
        Self { kid, key, algorithms: algorithms.into() }
    }

    /// A public key from PEM, with the algorithms that its kind allows: RSA gives RS256, RS384 and RS512; the curves
    /// P-256, P-384 and Ed25519 give ES256, ES384 and `EdDSA`. `only` narrows that to one.
    ///
    /// # Errors
    ///
    /// Anything but a public key of those kinds, one that could verify nothing, or an algorithm that the key cannot have.
    pub fn from_pem(kid: Option<String>, pem: &[u8], only: Option<Algorithm>) -> Result<Self, BadKey> {
        const P256: &[u8] = &[0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07];
        const P384: &[u8] = &[0x06, 0x05, 0x2B, 0x81, 0x04, 0x00, 0x22];

        let text = std::str::from_utf8(pem).map_err(|_| BadKey::NotPem)?;
        if text.contains("PRIVATE KEY-----") {
            return Err(BadKey::Private);
        }
        let (key, possible): (_, &[Algorithm]) = if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
            (key, &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512])
        } else if let Ok(key) = DecodingKey::from_ed_pem(pem) {
            (key, &[Algorithm::EdDSA])
        } else if let Ok(key) = DecodingKey::from_ec_pem(pem) {
            let der = der(text);
            let has = |oid: &[u8]| der.windows(oid.len()).any(|part| part == oid);
            if has(P256) {
                (key, &[Algorithm::ES256])
            } else if has(P384) {
                (key, &[Algorithm::ES384])
            } else {
                return Err(BadKey::Kind);
            }
        } else {
            return Err(if text.contains("-----BEGIN ") { BadKey::Kind } else { BadKey::NotPem });
        };
        check_usable(&key, possible[0])?;
        match only {
            None => Ok(Self::new(kid, key, possible)),
            Some(algorithm) if possible.contains(&algorithm) => Ok(Self::new(kid, key, &[algorithm])),
            Some(algorithm) => Err(BadKey::Algorithm { wanted: algorithm, possible: possible.to_vec() }),
        }
    }

    /// A shared secret: HS256, HS384 and HS512.
    ///
    /// # Errors
    ///
    /// A secret shorter than 32 bytes: it could be guessed offline from one token.
    pub fn from_secret(secret: &[u8]) -> Result<Self, BadKey> {
        if secret.len() < Self::MIN_SECRET_BYTES {
            return Err(BadKey::ShortSecret { bytes: secret.len() });
        }
        let algorithms = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
        Ok(Self::new(None, DecodingKey::from_secret(secret), &algorithms))
    }

    /// The shortest and the longest RSA key, in bits: with any other no signature is verified.
    pub const RSA_BITS: RangeInclusive<usize> = 2_048..=8_192;

    /// The shortest secret, in bytes: as long as the hash of HS256.
    pub const MIN_SECRET_BYTES: usize = 32;

    /// Is it a shared secret, with which whoever verifies can also sign?
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.key.family() == AlgorithmFamily::Hmac
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).field("algorithms", &self.algorithms).finish()
    }
}

/// A key that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadKey {
    /// No PEM.
    #[error("not a PEM file (it has no \"-----BEGIN PUBLIC KEY-----\")")]
    NotPem,
    /// A private key where the public half belongs.
    #[error("this is a private key: only its public half belongs on a server that verifies tokens")]
    Private,
    /// PEM, but not of a key that we can verify with.
    #[error("not a public key of RSA, P-256, P-384 or Ed25519")]
    Kind,
    /// The key is of another kind than the algorithm.
    #[error("this key cannot verify {wanted:?}, only {possible:?} (HS256 and its kin need jwt.secret, never a PEM)")]
    Algorithm {
        /// What the settings ask for.
        wanted: Algorithm,
        /// What the key can.
        possible: Vec<Algorithm>,
    },
    /// An RSA key of a size that is not verified with.
    #[error(
        "this RSA key has {bits} bits, and tokens are verified with {} to {} bits only: make a key of 2048 bits or more",
        Key::RSA_BITS.start(), Key::RSA_BITS.end()
    )]
    RsaBits {
        /// Its size.
        bits: usize,
    },
    /// The numbers in it make no key of its kind.
    #[error("a damaged public key: what it holds is no key of its kind")]
    Damaged,
    /// A secret that could be guessed.
    #[error("a secret of {bytes} bytes is too short, at least {} are needed", Key::MIN_SECRET_BYTES)]
    ShortSecret {
        /// Its length.
        bytes: usize,
    },
}

/// Can `key`, which says that it is one for `algorithm`, verify anything? The library looks only at the frame around
/// it, and would refuse each token later.
fn check_usable(key: &DecodingKey, algorithm: Algorithm) -> Result<(), BadKey> {
    let DecodingKeyKind::SecretOrDer(bytes) = key.kind() else { return Err(BadKey::Kind) };
    let curve: &'static dyn VerificationAlgorithm = match algorithm {
        Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED,
        Algorithm::ES384 => &ECDSA_P384_SHA384_FIXED,
        Algorithm::EdDSA => &ED25519,
        _ => {
            let bits = modulus_bits(bytes).ok_or(BadKey::Damaged)?;
            if !Key::RSA_BITS.contains(&bits) {
                return Err(BadKey::RsaBits { bits });
            }
            return rsa::PublicKey::from_der(bytes).map(drop).map_err(|_| BadKey::Damaged);
        }
    };
    ParsedPublicKey::new(curve, bytes).map(drop).map_err(|_| BadKey::Damaged)
}

/// The size of an RSA public key: a sequence of two integers in DER (RFC 8017), of which the first is the modulus.
fn modulus_bits(key: &[u8]) -> Option<usize> {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;

    /// What stands at the beginning of `der`, if it is of this kind.
    fn value(der: &[u8], kind: u8) -> Option<&[u8]> {
        let [found, length, rest @ ..] = der else { return None };
        let (length, rest) = match length {
            0..0x80 => (usize::from(*length), rest),
            _ => {
                let (digits, rest) =
                    rest.split_at_checked(usize::from(length & 0x7F)).filter(|(it, _)| it.len() <= 4)?;
                (digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit)), rest)
            }
        };
        rest.get(..length).filter(|_| *found == kind)
    }

    let modulus = value(value(key, SEQUENCE)?, INTEGER)?;
    let first = modulus.iter().position(|&byte| byte != 0)?;
    Some(8 * (modulus.len() - first) - modulus[first].leading_zeros() as usize)
}

fn der(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    base64::engine::general_purpose::STANDARD.decode(body).unwrap_or_default()
}

/// The keys that verify the tokens of an app, or of every app without keys of its own.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    keys: Vec<Key>,
    require_exp: bool,
}

impl Keyring {
    /// These keys, tried in order. `require_exp`: refuse tokens that never expire.
    #[must_use]
    pub fn new(keys: Vec<Key>, require_exp: bool) -> Self {
        Self { keys, require_exp }
    }

    /// Is there no key? Then no token is valid.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The claims of `jwt`, if one of the keys signed it and `now` (seconds since 1970) lies in its time.
    ///
    /// # Errors
    ///
    /// See [`BadToken`].
    pub fn verify(&self, jwt: &str, now: f64) -> Result<Claims, BadToken> {
        if jwt.is_empty() {
            return Err(BadToken::Missing);
        }
        if jwt.len() > MAX_JWT_BYTES {
            return Err(BadToken::Malformed);
        }
        let header = decode_header(jwt).map_err(|_| algorithm_or_malformed(jwt))?;
        if header.typ.as_deref() == Some(CONNECTION_TOKEN_TYP) {
            return Err(BadToken::WrongKind);
        }
        if header.crit.is_some() {
            return Err(BadToken::Malformed);
        }
        let (message, signature) = jwt.rsplit_once('.').ok_or(BadToken::Malformed)?;
        let named = self.keys.iter().any(|key| key.kid.is_some() && key.kid == header.kid);
        let mut refused = BadToken::Algorithm;
        for key in &self.keys {
            let asked_for = if named { key.kid == header.kid } else { key.kid.is_none() || header.kid.is_none() };
            if !asked_for || !key.algorithms.contains(&header.alg) {
                continue;
            }
            // not the library's `decode`: it looks into claims that are not checked
            match crypto::verify(signature, message.as_bytes(), &key.key, header.alg) {
                Ok(true) => return self.in_time(Claims::read(message)?, now),
                Ok(false) => refused = BadToken::Signature,
                Err(_) => refused = BadToken::Malformed,
            }
        }
        Err(refused)
    }

    fn in_time(&self, claims: Claims, now: f64) -> Result<Claims, BadToken> {
        match claims.expires_at() {
            Some(exp) if exp <= now => return Err(BadToken::Expired),
            None if self.require_exp => return Err(BadToken::NoExpiry),
            _ => {}
        }
        match &claims.nbf {
            Some(nbf) if nbf.unix_seconds() > now => Err(BadToken::NotYetValid),
            _ => Ok(claims),
        }
    }
}

/// The app that `jwt` names. Unverified: only to pick the keys that must verify it.
pub(crate) fn claimed_app(jwt: &str) -> Option<AppId> {
    #[derive(Deserialize)]
    struct Outer {
        #[serde(rename = "gusher")]
        grant: GusherClaim,
    }
    #[derive(Deserialize)]
    struct GusherClaim {
        app_key: AppId,
    }
    let payload = jwt.split('.').nth(1).filter(|payload| payload.len() <= MAX_JWT_BYTES)?;
    let outer: Outer = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    Some(outer.grant.app_key)
}

/// A header that names an algorithm we do not know (`none` among them) fails to parse like any other rubbish.
fn algorithm_or_malformed(jwt: &str) -> BadToken {
    #[derive(Deserialize)]
    struct Header {
        #[expect(dead_code, reason = "read for its presence")]
        alg: String,
    }
    let parts: Vec<_> = jwt.split('.').collect();
    let [header, _, _] = parts[..] else { return BadToken::Malformed };
    let header = URL_SAFE_NO_PAD.decode(header).ok();
    match header.and_then(|header| serde_json::from_slice::<Header>(&header).ok()) {
        Some(_) => BadToken::Algorithm,
        None => BadToken::Malformed,
    }
}

fn null_is_nobody<'de, D: Deserializer<'de>>(from: D) -> Result<UserId, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_else(UserId::nobody))
}

fn null_is_nothing<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ChannelPattern>, D::Error> {
    let channels: Option<Vec<Option<ChannelPattern>>> = Option::deserialize(from)?;
    Ok(channels
        .unwrap_or_default()
        .into_iter()
        .map(|pattern| pattern.unwrap_or_else(ChannelPattern::nothing))
        .collect())
}

fn null_is_false<'de, D: Deserializer<'de>>(from: D) -> Result<Option<BTreeMap<String, bool>>, D::Error> {
    let remotes: Option<BTreeMap<String, Option<bool>>> = Option::deserialize(from)?;
    Ok(remotes.map(|remotes| remotes.into_iter().map(|(name, may)| (name, may.unwrap_or_default())).collect()))
}

#[cfg(test)]
mod tests;
