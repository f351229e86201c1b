//! Talks and requests against golden files, settings, and that nothing a client says makes one panic.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ConveyorApp, ConveyorRows, NAME, PLAIN, Settings as ConveyorSettings, WITH_IDS, protocol::ConveyorProtocol,
};
use crate::{
    action::{Action, ChannelSwitch, TemporaryToken},
    command::{Command, Within},
    dialect::{
        Settings, all,
        contract::{
            ApiCall, ApiReply, ClientMessage, Credentials, Dialect, MasterRequest, Protocol, Role, Route, RouteAuth,
        },
        golden::{self, GoldenRequest, RoleRequest},
        mount::{BadSetting, Mount, SecretFiles},
    },
    event::{Event, Payload, Sender},
    frame::Frame,
    http_api::{Matched, Router},
    ids::{NodeId, SocketId, SocketIdSeal},
    jwt::Keyring,
    notice::{ActionOutcome, Notice},
    origin::Origins,
    push_key::Right,
    refusal::Refusal,
    secret::Secret,
    tenants::{DialectRecord, Tenants},
};

const NOW: Duration = Duration::from_secs(1_700_000_000);
const TOKEN: &str = "the server token of the tests";
const TEMPORARY: &str = "0123456789abcdef0123456789abcdef";

fn app() -> ConveyorApp {
    ConveyorApp::new("demo".parse().unwrap(), TOKEN.as_bytes())
}

fn open_app() -> ConveyorApp {
    struct NoFiles;
    impl SecretFiles for NoFiles {
        fn secret(&self, _: &str, _: &str, _: &Secret, _: &str) -> Result<Option<Vec<u8>>, BadSetting> {
            Ok(None)
        }
    }
    let rows = ConveyorRows { open: true, ..ConveyorRows::default() };
    ConveyorSettings { conveyor: rows }.app(&NoFiles).unwrap().expect("it is on")
}

fn tenants(app: ConveyorApp) -> Tenants {
    let tenants = Tenants::new(Keyring::default(), [], true, Origins::any());
    tenants.with_record(&DialectRecord::new(None, app))
}

fn socket() -> SocketId {
    SocketId::new(NodeId::from_random(0), 7)
}

fn text(frame: Frame) -> String {
    let bytes = frame.into_bytes();
    let head = if bytes[1] < 126 { 2 } else { 4 };
    String::from_utf8(bytes[head..].to_vec()).unwrap()
}

/// A case of the golden file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConveyorTalk {
    name: String,
    #[serde(default)]
    open: bool,
    #[serde(default)]
    presence: bool,
    #[serde(default)]
    acknowledgment: bool,
    #[serde(default)]
    without_channels: bool,
    steps: Vec<ConveyorStep>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConveyorStep {
    says: String,
    does: Value,
    outcome: Option<ConveyorOutcome>,
    /// What the client gets after that.
    #[serde(default)]
    hears: Option<String>,
    /// What is to be done next.
    #[serde(default)]
    then: Option<Value>,
    /// Who is on the channel, for what is to be done after that.
    #[serde(default)]
    there: Option<BTreeMap<String, String>>,
    /// What is published at the end.
    #[serde(default)]
    last: Option<Value>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ConveyorOutcome {
    Done,
    Denied,
    Failed,
}

impl ConveyorOutcome {
    fn told(self) -> ActionOutcome<'static> {
        match self {
            Self::Done => ActionOutcome::Done,
            Self::Denied => ActionOutcome::Denied,
            Self::Failed => ActionOutcome::Failed,
        }
    }
}

