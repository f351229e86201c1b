//! `wellhead sub`: subscribe to channels, print what arrives, and come back if that is wanted.

use std::{
    fmt,
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use actix_http::{
    Method, StatusCode,
    ws::{Frame, Item, Message},
};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    encoded,
    net::{ClientSocket, MAX_MESSAGE, NotOpened, ServerAddress},
    one_line, pusher, say, secret_of, token,
};
use crate::signing;

/// How long a token that is signed for one subscription is good.
const TTL: Duration = Duration::from_secs(60 * 60);
/// The pause before coming back, at first; it doubles each time, up to the longest.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[derive(Args)]
pub(super) struct SubArgs {
    /// Where the slave is: http:// or https://, ws:// or wss://
    #[arg(long, default_value = "http://127.0.0.1:8888", value_name = "URL")]
    slave: String,
    /// The app; left out, the one that the token names
    #[arg(long)]
    app: Option<String>,
    /// A channel to subscribe to; may be repeated
    #[arg(long = "channel", required = true, value_name = "NAME")]
    channels: Vec<String>,
    /// A JWT or a connection token
    #[arg(long, required_unless_present_any = ["key", "token_file", "pusher_key"], conflicts_with = "pusher_key")]
    token: Option<String>,
    /// A file that holds it, so that it does not show in the list of processes; read anew for each connection
    #[arg(long, value_name = "FILE", conflicts_with_all = ["token", "pusher_key"])]
    token_file: Option<PathBuf>,
    /// Instead of a token, the private key in PEM that signs one
    #[arg(long, value_name = "PEM", conflicts_with_all = ["token", "token_file", "pusher_key"], requires = "app")]
    key: Option<PathBuf>,
    /// The user id in a token that is signed here, and on Pusher's presence channels
    #[arg(long, default_value = "")]
    user: String,
    #[command(flatten)]
    pusher: pusher::PusherAppArgs,
    /// End after so many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Come back when the connection is lost; what is pushed meanwhile is missed
    #[arg(long)]
    reconnect: bool,
}

/// An error that a further try would not change.
#[derive(Debug)]
struct Final(String);

