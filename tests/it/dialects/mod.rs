//! Four dialects on one channel: each row of the tables in `docs/dialects.md`, in one process and in a cluster.

mod apps;
mod events;
mod there;
mod users;

use serde_json::Value;

use crate::{
    cluster::field::{By, Field},
    support::{
        backend::Backend,
        client::{Client, ReceivedEvent},
        conveyor::{ConveyorBackend, ConveyorClient, TOKEN},
        http::Http,
        keys::signer,
        phoenix::{PhoenixClient, PhoenixPush},
        pusher::{Api, DEMO, OTHER, PusherClient, PusherMessage},
        quoted,
        server::{Server, Setup},
    },
};

/// Where a test runs.
enum Dialogue {
    /// Both roles in one process.
    One(Box<Server>),
    /// A master, and two slaves, over NATS.
    Cluster(Box<Field>),
}

impl Dialogue {
    async fn all() -> [Self; 2] {
        let listed = format!("{}{}", DEMO.listed("client_events = true"), OTHER.listed("client_events = true"));
        let set =
            |setup: Setup| setup.toml(&listed).toml("[pushex]\npublic = [\"open\"]\n").set("conveyor.token", TOKEN);
        let one = set(Setup::keyed()).start().await;
        let cluster = Field::start_with(By::Nats, 1, 2, set).await;
        [Self::One(Box::new(one)), Self::Cluster(Box::new(cluster))]
    }

    fn master(&self) -> &Server {
        match self {
            Self::One(server) => server,
            Self::Cluster(field) => &field.masters[0],
        }
    }

    fn slave(&self, number: usize) -> &Server {
        match self {
            Self::One(server) => server,
            Self::Cluster(field) => &field.slaves[number],
        }
    }

    async fn gusher(&self, slave: usize, user: &str, channels: &[&str]) -> Client {
        self.gusher_of("demo", slave, user, channels).await
    }

    async fn gusher_of(&self, app: &str, slave: usize, user: &str, channels: &[&str]) -> Client {
        let mut client = self.slave(slave).client(app, user, &["*"]).await;
        for channel in channels {
            assert_eq!(client.subscribe(channel).await, "gusher.subscribe_succeeded");
        }
        client
    }

    async fn pusher(&self, slave: usize, channels: &[&str]) -> PusherClient {
        let mut client = PusherClient::connect(self.slave(slave).slave(), DEMO).await;
        for channel in channels {
            client.subscribe(channel).await;
        }
        client
    }

    /// A client of PushEx on either serializer: the first one on the first slave.
    async fn phoenix(&self, slave: usize, user: &str, channels: &[&str]) -> PhoenixClient {
        let token = signer().jwt("demo", user, &["*"]);
        let serializer = if slave == 0 { 1 } else { 2 };
        let mut client = PhoenixClient::connect(self.slave(slave).slave(), serializer, &token).await;
        for channel in channels {
            assert_eq!(client.join(channel).await["status"], "ok");
        }
        client
    }

    async fn conveyor(&self, slave: usize, channel: &str) -> ConveyorClient {
        ConveyorClient::on(self.slave(slave).slave(), channel).await
    }

    async fn api(&self) -> Api {
        Api::of(self.master(), DEMO).await
    }
}

