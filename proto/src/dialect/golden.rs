//! Reads the golden files in `tests/golden`, for the tests of every dialect. The files have words of their own: no name of
//! a type stands in them, so a rename changes none of them. Whoever changes a type changes this file instead.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use super::contract::{ApiReply, ApiTask, Done, Headers, Work};
use crate::{
    command::{Command, Target},
    envelope::Envelope,
    event::{Event, Payload, Sender},
    ids::{AppId, UserId},
    jwt::BadToken,
    query::{Ask, Census, ChannelState, Headcount, Query},
};

/// The cases in a file: a list.
pub fn read<T: DeserializeOwned>(file: &str) -> Vec<T> {
    read_with(file, |text| text)
}

fn read_with<T: DeserializeOwned>(file: &str, edit: impl Fn(String) -> String) -> Vec<T> {
    let path = format!("{}/../tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&edit(text)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// One HTTP request, what the dialect makes of it, and the reply.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GoldenCase {
    name: String,
    request: GoldenRequest,
    /// What the role is asked to do; missing if the dialect refuses the request.
    work: Option<Value>,
    /// What the role answers; missing if there is nothing to tell.
    answer: Option<GoldenAnswer>,
    reply: GoldenReply,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenRequest {
    pub method: String,
    pub path: String,
    #[serde(default)]
    pub query: String,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default)]
    pub body: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum GoldenAnswer {
    Names(BTreeSet<String>),
    Hashes(HashSet<u64>),
    Stats(BTreeMap<AppId, GoldenStats>),
    Channels(BTreeMap<String, GoldenChannel>),
    Members(BTreeMap<UserId, String>),
    /// The payload of a JWT.
    Claims(String),
    Token(String),
    BadToken(()),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GoldenStats {
    sockets: u64,
    users: HashSet<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GoldenChannel {
    subscriptions: u64,
    members: HashSet<u64>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct GoldenReply {
    status: u16,
    r#type: String,
    body: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

impl Headers for BTreeMap<String, String> {
    fn header(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }
}

/// Compare every case of `file` with what `call` makes of its request; `edit` fills in what the file leaves open.
pub fn check_http(
    file: &str,
    edit: impl Fn(String) -> String,
    call: impl Fn(&GoldenRequest) -> Result<ApiTask, ApiReply>,
) {
    for case in read_with::<GoldenCase>(file, edit) {
        let (work, reply) = match call(&case.request) {
            Ok(ApiTask { work, reply }) => {
                let done = done(&work, case.answer);
                (Some(shown(&work)), reply(done))
            }
            Err(reply) => (None, reply),
        };
        assert_eq!(work, case.work, "{}: the work", case.name);
        let reply = GoldenReply {
            status: reply.status,
            r#type: reply.content_type.to_owned(),
            body: String::from_utf8(reply.body.into()).expect("replies are UTF-8"),
            headers: reply.headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        };
        assert_eq!(reply, case.reply, "{}", case.name);
    }
}

/// What a role is asked to do, as the files write it.
pub fn shown(work: &Work) -> Value {
    let publish = |envelopes: &[Envelope]| envelopes.iter().map(order).collect::<Value>();
    match work {
        Work::Nothing => json!("nothing"),
        Work::Publish(envelopes) => json!({ "publish": publish(envelopes) }),
        Work::Ask(Ask::PublishMatching { app, pattern, within, event }) => {
            let mut shown = json!({ "app": app, "pattern": pattern, "within": within });
            add(&mut shown, self::event(event));
            json!({ "publish_matching": shown })
        }
        Work::Ask(ask) => json!({ "ask": question(ask) }),
        Work::PublishAndAsk(envelopes, ask) => json!({ "publish": publish(envelopes), "ask": question(ask) }),
        Work::Decode(jwt) => json!({ "decode": jwt }),
        Work::Exchange(jwt) => json!({ "exchange": jwt }),
    }
}

/// An event, as the files write it: who sent it is said only of clients.
pub fn event(Event { name, data, sender }: &Event) -> Value {
    let mut shown = json!({ "event": name });
    add(&mut shown, payload(data));
    match sender {
        None => {}
        Some(Sender::Socket) => add(&mut shown, json!({ "sender": "socket" })),
        Some(Sender::Member(user)) => add(&mut shown, json!({ "sender": { "member": user } })),
    }
    shown
}

/// An event that a file writes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenEvent {
    event: String,
    json: Option<String>,
    text: Option<String>,
    sender: Option<GoldenSender>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum GoldenSender {
    Socket,
    Member(UserId),
}

impl From<GoldenEvent> for Event {
    fn from(golden: GoldenEvent) -> Self {
        let data = match (golden.json, golden.text) {
            (Some(json), None) => Payload::Json(json.into()),
            (None, Some(text)) => Payload::Text(text.into()),
            (None, None) => Payload::Absent,
            (Some(_), Some(_)) => panic!("a payload is JSON or text"),
        };
        let sender = golden.sender.map(|sender| match sender {
            GoldenSender::Socket => Sender::Socket,
            GoldenSender::Member(user) => Sender::Member(user),
        });
        Self { name: golden.event.parse().expect("an event name"), data, sender }
    }
}

/// One command of a backend.
fn order(Envelope { app, command }: &Envelope) -> Value {
    let mut shown = json!({ "app": app });
    add(
        &mut shown,
        match command {
            Command::Publish { channel, event, except } => {
                let mut push = json!({ "channel": channel });
                add(&mut push, self::event(event));
                if let Some(except) = except {
                    add(&mut push, json!({ "except": except }));
                }
                push
            }
            Command::Direct { to, data } => {
                let mut direct = match to {
                    Target::User(user) => json!({ "user": user }),
                    Target::Socket(socket) => json!({ "socket": socket }),
                };
                add(&mut direct, payload(data));
                direct
            }
            Command::Reload { user, within, channels } => {
                json!({ "reload": user, "within": within, "channels": channels })
            }
            Command::Grant { user, channel } => json!({ "grant": user, "channel": channel }),
            Command::Members { .. } => panic!("no backend orders it"),
        },
    );
    shown
}

fn question(ask: &Ask) -> Value {
    match ask {
        Ask::Stats => json!("stats"),
        Ask::Query { app, query } => {
            let mut shown = json!({ "app": app });
            add(
                &mut shown,
                match query {
                    Query::Channels(patterns) => json!({ "channels": patterns }),
                    Query::ChannelCount(patterns) => json!({ "channel_count": patterns }),
                    Query::Users => json!({ "users": "all" }),
                    Query::UserCount => json!({ "user_count": "all" }),
                    Query::UsersOf(channel) => json!({ "users": { "channel": channel } }),
                    Query::UserCountOf(channel) => json!({ "user_count": { "channel": channel } }),
                    Query::States { of, members } => json!({ "states": of, "members": members }),
                    Query::StatesUnder { prefix, members } => json!({ "states_under": prefix, "members": members }),
                    Query::Members(channel) => json!({ "members_of": channel }),
                    Query::UsersWithin(_) | Query::UserCountWithin(_) | Query::GrantsOf(_) => {
                        panic!("no dialect asks it: the limits of a push key do")
                    }
                },
            );
            shown
        }
        Ask::PublishMatching { .. } | Ask::Redeem { .. } | Ask::Attendance(_) => panic!("no question of a backend"),
    }
}

fn payload(data: &Payload) -> Value {
    match data {
        Payload::Json(json) => json!({ "json": &**json }),
        Payload::Text(text) => json!({ "text": &**text }),
        Payload::Absent => json!({}),
    }
}

fn add(shown: &mut Value, more: Value) {
    let fields = shown.as_object_mut().expect("an object");
    let Value::Object(more) = more else { panic!("an object") };
    fields.extend::<Map<_, _>>(more);
}

/// What the role answers, in the types of the house.
fn done(work: &Work, answer: Option<GoldenAnswer>) -> Done {
    let Some(answer) = answer else { return Done::Done };
    match answer {
        GoldenAnswer::Names(names) => Done::Census(Census::Names(names)),
        GoldenAnswer::Hashes(hashes) => Done::Census(Census::Hashes(hashes)),
        GoldenAnswer::Stats(apps) => {
            let count = |GoldenStats { sockets, users }| Headcount { connections: sockets, users };
            Done::Census(Census::Stats(apps.into_iter().map(|(app, stats)| (app, count(stats))).collect()))
        }
        GoldenAnswer::Channels(channels) => {
            let state = |GoldenChannel { subscriptions, members }| ChannelState { subscriptions, members };
            Done::Census(Census::States(channels.into_iter().map(|(name, channel)| (name, state(channel))).collect()))
        }
        GoldenAnswer::Members(members) => {
            Done::Census(Census::Members(members.into_iter().map(|(user, info)| (user, info.into())).collect()))
        }
        GoldenAnswer::Claims(payload) => Done::Claims(Ok(serde_json::from_str(&payload).expect("claims"))),
        GoldenAnswer::Token(token) => Done::Token(Ok(token)),
        GoldenAnswer::BadToken(()) if matches!(work, Work::Exchange(_)) => Done::Token(Err(BadToken::Signature)),
        GoldenAnswer::BadToken(()) => Done::Claims(Err(BadToken::Signature)),
    }
}