fn shown(action: &Action) -> Value {
    match action {
        Action::Ignore => json!("ignore"),
        Action::Answer(frame) => json!({ "answer": text(frame.clone()) }),
        Action::AnswerFirst(frame, action) => json!({ "first": text(frame.clone()), "then": shown(action) }),
        Action::Switch(ChannelSwitch { from, to, token }) => {
            json!({ "switch": { "from": from, "to": to, "token": token.as_ref().map(|TemporaryToken(token)| token) } })
        }
        Action::Unsubscribe(channel) => json!({ "unsubscribe": channel }),
        Action::ListSockets(channel, most) => json!({ "list": channel, "most": most }),
        Action::Publish(command) => match &**command {
            Command::Publish { channel, event, except: None } => {
                let mut push = golden::event(event);
                push["channel"] = channel.as_str().into();
                json!({ "publish": push })
            }
            Command::WithinDialect { dialect, to, data: Payload::Json(json) } => {
                assert_eq!(dialect, NAME);
                let to = match to {
                    Within::Channel(channel) => json!({ "channel": channel }),
                    Within::Everybody => json!("everybody"),
                    Within::NoChannel => json!("no channel"),
                };
                json!({ "send": &**json, "to": to })
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// Ids are fresh each time: in the files they stand as one.
fn without_ids(text: String) -> String {
    let Some((before, id)) = text.rsplit_once(r#","id":""#) else { return text };
    assert!(id.len() == 34 && id.ends_with("\"}"), "{text}");
    format!(r#"{before},"id":"@ID@"}}"#)
}

fn shown_without_ids(action: &Action) -> Value {
    let mut shown = shown(action);
    for place in ["/answer", "/then/answer"] {
        if let Some(Value::String(text)) = shown.pointer_mut(place) {
            *text = without_ids(std::mem::take(text));
        }
    }
    shown
}

#[test]
fn clients_talk_as_the_golden_file_says() {
    for case in golden::read::<ConveyorTalk>("conveyor/talks.json") {
        let app = ConveyorApp {
            presence: case.presence,
            acknowledgment: case.acknowledgment,
            channels: !case.without_channels,
            ..if case.open { open_app() } else { app() }
        };
        let tenants = tenants(app);
        let variant = if case.acknowledgment { WITH_IDS } else { PLAIN };
        let mut talk = ConveyorProtocol::new(variant, socket());
        for (no, step) in case.steps.iter().enumerate() {
            let place = format!("{}: step {no}", case.name);
            let message = match step.says.strip_prefix("@BINARY@") {
                Some(hex) => ClientMessage::Binary(
                    hex.as_bytes()
                        .chunks(2)
                        .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
                        .collect(),
                ),
                None => {
                    ClientMessage::Text(step.says.replace("@TOKEN@", TOKEN).replace("@TEMPORARY@", TEMPORARY).into())
                }
            };
            let now = NOW + Duration::from_secs(no as u64);
            let action = talk.receive(message, &tenants, now).expect("nothing closes the socket");
            assert_eq!(shown_without_ids(&action), step.does, "{place}");
            let Some(outcome) = step.outcome else { continue };
            let _ = talk.tag();
            let heard = talk.reply(outcome.told()).map(|frame| without_ids(text(frame)));
            assert_eq!(heard, step.hears, "{place}");
            assert_eq!(talk.next().as_ref().map(shown), step.then, "{place}: next");
            if let Some(there) = &step.there {
                let there = there
                    .iter()
                    .map(|(socket, user)| (SocketId::try_from(socket.parse::<u64>().unwrap()).unwrap(), user.clone()));
                assert_eq!(talk.reply(ActionOutcome::Sockets(&there.collect())), None, "{place}");
                assert_eq!(talk.next().as_ref().map(shown), step.last, "{place}: last");
            }
        }
    }
}

struct ConveyorHouse {
    router: Router,
    tenants: Tenants,
}

fn house(role: Role, app: ConveyorApp) -> ConveyorHouse {
    let router = Router::new(role, all(&Settings::default(), &SocketIdSeal::new(b"seal")));
    ConveyorHouse { router, tenants: tenants(app) }
}

impl ConveyorHouse {
    fn with<T>(
        &self,
        request: &GoldenRequest,
        use_it: impl FnOnce(&dyn Dialect, &Route, ApiCall<'_>) -> T,
    ) -> Result<T, ApiReply> {
        let GoldenRequest { method, path, query, headers, body } = request;
        let matched: Matched = self.router.find(method, path, &self.tenants)?;
        let query = query.replace("@TOKEN@", "the%20server%20token%20of%20the%20tests");
        let call = ApiCall {
            route_id: self.router.route(&matched).route_id,
            method,
            path,
            segments: Vec::new(),
            query: &query,
            headers,
            body: Bytes::from(body.clone()),
            now: NOW,
            tenants: &self.tenants,
        };
        Ok(use_it(&**self.router.dialect(&matched), self.router.route(&matched), call))
    }

    fn call(&self, request: &GoldenRequest) -> Result<MasterRequest, ApiReply> {
        self.with(request, |dialect, route, call| {
            let route_id = route.route_id;
            let head = ApiCall { body: Bytes::new(), segments: Vec::new(), ..call.clone() };
            dialect.authenticate(&head).map_err(|why| dialect.refuse(route_id, &why))?;
            dialect.master_request(call).map_err(|why| dialect.refuse(route_id, &why))
        })?
    }
}

#[test]
fn requests_are_answered_as_the_golden_file_says() {
    let house = house(Role::Master, app());
    golden::check_http("conveyor/http.json", |text| text, |request| house.call(request).map(RoleRequest::Master));
}

fn request(method: &str, path: &str, query: &str, body: &str) -> GoldenRequest {
    let (method, path, query, body) = (method.to_owned(), path.to_owned(), query.to_owned(), body.to_owned());
    GoldenRequest { method, path, query, headers: BTreeMap::new(), body }
}

#[test]
fn without_channels_both_endpoints_say_so_behind_the_token() {
    let house = house(Role::Master, ConveyorApp { channels: false, ..app() });
    for path in ["/conveyor/auth", "/conveyor/message"] {
        let is = |reply: ApiReply| (reply.status, String::from_utf8(reply.body.to_vec()).unwrap());
        let reply = house.call(&request("POST", path, "token=@TOKEN@", "{}")).unwrap_err();
        assert_eq!(is(reply), (400, r#"{"error":"Channels not enabled!"}"#.to_owned()));
        let reply = house.call(&request("POST", path, "token=x", "{}")).unwrap_err();
        assert_eq!(is(reply), (401, r#"{"error":"Unauthorized!"}"#.to_owned()));
    }
}

#[test]
fn without_a_server_token_push_keys_guard_the_endpoints_and_without_both_nothing_is_there() {
    let guard = |app, path| {
        let house = house(Role::Master, app);
        house.with(&request("POST", path, "", ""), |dialect, route, call| dialect.guard(route, call.tenants)).unwrap()
    };
    for (path, right) in [("/conveyor/auth", Right::Grant), ("/conveyor/message", Right::Push)] {
        assert_eq!(guard(open_app(), path), RouteAuth::PushKey(right));
        assert_eq!(guard(app(), path), RouteAuth::Own);
        let off = ConveyorHouse { tenants: Tenants::default(), ..house(Role::Master, app()) };
        assert_eq!(off.call(&request("POST", path, "token=@TOKEN@", "")).unwrap_err().status, 404);
    }
}

#[test]
fn a_handshake_shows_a_token_unless_sockets_need_none() {
    let connect = |app, query: &str| {
        let house = house(Role::Slave, app);
        let asked = request(Route::SOCKET, "/", query, "");
        house.with(&asked, |dialect, _, call| dialect.connect_request(&call)).unwrap()
    };
    let temporary = Credentials::Temporary(TemporaryToken(TEMPORARY.to_owned()));
    for (query, expected) in [
        ("token=@TOKEN@", Ok(Credentials::Nobody)),
        ("a=b&token=@TOKEN@&token=x", Ok(Credentials::Nobody)),
        ("token=0123456789abcdef0123456789abcdef", Ok(temporary)),
        ("token=0123456789ABCDEF0123456789abcdef", Err(Refusal::CredentialsInvalid)),
        ("token=x", Err(Refusal::CredentialsInvalid)),
        ("token=%ff", Err(Refusal::CredentialsMissing)),
        ("token=", Err(Refusal::CredentialsMissing)),
        ("tokens=x", Err(Refusal::CredentialsMissing)),
        ("", Err(Refusal::CredentialsMissing)),
    ] {
        let request = connect(app(), query);
        assert_eq!(request.as_ref().map(|request| &request.credentials), expected.as_ref(), "{query}");
        assert_eq!(connect(open_app(), query).unwrap().credentials, Credentials::Nobody);
    }
    assert_eq!(connect(app(), "token=@TOKEN@").unwrap().variant, PLAIN);
    let acknowledging = ConveyorApp { acknowledgment: true, ..app() };
    assert_eq!(connect(acknowledging, "token=@TOKEN@").unwrap().variant, WITH_IDS);
}

#[test]
fn a_subprotocol_is_repeated_if_it_is_one() {
    let house = house(Role::Slave, app());
    let named = |offered: &str| {
        let mut asked = request(Route::SOCKET, "/", "", "");
        asked.headers.insert("sec-websocket-protocol".to_owned(), offered.to_owned());
        house.with(&asked, |dialect, _, call| dialect.subprotocol(call.headers)).unwrap()
    };
    for (offered, expected) in [
        ("socketconveyor.com", Some("socketconveyor.com")),
        ("a, socketconveyor.com ,b", Some("socketconveyor.com")),
        ("mine", Some("mine")),
        (", mine,", Some("mine")),
        ("a,b", None),
        ("", None),
        ("not a token", None),
        ("x\r\nSet-Cookie: a=b", None),
        (&"x".repeat(65), None),
    ] {
        assert_eq!(named(offered).as_deref(), expected, "{offered:?}");
    }
}

#[test]
fn events_of_every_dialect_are_broadcasts_that_lose_their_names() {
    let dialect = super::Conveyor::new(ConveyorSettings::default(), &SocketIdSeal::new(b"seal"));
    let channel = "orders".parse().unwrap();
    for (data, sender, expected) in [
        (Payload::Json(r#"{"b":1.0}"#.into()), None, r#"{"action":"broadcast-action","data":{"b":1.0}}"#),
        (Payload::Text("5".into()), None, r#"{"action":"broadcast-action","data":"5"}"#),
        (Payload::Text("\"é/".into()), None, r#"{"action":"broadcast-action","data":"\"é/"}"#),
        (Payload::Absent, Some(Sender::Socket), r#"{"action":"broadcast-action","data":null}"#),
        (
            Payload::Text("a".into()),
            Some(Sender::Numbered(socket())),
            r#"{"action":"broadcast-action","data":"a","fd":7}"#,
        ),
    ] {
        let event = Event { name: "other".parse().unwrap(), data, sender };
        let notice = Notice::Event { channel: &channel, event: &event };
        let frame = |variant| text(dialect.encode(variant, notice).unwrap().of_socket(String::new));
        assert_eq!(frame(PLAIN), expected);
        let with_id = format!("{},\"id\":\"@ID@\"}}", &expected[..expected.len() - 1]);
        assert_eq!(without_ids(frame(WITH_IDS)), with_id);
        assert_ne!(frame(WITH_IDS), frame(WITH_IDS), "no two ids are alike");
    }
    let data = Payload::Json(r#"{"action":"fanout-action","data":1,"fd":7}"#.into());
    let frame = |dialect_name, variant| {
        let notice = Notice::WithinDialect { dialect: dialect_name, data: &data };
        dialect.encode(variant, notice).map(|frame| without_ids(text(frame.of_socket(String::new))))
    };
    assert_eq!(frame(NAME, PLAIN).as_deref(), Some(r#"{"action":"fanout-action","data":1,"fd":7}"#));
    assert_eq!(frame(NAME, WITH_IDS).as_deref(), Some(r#"{"action":"fanout-action","data":1,"fd":7,"id":"@ID@"}"#));
    assert_eq!(frame("another", PLAIN), None);
    let user = "7".parse().unwrap();
    for notice in [
        Notice::Direct { user: Some(&user), data: &data },
        Notice::Direct { user: None, data: &data },
        Notice::Reloaded(&[]),
    ] {
        assert_eq!(dialect.encode(PLAIN, notice), None, "a user is nobody here");
    }
}

#[test]
fn a_socket_may_send_so_much_a_second_and_so_large() {
    let tenants = tenants(app());
    let mut talk = ConveyorProtocol::new(PLAIN, socket());
    let mut say = |words: &str, at| {
        let action = talk.receive(ClientMessage::Text(words.to_owned().into()), &tenants, at).unwrap();
        let _ = talk.reply(ActionOutcome::Done);
        action
    };
    let broadcast = r#"{"action":"broadcast-action","data":1}"#;
    let told = r#"{"action":"broadcast-action","data":"Too many messages: at most 10 per second","fd":7}"#;
    for _ in 0..10 {
        assert!(matches!(say(broadcast, NOW), Action::Publish(_)));
    }
    assert_eq!(say(broadcast, NOW), Action::Answer(Frame::text(told)));
    // what reaches nobody else is not counted
    assert!(matches!(say(r#"{"action":"base-action","data":1}"#, NOW), Action::Answer(_)));
    assert!(matches!(say(broadcast, NOW + Duration::from_millis(100)), Action::Publish(_)));
    let data = |bytes: usize| format!(r#"{{"action":"broadcast-action","data":"{}"}}"#, "x".repeat(bytes - 2));
    let later = NOW + Duration::from_secs(10);
    assert!(matches!(say(&data(10 << 10), later), Action::Publish(_)));
    let Action::Answer(frame) = say(&data((10 << 10) + 1), later) else { panic!("too large") };
    assert!(text(frame).contains("The data has 10241 bytes, at most 10240 are allowed"));
}

#[test]
fn settings_that_cannot_be_used_say_why_and_nothing_shows_the_token() {
    struct Files;
    impl SecretFiles for Files {
        fn secret(&self, _: &str, _: &str, secret: &Secret, _: &str) -> Result<Option<Vec<u8>>, BadSetting> {
            Ok((!secret.is_empty()).then(|| secret.expose().as_bytes().to_vec()))
        }
    }
    let read = |rows: ConveyorRows| ConveyorSettings { conveyor: rows }.check()?.app(&Files);
    let rows = ConveyorRows::default;
    assert!(read(rows()).unwrap().is_none(), "off without a token");
    for (rows, key) in [
        (ConveyorRows { token: TOKEN.into(), open: true, ..rows() }, "conveyor.open"),
        (ConveyorRows { app: String::new(), ..rows() }, "conveyor.app"),
        (ConveyorRows { temporary_ttl: crate::units::Span::seconds(0), ..rows() }, "conveyor.temporary_ttl"),
        (ConveyorRows { temporary_ttl: crate::units::Span::seconds(86_401), ..rows() }, "conveyor.temporary_ttl"),
        (ConveyorRows { client_events: 0, ..rows() }, "conveyor.client_events"),
        (ConveyorRows { event_data: crate::units::Size(0), ..rows() }, "conveyor.event_data"),
    ] {
        assert_eq!(read(rows).unwrap_err().key, key);
    }
    let on = read(ConveyorRows { token: TOKEN.into(), ..rows() }).unwrap().expect("on");
    assert!(on.is_server_token(TOKEN) && !on.is_server_token("") && !on.is_server_token(&TOKEN[1..]) && !on.is_open());
    let short = read(ConveyorRows { token: "short".into(), ..rows() }).unwrap().expect("on");
    assert!(super::Conveyor::warnings(&ConveyorSettings::default(), &tenants(short))[0].contains("could be guessed"));
    let settings = ConveyorSettings { conveyor: ConveyorRows { token: TOKEN.into(), ..rows() } };
    let shown = format!("{settings:?} {on:?} {:?} {:?}", tenants(on.clone()), TemporaryToken(TEMPORARY.to_owned()));
    assert!(!shown.contains(TOKEN) && !shown.contains(TEMPORARY), "{shown}");
    assert!(!open_app().is_server_token(""));
    let refusing = Tenants::new(Keyring::default(), [], false, Origins::any());
    assert_eq!(on.check_served(&refusing).unwrap_err().key, "conveyor.app");
}

proptest! {
    #[test]
    fn nothing_a_client_says_makes_it_panic(
        texts in proptest::collection::vec("\\PC{0,60}|\\{\"action\":\"(base-action|broadcast-action|fanout-action|channel-connect|channel-disconnect|assoc-user-to-fd-action|acknowledge-action)\"(,\"(data|channel|auth|userId|id)\":(1|-0|null|\"a\"|\\[\\]|\\{\\}|true|1e999|\"\\\\ud800\"))*\\}", 1..8),
        outcomes in proptest::collection::vec(0..3usize, 8),
        variant in 0..2u8,
    ) {
        let tenants = tenants(if variant == 0 { app() } else { open_app() });
        let mut talk = ConveyorProtocol::new(crate::dialect::contract::Variant(variant), socket());
        for (said, outcome) in texts.into_iter().zip(outcomes) {
            let action = talk.receive(ClientMessage::Text(said.into()), &tenants, NOW).unwrap();
            let frame = match action {
                Action::Answer(frame) | Action::AnswerFirst(frame, _) => Some(frame),
                _ => talk.reply([ActionOutcome::Done, ActionOutcome::Denied, ActionOutcome::Failed][outcome]),
            };
            if let Some(frame) = frame {
                let said = text(frame);
                prop_assert!(serde_json::from_str::<&serde_json::value::RawValue>(&said).is_ok(), "{}", said);
            }
            let _ = (talk.next(), talk.tag());
        }
    }
}

#[test]
fn an_idle_socket_holds_little() {
    assert!(size_of::<ConveyorProtocol>() <= 72, "{}", size_of::<ConveyorProtocol>());
}

#[test]
fn nesting_of_any_depth_costs_no_stack() {
    let tenants = tenants(app());
    let deep = "[".repeat(30_000) + &"]".repeat(30_000);
    let mut talk = ConveyorProtocol::new(PLAIN, socket());
    for said in [deep.clone(), format!(r#"{{"action":"base-action","data":{deep}}}"#), format!(r#"{{"x":{deep}}}"#)] {
        assert!(talk.receive(ClientMessage::Text(said.into()), &tenants, NOW).is_ok());
    }
}
