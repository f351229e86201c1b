//! `wellhead push`: one event to a channel, to every channel that a pattern matches, to a user or to a socket.

use std::{io, path::PathBuf};

use actix_http::{Method, StatusCode};
use anyhow::{Context, Result, anyhow};
use clap::Args;
use serde_json::{Value, json, value::RawValue};

use super::{encoded, net::ServerAddress, pusher, say, secret_of};

#[derive(Args)]
pub(super) struct PushArgs {
    /// Where the master is: http:// or https://
    #[arg(long, default_value = "http://127.0.0.1:7777", value_name = "URL")]
    master: String,
    /// The push key, if the master asks for one
    #[arg(long)]
    key: Option<String>,
    /// A file that holds the push key, so that it does not show in the list of processes
    #[arg(long, conflicts_with = "key", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The app
    #[arg(long, required_unless_present = "pusher_key")]
    app: Option<String>,
    #[command(flatten)]
    to: To,
    /// What the event is called; users and sockets get data without one
    #[arg(long, required_unless_present_any = ["user", "socket"], conflicts_with_all = ["user", "socket"])]
    event: Option<String>,
    #[command(flatten)]
    pusher: pusher::PusherAppArgs,
    /// The app's id
    #[arg(long, value_name = "ID", requires = "pusher_key", help_heading = "Pusher")]
    pusher_id: Option<String>,
    /// The event's data: JSON as it is, anything else as text; - reads it from standard input
    data: String,
}

/// Who gets it.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct To {
    /// The channel
    #[arg(long)]
    channel: Option<String>,
    /// Every channel with a name that this regular expression matches
    #[arg(long, value_name = "REGEX", conflicts_with = "pusher_key")]
    pattern: Option<String>,
    /// Every socket of this user
    #[arg(long, value_name = "ID", conflicts_with = "pusher_key")]
    user: Option<String>,
    /// The socket with this id
    #[arg(long, value_name = "ID", conflicts_with = "pusher_key")]
    socket: Option<String>,
}

pub(super) fn push(push: &PushArgs) -> Result<()> {
    let text = match push.data.as_str() {
        "-" => io::read_to_string(io::stdin()).context("cannot read standard input")?,
        data => data.to_owned(),
    };
    let key = secret_of(push.key.as_ref(), push.key_file.as_ref())?;
    let master = ServerAddress::parse(&push.master)?;
    let (path, body) = match push.pusher.signer()? {
        Some(signer) => {
            let id = push.pusher_id.as_ref().context("Pusher's API needs the app's id: --pusher-id")?;
            // data is always a string there
            let body = json!({ "name": push.event, "channel": push.to.channel, "data": text.trim() }).to_string();
            (signer.events(id, &body)?, body)
        }
        None => push.request(&text)?,
    };
    actix_rt::System::new().block_on(async {
        let answer = master.request(Method::POST, &path, key.as_deref(), Some(body)).await;
        let answer = answer.with_context(|| format!("cannot reach the master at {master}"))?;
        match answer.status {
            StatusCode::OK => say(&format!("{}\n", answer.text)),
            status => Err(anyhow!("the master says {status}: {}", answer.text)),
        }
    })
}

impl PushArgs {
    /// The path and the body of the route that takes it.
    fn request(&self, text: &str) -> Result<(String, String)> {
        // as it is: a number that is parsed might come out as another
        let data = RawValue::from_string(text.trim().to_owned())
            .or_else(|_| RawValue::from_string(Value::String(text.to_owned()).to_string()))
            .context("the data cannot be written as JSON")?;
        let app = format!("/v1/apps/{}", encoded(self.app.as_deref().unwrap_or_default()));
        let (event, data) = (json!(self.event), data.get());
        Ok(match &self.to {
            To { channel: Some(channel), .. } => (
                format!("{app}/channels/{}/messages", encoded(channel)),
                format!(r#"{{"event":{event},"data":{data}}}"#),
            ),
            To { pattern: Some(pattern), .. } => {
                let pattern = json!(pattern);
                (format!("{app}/messages"), format!(r#"{{"channel_pattern":{pattern},"event":{event},"data":{data}}}"#))
            }
            To { user: Some(user), .. } => {
                (format!("{app}/users/{}/messages", encoded(user)), format!(r#"{{"data":{data}}}"#))
            }
            To { socket, .. } => {
                let socket = encoded(socket.as_deref().unwrap_or_default());
                (format!("{app}/sockets/{socket}/messages"), format!(r#"{{"data":{data}}}"#))
            }
        })
    }
}
