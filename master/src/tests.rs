//! The master from head to reply, on a bus that only records.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use async_trait::async_trait;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::watch;
use wellhead_proto::{
    bus::{Bus, BusError, BusHandler, BusState, Gathered, Interest},
    command::{Command, PublishMatching},
    coordination::CoordinationMessage,
    dialect::{
        self,
        contract::{ApiReply, Headers, Role},
    },
    envelope::Envelope,
    event::Payload,
    http_api::{Head, HttpApi, HttpVersion},
    ids::{ChannelKey, NodeId, SocketId, SocketIdSeal},
    jwt::{Key, Keyring},
    member::MemberAnnouncement,
    node_request::{NodeRequest, NodeResponse},
    origin::Origins,
    push_key::Right,
    query::{Headcount, NameHashes, Query, QueryResult},
    refusal::Refusal,
    tenants::{ListedTenant, TenantDirectory, Tenants},
    testkit::RecordingBus,
};

use super::*;
use crate::keys::{KeyHash, PushKey};

mod scopes;
mod work;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

struct SentRequest<'a>(&'a [(&'a str, &'a str)]);

impl Headers for SentRequest<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }
}

fn seal() -> SocketIdSeal {
    SocketIdSeal::new(b"seal")
}

fn key(name: &str, apps: &[&str], channels: &[&str], rights: &[Right]) -> PushKey {
    PushKey {
        name: name.to_owned(),
        sha256: KeyHash::of(name),
        apps: apps.iter().map(|&app| app.to_owned()).collect(),
        channels: channels.iter().map(|&channel| channel.try_into().expect("a pattern")).collect(),
        rights: rights.to_vec(),
    }
}

fn keys() -> Vec<PushKey> {
    const ALL: &[Right] = &[Right::Push, Right::Query, Right::Grant];
    vec![
        key("all", &["*"], &["*"], ALL),
        key("shop", &["shop", "cafe"], &["*"], ALL),
        key("rooms", &["*"], &["room-*", "lobby"], ALL),
        key("push", &["*"], &["*"], &[Right::Push]),
        key("query", &["*"], &["*"], &[Right::Query]),
        key("grant", &["*"], &["*"], &[Right::Grant]),
        key("nothing", &[], &[], ALL),
    ]
}

struct TestMaster {
    master: Master,
    bus: Arc<RecordingBus>,
    metrics: Registry,
}

impl TestMaster {
    fn new(keys: Vec<PushKey>, open: bool, serve_unlisted: bool) -> Self {
        let bus = Arc::new(RecordingBus::default());
        let (master, metrics) = start(bus.clone(), keys, open, serve_unlisted);
        Self { master, bus, metrics }
    }

    async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> ApiReply {
        call(&self.master, method, path, headers, body).await
    }

    /// The status for a request with this push key, and how much it sent.
    async fn with_key(&self, key: &str, method: &str, path: &str, body: &str) -> (u16, usize) {
        let bearer = format!("Bearer {key}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/x-www-form-urlencoded")];
        let reply = self.call(method, path, &headers, body).await;
        (reply.status, self.bus.take_published().len())
    }

    fn counted(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.metrics).expect("a string takes everything");
        text
    }
}

fn start(bus: Arc<dyn Bus>, keys: Vec<PushKey>, open: bool, serve_unlisted: bool) -> (Master, Registry) {
    let mut metrics = Registry::with_prefix("wellhead");
    let ring = Keyring::new(vec![Key::from_secret(SECRET).expect("long enough")], false);
    let listed = [("shop".parse().expect("a name"), ListedTenant::default())];
    let tenants = Tenants::new(ring, listed, serve_unlisted, Origins::any()).with_push_keys(keys);
    let tenants = Arc::new(TenantDirectory::new(tenants));
    let dialects = dialect::all(&dialect::Settings::default(), &seal());
    let keyless = if open { Keyless::Everybody } else { Keyless::ThisMachine };
    let setup = MasterSetup { bus, tenants, dialects, body_limit: 1 << 20, grants_limit: 1_000, keyless };
    (Master::new(setup, &mut metrics), metrics)
}

/// A master without keys that other machines reach.
fn closed() -> Master {
    let (bus, dialects) = (Arc::new(RecordingBus::default()), dialect::all(&dialect::Settings::default(), &seal()));
    let tenants = Tenants::new(Keyring::default(), [], true, Origins::any());
    let tenants = Arc::new(TenantDirectory::new(tenants));
    let setup =
        MasterSetup { bus, tenants, dialects, body_limit: 1 << 20, grants_limit: 1_000, keyless: Keyless::Nobody };
    Master::new(setup, &mut Registry::default())
}

