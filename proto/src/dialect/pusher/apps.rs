//! What is known of an app: how Pusher's libraries call it, what its secret signs, what it may have.

use std::{fmt, sync::Arc, time::Duration};

use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::{
    ids::{AppId, ChannelName},
    tenants::{AppWants, Tenants},
};

use super::{
    limits::AppLimits,
    names::ChannelKind,
    webhook::{Webhook, WebhookKind},
};

/// An app as Pusher's libraries know it. It is kept in the directory of tenants.
#[derive(Clone)]
pub struct PusherApp {
    /// Its key, which is in the path of its sockets and names the app everywhere else in Wellhead.
    pub key: AppId,
    /// Its id, which the paths of the HTTP API contain.
    pub id: String,
    /// Signs requests and permissions.
    pub secret: Vec<u8>,
    /// May clients publish to each other on private and presence channels?
    pub client_events: bool,
    /// How long a client may take to sign in or to join a channel with a signature; `None`: it need do neither.
    pub authorize_within: Option<Duration>,
    /// May clients watch who is online?
    pub watchlist: bool,
    /// Are subscribers told how many they are?
    pub subscription_count_event: bool,
    /// Its limits.
    pub limits: AppLimits,
    /// What is told of its channels, and whom.
    pub webhooks: Vec<Arc<Webhook>>,
    /// Initialized with the secret: that would be half of the work of a short signature.
    pub(super) mac: Hmac<Sha256>,
}

impl PusherApp {
    /// An app that is served, ready to verify signatures.
    #[must_use]
    pub fn new(key: AppId, id: String, secret: Vec<u8>, client_events: bool, limits: AppLimits) -> Self {
        let mac = Hmac::new_from_slice(&secret).expect("HMAC takes a key of any length");
        Self {
            key,
            id,
            secret,
            client_events,
            authorize_within: None,
            watchlist: false,
            subscription_count_event: false,
            limits,
            webhooks: Vec::new(),
            mac,
        }
    }

    /// The targets of webhooks of an app, in the order of the settings.
    #[must_use]
    pub fn webhooks_of<'t>(tenants: &'t Tenants, app: &AppId) -> &'t [Arc<Webhook>] {
        tenants.app(app).of::<Self>().map_or(&[], |app| &app.webhooks)
    }

    /// The signature of a body that is sent to the app.
    #[must_use]
    pub fn sign(&self, body: &[u8]) -> String {
        let mut mac = self.mac.clone();
        mac.update(body);
        hex(&mac.finalize().into_bytes())
    }

    /// What the cluster counts and announces for it.
    pub(super) fn wants(&self) -> AppWants {
        // members of presence channels are announced one by one
        let counted = |channel: &ChannelName| ChannelKind::of(channel.as_str()) != ChannelKind::Presence;
        let webhook = self.webhooks.iter().any(|webhook| webhook.events.contains(&WebhookKind::SubscriptionCount));
        AppWants {
            watchlists: self.watchlist,
            counts: (self.subscription_count_event || webhook).then_some(counted),
            tells_counts: self.subscription_count_event,
        }
    }

    /// Is `signature` what the secret makes of `parts`, written one after the other?
    pub(super) fn has_signed(&self, parts: &[&[u8]], signature: &[u8]) -> bool {
        let mut mac = self.mac.clone();
        parts.iter().for_each(|part| mac.update(part));
        bool::from(hex(&mac.finalize().into_bytes()).as_bytes().ct_eq(signature))
    }
}

/// Hides the secret.
impl fmt::Debug for PusherApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PusherApp").field("key", &self.key).field("id", &self.id).finish_non_exhaustive()
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
    use crate::{
        jwt::Keyring,
        origin::Origins,
        tenants::{DialectRecord, ListedTenant},
    };

    /// The app of the vectors.
    pub fn app() -> PusherApp {
        let (key, secret) = ("wh-key".parse().unwrap(), b"wh-secret".to_vec());
        PusherApp::new(key, "42".to_owned(), secret, true, AppLimits::default())
    }

    /// A directory of these apps.
    pub fn tenants(apps: impl IntoIterator<Item = PusherApp>) -> Tenants {
        let listed = apps.into_iter().map(|app| {
            let of_dialects = vec![DialectRecord::new(Some(app.id.clone()), app.clone())];
            (app.key, ListedTenant { of_dialects, ..ListedTenant::default() })
        });
        Tenants::new(Keyring::default(), listed, false, Origins::any())
    }

    #[test]
    fn an_app_has_a_key_and_an_id_and_neither_stands_for_the_other() {
        let tenants = tenants([app()]);
        let by_key = |key: &str| tenants.app(&key.parse().unwrap()).of::<PusherApp>();
        assert_eq!(by_key("wh-key").unwrap().id, "42");
        assert_eq!(tenants.by_id::<PusherApp>("42").unwrap().key.as_str(), "wh-key");
        assert!(by_key("42").is_none());
        assert!(tenants.by_id::<PusherApp>("wh-key").is_none());
    }

    #[test]
    fn permissions_are_signed_as_pushers_libraries_sign_them() {
        let served = app();
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
