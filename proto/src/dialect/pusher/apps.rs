//! The apps that are served, found by key or by id, and what their secrets sign.

use std::{collections::HashMap, sync::Arc};

use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::ids::AppId;

use super::{App, Limits};

/// Every app that is served.
pub struct Apps {
    by_key: HashMap<AppId, Arc<Served>>,
    by_id: HashMap<String, Arc<Served>>,
}

impl Apps {
    /// These apps. Of two with the same id or key the last counts; the settings refuse them.
    pub fn new(apps: &[App]) -> Self {
        let served: Vec<_> = apps.iter().cloned().map(Served::new).map(Arc::new).collect();
        Self {
            by_key: served.iter().map(|served| (served.app.key.clone(), served.clone())).collect(),
            by_id: served.into_iter().map(|served| (served.app.id.clone(), served)).collect(),
        }
    }

    /// The app whose sockets come in by this key.
    pub fn by_key(&self, key: &str) -> Option<&Arc<Served>> {
        self.by_key.get(key)
    }

    /// The app whose backends come in by this id.
    pub fn by_id(&self, id: &str) -> Option<&Arc<Served>> {
        self.by_id.get(id)
    }
}

/// An app with its secret at hand.
pub struct Served {
    /// What the settings say of it.
    pub app: App,
    /// Has taken in the secret already, which would be half of the work of a short signature.
    mac: Hmac<Sha256>,
}

impl Served {
    fn new(app: App) -> Self {
        let mac = Hmac::new_from_slice(&app.secret).expect("HMAC takes a key of any length");
        Self { app, mac }
    }

    /// What it may have.
    pub fn limits(&self) -> &Limits {
        &self.app.limits
    }

    /// Is `signature` what the secret makes of `parts`, written one after the other?
    pub fn has_signed(&self, parts: &[&[u8]], signature: &[u8]) -> bool {
        let mut mac = self.mac.clone();
        parts.iter().for_each(|part| mac.update(part));
        bool::from(hex(&mac.finalize().into_bytes()).as_bytes().ct_eq(signature))
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hex = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        hex.push(DIGITS[usize::from(byte >> 4)].into());
        hex.push(DIGITS[usize::from(byte & 0xF)].into());
    }
    hex
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// The app of the vectors.
    pub fn app() -> App {
        App {
            key: "wh-key".parse().unwrap(),
            id: "42".to_owned(),
            secret: b"wh-secret".to_vec(),
            client_events: true,
            limits: Limits::default(),
        }
    }

    #[test]
    fn an_app_has_a_key_and_an_id_and_neither_stands_for_the_other() {
        let apps = Apps::new(&[app()]);
        assert_eq!(apps.by_key("wh-key").unwrap().app.id, "42");
        assert_eq!(apps.by_id("42").unwrap().app.key.as_str(), "wh-key");
        assert!(apps.by_key("42").is_none());
        assert!(apps.by_id("wh-key").is_none());
    }

    #[test]
    fn permissions_are_signed_as_pushers_libraries_sign_them() {
        let served = Served::new(app());
        for (signed, signature) in [
            ("11.22:private-a", "f0aca078562379b12ba3140b36aa7f3064d7a5b7356286b0c4935008f1b05bc8"),
            (
                r#"11.22:presence-a:{"user_id":"7","user_info":{"name":"Ann"}}"#,
                "9001bba7a7a07238d8d14628eb9a83a0850ef9ef9a0eb8936e1fa1acf425da84",
            ),
            (
                r#"11.22:presence-a:{"user_id": "7", "user_info": {"name": "Ann"}}"#,
                "69f7d439aecaf82d7817efe10936472f7f3e095e1416e5c3d6c3291c4dcf3583",
            ),
            (
                r#"11.22::user::{"id":"7","watchlist":["8"]}"#,
                "14df4476a75fc7e8c0443aba00d5dd2a33ae450474465adeab3fd2f98d704a2a",
            ),
        ] {
            let (head, tail) = signed.as_bytes().split_at(6);
            assert!(served.has_signed(&[head, tail], signature.as_bytes()), "{signed}");
            assert!(!served.has_signed(&[head, tail, b" "], signature.as_bytes()), "{signed}");
            assert!(!served.has_signed(&[head, tail], signature.to_uppercase().as_bytes()), "{signed}");
            assert!(!served.has_signed(&[head, tail], &signature.as_bytes()[..63]), "{signed}");
        }
    }
}