/// Payloads: as they are published, and the JSON that they are. A string of JSON is JSON.
const PAYLOADS: [(&str, &str); 9] = [
    (r#"{"n":1}"#, r#"{"n":1}"#),
    (r#"{"z":12345678901234567890.10,"a":"\u00e9"}"#, r#"{"z":12345678901234567890.10,"a":"\u00e9"}"#),
    (r#"{"a":{"b":[null,{"c":[[]]}]},"d":{}}"#, r#"{"a":{"b":[null,{"c":[[]]}]},"d":{}}"#),
    ("[1,2]", "[1,2]"),
    ("7", "7"),
    ("null", "null"),
    (r#""a string""#, r#""a string""#),
    ("plain text", r#""plain text""#),
    ("{broken", r#""{broken""#),
];

/// An API that pushes.
#[derive(Clone, Copy, Debug)]
enum PushApi {
    Gusher,
    Pusher,
    PushEx,
    Conveyor,
}

const ALL_APIS: [PushApi; 4] = [PushApi::Gusher, PushApi::Pusher, PushApi::PushEx, PushApi::Conveyor];

/// A backend of each API, on a connection of its own.
struct AllBackends {
    gusher: Backend,
    pusher: Api,
    pushex: Http,
    conveyor: ConveyorBackend,
}

impl AllBackends {
    async fn of(place: &Dialogue) -> Self {
        let master = place.master();
        Self {
            gusher: master.backend().await,
            pusher: place.api().await,
            pushex: Http::to(master.master()).await,
            conveyor: ConveyorBackend::of(master.master()).await,
        }
    }

    /// Push the event `e`; it must be accepted. `json` is what `data` is as JSON, which PushEx' callers send.
    async fn push(&mut self, by: PushApi, channel: &str, data: &str, json: &str) {
        match by {
            PushApi::Gusher => drop(self.gusher.push("demo", channel, "e", data).await),
            PushApi::Pusher => self.pusher.trigger(channel, "e", data).await,
            PushApi::PushEx => {
                let body = format!(r#"{{"channel":{},"event":"e","data":{json}}}"#, quoted(channel));
                assert_eq!(self.pushex.json("POST", "/api/push", &body).await.status, 200, "{body}");
            }
            PushApi::Conveyor => self.conveyor.send(channel, data).await,
        }
    }
}

/// An event as each dialect receives it.
#[derive(Debug)]
struct SharedEvent {
    event: &'static str,
    /// At gusher's and PushEx' clients.
    json: String,
    pusher: Value,
    /// What a frame of Conveyor has behind `"data":`.
    conveyor: String,
}

impl SharedEvent {
    fn of(by: PushApi, data: &str, json: &str) -> Self {
        let (event, pusher, conveyor) = match by {
            PushApi::Gusher => ("e", data, json.to_owned()),
            PushApi::Pusher => ("e", data, quoted(data)),
            PushApi::PushEx => ("e", json, json.to_owned()),
            PushApi::Conveyor => ("message", data, quoted(data)),
        };
        Self { event, json: json.to_owned(), pusher: pusher.into(), conveyor }
    }

    /// From a client, which sent this JSON.
    fn said(event: &'static str, data: &Value) -> Self {
        // a string that is JSON as a whole is that JSON to those who have no word for a text
        let json = match data.as_str() {
            Some(text) if serde_json::from_str::<Value>(text).is_ok() => text.to_owned(),
            _ => data.to_string(),
        };
        Self { event, json, pusher: data.clone(), conveyor: data.to_string() }
    }
}

/// Two clients of each dialect on one channel, one on each slave.
struct ChannelListeners {
    channel: &'static str,
    gusher: [Client; 2],
    pusher: [PusherClient; 2],
    phoenix: [PhoenixClient; 2],
    conveyor: [ConveyorClient; 2],
}

impl ChannelListeners {
    async fn on(place: &Dialogue, channel: &'static str) -> Self {
        let only = [channel];
        Self {
            channel,
            gusher: [place.gusher(0, "ann", &only).await, place.gusher(1, "bob", &only).await],
            pusher: [place.pusher(0, &only).await, place.pusher(1, &only).await],
            phoenix: [place.phoenix(0, "pia", &only).await, place.phoenix(1, "pia", &only).await],
            conveyor: [place.conveyor(0, channel).await, place.conveyor(1, channel).await],
        }
    }

    async fn all_receive(&mut self, expected: &SharedEvent) {
        self.others_receive(expected, None, None).await;
    }

    /// All but one of Pusher's sockets; Conveyor's frames have this fd.
    async fn others_receive(&mut self, expected: &SharedEvent, but: Option<usize>, fd: Option<u64>) {
        let SharedEvent { event, json, pusher, conveyor } = expected;
        for client in &mut self.gusher {
            assert_eq!(client.next_event().await, ReceivedEvent::new(self.channel, event, json), "{expected:?}");
        }
        for (number, client) in self.pusher.iter_mut().enumerate() {
            if but != Some(number) {
                let message = PusherMessage::event(self.channel, event, pusher.clone());
                assert_eq!(client.next().await, message, "{expected:?}");
            }
        }
        // the second serializer names the subscription
        for (client, join_reference) in self.phoenix.iter_mut().zip([Value::Null, "1".into()]) {
            let payload = format!(r#"{{"data":{json},"event":"{event}"}}"#);
            let push = PhoenixPush { join_reference, topic: self.channel.to_owned(), payload };
            assert_eq!(client.next_push().await, push, "{expected:?}");
        }
        let fd = fd.map_or_else(String::new, |fd| format!(r#","fd":{fd}"#));
        let frame = format!(r#"{{"action":"broadcast-action","data":{conveyor}{fd}}}"#);
        for client in &mut self.conveyor {
            assert_eq!(client.socket.text().await, frame, "{expected:?}");
        }
    }

    async fn are_quiet(&mut self) {
        for client in &mut self.gusher {
            assert!(client.ask("gusher.ping", "1").await.contains("pong_succeeded"));
        }
        for client in &mut self.pusher {
            client.is_quiet().await;
        }
        for client in &mut self.phoenix {
            client.beats().await;
        }
        for client in &mut self.conveyor {
            client.is_quiet().await;
        }
    }
}
