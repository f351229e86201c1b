//! What the master of a machine gives to its slaves over the local bus, so that they start with nothing configured.

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use log::warn;
use serde::{Deserialize, Serialize};
use wellhead_proto::jwt::{Key, Keyring};

use crate::{
    development::Development,
    settings::{load::Loaded, place::SettingsError, plan::Plan},
};

/// What is given. JSON, so that nodes of two releases understand each other as far as they can.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Welcome {
    /// What the master's cluster is called.
    cluster: String,
    /// The cluster's secret, in base64.
    secret: String,
    /// In development mode, the public half of the throw-away key, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl Welcome {
    /// The welcome of a master.
    pub(super) fn new(cluster: &str, secret: &[u8], development: Option<&Development>) -> Self {
        Self {
            cluster: cluster.to_owned(),
            secret: STANDARD.encode(secret),
            key: development.map(|development| development.public_key.clone()),
        }
    }

    pub(super) fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("strings are always JSON").into()
    }

    /// What a master gave us.
    ///
    /// # Errors
    ///
    /// It is none of ours.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes)
            .context("the master on the local bus speaks another language: run the same release")
    }

    /// What a slave with these settings makes of it: the cluster's secret, and in development mode the keys of tokens.
    ///
    /// # Errors
    ///
    /// The two do not belong together.
    pub(super) fn secret_and_keys(&self, loaded: &Loaded, plan: &Plan) -> Result<(Vec<u8>, Option<Keyring>)> {
        let error = |key: &str, message: String| {
            SettingsError::new(format!("{key}: {message}")).at(loaded.places.of(key).cloned())
        };
        let own = &loaded.settings.cluster.name;
        if *own != self.cluster {
            let message = format!("this is {own:?}, and the master at this socket is of {:?}", self.cluster);
            return Err(error("cluster.name", message).hint("give each cluster a cluster.socket of its own").into());
        }
        let secret = STANDARD.decode(&self.secret).context("the master's secret is not base64")?;
        if plan.secret.as_ref().is_some_and(|own| *own != secret) {
            warn!("cluster.secret is not that of the master at this socket: the master's is used");
        }
        let keys = match (&self.key, plan.development) {
            (_, false) => None,
            (Some(pem), true) => {
                let key = Key::from_pem(None, pem.as_bytes(), None).context("the master's throw-away key")?;
                Some(Keyring::new(vec![key], loaded.settings.jwt.require_exp))
            }
            (None, true) => {
                let message = "no key for clients' tokens, and the master is not in development mode".to_owned();
                return Err(error("jwt.public_keys", message).hint("give master and slave the same [jwt]").into());
            }
        };
        Ok((secret, keys))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Settings, plan::Roles};

    fn joined(welcome: &Welcome, settings: Settings) -> Result<(Vec<u8>, Option<Keyring>)> {
        let loaded = settings.into();
        let plan = Plan::new(&loaded, Roles::Slave)?;
        Welcome::decode(&welcome.encode())?.secret_and_keys(&loaded, &plan)
    }

    #[test]
    fn a_slave_without_settings_gets_the_secret_and_the_throw_away_key() {
        let (development, _) = Development::start(&Settings::default(), b"secret").unwrap();
        let welcome = Welcome::new("wellhead", b"\0secret\xFF", Some(&development));
        let (secret, keys) = joined(&welcome, Settings::default()).unwrap();
        assert_eq!(secret, b"\0secret\xFF");
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        assert!(keys.unwrap().verify(&development.token, now).is_ok());
    }

    #[test]
    fn what_does_not_belong_together_is_told() {
        let keyless = Welcome::new("wellhead", b"s", None);
        let error = joined(&keyless, Settings::default()).expect_err("no key anywhere");
        assert!(error.is::<SettingsError>() && error.to_string().contains("jwt.public_keys"), "{error}");
        let mut settings = Settings::default();
        settings.cluster.name = "other".to_owned();
        let error = joined(&keyless, settings).expect_err("two clusters");
        assert!(error.is::<SettingsError>() && error.to_string().contains("cluster.socket"), "{error}");
        assert!(Welcome::decode(b"\x01hello").is_err());
    }

    #[test]
    fn what_a_later_release_adds_is_ignored() {
        let text = br#"{"cluster":"wellhead","secret":"AAAA","more":[1]}"#;
        assert!(Welcome::decode(text).is_ok());
    }
}
