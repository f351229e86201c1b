//! `wellhead push`, `sub` and `health`: a client for one's own servers, so that trying things needs no other tool.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use awc::{
    Client,
    http::StatusCode,
    ws::{Frame, Message},
};
use clap::Args;
use futures_util::{SinkExt, StreamExt};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json, value::RawValue};

use super::{Source, say, token};
use crate::{files::read_text, signing};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest message that is printed.
const MAX_MESSAGE: usize = 64 << 20;
/// How long a token that is signed for one subscription is good.
const TTL: Duration = Duration::from_secs(60 * 60);

#[derive(Args)]
pub(super) struct Push {
    /// Where the master is
    #[arg(long, default_value = "http://127.0.0.1:7777", value_name = "URL")]
    master: String,
    /// The push key, if the master asks for one
    #[arg(long)]
    key: Option<String>,
    /// A file that holds the push key, so that it does not show in the list of processes
    #[arg(long, conflicts_with = "key", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The app
    #[arg(long)]
    app: String,
    /// The channel
    #[arg(long)]
    channel: String,
    /// What the event is called
    #[arg(long)]
    event: String,
    /// The event's data: JSON as it is, anything else as text; - reads it from standard input
    data: String,
}

#[derive(Args)]
pub(super) struct Sub {
    /// Where the slave is
    #[arg(long, default_value = "http://127.0.0.1:8888", value_name = "URL")]
    slave: String,
    /// The app; left out, the one that the token names
    #[arg(long)]
    app: Option<String>,
    /// A channel to subscribe to; may be repeated
    #[arg(long = "channel", required = true, value_name = "NAME")]
    channels: Vec<String>,
    /// A JWT or a connection token
    #[arg(long, required_unless_present = "key")]
    token: Option<String>,
    /// Instead of a token, the private key in PEM that signs one
    #[arg(long, value_name = "PEM", conflicts_with = "token", requires = "app")]
    key: Option<PathBuf>,
    /// The user id in a token that is signed here
    #[arg(long, default_value = "")]
    user: String,
    /// End after so many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

#[derive(Args)]
pub(super) struct Health {
    /// The admin listener [default: master.admin of the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Ask `wellhead slave`: the default is slave.admin
    #[arg(long, conflicts_with = "url")]
    slave: bool,
}

pub(super) fn push(push: &Push) -> Result<()> {
    let data = match push.data.as_str() {
        "-" => io::read_to_string(io::stdin()).context("cannot read standard input")?,
        data => data.to_owned(),
    };
    // as it is: a number that is parsed might come out as another
    let data = RawValue::from_string(data.trim().to_owned())
        .or_else(|_| RawValue::from_string(Value::String(data).to_string()))
        .context("the data cannot be written as JSON")?;
    let key = match (&push.key, &push.key_file) {
        (Some(key), _) => Some(key.clone()),
        (None, Some(file)) => {
            let key = read_text(file).with_context(|| format!("cannot read {}", file.display()))?;
            Some(key.trim().to_owned())
        }
        (None, None) => None,
    };
    let (app, channel) = (encoded(&push.app), encoded(&push.channel));
    let url = format!("{}/v1/apps/{app}/channels/{channel}/messages", base(&push.master)?);
    let body = format!("{{\"event\":{},\"data\":{}}}", json!(push.event), data.get());
    actix_rt::System::new().block_on(async {
        let mut request = client().post(&url).content_type("application/json");
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        let answer = request.send_body(body).await;
        let mut answer = answer.map_err(|error| anyhow!("cannot reach the master at {}: {error}", push.master))?;
        let text = answer.body().await.context("the master's answer broke off")?;
        let text = one_line(&String::from_utf8_lossy(&text));
        match answer.status() {
            StatusCode::OK => say(&format!("{text}\n")),
            status => Err(anyhow!("the master says {status}: {text}")),
        }
    })
}

pub(super) fn sub(sub: &Sub) -> Result<()> {
    let base = base(&sub.slave)?;
    let token = match (&sub.token, &sub.key, &sub.app) {
        (Some(token), _, _) => token.clone(),
        (None, Some(key), Some(app)) => {
            token::key_of(key)?.sign(&signing::claims(app, &sub.user, &sub.channels, TTL), None)?
        }
        _ => bail!("a token, or a key and an app, is needed"),
    };
    let app = match &sub.app {
        Some(app) => app.clone(),
        None => app_of(&token).context("the token names no app; name it with --app")?,
    };
    actix_rt::System::new().block_on(async {
        let token = exchanged(&base, &token).await?;
        let url = format!("{base}/v1/apps/{}/ws?token={}", encoded(&app), encoded(&token));
        let connected = client().ws(&url).max_frame_size(MAX_MESSAGE).connect().await;
        let (_, mut socket) =
            connected.map_err(|error| anyhow!("cannot connect to the slave at {}: {error}", sub.slave))?;
        for channel in &sub.channels {
            let command = json!({ "event": "gusher.subscribe", "data": { "channel": channel } });
            socket.send(Message::Text(command.to_string().into())).await.context("the slave is gone")?;
        }
        let mut left = sub.count.unwrap_or(u64::MAX);
        while left > 0 {
            let frame = socket.next().await.context("the slave is gone")?.context("the slave is gone")?;
            match frame {
                Frame::Text(text) => left -= u64::from(heard(&String::from_utf8_lossy(&text))?),
                Frame::Ping(payload) => socket.send(Message::Pong(payload)).await.context("the slave is gone")?,
                Frame::Close(reason) => {
                    let reason = reason.map(|reason| {
                        let code = u16::from(reason.code);
                        format!(" ({code} {})", reason.description.unwrap_or_default())
                    });
                    bail!("the slave closed the connection{}", reason.unwrap_or_default());
                }
                Frame::Pong(_) | Frame::Binary(_) | Frame::Continuation(_) => {}
            }
        }
        // a courtesy: we have what we want
        let _ = socket.send(Message::Close(None)).await;
        Ok(())
    })
}

/// Is this message one that was asked for? Then it is printed.
fn heard(text: &str) -> Result<bool> {
    let message: Value = serde_json::from_str(text).unwrap_or_default();
    let channel = || message["data"]["channel"].to_string();
    match message["event"].as_str() {
        Some("gusher.subscribe_succeeded") => {
            // standard output is for what arrives
            let _ = io::Write::write_fmt(&mut io::stderr(), format_args!("subscribed to {}\n", channel()));
            Ok(false)
        }
        Some("gusher.subscribe_error") => Err(anyhow!("the token does not allow the channel {}", channel())),
        _ => say(&format!("{}\n", one_line(text))).map(|()| true),
    }
}

pub(super) fn health(health: &Health, source: &Source) -> Result<()> {
    let base = match &health.url {
        Some(url) => base(url)?,
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
    actix_rt::System::new().block_on(async {
        let answer = client().get(format!("{base}/readyz")).send().await;
        let mut answer = answer.map_err(|error| anyhow!("cannot reach {base}: {error}"))?;
        let text = answer.body().await.context("the answer broke off")?;
        let text = one_line(&String::from_utf8_lossy(&text));
        match answer.status() {
            StatusCode::OK => say(&format!("{text}\n")),
            _ => Err(anyhow!("not ready: {text}")),
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

/// A connection token for a JWT. Whatever is not exchanged is tried as it is: it may be a connection token already.
async fn exchanged(base: &str, token: &str) -> Result<String> {
    let answer = client().post(format!("{base}/v1/auth")).send_json(&json!({ "jwt": token })).await;
    let mut answer = answer.map_err(|error| anyhow!("cannot reach the slave at {base}: {error}"))?;
    let body = answer.body().await.context("the slave's answer broke off")?;
    let issued: Option<Value> = serde_json::from_slice(&body).ok();
    let issued = issued.and_then(|answer| answer["token"].as_str().map(str::to_owned));
    Ok(issued.filter(|_| answer.status() == StatusCode::OK).unwrap_or_else(|| token.to_owned()))
}

fn app_of(token: &str) -> Option<String> {
    let claims = token::payload(token).ok()?;
    // a client's JWT says it so; a connection token keeps it elsewhere, and then --app must
    claims["gusher"]["app_key"].as_str().map(str::to_owned)
}

fn client() -> Client {
    Client::builder().timeout(PATIENCE).disable_redirects().finish()
}

/// A server's URL without its last slash, as HTTP.
fn base(url: &str) -> Result<String> {
    let url = url.trim_end_matches('/');
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("ws://"));
    match rest {
        Some(rest) if !rest.is_empty() => Ok(format!("http://{rest}")),
        _ => bail!("{url:?} is no address that can be reached from here; write it as in \"http://127.0.0.1:7777\""),
    }
}

fn encoded(segment: &str) -> String {
    utf8_percent_encode(segment, NON_ALPHANUMERIC).to_string()
}

/// JSON on one line. Outside of strings line ends are blanks, and inside there are none; whatever else would steer the
/// terminal is escaped.
fn one_line(text: &str) -> String {
    let escape = |c: char| match c {
        '\n' | '\r' | '\t' => " ".to_owned(),
        c if c.is_control() => format!("\\u{:04x}", c as u32),
        c => c.to_string(),
    };
    text.trim_end().chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_with_or_without_its_slash_and_never_with_tls() {
        assert_eq!(base("http://h:1/").unwrap(), "http://h:1");
        assert_eq!(base("ws://h:1").unwrap(), "http://h:1");
        for bad in ["https://h:1", "wss://h", "h:1", "", "http://"] {
            assert!(base(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_message_is_one_line_and_cannot_steer_the_terminal() {
        assert_eq!(one_line("{\"a\":\n 1, \"b\":\"\u{9b}2J\"}\n"), "{\"a\":  1, \"b\":\"\\u009b2J\"}");
    }

    #[test]
    fn every_interface_is_asked_on_this_machine() {
        assert_eq!(reachable("0.0.0.0:9601"), "127.0.0.1:9601");
        assert_eq!(reachable("[::]:9601"), "[::1]:9601");
        assert_eq!(reachable("10.0.0.1:9601"), "10.0.0.1:9601");
        assert_eq!(reachable("admin.local:9601"), "admin.local:9601");
    }
}
