//! The way to the other nodes, and what is wrong with it.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use super::{Check, Plan, Roles};
use crate::{
    bus::{
        local::check_socket,
        nats::{NatsSettings, NatsTls},
    },
    files::begins_with_mark,
    settings::{BusAddress, place::SettingsError},
};

/// The way to the other nodes.
#[derive(Clone)]
pub enum Topology {
    /// There are none: master and slave live in this process.
    Inside,
    /// A socket on this machine, which the master owns.
    Socket(PathBuf),
    /// NATS servers.
    Nats(Box<NatsSettings>),
}

impl Check<'_> {
    pub(super) fn topology(&self, roles: Roles) -> Result<Topology, SettingsError> {
        match &self.settings.cluster.bus {
            BusAddress::Local if roles == Roles::Standalone => Ok(Topology::Inside),
            BusAddress::Local => {
                let path = PathBuf::from(&self.settings.cluster.socket);
                check_socket(&path).map_err(|why| {
                    self.error("cluster.socket", why).hint("a short path of a file on this machine: \"run/bus.sock\"")
                })?;
                Ok(Topology::Socket(path))
            }
            BusAddress::Nats(urls) => self.nats(urls).map(Box::new).map(Topology::Nats),
        }
    }

    fn nats(&self, urls: &[String]) -> Result<NatsSettings, SettingsError> {
        let nats = &self.settings.nats;
        let text = |key: &str, secret: Option<Vec<u8>>| match secret.map(String::from_utf8) {
            None => Ok(None),
            Some(Ok(secret)) => Ok(Some(secret)),
            Some(Err(_)) => Err(self.error(key, "is not UTF-8")),
        };
        let settings = NatsSettings {
            urls: urls.to_vec(),
            credentials_file: self.readable("nats.credentials_file", &nats.credentials_file)?,
            user: (!nats.user.is_empty()).then(|| nats.user.clone()),
            password: text("nats.password", self.secret("nats", "password", &nats.password, &nats.password_file)?)?,
            password_file: (!nats.password_file.is_empty()).then(|| PathBuf::from(&nats.password_file)),
            token: text("nats.token", self.secret("nats", "token", &nats.token, &nats.token_file)?)?,
            token_file: (!nats.token_file.is_empty()).then(|| PathBuf::from(&nats.token_file)),
            tls: NatsTls {
                required: nats.tls.required,
                ca_file: self.pem("nats.tls.ca_file", &nats.tls.ca_file)?,
                cert_file: self.pem("nats.tls.cert_file", &nats.tls.cert_file)?,
                key_file: self.pem("nats.tls.key_file", &nats.tls.key_file)?,
            },
        };
        // each address by itself first: then it is known what is to blame
        let addresses = NatsSettings { urls: settings.urls.clone(), ..NatsSettings::default() };
        addresses.check().map_err(|why| {
            self.error("cluster.bus", why).hint("NATS servers as in \"nats://host:4222\", several between commas")
        })?;
        settings.check().map_err(|why| self.error("nats", why))?;
        Ok(settings)
    }

    /// The path of a file that can be read, if one is named. All but an authority hold secrets.
    fn readable(&self, key: &str, file: &str) -> Result<Option<PathBuf>, SettingsError> {
        if file.is_empty() {
            return Ok(None);
        }
        let read = |path: &Path| match fs::metadata(path)?.is_file() {
            true => fs::File::open(path).map(drop),
            false => Err(io::Error::other("it is no file")),
        };
        let path = PathBuf::from(file);
        match read(&path) {
            Ok(()) => Ok(Some(path)),
            Err(error) => Err(self.unreadable(key, &error.to_string())),
        }
    }

    /// The same of a file that the library for TLS reads by itself.
    fn pem(&self, key: &str, file: &str) -> Result<Option<PathBuf>, SettingsError> {
        let path = self.readable(key, file)?;
        if path.as_deref().is_some_and(|path| begins_with_mark(path).unwrap_or_default()) {
            let error = self.error(key, format!("{file} begins with a byte order mark"));
            return Err(error.hint("save it as UTF-8 without one: the library that reads it takes no such mark"));
        }
        Ok(path)
    }

    pub(super) fn topology_warnings(&self, plan: &Plan) -> Option<String> {
        let Topology::Nats(nats) = &plan.topology else { return None };
        let signed_on = nats.credentials_file.is_some() || nats.user.is_some() || nats.token.is_some();
        let bare = |url: &&String| {
            let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
            let encrypted = scheme == "tls" || nats.tls.required;
            !signed_on && !encrypted && !rest.contains('@') && !is_here(rest)
        };
        nats.urls.iter().find(bare).map(|url| {
            // a token may stand behind the host, too
            let (_, rest) = url.split_once("://").unwrap_or(("", url));
            let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
            format!(
                "NATS at {host} is spoken to without credentials and without TLS: whoever reaches it can push to \
                 everybody (see [nats])"
            )
        })
    }
}

/// Is this machine meant, by the host in `host:port`?
fn is_here(address: &str) -> bool {
    let host = match address.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => address,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_few_names() {
        for here in ["localhost:4222", "127.0.0.1:4222", "127.3.2.1", "[::1]:4222", "LOCALHOST"] {
            assert!(is_here(here), "{here}");
        }
        for there in ["nats:4222", "10.0.0.1:4222", "[fe80::1]:4222", "localhost.example:4222"] {
            assert!(!is_here(there), "{there}");
        }
    }
}
