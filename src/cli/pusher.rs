//! Pusher's side of `wellhead push` and `wellhead sub`: what an app's secret signs (pusher.md §1.2, §2.6).

use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use aws_lc_rs::hmac;
use clap::Args;
use md5::{Digest, Md5};
use serde_json::json;

use super::{encoded, secret_of};

/// An app of Pusher's API.
#[derive(Args)]
pub(super) struct PusherAppArgs {
    /// Speak Pusher's API, as the app with this key
    #[arg(long, value_name = "KEY", help_heading = "Pusher")]
    pub(super) pusher_key: Option<String>,
    /// The app's secret: signs pushes, and subscriptions to private and presence channels
    #[arg(long, value_name = "SECRET", requires = "pusher_key", help_heading = "Pusher")]
    pusher_secret: Option<String>,
    /// A file that holds it, so that it does not show in the list of processes
    #[arg(
        long,
        value_name = "FILE",
        requires = "pusher_key",
        conflicts_with = "pusher_secret",
        help_heading = "Pusher"
    )]
    pusher_secret_file: Option<PathBuf>,
}

impl PusherAppArgs {
    fn secret(&self) -> Result<Option<String>> {
        secret_of(self.pusher_secret.as_ref(), self.pusher_secret_file.as_ref())
    }

    /// What signs for the app, if it is one of Pusher's.
    pub(super) fn signer(&self) -> Result<Option<PusherSigner>> {
        let Some(key) = &self.pusher_key else { return Ok(None) };
        Ok(Some(PusherSigner { key: key.clone(), secret: self.secret()? }))
    }
}

/// Signs in the name of an app.
pub(super) struct PusherSigner {
    pub(super) key: String,
    secret: Option<String>,
}

impl PusherSigner {
    fn sign(&self, what: &str) -> Result<String> {
        let secret = self.secret.as_ref().context("the app's secret must sign this: name --pusher-secret-file")?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        Ok(hex(hmac::sign(&key, what.as_bytes()).as_ref()))
    }

    /// The path and the query of a request with that body to app `id`.
    pub(super) fn events(&self, id: &str, body: &str) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let path = format!("/apps/{}/events", encoded(id));
        let md5 = hex(&Md5::digest(body.as_bytes()));
        let query = |key: &str| format!("auth_key={key}&auth_timestamp={now}&auth_version=1.0&body_md5={md5}");
        // decoded when it is signed, encoded when it is sent
        let signature = self.sign(&format!("POST\n{path}\n{}", query(&self.key)))?;
        Ok(format!("{path}?{}&auth_signature={signature}", query(&encoded(&self.key))))
    }

    /// The frame by which a socket subscribes to a channel, to a presence channel as `user`.
    pub(super) fn subscribe(&self, socket: &str, channel: &str, user: &str) -> Result<String> {
        let mut data = json!({ "channel": channel });
        if channel.starts_with("presence-") {
            let member = json!({ "user_id": user }).to_string();
            let signature = self.sign(&format!("{socket}:{channel}:{member}"))?;
            data["auth"] = format!("{}:{signature}", self.key).into();
            data["channel_data"] = member.into();
        } else if channel.starts_with("private-") {
            data["auth"] = format!("{}:{}", self.key, self.sign(&format!("{socket}:{channel}"))?).into();
        }
        Ok(json!({ "event": "pusher:subscribe", "data": data }).to_string())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors that the server's own signatures are held to.
    #[test]
    fn a_subscription_is_signed_as_the_libraries_do() {
        let signer = PusherSigner { key: "wh-key".to_owned(), secret: Some("wh-secret".to_owned()) };
        assert_eq!(
            signer.sign("11.22:private-a").unwrap(),
            "f0aca078562379b12ba3140b36aa7f3064d7a5b7356286b0c4935008f1b05bc8"
        );
        let said = signer.subscribe("11.22", "private-a", "").unwrap();
        assert!(said.contains("wh-key:f0aca078562379b1"), "{said}");
        assert!(!signer.subscribe("11.22", "news", "").unwrap().contains("auth"), "nothing proves what all may");
        assert!(PusherSigner { secret: None, ..signer }.subscribe("11.22", "private-a", "").is_err());
    }
}
