//! A client that speaks gusher's WebSocket protocol.

use std::net::SocketAddr;

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{
    encoded, quoted,
    websocket::{Close, WebSocket},
};

/// One client.
pub struct Client {
    pub socket: WebSocket,
}

/// A pushed event.
#[derive(Debug, Eq, PartialEq)]
pub struct ReceivedEvent {
    pub channel: String,
    pub event: String,
    /// As it came, byte for byte.
    pub data: String,
}

impl ReceivedEvent {
    pub fn new(channel: &str, event: &str, data: &str) -> Self {
        Self { channel: channel.to_owned(), event: event.to_owned(), data: data.to_owned() }
    }
}

/// The v1 path of an app's sockets.
pub fn path(app: &str, token: &str) -> String {
    format!("/gcs/ws/{}?token={}", encoded(app), encoded(token))
}

impl Client {
    pub async fn connect(slave: SocketAddr, app: &str, token: &str) -> Self {
        let socket = WebSocket::open(slave, &path(app, token), &[]).await;
        Self { socket: socket.unwrap_or_else(|reply| panic!("refused: {reply:?}")) }
    }

    /// Send a command.
    pub async fn say(&mut self, event: &str, data: &str) {
        self.socket.send_text(&command(event, data)).await;
    }

    /// Send a command; the reply, as it came.
    pub async fn ask(&mut self, event: &str, data: &str) -> String {
        self.say(event, data).await;
        self.socket.text().await
    }

    /// The event and the data of a reply.
    pub async fn reply(&mut self) -> (String, Value) {
        let reply: Value = serde_json::from_str(&self.socket.text().await).expect("JSON");
        (reply["event"].as_str().expect("an event").to_owned(), reply["data"].clone())
    }

    /// Ask for one channel; what the server says.
    pub async fn subscribe(&mut self, channel: &str) -> String {
        self.say("gusher.subscribe", &format!(r#"{{"channel":{}}}"#, quoted(channel))).await;
        self.reply().await.0
    }

    /// Leave one channel; what the server says.
    pub async fn unsubscribe(&mut self, channel: &str) -> String {
        self.say("gusher.unsubscribe", &format!(r#"{{"channel":{}}}"#, quoted(channel))).await;
        self.reply().await.0
    }

    /// The same client, now on `channel`.
    pub async fn subscribed(mut self, channel: &str) -> Self {
        assert_eq!(self.subscribe(channel).await, "gusher.subscribe_succeeded");
        self
    }

    /// The next event, which is what comes next.
    pub async fn next_event(&mut self) -> ReceivedEvent {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Pushed<'a> {
            channel: String,
            event: String,
            #[serde(borrow)]
            data: &'a RawValue,
        }
        let text = self.socket.text().await;
        let pushed: Pushed<'_> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        ReceivedEvent { channel: pushed.channel, event: pushed.event, data: pushed.data.get().to_owned() }
    }

    /// Its own id, which every reply carries.
    pub async fn id(&mut self) -> String {
        let reply: Value = serde_json::from_str(&self.ask("gusher.ping", "0").await).expect("JSON");
        reply["socket_id"].as_str().expect("an id").to_owned()
    }

    /// How the server closes it.
    pub async fn closed(&mut self) -> Close {
        self.socket.closed().await
    }
}

/// A command as text.
pub fn command(event: &str, data: &str) -> String {
    format!(r#"{{"event":"{event}","data":{data}}}"#)
}