async fn call(master: &Master, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> ApiReply {
    call_in(HttpVersion::Http11, master, method, path, headers, body).await
}

async fn call_in(
    version: HttpVersion,
    master: &Master,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> ApiReply {
    let headers = SentRequest(headers);
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let head = Head { version, method, path, query, headers: &headers };
    match master.admit(head) {
        Ok(admitted) => master.serve(admitted, head, body.to_owned().into()).await,
        Err(no) => no.into_reply(|| master.not_found(head)),
    }
}

fn text(reply: &ApiReply) -> &str {
    std::str::from_utf8(&reply.body).expect("UTF-8")
}

fn jwt(app: &str) -> String {
    let claims = json!({ "gusher": { "app_key": app, "user_id": "ann" } });
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET);
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("a token")
}

#[tokio::test]
async fn without_keys_only_local_programs_are_served() {
    let house = TestMaster::new(vec![], false, true);
    let served = |headers: &'static [(&'static str, &'static str)]| {
        let house = &house;
        async move { house.call("GET", "/api/a/channels", headers, "").await }
    };
    for headers in [
        &[("host", "127.0.0.1:7777")][..],
        &[("host", "127.0.0.1")],
        &[("host", "127.8.9.1:1")],
        &[("host", "localhost:7777")],
        &[("host", "LOCALHOST")],
        &[("host", "[::1]:7777")],
        &[("host", "[::1]")],
        &[("host", "localhost:7777"), ("origin", "http://localhost:7777")],
        &[("host", "[::1]:7777"), ("origin", "http://[::1]:7777"), ("sec-fetch-site", "same-origin")],
        &[("host", "localhost"), ("sec-fetch-site", "none")],
        &[("host", "localhost"), ("authorization", "Bearer anything")],
    ] {
        assert_eq!(served(headers).await.status, 200, "{headers:?}");
    }
    for headers in [
        &[][..],
        &[("host", "")],
        &[("host", "evil.example")],
        &[("host", "evil.example:7777")],
        &[("host", "127.0.0.1.evil.example")],
        &[("host", "localhost.evil.example")],
        &[("host", "localhost:7777.evil.example")],
        &[("host", "localhost:7777:80")],
        &[("host", "[::1].evil.example")],
        &[("host", "[::1")],
        &[("host", "[::2]:7777")],
        &[("host", "0.0.0.0:7777")],
        &[("host", "10.0.0.1:7777")],
        &[("host", "127.1")],
        &[("host", "localhost:7777"), ("origin", "http://evil.example")],
        &[("host", "localhost:7777"), ("origin", "null")],
        &[("host", "localhost:7777"), ("origin", "")],
        &[("host", "localhost:7777"), ("origin", "https://localhost:7777")],
        &[("host", "localhost:7777"), ("origin", "http://localhost:8080")],
        &[("host", "localhost:7777"), ("origin", "http://localhost:7777.evil.example")],
        &[("host", "localhost:7777"), ("sec-fetch-site", "cross-site")],
        &[("host", "localhost:7777"), ("sec-fetch-site", "Cross-Site")],
        &[("host", "localhost:7777"), ("forwarded", "for=1.2.3.4")],
        &[("host", "localhost:7777"), ("x-forwarded-for", "")],
        &[("host", "localhost:7777"), ("x-real-ip", "1.2.3.4")],
        &[("host", "localhost:7777"), ("via", "1.1 proxy")],
    ] {
        let reply = served(headers).await;
        assert_eq!(reply.status, 403, "{headers:?}");
        assert!(text(&reply).contains("configure [[push_keys]]"), "{}", text(&reply));
    }
    let old = HttpVersion::Http10;
    let local = [("host", "127.0.0.1:7777")];
    let reply = call_in(old, &house.master, "GET", "/api/a/channels", &local, "").await;
    assert_eq!(reply.status, 403);
    assert!(text(&reply).contains("HTTP/1.0") && text(&reply).contains("configure [[push_keys]]"), "{}", text(&reply));
    assert_eq!(call_in(old, &house.master, "GET", "/api/ping", &local, "").await.status, 200);
    // what needs no key is for everybody
    assert_eq!(house.call("GET", "/api/ping", &[("host", "evil.example")], "").await.status, 200);
    // said out loud, on a listener beyond loopback
    let open = TestMaster::new(vec![], true, true);
    assert_eq!(open.call("GET", "/api/a/channels", &[("host", "push.example")], "").await.status, 200);
    // or to nobody, since other routes have guards of their own
    let closed = closed();
    for headers in [&[("host", "localhost")][..], &[("host", "push.example"), ("authorization", "Bearer all")]] {
        assert_eq!(call(&closed, "GET", "/api/a/channels", headers, "").await.status, 401, "{headers:?}");
        assert_eq!(call(&closed, "GET", "/api/ping", headers, "").await.status, 200);
    }
    // and with a key, who comes from where no longer matters
    let keyed = TestMaster::new(keys(), true, true);
    assert_eq!(keyed.call("GET", "/api/a/channels", &[("host", "localhost")], "").await.status, 401);
    let headers = [("host", "push.example"), ("x-forwarded-for", "1.2.3.4"), ("authorization", "Bearer all")];
    assert_eq!(keyed.call("GET", "/api/a/channels", &headers, "").await.status, 200);
}

