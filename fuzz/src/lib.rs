//! What the targets share: the dialects as a server has them, requests as text, and what must hold of every answer.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use hmac::{Hmac, Mac};
use md5::{Digest, Md5};
use percent_encoding::percent_decode_str;
use serde_json::value::RawValue;
use sha2::Sha256;
use wellhead_proto::{
    command::{Command, Target},
    dialect::{
        Settings, all,
        contract::{
            ApiCall, ApiReply, Dialect, Headers, MasterRequest, QueryRequest, Role, Route, SlaveRequest, Variant,
        },
        conveyor::ConveyorApp,
        pusher::{AppLimits, PusherApp},
    },
    envelope::Envelope,
    event::Event,
    frame::Frame,
    ids::{AppId, ChannelName, NodeId, SocketId, SocketIdSeal},
    jwt::{BadToken, Keyring},
    node_message::{Body, MessageFormat, MessageKey, NodeMessage},
    notice::Notice,
    origin::Origins,
    query::{Query, QueryResult, TypedQuery},
    http_api::{Matched, Router},
    tenants::{DialectRecord, ListedTenant, Tenants},
};

/// When everything happens.
pub const NOW: Duration = Duration::from_secs(1_700_000_000);
/// The key, and the id, of the one app that Pusher's side serves.
pub const KEY: &str = "wh-key";
const SECRET: &[u8] = b"wh-secret";

/// The socket that speaks.
#[must_use]
pub fn socket() -> SocketId {
    SocketId::new(NodeId::from_random(11), 22)
}

/// Every dialect.
#[must_use]
pub fn dialects() -> Vec<Arc<dyn Dialect>> {
    all(&Settings::default(), &SocketIdSeal::new(b"seal"))
}

/// The server token of Conveyor's side.
pub const CONVEYOR_TOKEN: &str = "a server token";

/// The tenants that are in force: one app, on Pusher's side and on Conveyor's.
pub static TENANTS: LazyLock<Tenants> = LazyLock::new(|| {
    let key: AppId = KEY.parse().expect("a short name");
    let mut app = PusherApp::new(key.clone(), "42".to_owned(), SECRET.to_vec(), true, AppLimits::default());
    (app.watchlist, app.subscription_count_event) = (true, true);
    let of_dialects = vec![DialectRecord::new(Some("42".to_owned()), app)];
    let listed = ListedTenant { of_dialects, ..ListedTenant::default() };
    let mut conveyor = ConveyorApp::new(key.clone(), CONVEYOR_TOKEN.as_bytes());
    conveyor.presence = true;
    let tenants = Tenants::new(Keyring::default(), [(key, listed)], true, Origins::any());
    tenants.with_record(&DialectRecord::new(None, conveyor))
});

/// What the app's secret makes of `text`, in hexadecimal digits.
#[must_use]
pub fn sign(text: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET).expect("HMAC takes a key of any length");
    mac.update(text);
    hex(&mac.finalize().into_bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A request as text: `METHOD TARGET`, then a line for the value of whatever header is looked at, then the body.
#[derive(Debug)]
pub struct FuzzRequest<'a> {
    /// `GET`, `POST`, …
    pub method: &'a str,
    /// The path.
    pub path: &'a str,
    /// The query string.
    pub query: String,
    header: FuzzHeader<'a>,
    body: Bytes,
}

/// One line for all headers.
#[derive(Debug)]
struct FuzzHeader<'a>(&'a str);

impl Headers for FuzzHeader<'_> {
    fn header(&self, _: &str) -> Option<&str> {
        (!self.0.is_empty()).then_some(self.0)
    }
}

impl<'a> FuzzRequest<'a> {
    /// Read one.
    #[must_use]
    pub fn read(data: &'a [u8]) -> Option<Self> {
        let mut parts = data.splitn(3, |&byte| byte == b'\n');
        let mut line = || std::str::from_utf8(parts.next().unwrap_or_default()).ok();
        let (first, kind) = (line()?, line()?);
        let (method, target) = first.split_once(' ')?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Some(Self {
            method,
            path,
            query: query.to_owned(),
            header: FuzzHeader(kind),
            body: Bytes::copy_from_slice(parts.next().unwrap_or_default()),
        })
    }

