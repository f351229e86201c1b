//! `wellhead health`: is a process ready?

use std::net::SocketAddr;

use actix_http::{Method, StatusCode};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;

use super::{SettingsSource, net::ServerAddress, say};

#[derive(Args)]
pub(super) struct HealthArgs {
    /// The admin listener [default: master.admin of the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Ask `wellhead slave`: the default is slave.admin
    #[arg(long, conflicts_with = "url")]
    slave: bool,
}

pub(super) fn health(health: &HealthArgs, source: &SettingsSource) -> Result<()> {
    let admin = match &health.url {
        Some(url) => url.clone(),
        None => {
            let settings = source.load()?.settings;
            let (key, admin) = match health.slave {
                true => ("slave.admin", settings.slave.admin),
                false => ("master.admin", settings.master.admin),
            };
            if admin.is_empty() {
                bail!("{key} is switched off; name a listener with --url");
            }
            format!("http://{}", reachable(&admin))
        }
    };
    let admin = ServerAddress::parse(&admin)?;
    actix_rt::System::new().block_on(async {
        let answer = admin.request(Method::GET, "/readyz", None, None).await;
        let answer = answer.with_context(|| format!("cannot reach {admin}"))?;
        match answer.status {
            StatusCode::OK => say(&format!("{}\n", answer.text)),
            status => Err(anyhow!("not ready: {status}: {}", answer.text)),
        }
    })
}

/// An address of our own listener that one can connect to.
fn reachable(listener: &str) -> String {
    match listener.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() => {
            let host = if address.is_ipv4() { "127.0.0.1" } else { "[::1]" };
            format!("{host}:{}", address.port())
        }
        _ => listener.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_is_asked_on_this_machine() {
        assert_eq!(reachable("0.0.0.0:9601"), "127.0.0.1:9601");
        assert_eq!(reachable("[::]:9601"), "[::1]:9601");
        assert_eq!(reachable("10.0.0.1:9601"), "10.0.0.1:9601");
        assert_eq!(reachable("admin.local:9601"), "admin.local:9601");
    }
}
