//! Where the NATS servers are, and how we prove who we are.

use std::{path::PathBuf, time::Duration};

use async_nats::{ConnectOptions, ServerAddr};

use crate::files::without_mark;

/// A server that is silent for three of these is gone.
const PING: Duration = Duration::from_millis(900);
/// For each address of a server: TCP, TLS, and who we are.
const CONNECT: Duration = Duration::from_secs(2);
/// Commands that wait for the connection's task.
const QUEUE: usize = 256;

/// Messages that may wait for us at one subscription; beyond it they are dropped. The library reads 128 times 64 KiB
/// before anybody else of its thread has a turn: that many small ones fit.
const UNREAD: usize = 1 << 18;

/// How to reach NATS.
#[derive(Clone, Default)]
pub struct NatsSettings {
    /// Servers of one cluster, `nats://host:4222` or `tls://host:4222`, tried in turn. A user and a password, or a token,
    /// may stand before the host.
    pub urls: Vec<String>,
    /// A credentials file (JWT and seed); read anew for each connection, so that it may be replaced.
    pub credentials_file: Option<PathBuf>,
    /// A user with a password.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// A file that holds it; read anew for each connection, so that it may be replaced.
    pub password_file: Option<PathBuf>,
    /// A token.
    pub token: Option<String>,
    /// A file that holds it; read anew for each connection.
    pub token_file: Option<PathBuf>,
    /// Encryption.
    pub tls: NatsTls,
}

/// Encryption towards NATS. `tls://` servers always have it.
#[derive(Clone, Debug, Default)]
pub struct NatsTls {
    /// Speak to no server without it.
    pub required: bool,
    /// The authority that signed the servers' certificates (PEM); without it, those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// A certificate of our own (PEM).
    pub cert_file: Option<PathBuf>,
    /// Its key (PEM).
    pub key_file: Option<PathBuf>,
}

impl NatsSettings {
    /// Can these work at all? Looks at the settings only, not at servers or files.
    ///
    /// # Errors
    ///
    /// What is wrong, as a sentence.
    pub fn check(&self) -> Result<(), String> {
        if self.urls.is_empty() {
            return Err("no NATS server is named".to_owned());
        }
        for url in &self.urls {
            address(url)?;
        }
        let token = self.token.is_some() || self.token_file.is_some();
        let password = self.password.is_some() || self.password_file.is_some();
        let ways = [self.credentials_file.is_some(), self.user.is_some(), token];
        if ways.into_iter().filter(|way| *way).count() > 1 {
            return Err("credentials file, user and token exclude each other".to_owned());
        }
        if self.user.is_some() != password {
            return Err("a user needs a password, and a password a user".to_owned());
        }
        if self.tls.cert_file.is_some() != self.tls.key_file.is_some() {
            return Err("a TLS certificate needs its key, and a key its certificate".to_owned());
        }
        Ok(())
    }

    /// Options for one connection to the server at `address`.
    pub(super) async fn options(&self, address: &ServerAddr) -> Result<ConnectOptions, String> {
        let mut options = ConnectOptions::new()
            .name("wellhead")
            .ping_interval(PING)
            .connection_timeout(CONNECT)
            .client_capacity(QUEUE)
            .subscription_capacity(UNREAD)
            .ignore_discovered_servers()
            // made of a checked name and numbers
            .skip_subject_validation(true)
            .require_tls(self.tls.required);
        if let Some(file) = &self.credentials_file {
            let credentials = tokio::fs::read_to_string(file).await;
            let credentials = credentials.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
            options = options
                .credentials(without_mark(&credentials))
                .map_err(|error| format!("{} is no credentials file: {error}", file.display()))?;
        }
        if let (Some(user), Some(password)) = (&self.user, latest(&self.password, &self.password_file).await?) {
            options = options.user_and_password(user.clone(), password);
        }
        if let Some(token) = latest(&self.token, &self.token_file).await? {
            options = options.token(token);
        }
        // the library would send them as they stand in the address
        options = match (decoded(address.username()), decoded(address.password())) {
            (Some(user), Some(password)) => options.user_and_password(user, password),
            (Some(token), None) => options.token(token),
            (None, _) => options,
        };
        if let Some(file) = &self.tls.ca_file {
            options = options.add_root_certificates(file.clone());
        }
        if let (Some(cert), Some(key)) = (&self.tls.cert_file, &self.tls.key_file) {
            options = options.add_client_certificate(cert.clone(), key.clone());
        }
        Ok(options)
    }
}

/// What stands in `file` now, if one is named.
async fn latest(secret: &Option<String>, file: &Option<PathBuf>) -> Result<Option<String>, String> {
    let Some(file) = file else { return Ok(secret.clone()) };
    let text = tokio::fs::read_to_string(file).await;
    let text = text.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// `url` as an address.
pub(super) fn address(url: &str) -> Result<ServerAddr, String> {
    // the url itself may hold a password, and stays unsaid
    let address: ServerAddr = url.parse().map_err(|error| format!("not the address of a NATS server: {error}"))?;
    if address.host().is_empty() {
        return Err("the address of a NATS server names a host: nats://host:port".to_owned());
    }
    match address.scheme() {
        "nats" | "tls" => Ok(address),
        scheme => Err(format!("{scheme}:// is not spoken; a NATS server is nats://host:port or tls://host:port")),
    }
}

/// A user or a password of an address.
fn decoded(encoded: Option<&str>) -> Option<String> {
    let encoded = encoded.filter(|encoded| !encoded.is_empty())?;
    Some(percent_encoding::percent_decode_str(encoded).decode_utf8_lossy().into_owned())
}

/// `url` as logs show it: no user, no password.
pub(super) fn place(url: &str) -> String {
    address(url).map_or_else(|_| "NATS".to_owned(), |it| format!("NATS at {}:{}", it.host(), it.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(change: impl FnOnce(&mut NatsSettings)) -> NatsSettings {
        let mut settings = NatsSettings { urls: vec!["nats://127.0.0.1:4222".to_owned()], ..NatsSettings::default() };
        change(&mut settings);
        settings
    }

    #[test]
    fn settings_that_cannot_work_are_told() {
        assert_eq!(settings(|_| ()).check(), Ok(()));
        assert_eq!(settings(|it| it.urls.push("host.example".to_owned())).check(), Ok(()));
        let bad: [fn(&mut NatsSettings); 7] = [
            |it| it.urls.clear(),
            |it| it.urls.push("http://127.0.0.1:1".to_owned()),
            |it| it.urls.push("nats://".to_owned()),
            |it| it.user = Some("ann".to_owned()),
            |it| it.password = Some("x".to_owned()),
            |it| it.tls.key_file = Some("key.pem".into()),
            |it| {
                it.token = Some("x".to_owned());
                it.credentials_file = Some("x.creds".into());
            },
        ];
        for (case, change) in bad.into_iter().enumerate() {
            assert!(settings(change).check().is_err(), "case {case}");
        }
    }

    #[test]
    fn a_password_in_an_address_is_not_shown() {
        assert_eq!(place("nats://ann:secret@host.example:4333"), "NATS at host.example:4333");
        assert_eq!(place("http://ann:secret@host.example:4333"), "NATS");
    }
}
