//! Key pairs made at test time, and tokens signed with them.

use std::{
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa::{KeyPair, KeySize},
    signature::KeyPair as _,
};
use base64::{Engine, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// An RSA key pair.
pub struct Signer {
    /// The half that the server is given.
    pub public_pem: String,
    private_pem: String,
}

impl Signer {
    fn generate() -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("RSA keys can be made");
        let private: Pkcs8V1Der<'_> = pair.as_der().expect("a fresh key encodes");
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("a fresh key encodes");
        Self { public_pem: pem("PUBLIC KEY", public.as_ref()), private_pem: pem("PRIVATE KEY", private.as_ref()) }
    }

    /// `claims`, signed as `algorithm` (one of RSA's).
    pub fn sign_as(&self, algorithm: Algorithm, claims: &Value) -> String {
        let key = EncodingKey::from_rsa_pem(self.private_pem.as_bytes()).expect("our own PEM");
        jsonwebtoken::encode(&Header::new(algorithm), claims, &key).expect("claims are JSON")
    }

    /// `claims`, signed.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as(Algorithm::RS256, claims)
    }

    /// A token for `user` of `app`, good for an hour.
    pub fn jwt(&self, app: &str, user: &str, channels: &[&str]) -> String {
        self.sign(&claims(app, user, channels))
    }
}

/// The key pair whose public half every server of these tests trusts.
pub fn signer() -> &'static Signer {
    static SIGNER: OnceLock<Signer> = OnceLock::new();
    SIGNER.get_or_init(Signer::generate)
}

/// A key pair that no server knows.
pub fn stranger() -> &'static Signer {
    static STRANGER: OnceLock<Signer> = OnceLock::new();
    STRANGER.get_or_init(Signer::generate)
}

/// What a client's JWT says, for an hour from now.
pub fn claims(app: &str, user: &str, channels: &[&str]) -> Value {
    json!({ "gusher": { "user_id": user, "channels": channels, "app_key": app }, "exp": now() + 3_600 })
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs()
}

/// A token made of any header and payload, signed by nobody or with an HMAC.
pub fn forged(header: &Value, claims: &Value, hmac_key: Option<&[u8]>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = hmac_key.map_or_else(String::new, |key| {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
        URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&key, signed.as_bytes()))
    });
    format!("{signed}.{signature}")
}

fn pem(what: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<_> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("base64")).collect();
    format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", lines.join("\n"))
}
