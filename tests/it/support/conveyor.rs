//! Conveyor's side of the house: a client and a backend as the original's are. Written against the documents, not against the
//! code of the server.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{
    encoded,
    http::{Http, Reply},
    server::Setup,
    websocket::WebSocket,
};

/// The server token of most tests.
pub const TOKEN: &str = "the server token of these tests";

/// A server that Conveyor's callers and clients use, with the app `demo`.
pub fn setup() -> Setup {
    Setup::keyed().set("conveyor.token", TOKEN)
}

/// A client on a socket of its own.
pub struct ConveyorClient {
    pub socket: WebSocket,
    pub fd: u64,
}

impl ConveyorClient {
    /// Connect with a token, or hear why not.
    pub async fn open(slave: SocketAddr, token: &str) -> Result<Self, Reply> {
        Self::open_at(slave, &format!("/?token={}", encoded(token))).await
    }

    /// Connect at a path.
    pub async fn open_at(slave: SocketAddr, path: &str) -> Result<Self, Reply> {
        let socket = WebSocket::open(slave, path, &[]).await?;
        let mut client = Self { socket, fd: 0 };
        let info = client.next().await;
        assert_eq!(info["action"], "connection-info", "{info}");
        let data: Value = serde_json::from_str(info["data"].as_str().expect("a string of JSON")).expect("JSON");
        client.fd = data["fd"].as_u64().expect("a number");
        assert!(client.fd < 1 << 53, "a number in JavaScript");
        assert_eq!(data, json!({ "fd": client.fd, "event": "connection-info" }));
        Ok(client)
    }

    /// With the server token.
    pub async fn connect(slave: SocketAddr) -> Self {
        Self::open(slave, TOKEN).await.unwrap_or_else(|reply| panic!("refused: {reply:?}"))
    }

    /// The same, on a channel.
    pub async fn on(slave: SocketAddr, channel: &str) -> Self {
        let mut client = Self::connect(slave).await;
        client.join(channel, TOKEN).await;
        client
    }

    pub async fn next(&mut self) -> Value {
        let text = self.socket.text().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    pub async fn say(&mut self, words: &Value) {
        self.socket.send_text(&words.to_string()).await;
    }

    /// Ask to be on a channel.
    pub async fn wish(&mut self, channel: &str, auth: &str) {
        self.say(&json!({ "action": "channel-connect", "channel": channel, "auth": auth })).await;
    }

    /// Be on a channel. The server says nothing to that.
    pub async fn join(&mut self, channel: &str, auth: &str) {
        self.wish(channel, auth).await;
        self.is_quiet().await;
    }

    /// The next is an error of this action.
    pub async fn error(&mut self, action: &str) -> String {
        let said = self.next().await;
        assert_eq!((&said["action"], &said["fd"]), (&json!(action), &json!(self.fd)), "{said}");
        said["data"].as_str().expect("words").to_owned()
    }

    /// Nothing but what it says to itself comes next.
    pub async fn is_quiet(&mut self) {
        self.say(&json!({ "action": "base-action", "data": "quiet?" })).await;
        let said = self.socket.text().await;
        assert_eq!(said, format!(r#"{{"action":"base-action","data":"quiet?","fd":{}}}"#, self.fd));
    }
}

/// A backend on a connection of its own.
pub struct ConveyorBackend(pub Http);

impl ConveyorBackend {
    pub async fn of(master: SocketAddr) -> Self {
        Self(Http::to(master).await)
    }

    pub async fn post(&mut self, endpoint: &str, token: &str, body: &str) -> Reply {
        let path = format!("/conveyor/{endpoint}?token={}", encoded(token));
        self.0.json("POST", &path, body).await
    }

    /// A temporary token.
    pub async fn mint(&mut self, channel: Option<&str>) -> String {
        let reply = self.post("auth", TOKEN, &json!({ "channel": channel }).to_string()).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")), "{reply:?}");
        let token = reply.json()["auth"].as_str().expect("a token").to_owned();
        assert_eq!(reply.text(), format!(r#"{{"auth":"{token}"}}"#));
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        assert!(token.len() == 32 && token.bytes().all(is_hex), "{token}");
        token
    }

    /// What is answered to a message.
    pub async fn message(&mut self, channel: &str, message: &Value) -> (u16, String) {
        let reply = self.post("message", TOKEN, &json!({ "channel": channel, "message": message }).to_string()).await;
        (reply.status, reply.text().to_owned())
    }

    /// Send a message that somebody gets.
    pub async fn send(&mut self, channel: &str, message: &str) {
        let wanted = (200, r#"{"success":"Message sent successfully!"}"#.to_owned());
        assert_eq!(self.message(channel, &message.into()).await, wanted);
    }
}
