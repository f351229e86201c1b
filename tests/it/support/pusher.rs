//! Pusher's side of the house: an app, a backend that signs its requests, a client that speaks protocol 7. Written against
//! the documents, not against the code of the server.

use std::net::SocketAddr;

use aws_lc_rs::hmac;
use md5::{Digest, Md5};
use serde_json::{Value, json};

use super::{
    encoded,
    http::{Http, Reply},
    keys::now,
    quoted,
    server::{Server, Setup},
    websocket::{Close, WebSocket},
};

/// What a backend and a frontend know of an app.
#[derive(Clone, Copy, Debug)]
pub struct TestApp {
    pub key: &'static str,
    pub id: &'static str,
    pub secret: &'static str,
}

/// The app of most tests.
pub const DEMO: TestApp = TestApp { key: "demo", id: "17", secret: "the secret of demo" };
/// Another one on the same server.
pub const OTHER: TestApp = TestApp { key: "other", id: "18", secret: "the secret of other" };

impl TestApp {
    /// As `[[apps.listed]]`, with more of its table.
    pub fn listed(&self, more: &str) -> String {
        let Self { key, id, secret } = self;
        format!("\n[[apps.listed]]\nkey = \"{key}\"\nid = \"{id}\"\nsecret = \"{secret}\"\n{more}\n")
    }

    /// What the secret makes of `text`, in hexadecimal digits.
    pub fn sign(&self, text: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes());
        hex(hmac::sign(&key, text.as_bytes()).as_ref())
    }

    /// What the app's own backend answers to a client that wants to join.
    pub fn auth(&self, socket: &str, channel: &str, channel_data: Option<&str>) -> String {
        let data = channel_data.map(|data| format!(":{data}")).unwrap_or_default();
        format!("{}:{}", self.key, self.sign(&format!("{socket}:{channel}{data}")))
    }

    /// The query of a signed request.
    pub fn signed(&self, method: &str, path: &str, params: &[(&str, &str)], body: &str, at: u64) -> String {
        let at = at.to_string();
        let md5 = hex(&Md5::digest(body));
        let mut all = vec![("auth_key", self.key), ("auth_timestamp", &at), ("auth_version", "1.0")];
        if !body.is_empty() {
            all.push(("body_md5", &md5));
        }
        all.extend(params);
        all.sort_unstable();
        let signed: Vec<_> = all.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let signature = self.sign(&format!("{method}\n{path}\n{}", signed.join("&")));
        let sent: Vec<_> = all.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        format!("{}&auth_signature={signature}", sent.join("&"))
    }

    /// The path of its sockets.
    pub fn path(&self) -> String {
        format!("/app/{}?protocol=7&client=test&version=1.0&flash=false", self.key)
    }
}

/// A server that serves [`DEMO`], where clients may publish, and [`OTHER`], where they may not.
pub fn setup() -> Setup {
    Setup::keyed().toml(&DEMO.listed("client_events = true")).toml(&OTHER.listed(""))
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A backend that keeps its connection.
pub struct Api {
    pub http: Http,
    pub app: TestApp,
}

impl Api {
    pub async fn of(server: &Server, app: TestApp) -> Self {
        Self { http: Http::to(server.master()).await, app }
    }

    /// A signed request to a path below the app.
    pub async fn call(&mut self, method: &str, below: &str, params: &[(&str, &str)], body: &str) -> Reply {
        let path = format!("/apps/{}{below}", self.app.id);
        let query = self.app.signed(method, &path, params, body, now());
        self.http.call(method, &format!("{path}?{query}"), &[("Content-Type", "application/json")], body).await
    }

    pub async fn post(&mut self, below: &str, body: &Value) -> Reply {
        self.call("POST", below, &[], &body.to_string()).await
    }

    pub async fn get(&mut self, below: &str, params: &[(&str, &str)]) -> Reply {
        self.call("GET", below, params, "").await
    }

    /// A query that is answered.
    pub async fn ask(&mut self, below: &str, params: &[(&str, &str)]) -> Value {
        let reply = self.get(below, params).await;
        assert_eq!(reply.status, 200, "{below}: {reply:?}");
        reply.json()
    }

    /// Publish; it must be accepted.
    pub async fn trigger(&mut self, channel: &str, event: &str, data: &str) {
        let reply = self.post("/events", &json!({ "name": event, "channel": channel, "data": data })).await;
        assert_eq!(reply.is(), (200, "{}"));
    }

    /// How it stands with a channel: sockets on it, and users for a presence channel.
    pub async fn counts(&mut self, channel: &str) -> (u64, Option<u64>) {
        let presence = channel.starts_with("presence-");
        let info = if presence { "subscription_count,user_count" } else { "subscription_count" };
        let state = self.ask(&format!("/channels/{channel}"), &[("info", info)]).await;
        let count = |name: &str| state[name].as_u64();
        (count("subscription_count").expect("a number"), count("user_count"))
    }

    /// The users on a presence channel, sorted.
    pub async fn users(&mut self, channel: &str) -> Vec<String> {
        let answer = self.ask(&format!("/channels/{channel}/users"), &[]).await;
        let ids = answer["users"].as_array().expect("a list").iter();
        let mut ids: Vec<_> = ids.map(|user| user["id"].as_str().expect("a string").to_owned()).collect();
        ids.sort();
        ids
    }
}

/// A client.
pub struct PusherClient {
    pub socket: WebSocket,
    /// Its socket id.
    pub id: String,
    pub app: TestApp,
}

/// What a server says: its event, its channel, and the rest as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct PusherMessage {
    pub event: String,
    pub channel: Option<String>,
    pub data: Value,
    /// The sender of a client event on a presence channel.
    pub user_id: Option<String>,
}