    /// The same, signed by the app's backend.
    #[must_use]
    pub fn signed(mut self) -> Self {
        let decoded = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
        let mut query = format!("auth_key={KEY}&auth_timestamp={}&auth_version=1.0", NOW.as_secs());
        if !self.body.is_empty() {
            query += &format!("&body_md5={}", hex(&Md5::digest(&self.body)));
        }
        for pair in self.query.split('&') {
            let (name, _) = pair.split_once('=').unwrap_or((pair, ""));
            // of two the first counts
            if !decoded(name).eq_ignore_ascii_case(b"auth_signature") {
                query.extend(["&", pair]);
            }
        }
        let mut pairs: Vec<_> = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (decoded(name).to_ascii_lowercase(), decoded(value)))
            .collect();
        pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| [&name[..], b"=", value].concat()).collect();
        let text = [self.method.as_bytes(), self.path.as_bytes(), &pairs.join(&b'&')].join(&b'\n');
        self.query = format!("{query}&auth_signature={}", sign(&text));
        self
    }

    /// Put it to the router of `role`, carry out nothing, and hold what comes to the rules.
    pub fn serve(&self, dialects: &[Arc<dyn Dialect>], role: Role) {
        let router = Router::new(role, dialects.to_vec());
        if let Ok(matched) = router.find(Route::SOCKET, self.path, &TENANTS) {
            self.connect_request(&router, &matched);
        }
        match router.find(self.method, self.path, &TENANTS) {
            Ok(matched) if self.method != Route::SOCKET => self.call(dialects, &router, &matched),
            Ok(_) => {}
            Err(reply) => check_reply(&reply),
        }
    }

    /// As a handshake.
    fn connect_request(&self, router: &Router, matched: &Matched) {
        let (dialect, route_id) = (router.dialect(matched), router.route(matched).route_id);
        let Err(why) = dialect.connect_request(&self.as_call(router, matched)) else { return };
        match dialect.reject_socket(route_id, &why) {
            None => check_reply(&dialect.refuse(route_id, &why)),
            Some(turned_away) => {
                check_frame(turned_away.says);
                check_frame(Frame::close(turned_away.code, &turned_away.reason));
            }
        }
    }

    fn call(&self, dialects: &[Arc<dyn Dialect>], router: &Router, matched: &Matched) {
        let (dialect, call) = (router.dialect(matched), self.as_call(router, matched));
        // as the master does: the credentials in the head first, before there is a body
        let head = ApiCall { body: Bytes::new(), ..self.as_call(router, matched) };
        let reply = dialect.authenticate(&head).and_then(|()| match router.route(matched).role {
            Role::Master => Ok(carry_out(dialects, dialect.master_request(call)?)),
            Role::Slave => Ok(match dialect.slave_request(call)? {
                SlaveRequest::Answer(reply) => reply,
                SlaveRequest::Exchange { reply, .. } => reply(Err(BadToken::Malformed)),
            }),
        });
        check_reply(&reply.unwrap_or_else(|why| router.refuse(matched, &why)));
    }

    fn as_call(&self, router: &Router, matched: &Matched) -> ApiCall<'_> {
        ApiCall {
            route_id: router.route(matched).route_id,
            method: self.method,
            path: self.path,
            segments: matched.segments.clone(),
            query: &self.query,
            headers: &self.header,
            body: self.body.clone(),
            now: NOW,
            tenants: &TENANTS,
        }
    }
}

/// The key that nodes sign with here.
#[must_use]
pub fn key() -> MessageKey {
    MessageKey::new(b"the secret of a cluster")
}

/// The reply to `request` where nobody is there. Whatever was accepted can travel and be told.
fn carry_out(dialects: &[Arc<dyn Dialect>], request: MasterRequest) -> ApiReply {
    let travels = |body: Body| {
        let message = NodeMessage { id: 1, session: 1, body };
        for format in [MessageFormat::V3, MessageFormat::V4] {
            let read = NodeMessage::decode(&message.encode(format, &key()), &key());
            assert_eq!(read, Ok((message.clone(), format)), "what is written is what is read");
        }
        tell(dialects, message, check_frame);
    };
    let publish = |envelopes: Vec<_>| envelopes.into_iter().for_each(|envelope| travels(Body::Command(envelope)));
    let (id, from) = (1, socket().node());
    let ask = |query: Query| travels(Body::Query { id, from, query });
    match request {
        MasterRequest::Answer(reply) => reply,
        MasterRequest::Publish { envelopes, reply } => {
            publish(envelopes);
            reply(())
        }
        MasterRequest::PublishAndQuery { envelopes, query, reply } => {
            publish(envelopes);
            asked(query, ask, reply)
        }
        MasterRequest::PublishMatching { push, reply } => {
            travels(Body::PublishMatching { id, from, push });
            reply(0)
        }
        MasterRequest::Reload { app, user, within, channels, reply } => {
            publish(vec![Envelope { app, command: Command::Reload { user, within, channels } }]);
            reply(None)
        }
        MasterRequest::Query(QueryRequest::Names(query, reply)) => asked(query, ask, reply),
        MasterRequest::Query(QueryRequest::Count(query, reply)) => asked(query, ask, reply),
        MasterRequest::Query(QueryRequest::States(query, reply)) => asked(query, ask, reply),
        MasterRequest::Query(QueryRequest::Members(query, reply)) => asked(query, ask, reply),
        MasterRequest::Query(QueryRequest::Stats(query, reply)) => asked(query, ask, reply),
        MasterRequest::Query(QueryRequest::Webhooks(query, reply)) => asked(query, ask, reply),
        MasterRequest::Query(QueryRequest::ResendWebhook(query, reply)) => asked(query, ask, reply),
        MasterRequest::Decode { reply, .. } => reply(Err(BadToken::Malformed)),
        MasterRequest::PublishIfOccupied { envelope, reply, .. } => {
            publish(envelope.into_iter().collect());
            reply(true)
        }
        MasterRequest::MintToken { reply, .. } => reply("0123456789abcdef0123456789abcdef".to_owned()),
    }
}