#[tokio::test]
async fn metrics_beyond_loopback_need_a_key_that_exists() {
    let bearer = |key: &'static str| [("authorization", key)];
    let house = TestMaster::new(keys(), false, true);
    assert_eq!(house.master.authorise(&SentRequest(&bearer("Bearer query")), Right::Query), Ok(()));
    assert!(matches!(
        house.master.authorise(&SentRequest(&bearer("Bearer push")), Right::Query),
        Err(Refusal::Forbidden(_))
    ));
    assert_eq!(house.master.authorise(&SentRequest(&[]), Right::Query), Err(Refusal::CredentialsMissing));
    let keyless = TestMaster::new(vec![], true, true);
    let local = [("host", "localhost"), ("authorization", "Bearer query")];
    assert_eq!(keyless.master.authorise(&SentRequest(&local), Right::Query), Err(Refusal::CredentialsMissing));
}

#[tokio::test]
async fn an_app_that_is_not_served_is_refused_whatever_is_asked() {
    let house = TestMaster::new(keys(), false, false);
    assert_eq!(house.with_key("all", "POST", "/api/push/shop/c/e", "data=1").await, (200, 1));
    for (method, path, body) in [
        ("POST", "/api/push/other/c/e", "data=1"),
        ("POST", "/api/push/other", "channel_pattern=a&event=e&data=1"),
        ("POST", "/api/push_batch/other", r#"batch_data=[{"channel":"a"}]"#),
        ("POST", "/api/push/user/other/ann", "data=1"),
        ("POST", "/api/add/channel/user/other/ann", "data=a"),
        ("GET", "/api/other/online", ""),
    ] {
        assert_eq!(house.with_key("all", method, path, body).await, (403, 0), "{path}");
    }
    let body = format!("data={}", jwt("other"));
    assert_eq!(house.with_key("all", "POST", "/api/decode", &body).await.0, 400);
}

#[tokio::test]
async fn a_batch_keeps_its_order() {
    let house = TestMaster::new(vec![], true, true);
    let items: Vec<_> = (0..1_000).map(|n| json!({ "channel": format!("c{}", n % 7), "data": n })).collect();
    let reply = house.call("POST", "/v1/apps/shop/messages/batch", &[], &json!(items).to_string()).await;
    assert_eq!(text(&reply), r#"{"total":1000}"#);
    let sent = house.bus.take_published();
    let data: Vec<_> = sent.iter().map(|one| json!(one).pointer("/command/Publish/event/data/Json").cloned()).collect();
    assert_eq!(data, (0..1_000).map(|n| Some(json!(n.to_string()))).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_push_of_ten_mib_travels_byte_for_byte() {
    let house = TestMaster::new(vec![], true, true);
    let large = format!("\"{}\"", "0123456789abcde%".repeat(10 << 16));
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let escaped = format!("data={}", large.replace('%', "%25"));
    let v1 = house.call("POST", "/api/push/shop/c/e", &form, &escaped).await;
    let body = format!(r#"{{"event":"e","data":{large}}}"#);
    assert_eq!(house.call("POST", "/v1/apps/shop/channels/c/messages", &[], &body).await, v1);
    assert_eq!(text(&v1), format!(r#"{{"channel":"c","event":"e","data":{large}}}"#));
    for envelope in house.bus.take_published() {
        let Command::Publish { event, .. } = envelope.command else { panic!("a push is a push") };
        assert_eq!(event.data, Payload::Json(large.as_str().into()));
    }
}

#[tokio::test]
async fn a_bus_that_is_down_is_a_503_and_never_a_silent_200() {
    let house = TestMaster::new(vec![], true, true);
    *house.bus.down.lock().expect("no panic") = true;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    for (method, path, body) in [
        ("POST", "/api/push/shop/c/e", "data=1"),
        ("POST", "/api/push/shop", "channel_pattern=a&event=e&data=1"),
        ("GET", "/api/shop/online/count", ""),
        ("GET", "/v1/stats", ""),
    ] {
        let reply = house.call(method, path, &form, body).await;
        assert_eq!(reply.status, 503, "{path}");
        assert!(reply.headers.contains(&("Retry-After", "1".to_owned())), "{path}");
    }
    assert_eq!(house.call("GET", "/api/ping", &[], "").await.status, 200);
    *house.bus.down.lock().expect("no panic") = false;
    assert_eq!(house.call("POST", "/api/push/shop/c/e", &form, "data=1").await.status, 200);
    let counted = house.counted();
    for line in [
        r#"wellhead_pushes_total{kind="channel",result="unavailable"} 1"#,
        r#"wellhead_pushes_total{kind="channel",result="ok"} 1"#,
        r#"wellhead_pushes_total{kind="pattern",result="unavailable"} 1"#,
        r#"wellhead_queries_total{kind="user_count",result="unavailable"} 1"#,
        r#"wellhead_queries_total{kind="stats",result="unavailable"} 1"#,
    ] {
        assert!(counted.contains(line), "{line} in\n{counted}");
    }
}

/// A bus that never answers.
struct Stuck;

#[async_trait]
impl Bus for Stuck {
    async fn publish_all(&self, _: Vec<Envelope>) -> Result<(), BusError> {
        std::future::pending().await
    }

    async fn publish_matching(&self, _: PublishMatching) -> Result<Gathered<NameHashes>, BusError> {
        std::future::pending().await
    }

    async fn announce(&self, _: Vec<MemberAnnouncement>) -> Result<(), BusError> {
        std::future::pending().await
    }

    async fn gather(&self, _: Query) -> Result<Gathered<QueryResult>, BusError> {
        std::future::pending().await
    }

    async fn request(&self, _: NodeId, _: NodeRequest) -> Result<NodeResponse, BusError> {
        std::future::pending().await
    }

    fn interest(&self, _: &ChannelKey) -> Option<Interest> {
        None
    }

    fn report(&self, _: NodeId, _: Vec<CoordinationMessage>) {}

    fn attach(&self, _: Arc<dyn BusHandler>) {}

    fn state(&self) -> watch::Receiver<BusState> {
        watch::channel(BusState { up: true, roster_known: true, ..BusState::default() }).1
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever_for_a_bus_that_is_stuck() {
    let (master, _) = start(Arc::new(Stuck), vec![], true, true);
    let form = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(call(&master, "POST", "/api/push/shop/c/e", &form, "data=1").await.status, 503);
    assert_eq!(call(&master, "GET", "/v1/apps/shop/users", &[], "").await.status, 503);
}

#[tokio::test]
async fn refusals_are_counted_by_reason() {
    let house = TestMaster::new(keys(), false, true);
    house.call("GET", "/v1/stats", &[], "").await;
    house.with_key("who", "GET", "/v1/stats", "").await;
    house.with_key("push", "GET", "/v1/stats", "").await;
    house.with_key("rooms", "POST", "/api/push/shop/news/e", "data=1").await;
    house.with_key("all", "POST", "/api/decode", "data=x.y.z").await;
    let counted = house.counted();
    for line in [
        r#"wellhead_master_auth_failures_total{reason="no_key"} 1"#,
        r#"wellhead_master_auth_failures_total{reason="unknown_key"} 1"#,
        r#"wellhead_master_auth_failures_total{reason="forbidden"} 1"#,
        r#"wellhead_master_auth_failures_total{reason="malformed"} 1"#,
        r#"wellhead_pushes_total{kind="channel",result="refused"} 1"#,
        r#"wellhead_queries_total{kind="decode",result="ok"} 1"#,
    ] {
        assert!(counted.contains(line), "{line} in\n{counted}");
    }
}
