//! `wellhead token`: JWTs for clients, made and checked by hand. In production the backend makes them.

use std::{path::PathBuf, time::UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::{Args, Subcommand};
use serde_json::Value;
use wellhead_proto::{
    channel::ChannelPattern,
    ids::{AppId, UserId},
    jwt::{Key, Keyring},
    units::Span,
};

use super::{Reading, SettingsSource};
use crate::{
    files::read_text,
    settings::plan::{Plan, Roles},
    signing::{self, SigningKey},
};

#[derive(Subcommand)]
pub(super) enum TokenCommand {
    /// Sign a JWT for a client and print it
    Sign(Reading<Sign>),
    /// Verify a JWT with the configured keys and print what it says
    Verify(Reading<Verify>),
}

#[derive(Args)]
pub(super) struct Sign {
    /// The private key in PEM; without it, jwt.secret of the configuration signs (HS256)
    #[arg(long, value_name = "PEM")]
    key: Option<PathBuf>,
    /// The key's name in the token's header, if the configuration gives it one
    #[arg(long)]
    kid: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

/// Whom a token is for.
#[derive(Args)]
pub(super) struct ClientArgs {
    /// The app that it lets the client connect to
    #[arg(long)]
    app: String,
    /// The client's user id
    #[arg(long, default_value = "")]
    user: String,
    /// A channel that it may subscribe to, or a pattern: "*" stands for anything; may be repeated
    #[arg(long = "channel", value_name = "PATTERN")]
    channels: Vec<String>,
    /// How long it is valid
    #[arg(long, default_value = "1h")]
    ttl: Span,
}

#[derive(Args)]
pub(super) struct Verify {
    /// The JWT; - reads it from standard input
    token: String,
    /// Verify with this public key instead of the configured ones
    #[arg(long, value_name = "PEM")]
    public_key: Option<PathBuf>,
}

impl TokenCommand {
    /// Where the settings are, as it is said behind it.
    pub(super) fn source(&self) -> &SettingsSource {
        match self {
            Self::Sign(reading) => &reading.source,
            Self::Verify(reading) => &reading.source,
        }
    }
}

pub(super) fn run(command: TokenCommand, source: &SettingsSource) -> Result<String> {
    match command {
        TokenCommand::Sign(Reading { command: sign, .. }) => {
            let key = match &sign.key {
                Some(file) => key_of(file)?,
                None => key_of_settings(source)?,
            };
            let ClientArgs { app, user, channels, ttl } = &sign.client;
            AppId::try_from(app.as_str())?;
            UserId::try_from(user.as_str())?;
            for channel in channels {
                ChannelPattern::try_from(channel.as_str())?;
            }
            let token = key.sign(&signing::claims(app, user, channels, ttl.0), sign.kid.as_deref())?;
            Ok(format!("{token}\n"))
        }
        TokenCommand::Verify(Reading { command: Verify { token, public_key }, .. }) => {
            let token = match token.as_str() {
                "-" => std::io::read_to_string(std::io::stdin()).context("cannot read standard input")?,
                _ => token,
            };
            let token = token.trim();
            let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_secs_f64();
            match public_key {
                Some(file) => {
                    let pem = read_text(&file).with_context(|| format!("cannot read {}", file.display()))?;
                    let key = Key::from_pem(None, pem.as_bytes(), None).with_context(|| file.display().to_string())?;
                    Keyring::new(vec![key], false).verify(token, now)
                }
                None => {
                    let loaded = source.load()?;
                    let plan = Plan::new(&loaded, Roles::Standalone)?;
                    if plan.development {
                        bail!("no key is configured (jwt.public_keys); name one with --public-key");
                    }
                    plan.tenants.verify(token, now)
                }
            }
            .map_err(|why| anyhow!("the token is refused: {why}"))?;
            Ok(format!("{:#}\n", payload(token)?))
        }
    }
}

/// A private key in a file.
pub(super) fn key_of(file: &PathBuf) -> Result<SigningKey> {
    let name = file.display();
    let pem = read_text(file).with_context(|| format!("cannot read {name}"))?;
    SigningKey::from_pem(&pem).with_context(|| name.to_string())
}

fn key_of_settings(source: &SettingsSource) -> Result<SigningKey> {
    let loaded = source.load()?;
    match Plan::new(&loaded, Roles::Standalone)?.jwt_secret {
        Some(secret) => SigningKey::from_secret(&secret),
        None => bail!("nothing to sign with: name a private key with --key, or configure jwt.secret"),
    }
}

/// What a JWT says, whoever signed it.
pub(super) fn payload(token: &str) -> Result<Value> {
    let payload = token.split('.').nth(1).context("not a JWT")?;
    let payload = URL_SAFE_NO_PAD.decode(payload).context("not a JWT")?;
    serde_json::from_slice(&payload).context("not a JWT")
}