impl fmt::Display for Final {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Final {}

/// What a message of the server is.
enum ServerMessage {
    /// What was asked for.
    Message,
    /// A step on the way there.
    Step,
    /// The socket's id, by which it can subscribe (Pusher).
    Established(String),
    /// A channel is subscribed to.
    Subscribed(String),
    /// This is to be sent as a reply.
    Reply(&'static str),
}

pub(super) fn sub(sub: &SubArgs) -> Result<()> {
    let slave = ServerAddress::parse(&sub.slave)?;
    let signer = sub.pusher.signer()?;
    if signer.is_some() && sub.user.is_empty() && sub.channels.iter().any(|channel| channel.starts_with("presence-")) {
        bail!("a presence channel shows who is there: say as whom with --user");
    }
    actix_rt::System::new().block_on(async {
        let (mut left, mut pause) = (sub.count.unwrap_or(u64::MAX), PAUSE);
        loop {
            let mut reached = false;
            let ended = connection(sub, &slave, signer.as_ref(), &mut left, &mut reached).await;
            let Err(error) = ended else { return Ok(()) };
            if !sub.reconnect || is_final(&error) {
                return Err(error);
            }
            if reached {
                pause = PAUSE;
            }
            note(&format!("{error:#}; trying again in {pause:?}"));
            sleep(pause).await;
            pause = LONGEST_PAUSE.min(2 * pause);
        }
    })
}

/// From the handshake to the last message that is wanted. `reached` tells whether a channel was subscribed to.
async fn connection(
    sub: &SubArgs,
    slave: &ServerAddress,
    signer: Option<&pusher::PusherSigner>,
    left: &mut u64,
    reached: &mut bool,
) -> Result<()> {
    let mut socket = match signer {
        Some(signer) => {
            let path = format!("/app/{}?protocol=7&client=wellhead&version={}", encoded(&signer.key), super::VERSION);
            opened(slave, &path, None).await?
        }
        None => {
            let mut socket = gusher(sub, slave).await?;
            for channel in &sub.channels {
                let command = json!({ "event": "gusher.subscribe", "data": { "channel": channel } });
                tell(&mut socket, &command.to_string()).await?;
            }
            socket
        }
    };
    let mut text = Vec::new();
    while *left > 0 {
        let frame = socket.next().await.context("the slave is gone")?.context("the slave is gone")?;
        match frame {
            Frame::Text(whole) => text.extend_from_slice(&whole),
            Frame::Continuation(Item::FirstText(part) | Item::Continue(part)) => {
                text.extend_from_slice(&part);
                if text.len() > MAX_MESSAGE {
                    bail!("the slave sends a message of more than {MAX_MESSAGE} bytes");
                }
                continue;
            }
            Frame::Continuation(Item::Last(part)) => text.extend_from_slice(&part),
            Frame::Ping(payload) => {
                socket.send(Message::Pong(payload)).await.context("the slave is gone")?;
                continue;
            }
            Frame::Close(reason) => {
                let reason = reason.map(|reason| {
                    let code = u16::from(reason.code);
                    (code, format!(" ({code} {})", reason.description.unwrap_or_default()))
                });
                let (code, words) = reason.unwrap_or_default();
                let words = format!("the slave closed the connection{words}");
                // Pusher's word for: do not come back as you are
                return Err(if (4000..4100).contains(&code) { Final(words).into() } else { anyhow!(words) });
            }
            Frame::Pong(_) | Frame::Binary(_) | Frame::Continuation(Item::FirstBinary(_)) => continue,
        }
        let message = String::from_utf8_lossy(&std::mem::take(&mut text)).into_owned();
        match if signer.is_some() { heard_of_pusher(&message)? } else { heard_of_gusher(&message)? } {
            ServerMessage::Message => {
                say(&format!("{}\n", one_line(&message)))?;
                *left -= 1;
            }
            ServerMessage::Step => {}
            ServerMessage::Established(id) => {
                for channel in &sub.channels {
                    let signer = signer.context("only Pusher's sockets have an id of that kind")?;
                    let wish = signer.subscribe(&id, channel, &sub.user);
                    let wish = wish.with_context(|| format!("cannot subscribe to {channel}"));
                    tell(&mut socket, &wish.map_err(|error| Final(format!("{error:#}")))?).await?;
                }
            }
            ServerMessage::Subscribed(channel) => {
                *reached = true;
                note(&format!("subscribed to {channel}"));
            }
            ServerMessage::Reply(words) => tell(&mut socket, words).await?,
        }
    }
    // a courtesy to the server: all messages have arrived
    let _ = socket.send(Message::Close(None)).await;
    Ok(())
}

async fn gusher(sub: &SubArgs, slave: &ServerAddress) -> Result<ClientSocket> {
    let token = match (&sub.key, &sub.app) {
        (Some(key), Some(app)) => {
            token::key_of(key)?.sign(&signing::claims(app, &sub.user, &sub.channels, TTL), None)?
        }
        _ => secret_of(sub.token.as_ref(), sub.token_file.as_ref())?
            .context("a token, or a key and an app, is needed")?,
    };
    let app = match &sub.app {
        Some(app) => app.clone(),
        None => app_of(&token).ok_or_else(|| Final("the token names no app; name it with --app".to_owned()))?,
    };
    let (token, not_exchanged) = exchanged(slave, &token).await?;
    let path = format!("/v1/apps/{}/ws?token={}", encoded(&app), encoded(&token));
    opened(slave, &path, not_exchanged).await
}

/// A WebSocket, or why not. `before` is what was refused on the way.
async fn opened(slave: &ServerAddress, path: &str, before: Option<String>) -> Result<ClientSocket> {
    slave.open(path).await.with_context(|| {
        let before = before.map(|before| format!(" ({before})")).unwrap_or_default();
        format!("cannot open a WebSocket at {slave}{before}")
    })
}

/// A connection token for a JWT. Whatever is not exchanged is tried as it is, since it may be a connection token already;
/// why it was not is told, too.
async fn exchanged(slave: &ServerAddress, token: &str) -> Result<(String, Option<String>)> {
    let body = json!({ "jwt": token }).to_string();
    let answer = slave.request(Method::POST, "/v1/auth", None, Some(body)).await;
    let answer = answer.with_context(|| format!("cannot reach the slave at {slave}"))?;
    let issued: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let issued = issued.and_then(|issued| issued["token"].as_str().map(str::to_owned));
    Ok(match issued.filter(|_| answer.status == StatusCode::OK) {
        Some(issued) => (issued, None),
        None => {
            let why = format!("as a JWT it was refused, too: {}: {}", answer.status, answer.text);
            (token.to_owned(), Some(why))
        }
    })
}

async fn tell(socket: &mut ClientSocket, text: &str) -> Result<()> {
    socket.send(Message::Text(text.into())).await.context("the slave is gone")
}

fn heard_of_gusher(text: &str) -> Result<ServerMessage> {
    let message: Value = serde_json::from_str(text).unwrap_or_default();
    let channel = || message["data"]["channel"].to_string();
    match message["event"].as_str() {
        Some("gusher.subscribe_succeeded") => Ok(ServerMessage::Subscribed(channel())),
        Some("gusher.subscribe_error") => {
            Err(Final(format!("the token does not allow the channel {}", channel())).into())
        }
        _ => Ok(ServerMessage::Message),
    }
}

fn heard_of_pusher(text: &str) -> Result<ServerMessage> {
    let message: Value = serde_json::from_str(text).unwrap_or_default();
    match message["event"].as_str() {
        Some("pusher:connection_established") => {
            // its data is a string of JSON
            let data = message["data"].as_str().unwrap_or_default();
            let data: Value = serde_json::from_str(data).unwrap_or_default();
            let id = data["socket_id"].as_str().context("the slave gave the socket no id")?;
            Ok(ServerMessage::Established(id.to_owned()))
        }
        Some("pusher_internal:subscription_succeeded") => Ok(ServerMessage::Subscribed(message["channel"].to_string())),
        Some("pusher:ping") => Ok(ServerMessage::Reply(r#"{"event":"pusher:pong","data":{}}"#)),
        Some("pusher:pong") => Ok(ServerMessage::Step),
        Some("pusher:error") => {
            let (code, words) = (&message["data"]["code"], one_line(&message["data"]["message"].to_string()));
            let code = code.as_u64().map(|code| format!(" {code}")).unwrap_or_default();
            let words = format!("the slave says: error{code}: {words}");
            // those in between ask to come back
            let comes_back = message["data"]["code"].as_u64().is_some_and(|code| (4100..4300).contains(&code));
            Err(if comes_back { anyhow!(words) } else { Final(words).into() })
        }
        _ => Ok(ServerMessage::Message),
    }
}

/// What a server refuses for good. What it cannot do just now, or a connection that is not there, may come right.
fn is_final(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<NotOpened>();
    let for_good = |status: StatusCode| status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS;
    error.is::<Final>() || refused.is_some_and(|NotOpened(answer)| for_good(answer.status))
}

/// Notes go to standard error: standard output is for what arrives.
fn note(words: &str) {
    let _ = io::stderr().write_fmt(format_args!("{words}\n"));
}

fn app_of(token: &str) -> Option<String> {
    let claims = token::payload(token).ok()?;
    // a client's JWT says it so; a connection token keeps it elsewhere, and then --app must
    claims["gusher"]["app_key"].as_str().map(str::to_owned)
}