impl PusherMessage {
    /// A published event.
    pub fn event(channel: &str, event: &str, data: impl Into<Value>) -> Self {
        Self { event: event.to_owned(), channel: Some(channel.to_owned()), data: data.into(), user_id: None }
    }

    /// A sign-in succeeded.
    pub fn signed_in(user_data: &str) -> Self {
        let data = json!({ "user_data": user_data }).to_string().into();
        Self { event: "pusher:signin_success".to_owned(), channel: None, data, user_id: None }
    }

    /// The same, from a member.
    pub fn by(mut self, user: &str) -> Self {
        self.user_id = Some(user.to_owned());
        self
    }

    /// The data, which is a string of JSON.
    pub fn inner(&self) -> Value {
        let text = self.data.as_str().unwrap_or_else(|| panic!("the data is a string: {self:?}"));
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

impl PusherClient {
    /// Connect, or hear why not over HTTP.
    pub async fn open(slave: SocketAddr, app: TestApp) -> Result<Self, Reply> {
        let socket = WebSocket::open(slave, &app.path(), &[]).await?;
        let mut client = Self { socket, id: String::new(), app };
        let hello = client.next().await;
        assert_eq!((&*hello.event, &hello.channel), ("pusher:connection_established", &None), "{hello:?}");
        let data = hello.inner();
        client.id = data["socket_id"].as_str().expect("a socket id").to_owned();
        assert_eq!(data, json!({ "socket_id": client.id, "activity_timeout": 120 }));
        Ok(client)
    }

    pub async fn connect(slave: SocketAddr, app: TestApp) -> Self {
        Self::open(slave, app).await.unwrap_or_else(|reply| panic!("refused: {reply:?}"))
    }

    /// The next thing that the server says.
    pub async fn next(&mut self) -> PusherMessage {
        said(&self.socket.text().await)
    }

    pub async fn say(&mut self, event: &str, data: &Value) {
        self.socket.send_text(&json!({ "event": event, "data": data }).to_string()).await;
    }

    /// Ask to join, with everything that is needed for it.
    pub async fn wish(&mut self, channel: &str, channel_data: Option<&str>) {
        let mut data = json!({ "channel": channel });
        if channel.starts_with("private-") || channel.starts_with("presence-") {
            data["auth"] = self.app.auth(&self.id, channel, channel_data).into();
        }
        if let Some(channel_data) = channel_data {
            data["channel_data"] = channel_data.into();
        }
        self.say("pusher:subscribe", &data).await;
    }

    /// Show what the app has signed of a user.
    pub async fn sign_in(&mut self, user_data: &str) {
        let auth = format!("{}:{}", self.app.key, self.app.sign(&format!("{}::user::{user_data}", self.id)));
        self.say("pusher:signin", &json!({ "auth": auth, "user_data": user_data })).await;
    }

    /// Sign in; it must succeed.
    pub async fn sign_in_as(&mut self, user: &str) {
        let user_data = format!(r#"{{"id":{}}}"#, quoted(user));
        self.sign_in(&user_data).await;
        assert_eq!(self.next().await, PusherMessage::signed_in(&user_data));
    }

    /// Join the channel of the user that it has signed in as.
    pub async fn enter_own_channel(&mut self, user: &str) {
        let channel = format!("#server-to-user-{user}");
        // as pusher-js asks for it
        self.say("pusher:subscribe", &json!({ "channel": channel, "auth": "" })).await;
        assert_eq!(self.next().await, PusherMessage::event(&channel, "pusher_internal:subscription_succeeded", "{}"));
    }

    /// Join a public or private channel.
    pub async fn subscribe(&mut self, channel: &str) {
        self.wish(channel, None).await;
        let wanted = PusherMessage::event(channel, "pusher_internal:subscription_succeeded", "{}");
        assert_eq!(self.next().await, wanted);
    }

    /// The same client, on a public or private channel.
    pub async fn subscribed(mut self, channel: &str) -> Self {
        self.subscribe(channel).await;
        self
    }

    /// Join a presence channel; the ids of its members, in the order of their names.
    pub async fn join(&mut self, channel: &str, user: &str) -> Vec<String> {
        self.wish(channel, Some(&channel_data(user))).await;
        let said = self.next().await;
        joined(&said, channel)
    }

    /// Leave a channel. Nothing comes back.
    pub async fn unsubscribe(&mut self, channel: &str) {
        self.say("pusher:unsubscribe", &json!({ "channel": channel })).await;
    }

    /// Say something to the others.
    pub async fn whisper(&mut self, channel: &str, event: &str, data: &Value) {
        let text = json!({ "event": event, "channel": channel, "data": data }).to_string();
        self.socket.send_text(&text).await;
    }

    /// Nothing but the answer to a ping comes next.
    pub async fn is_quiet(&mut self) {
        self.say("pusher:ping", &json!({})).await;
        let pong = self.next().await;
        assert_eq!((&*pong.event, &pong.data), ("pusher:pong", &json!("{}")), "{pong:?}");
    }

    /// The next is an error that keeps the socket; its code and its words.
    pub async fn error(&mut self) -> (Option<u64>, String) {
        let said = self.next().await;
        assert_eq!((&*said.event, &said.channel), ("pusher:error", &None), "{said:?}");
        let code = &said.data["code"];
        assert!(code.is_u64() || code.is_null(), "{said:?}");
        (code.as_u64(), said.data["message"].as_str().expect("words").to_owned())
    }

    /// The next two say that it is not let on `channel`: the words for the socket and for the channel are the same. With the
    /// status.
    pub async fn barred(&mut self, channel: &str) -> (u64, String) {
        let (code, words) = self.error().await;
        assert_eq!(code, None, "{words}");
        let said = self.next().await;
        assert_eq!((&*said.event, said.channel.as_deref()), ("pusher:subscription_error", Some(channel)), "{said:?}");
        assert_eq!(said.data["error"], words);
        assert!(said.data["type"].is_string(), "{said:?}");
        (said.data["status"].as_u64().expect("a status"), words)
    }

    /// How the server closes it.
    pub async fn closed(&mut self) -> Close {
        self.socket.closed().await
    }
}

/// One frame of a server.
pub fn said(text: &str) -> PusherMessage {
    let said: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let string = |name: &str| said[name].as_str().map(ToOwned::to_owned);
    for name in said.as_object().expect("an object").keys() {
        assert!(["event", "channel", "data", "user_id"].contains(&name.as_str()), "{text}");
    }
    PusherMessage {
        event: string("event").expect("an event"),
        channel: string("channel"),
        data: said["data"].clone(),
        user_id: string("user_id"),
    }
}

/// The members that a newcomer is told of, in the order of their names.
pub fn joined(said: &PusherMessage, channel: &str) -> Vec<String> {
    let wanted = ("pusher_internal:subscription_succeeded", Some(channel));
    assert_eq!((&*said.event, said.channel.as_deref()), wanted, "{said:?}");
    let data = said.inner();
    let presence = &data["presence"];
    let mut ids: Vec<String> = serde_json::from_value(presence["ids"].clone()).expect("a list of strings");
    ids.sort();
    let hash = presence["hash"].as_object().expect("an object");
    assert_eq!(hash.keys().collect::<Vec<_>>(), ids.iter().collect::<Vec<_>>(), "each once");
    assert!(hash.values().all(Value::is_object), "{said:?}");
    assert_eq!(presence["count"], ids.len());
    ids
}

/// What an app signs of a user with a name.
pub fn channel_data(user: &str) -> String {
    format!(r#"{{"user_id":{},"user_info":{{"name":{}}}}}"#, quoted(user), quoted(&user.to_uppercase()))
}
