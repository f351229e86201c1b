//! Keys that sign clients' tokens. A server only needs their public halves; this is for `wellhead token`, `wellhead
//! keys`, and development mode.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::{self, KeySize},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::ValueEnum;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use wellhead_proto::jwt::Key;

/// Kinds of key pairs that can be made.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum KeyKind {
    /// RSA with 2,048 bits: what every JWT library knows.
    #[value(name = "RS256")]
    Rs256,
    /// Curve P-256: short tokens.
    #[value(name = "ES256")]
    Es256,
    /// Ed25519: short tokens, quick to sign.
    #[value(name = "EdDSA")]
    EdDsa,
}

/// A key pair in PEM.
pub struct KeyPair {
    /// Signs; PKCS #8.
    pub private: String,
    /// Verifies; SubjectPublicKeyInfo.
    pub public: String,
}

impl KeyPair {
    /// A fresh pair.
    ///
    /// # Errors
    ///
    /// The machine has no randomness to give.
    pub fn generate(kind: KeyKind) -> Result<Self> {
        let failed = |_| anyhow!("cannot make a key pair");
        let (private, public) = match kind {
            KeyKind::Rs256 => {
                let pair = rsa::KeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
                let private: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
                let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(failed)?;
                (private.as_ref().to_vec(), public.as_ref().to_vec())
            }
            KeyKind::Es256 => {
                let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
                let private = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).map_err(failed)?;
                let pair = EcdsaKeyPair::from_pkcs8(algorithm, private.as_ref())
                    .map_err(|_| anyhow!("the key that was just made cannot be read"))?;
                let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(failed)?;
                (private.as_ref().to_vec(), public.as_ref().to_vec())
            }
            KeyKind::EdDsa => {
                let pair = Ed25519KeyPair::generate().map_err(failed)?;
                let private: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
                let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(failed)?;
                (private.as_ref().to_vec(), public.as_ref().to_vec())
            }
        };
        Ok(Self { private: pem("PRIVATE KEY", &private), public: pem("PUBLIC KEY", &public) })
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in STANDARD.encode(der).as_bytes().chunks(64) {
        pem.extend(line.iter().map(|&byte| byte as char));
        pem.push('\n');
    }
    pem + &format!("-----END {label}-----\n")
}

/// A key that signs.
pub struct SigningKey {
    key: EncodingKey,
    algorithm: Algorithm,
}

impl SigningKey {
    /// A private key in PEM.
    ///
    /// # Errors
    ///
    /// Anything but a private key of RSA, P-256, P-384 or Ed25519.
    pub fn from_pem(pem: &str) -> Result<Self> {
        const P384: &[u8] = &[0x06, 0x05, 0x2B, 0x81, 0x04, 0x00, 0x22];

        if pem.contains("ENCRYPTED") {
            bail!("the private key is encrypted; `openssl pkey -in KEY` removes the passphrase");
        }
        if pem.contains("BEGIN PUBLIC KEY") {
            bail!("this is a public key; tokens are signed with the private one");
        }
        if pem.contains("BEGIN EC PRIVATE KEY") {
            bail!("an old form of EC key; `openssl pkcs8 -topk8 -nodes -in KEY` brings it into the form needed");
        }
        let pem = pem.as_bytes();
        let (key, algorithm) = if let Ok(key) = EncodingKey::from_rsa_pem(pem) {
            (key, Algorithm::RS256)
        } else if let Ok(key) = EncodingKey::from_ed_pem(pem) {
            (key, Algorithm::EdDSA)
        } else if let Ok(key) = EncodingKey::from_ec_pem(pem) {
            let is_p384 = key.as_bytes().windows(P384.len()).any(|part| part == P384);
            (key, if is_p384 { Algorithm::ES384 } else { Algorithm::ES256 })
        } else {
            bail!("not a private key of RSA, P-256, P-384 or Ed25519 in PEM");
        };
        let key = Self { key, algorithm };
        key.sign(&json!({}), None).context("the private key cannot sign")?;
        Ok(key)
    }

    /// A shared secret: HS256.
    ///
    /// # Errors
    ///
    /// A secret that could be guessed.
    pub fn from_secret(secret: &[u8]) -> Result<Self> {
        // the server would refuse it, so nothing is signed with it
        Key::from_secret(secret)?;
        Ok(Self { key: EncodingKey::from_secret(secret), algorithm: Algorithm::HS256 })
    }

    /// A JWT that says `claims`.
    ///
    /// # Errors
    ///
    /// The key is not what its PEM says.
    pub fn sign(&self, claims: &Value, kid: Option<&str>) -> Result<String> {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(self.algorithm) };
        Ok(jsonwebtoken::encode(&header, claims, &self.key)?)
    }
}

/// The claims of a client of `app`, from now on for `ttl`.
#[must_use]
pub fn claims(app: &str, user: &str, channels: &[String], ttl: Duration) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    json!({
        "gusher": { "user_id": user, "channels": channels, "app_key": app },
        "iat": now.as_secs(),
        "exp": now.saturating_add(ttl).as_secs(),
    })
}

#[cfg(test)]
mod tests {
    use wellhead_proto::jwt::Keyring;

    use super::*;

    #[test]
    fn what_a_pair_signs_its_public_half_verifies() {
        for kind in KeyKind::value_variants() {
            let pair = KeyPair::generate(*kind).unwrap();
            let claims = claims("demo", "ann", &["news".to_owned()], Duration::from_secs(60));
            let token = SigningKey::from_pem(&pair.private).unwrap().sign(&claims, None).unwrap();
            let keys = Keyring::new(vec![Key::from_pem(None, pair.public.as_bytes(), None).unwrap()], true);
            let now = claims["iat"].as_f64().unwrap();
            let claims = keys.verify(&token, now).unwrap();
            assert_eq!(claims.grant.app.as_str(), "demo");
            assert_eq!(claims.grant.user.as_str(), "ann");
            let other = KeyPair::generate(*kind).unwrap();
            let keys = Keyring::new(vec![Key::from_pem(None, other.public.as_bytes(), None).unwrap()], true);
            assert!(keys.verify(&token, now).is_err(), "{kind:?}");
        }
    }

    #[test]
    fn what_cannot_sign_is_refused_with_advice() {
        let pair = KeyPair::generate(KeyKind::EdDsa).unwrap();
        let refused = |pem: &str| SigningKey::from_pem(pem).err().unwrap().to_string();
        assert!(refused(&pair.public).contains("public key"));
        assert!(refused("rubbish").contains("not a private key"));
        assert!(refused("-----BEGIN EC PRIVATE KEY-----").contains("openssl"));
        assert!(refused("-----BEGIN ENCRYPTED PRIVATE KEY-----").contains("encrypted"));
        assert!(SigningKey::from_secret(b"short").is_err());
    }
}
