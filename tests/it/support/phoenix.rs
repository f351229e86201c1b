//! A client of Phoenix channels, as PushEx has them, in either serializer.

use std::net::SocketAddr;

use serde_json::{Value, json, value::RawValue};

use super::{
    encoded,
    http::Reply,
    quoted,
    websocket::{Close, WebSocket},
};

/// Where its sockets open.
pub const PATH: &str = "/push_socket/websocket";

/// One client.
pub struct PhoenixClient {
    pub socket: WebSocket,
    /// The serializer: 1 or 2.
    serializer: u8,
    /// The last reference that it used.
    reference: u32,
}

/// A pushed event: the topic, and `{data,event}` as it came, byte for byte.
#[derive(Debug, Eq, PartialEq)]
pub struct PhoenixPush {
    /// Which subscription the frame names; `null` in the first serializer.
    pub join_reference: Value,
    pub topic: String,
    pub payload: String,
}

impl PhoenixClient {
    /// With a token, or with none if it is empty.
    pub async fn connect(slave: SocketAddr, serializer: u8, token: &str) -> Self {
        Self::try_connect(slave, serializer, token).await.unwrap_or_else(|reply| panic!("refused: {reply:?}"))
    }

    pub async fn try_connect(slave: SocketAddr, serializer: u8, token: &str) -> Result<Self, Reply> {
        let token = if token.is_empty() { String::new() } else { format!("token={}&", encoded(token)) };
        let socket = WebSocket::open(slave, &format!("{PATH}?{token}vsn={serializer}.0.0"), &[]).await?;
        Ok(Self { socket, serializer, reference: 0 })
    }

    /// A message with a payload that is JSON.
    pub fn message(&self, join: &str, reference: &str, topic: &str, event: &str, payload: &str) -> String {
        let topic = quoted(topic);
        match self.serializer {
            1 => format!(r#"{{"topic":{topic},"event":"{event}","payload":{payload},"ref":{reference}}}"#),
            _ => format!(r#"[{join},{reference},{topic},"{event}",{payload}]"#),
        }
    }

    /// Ask to join; the payload of the reply.
    pub async fn join(&mut self, topic: &str) -> Value {
        self.reference += 1;
        let reference = format!("\"{}\"", self.reference);
        let message = self.message(&reference, &reference, topic, "phx_join", "{}");
        self.socket.send_text(&message).await;
        self.reply().await
    }

    /// The same client, now on `topic`.
    pub async fn joined(mut self, topic: &str) -> Self {
        assert_eq!(self.join(topic).await["status"], "ok");
        self
    }

    /// Leave a topic that was joined with this reference.
    pub async fn leave(&mut self, topic: &str, join: &str) {
        let message = self.message(join, "\"bye\"", topic, "phx_leave", "{}");
        self.socket.send_text(&message).await;
        assert_eq!(self.reply().await["status"], "ok");
        assert!(self.socket.text().await.contains("phx_close"));
    }

    /// Ask for something that is answered once.
    pub async fn ask(&mut self, message: &str) -> String {
        self.socket.send_text(message).await;
        self.socket.text().await
    }

    /// A heartbeat and its answer: nothing else comes before it.
    pub async fn beats(&mut self) {
        let message = self.message("null", "\"beat\"", "phoenix", "heartbeat", "{}");
        self.socket.send_text(&message).await;
        assert_eq!(self.reply().await, json!({ "response": {}, "status": "ok" }));
    }

    /// The payload of a reply, which is next.
    async fn reply(&mut self) -> Value {
        let text = self.socket.text().await;
        let frame: Value = serde_json::from_str(&text).expect("JSON");
        let (event, payload) = match self.serializer {
            1 => (&frame["event"], &frame["payload"]),
            _ => (&frame[3], &frame[4]),
        };
        assert_eq!(event, "phx_reply", "{text}");
        payload.clone()
    }

    /// The next event, which is what comes next.
    pub async fn next_push(&mut self) -> PhoenixPush {
        let text = self.socket.text().await;
        let read = |part: &RawValue| serde_json::from_str::<Value>(part.get()).expect("JSON");
        let (join_reference, reference, topic, event, payload) = match self.serializer {
            1 => {
                #[derive(serde::Deserialize)]
                #[serde(deny_unknown_fields)]
                struct First<'a> {
                    event: String,
                    #[serde(borrow)]
                    payload: &'a RawValue,
                    r#ref: Value,
                    topic: String,
                }
                let First { event, payload, r#ref, topic } = serde_json::from_str(&text).expect("a frame");
                (Value::Null, r#ref, topic, event, payload.get().to_owned())
            }
            _ => {
                let [join, reference, topic, event, payload]: [&RawValue; 5] =
                    serde_json::from_str::<Vec<_>>(&text).expect("a list").try_into().expect("five");
                let string = |part| read(part).as_str().expect("a string").to_owned();
                (read(join), read(reference), string(topic), string(event), payload.get().to_owned())
            }
        };
        assert_eq!((reference, &*event), (Value::Null, "msg"), "{text}");
        PhoenixPush { join_reference, topic, payload }
    }

    /// How the server closes it.
    pub async fn closed(&mut self) -> Close {
        self.socket.closed().await
    }
}