fn asked<Q: TypedQuery>(query: Q, ask: impl Fn(Query), reply: impl FnOnce(Q::Result) -> ApiReply) -> ApiReply {
    ask(query.into());
    reply(Q::Result::default())
}

/// A message that was read is told in every dialect; `check` looks at what clients hear.
pub fn tell(dialects: &[Arc<dyn Dialect>], message: NodeMessage, check: fn(Frame)) {
    use wellhead_proto::matcher::Matcher;

    match message.body {
        Body::Command(envelope) => match envelope.command {
            Command::Publish { channel, event, .. } => tell_event(dialects, &channel, &event, check),
            Command::Direct { to, data } => {
                let user = if let Target::User(user) = &to { Some(user) } else { None };
                tell_all(dialects, Notice::Direct { user, data: &data }, check);
            }
            Command::DirectEvent { user, event, .. } => {
                tell_all(dialects, Notice::DirectEvent { user: &user, event: &event }, check);
            }
            Command::WithinDialect { dialect, data, .. } => {
                tell_all(dialects, Notice::WithinDialect { dialect: &dialect, data: &data }, check);
            }
            Command::Reload { .. } | Command::Grant { .. } | Command::Terminate { .. } => {}
        },
        Body::PublishMatching { push, .. } => {
            let _ = Matcher::compile(&push.pattern);
            tell_event(dialects, &"news".parse().expect("a short name"), &push.event, check);
        }
        Body::Result { result, .. } => check_result(result),
        _ => {}
    }
}

fn check_result(result: QueryResult) {
    let count = result.count();
    let mut twice = result.clone();
    assert_eq!(twice.merge(result), Ok(()), "they are of one kind");
    assert!(twice.count() >= count, "two that say the same count no less than one");
}

fn tell_event(dialects: &[Arc<dyn Dialect>], channel: &ChannelName, event: &Event, check: fn(Frame)) {
    tell_all(dialects, Notice::Event { channel, event }, check);
    let user = "7".parse().expect("a short id");
    for user in [None, Some(&user)] {
        tell_all(dialects, Notice::Direct { user, data: &event.data }, check);
    }
    tell_all(dialects, Notice::DirectEvent { user: &user, event }, check);
}

fn tell_all(dialects: &[Arc<dyn Dialect>], notice: Notice<'_>, check: fn(Frame)) {
    for dialect in dialects {
        for variant in (0..dialect.variants()).map(Variant) {
            if let Some(shared) = dialect.encode(variant, notice) {
                check(shared.of_socket(|| dialect.head(variant, "\"1\"")));
            }
        }
    }
}

/// What a socket is told: whole frames of RFC 6455, and JSON in those that are text.
pub fn check_frame(frame: Frame) {
    let bytes = frame.into_bytes();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        assert_eq!(rest[0] & 0xF0, 0x80, "no reserved bit, no fragment");
        let (length, head) = match rest[1] {
            short @ 0..=125 => (usize::from(short), 2),
            126 => (usize::from(u16::from_be_bytes([rest[2], rest[3]])), 4),
            127 => (u64::from_be_bytes(rest[2..10].try_into().expect("eight")) as usize, 10),
            _ => panic!("a server does not mask"),
        };
        let payload = &rest[head..head + length];
        match rest[0] & 0x0F {
            1 => check_json(payload),
            8..=10 => assert!(length <= 125, "control frames are short"),
            other => panic!("opcode {other}"),
        }
        rest = &rest[head + length..];
    }
}

/// What a caller is told over HTTP.
pub fn check_reply(reply: &ApiReply) {
    assert!((200..600).contains(&reply.status), "{reply:?}");
    assert!(reply.status < 500 || [501, 503].contains(&reply.status), "a request is no fault of ours: {reply:?}");
    if reply.content_type.contains("json") {
        check_json(&reply.body);
    }
    for (name, value) in &reply.headers {
        let printable = |byte: u8| (b' '..=b'~').contains(&byte);
        assert!(value.bytes().all(printable), "{name}: {value:?} splits no answer");
    }
}

fn check_json(bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).expect("JSON is UTF-8");
    // gusher ends its answers with a line
    let json = serde_json::from_str::<&RawValue>(text.trim_end());
    assert!(json.is_ok(), "{json:?}: {text}");
}
