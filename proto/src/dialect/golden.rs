//! Reads the golden files in `tests/golden`, for the tests of every dialect. The files have words of their own: no name of
//! a type stands in them, so a rename changes none of them. Whoever changes a type changes this file instead.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use super::contract::{ApiReply, Headers, MasterRequest, QueryRequest, SlaveRequest};
use crate::{
    command::{Command, PublishMatching, Target, Within},
    envelope::Envelope,
    event::{Event, Payload, Sender},
    ids::{AppId, SocketId, UserId},
    jwt::BadToken,
    query::{ChannelState, Headcount, KeptWebhook, Listing, StatesOf, StatesQuery, WebhookState},
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
pub enum GoldenAnswer {
    Names(BTreeSet<String>),
    Hashes(HashSet<u64>),
    Stats(BTreeMap<AppId, GoldenStats>),
    Channels(BTreeMap<String, GoldenChannel>),
    Members(BTreeMap<UserId, String>),
    Webhooks(BTreeMap<u32, GoldenWebhook>),
    /// The payload of a JWT.
    Claims(String),
    Token(String),
    BadToken(()),
    Occupied(bool),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenWebhook {
    target: String,
    events: u64,
    requests: u64,
    success: Option<u64>,
    error: Option<(u64, String)>,
    /// Each with its events, when it was given up and why.
    kept: BTreeMap<String, (u64, u64, String)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenStats {
    sockets: u64,
    users: HashSet<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenChannel {
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
    call: impl Fn(&GoldenRequest) -> Result<RoleRequest, ApiReply>,
) {
    for case in read_with::<GoldenCase>(file, edit) {
        let (work, reply) = match call(&case.request) {
            Ok(request) => (Some(shown(&request)), reply(request, case.answer)),
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

/// What a request comes down to, on either role.
#[derive(Debug)]
pub enum RoleRequest {
    Master(MasterRequest),
    Slave(SlaveRequest),
}

/// What a role is asked to do, as the files write it.
pub fn shown(request: &RoleRequest) -> Value {
    match request {
        RoleRequest::Master(request) => shown_of_master(request),
        RoleRequest::Slave(SlaveRequest::Answer(_)) => json!("nothing"),
        RoleRequest::Slave(SlaveRequest::Exchange { jwt, .. }) => json!({ "exchange": jwt }),
    }
}

fn shown_of_master(request: &MasterRequest) -> Value {
    let publish = |envelopes: &[Envelope]| envelopes.iter().map(order).collect::<Value>();
    match request {
        MasterRequest::Answer(_) => json!("nothing"),
        MasterRequest::Publish { envelopes, .. } => json!({ "publish": publish(envelopes) }),
        MasterRequest::PublishAndQuery { envelopes, query, .. } => {
            json!({ "publish": publish(envelopes), "ask": states(query) })
        }
        MasterRequest::PublishMatching { push: PublishMatching { app, pattern, within, event }, .. } => {
            let mut shown = json!({ "app": app, "pattern": pattern, "within": within });
            add(&mut shown, self::event(event));
            json!({ "publish_matching": shown })
        }
        MasterRequest::Reload { app, user, within, channels, .. } => {
            json!({ "publish": [{ "app": app, "reload": user, "within": within, "channels": channels }] })
        }
        MasterRequest::Query(query) => json!({ "ask": question(query) }),
        MasterRequest::Decode { jwt, .. } => json!({ "decode": jwt }),
        MasterRequest::PublishIfOccupied { channel, envelope, .. } => {
            json!({ "if_occupied": channel.name, "app": channel.app, "publish": envelope.iter().map(order).collect::<Value>() })
        }
        MasterRequest::MintToken { app, channel, ttl, .. } => {
            json!({ "mint": { "app": app, "channel": channel, "seconds": ttl.as_secs() } })
        }
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
        Some(Sender::Numbered(socket)) => add(&mut shown, json!({ "sender": { "numbered": socket } })),
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
    Numbered(SocketId),
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
            GoldenSender::Numbered(socket) => Sender::Numbered(socket),
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
            Command::DirectEvent { user, event, except } => {
                let mut push = json!({ "user": user });
                add(&mut push, self::event(event));
                if let Some(except) = except {
                    add(&mut push, json!({ "except": except }));
                }
                push
            }
            Command::Reload { user, within, channels } => {
                json!({ "reload": user, "within": within, "channels": channels })
            }
            Command::Grant { user, channel } => json!({ "grant": user, "channel": channel }),
            Command::Terminate { whose, reconnect } => {
                let mut shown = match whose {
                    Target::User(user) => json!({ "terminate": user }),
                    Target::Socket(socket) => json!({ "terminate_socket": socket }),
                };
                add(&mut shown, json!({ "reconnect": reconnect }));
                shown
            }
            Command::WithinDialect { dialect, to, data } => {
                let to = match to {
                    Within::Channel(channel) => json!({ "channel": channel }),
                    Within::Everybody => json!("everybody"),
                    Within::NoChannel => json!("no channel"),
                };
                let mut push = json!({ "dialect": dialect, "to": to });
                add(&mut push, payload(data));
                push
            }
        },
    );
    shown
}

fn question(query: &QueryRequest) -> Value {
    match query {
        QueryRequest::Names(query, _) => listing(&query.app, &query.of, "channels", "users"),
        QueryRequest::Count(query, _) => listing(&query.app, &query.of, "channel_count", "user_count"),
        QueryRequest::States(query, _) => states(query),
        QueryRequest::Members(query, _) => json!({ "app": query.app, "members_of": query.channel }),
        QueryRequest::Stats(..) => json!("stats"),
        QueryRequest::Webhooks(query, _) => json!({ "app": query.app, "webhooks": {} }),
        QueryRequest::ResendWebhook(query, _) => json!({ "app": query.app, "resend_webhook": query.id }),
    }
}

fn listing(app: &AppId, of: &Listing, channels: &str, users: &str) -> Value {
    match of {
        Listing::Channels(patterns) => json!({ "app": app, channels: patterns }),
        Listing::Users { within: None } => json!({ "app": app, users: "all" }),
        Listing::Users { within: Some(_) } => panic!("no dialect asks it: the limits of a push key do"),
        Listing::UsersOf(channel) => json!({ "app": app, users: { "channel": channel } }),
    }
}

fn states(StatesQuery { app, of, members }: &StatesQuery) -> Value {
    match of {
        StatesOf::Named(names) => json!({ "app": app, "states": names, "members": members }),
        StatesOf::Under(prefix) => json!({ "app": app, "states_under": prefix, "members": members }),
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

/// The reply, given what the role answers.
pub fn reply(request: RoleRequest, answer: Option<GoldenAnswer>) -> ApiReply {
    match (request, answer) {
        (RoleRequest::Master(MasterRequest::Answer(reply)) | RoleRequest::Slave(SlaveRequest::Answer(reply)), None) => {
            reply
        }
        (RoleRequest::Master(request), answer) => reply_of_master(request, answer),
        (RoleRequest::Slave(SlaveRequest::Exchange { reply, .. }), Some(GoldenAnswer::Token(token))) => {
            reply(Ok(token))
        }
        (RoleRequest::Slave(SlaveRequest::Exchange { reply, .. }), Some(GoldenAnswer::BadToken(()))) => {
            reply(Err(BadToken::Signature))
        }
        (request, _) => panic!("this cannot come of {request:?}"),
    }
}

fn reply_of_master(request: MasterRequest, answer: Option<GoldenAnswer>) -> ApiReply {
    match (request, answer) {
        (MasterRequest::Publish { reply, .. }, None) => reply(()),
        (MasterRequest::PublishAndQuery { reply, .. }, Some(GoldenAnswer::Channels(channels))) => {
            reply(in_our_types(channels))
        }
        (MasterRequest::PublishMatching { reply, .. }, Some(GoldenAnswer::Hashes(hashes))) => reply(hashes.len()),
        (MasterRequest::Reload { reply, .. }, None) => reply(None),
        (MasterRequest::Reload { reply, .. }, Some(GoldenAnswer::Names(names))) => reply(Some(names)),
        (MasterRequest::Query(query), Some(answer)) => match (query, answer) {
            (QueryRequest::Names(_, reply), GoldenAnswer::Names(names)) => reply(names),
            (QueryRequest::Count(_, reply), GoldenAnswer::Hashes(hashes)) => reply(hashes),
            (QueryRequest::States(_, reply), GoldenAnswer::Channels(channels)) => reply(in_our_types(channels)),
            (QueryRequest::Members(_, reply), GoldenAnswer::Members(members)) => {
                reply(members.into_iter().map(|(user, info)| (user, info.into())).collect())
            }
            (QueryRequest::Stats(_, reply), GoldenAnswer::Stats(apps)) => {
                let size = |GoldenStats { sockets, users }| Headcount { connections: sockets, users };
                reply(apps.into_iter().map(|(app, stats)| (app, size(stats))).collect())
            }
            (QueryRequest::Webhooks(_, reply), GoldenAnswer::Webhooks(states)) => {
                reply(states.into_iter().map(|(number, state)| (number, webhook(state))).collect())
            }
            (QueryRequest::ResendWebhook(_, reply), GoldenAnswer::Names(ids)) => reply(ids),
            (query, _) => panic!("this cannot come of {query:?}"),
        },
        (MasterRequest::Decode { reply, .. }, Some(GoldenAnswer::Claims(payload))) => {
            reply(Ok(serde_json::from_str(&payload).expect("claims")))
        }
        (MasterRequest::Decode { reply, .. }, Some(GoldenAnswer::BadToken(()))) => reply(Err(BadToken::Signature)),
        (MasterRequest::PublishIfOccupied { reply, .. }, Some(GoldenAnswer::Occupied(occupied))) => reply(occupied),
        (MasterRequest::MintToken { reply, .. }, Some(GoldenAnswer::Token(token))) => reply(token),
        (request, _) => panic!("this cannot come of {request:?}"),
    }
}

fn webhook(GoldenWebhook { target, events, requests, success, error, kept }: GoldenWebhook) -> WebhookState {
    let kept = kept.into_iter().map(|(id, (events, given_up, reason))| (id, KeptWebhook { events, given_up, reason }));
    WebhookState {
        target,
        queued_events: events,
        queued_requests: requests,
        last_success: success,
        last_error: error,
        kept: kept.collect(),
    }
}

fn in_our_types(channels: BTreeMap<String, GoldenChannel>) -> BTreeMap<String, ChannelState> {
    let state = |GoldenChannel { subscriptions, members }| ChannelState { subscriptions, members };
    channels.into_iter().map(|(name, channel)| (name, state(channel))).collect()
}
