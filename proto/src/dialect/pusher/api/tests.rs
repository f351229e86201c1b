//! The HTTP API against golden files (requests as the libraries send them, and every rule), each limit at its edge, and
//! that no body makes it panic.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    dialect::{
        Settings, all,
        contract::{ApiCall, ApiReply, MasterRequest, QueryRequest, Role},
        pusher::{App, Limits, Settings as PusherSettings, apps::tests::app, sign::tests::signed},
    },
    ids::SocketIdSeal,
    query::{ChannelStates, MemberInfos, StatesOf, StatesQuery},
    refusal::Refusal,
    surface::Router,
};

const NOW: Duration = Duration::from_secs(1_700_000_000);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    request: Request,
    /// Missing if the request is refused.
    work: Option<Value>,
    /// What comes of the work: nothing to tell, if missing.
    done: Option<Came>,
    reply: Reply,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    method: String,
    path: String,
    /// `@AUTH@` stands for the parameters of the signature, which the test makes itself.
    query: String,
    #[serde(default)]
    body: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Came {
    Census(Answered),
}

/// What slaves answered, as the files show it.
#[derive(Clone, Deserialize)]
enum Answered {
    States(ChannelStates),
    Members(MemberInfos),
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Reply {
    status: u16,
    r#type: String,
    body: String,
}

fn router(app: App, master_prefix: &str) -> Router {
    let pusher = PusherSettings { master_prefix: master_prefix.to_owned(), apps: vec![app], ..Default::default() };
    Router::new(Role::Master, all(&Settings { pusher, ..Settings::default() }, &SocketIdSeal::new(b"seal")))
}

/// What a request comes down to, or the reply that refuses it.
fn call(router: &Router, Request { method, path, query, body }: &Request) -> Result<MasterRequest, ApiReply> {
    let matched = router.find(method, path)?;
    let query = match query.split_once("@AUTH@") {
        Some((before, "")) => signed(method, path, before.trim_end_matches('&'), body.as_bytes(), NOW),
        _ => query.clone(),
    };
    let headers = BTreeMap::new();
    let head = ApiCall {
        row: router.route(&matched).row,
        method,
        path,
        segments: matched.segments.clone(),
        query: &query,
        headers: &headers,
        body: Bytes::new(),
        now: NOW,
    };
    let dialect = router.dialect(&matched);
    let judged = dialect.authenticate(&head);
    let task = judged.and_then(|()| dialect.master_request(ApiCall { body: body.clone().into(), ..head }));
    task.map_err(|why| router.refuse(&matched, &why))
}

fn post(path: &str, body: impl ToString) -> Request {
    Request { method: "POST".to_owned(), path: path.to_owned(), query: "@AUTH@".to_owned(), body: body.to_string() }
}

/// The work as the files show it: no event of a backend has a sender.
fn shown(request: &MasterRequest) -> Value {
    let mut shown = match request {
        MasterRequest::Publish { envelopes, .. } => json!({ "Publish": envelopes }),
        MasterRequest::Query(query) => json!({ "Ask": asked(query) }),
        MasterRequest::PublishAndQuery { envelopes, query, .. } => {
            json!({ "Publish": envelopes, "Ask": states(query) })
        }
        other => panic!("{other:?} is none of this API"),
    };
    for envelope in shown.get_mut("Publish").and_then(Value::as_array_mut).into_iter().flatten() {
        let event = envelope["command"]["Publish"]["event"].as_object_mut().expect("only events are published");
        assert_eq!(event.remove("sender"), Some(Value::Null));
    }
    shown
}

fn asked(query: &QueryRequest) -> Value {
    match query {
        QueryRequest::States(query, _) => states(query),
        QueryRequest::Members(query, _) => {
            json!({ "Query": { "app": query.app, "query": { "Members": query.channel } } })
        }
        other => panic!("{other:?} is none of this API"),
    }
}

fn states(StatesQuery { app, of, members }: &StatesQuery) -> Value {
    let query = match of {
        StatesOf::Named(of) => json!({ "States": { "of": of, "members": members } }),
        StatesOf::Under(prefix) => json!({ "StatesUnder": { "prefix": prefix, "members": members } }),
    };
    json!({ "Query": { "app": app, "query": query } })
}

/// The reply, once that came of it; nobody is anywhere unless something says so.
fn reply(request: MasterRequest, came: Option<Answered>) -> ApiReply {
    match (request, came) {
        (MasterRequest::Publish { reply, .. }, None) => reply(()),
        (MasterRequest::PublishAndQuery { reply, .. }, Some(Answered::States(states))) => reply(states),
        (MasterRequest::Query(QueryRequest::States(_, reply)), Some(Answered::States(states))) => reply(states),
        (MasterRequest::Query(QueryRequest::Members(_, reply)), Some(Answered::Members(members))) => reply(members),
        (request, _) => panic!("this cannot come of {request:?}"),
    }
}

fn golden(file: &str) {
    let path = format!("{}/../tests/golden/pusher/{file}", env!("CARGO_MANIFEST_DIR"));
    let cases = std::fs::read_to_string(path).expect("the golden file is there");
    let router = router(app(), "");
    for case in serde_json::from_str::<Vec<Case>>(&cases).expect("the golden file is a list of cases") {
        let (work, reply) = match call(&router, &case.request) {
            Ok(request) => {
                let work = shown(&request);
                (Some(work), reply(request, case.done.map(|Came::Census(answered)| answered)))
            }
            Err(reply) => (None, reply),
        };
        assert_eq!(work, case.work, "{}: the work", case.name);
        let reply = Reply {
            status: reply.status,
            r#type: reply.content_type.to_owned(),
            body: String::from_utf8(reply.body.into()).expect("replies are UTF-8"),
        };
        assert_eq!(reply, case.reply, "{}", case.name);
    }
}

#[test]
fn requests_of_the_libraries() {
    golden("http_libraries.json");
}

#[test]
fn every_rule() {
    golden("http_rules.json");
}

/// 200, or the refusal.
fn outcome(app: &App, path: &str, body: &Value) -> (u16, String) {
    match call(&router(app.clone(), ""), &post(path, body)) {
        Ok(_) => (200, String::new()),
        Err(reply) => (reply.status, String::from_utf8(reply.body.into()).unwrap()),
    }
}

#[test]
fn each_limit_at_its_edge_and_one_beyond() {
    let app = app();
    let x = |count| "x".repeat(count);
    let names = |count| (0..count).map(|number| number.to_string()).collect::<Vec<_>>();
    let event =
        |name: String, data: String, channels: Vec<String>| json!({"name": name, "data": data, "channels": channels});
    let batch = |count| json!({"batch": vec![json!({"name": "e", "data": "d", "channel": "a"}); count]});
    let too_large = (413, "The data content of this event exceeds the allowed maximum (10240 bytes)");
    for (path, at_the_edge, beyond, (status, words)) in [
        ("events", event(x(1), x(10_240), names(1)), event(x(1), x(10_241), names(1)), too_large),
        // bytes count, not characters
        ("events", event(x(1), "ä".repeat(5_120), names(1)), event(x(1), "ä".repeat(5_120) + "x", names(1)), too_large),
        (
            "events",
            event("中".repeat(200), x(1), names(1)),
            event("中".repeat(201), x(1), names(1)),
            (400, "name is too long"),
        ),
        ("events", event(x(1), x(1), names(100)), event(x(1), x(1), names(101)), (400, "Too many channels")),
        ("events", event(x(1), x(1), vec![x(200)]), event(x(1), x(1), vec![x(201)]), (400, "Invalid channel name")),
        ("batch_events", batch(10), batch(11), (400, "Batch too large")),
        (
            "batch_events",
            json!({"batch": [{"name": "e", "data": x(10_240), "channel": "a"}]}),
            json!({"batch": [{"name": "e", "data": x(10_241), "channel": "a"}]}),
            (413, "Event 1 of the batch: The data content of this event exceeds"),
        ),
    ] {
        let path = format!("/apps/42/{path}");
        assert_eq!(outcome(&app, &path, &at_the_edge).0, 200, "{words}");
        let (given, text) = outcome(&app, &path, &beyond);
        assert_eq!(given, status);
        assert!(text.starts_with(words), "{text}");
    }
}

#[test]
fn an_app_has_limits_of_its_own() {
    let limits =
        Limits { event_data: 3, channels_per_event: 1, batch: 1, event_name: 2, channel_name: 2, ..Limits::default() };
    let app = App { limits, ..app() };
    let event = |name, data, channels: &[&str]| json!({"name": name, "data": data, "channels": channels});
    assert_eq!(outcome(&app, "/apps/42/events", &event("ee", "ddd", &["cc"])).0, 200);
    for (beyond, status) in [
        (event("ee", "dddd", &["cc"]), 413),
        (event("eee", "ddd", &["cc"]), 400),
        (event("ee", "ddd", &["ccc"]), 400),
        (event("ee", "ddd", &["c", "d"]), 400),
    ] {
        assert_eq!(outcome(&app, "/apps/42/events", &beyond).0, status, "{beyond}");
    }
    let one = json!({"name": "e", "data": "d", "channel": "a"});
    assert_eq!(outcome(&app, "/apps/42/batch_events", &json!({"batch": [one.clone(), one]})).0, 400);
}

#[test]
fn nesting_costs_no_stack() {
    let deep = "[".repeat(200_000) + &"]".repeat(200_000);
    for (path, body, status) in [
        ("batch_events", format!("{{\"batch\":{deep}}}"), 400),
        ("events", format!("{{\"name\":\"e\",\"data\":\"d\",\"channels\":{deep}}}"), 400),
        ("events", format!("{{\"name\":\"e\",\"data\":\"d\",\"channel\":\"a\",\"other\":{deep}}}"), 200),
    ] {
        let request = post(&format!("/apps/42/{path}"), body);
        assert_eq!(call(&router(app(), ""), &request).map_or_else(|reply| reply.status, |_| 200), status, "{path}");
    }
}

#[test]
fn only_the_app_of_the_id_is_served_and_only_by_its_own_key() {
    let event = json!({"name": "e", "data": "d", "channel": "a"});
    let (status, words) = outcome(&app(), "/apps/43/events", &event);
    assert_eq!((status, &words[..14]), (404, "No app has thi"));
    // an app's key is no id, and its request no other app's
    assert_eq!(outcome(&app(), "/apps/wh-key/events", &event).0, 404);
    let other = App { id: "43".to_owned(), key: "other".parse().unwrap(), ..app() };
    assert_eq!(outcome(&other, "/apps/43/events", &event), (401, "Unknown auth_key".to_owned()));
    // without apps there is nothing at all
    let nobody = Router::new(Role::Master, all(&Settings::default(), &SocketIdSeal::new(b"seal")));
    assert_eq!(nobody.find("POST", "/apps/42/events").unwrap_err().status, 404);
}

#[test]
fn a_prefix_is_not_signed() {
    let router = router(app(), "/push/er");
    let body = json!({"name": "e", "data": "d", "channel": "a"}).to_string();
    let query = signed("POST", "/apps/42/events", "", body.as_bytes(), NOW);
    let request =
        |path: &str| Request { method: "POST".into(), path: path.into(), query: query.clone(), body: body.clone() };
    assert!(call(&router, &request("/push/er/apps/42/events")).is_ok());
    assert_eq!(call(&router, &request("/apps/42/events")).unwrap_err().status, 404);
    let with_prefix = signed("POST", "/push/er/apps/42/events", "", body.as_bytes(), NOW);
    let request = Request { query: with_prefix, ..request("/push/er/apps/42/events") };
    assert_eq!(call(&router, &request).unwrap_err().status, 401);
}

#[test]
fn no_is_said_in_plain_text() {
    let router = router(app(), "");
    let reply = |method: &str, why: &Refusal| {
        let reply = router.refuse(&router.find(method, "/apps/42/events").unwrap(), why);
        (reply.status, String::from_utf8(reply.body.into()).unwrap(), reply.headers)
    };
    let too_large = Refusal::TooLarge { what: "a body", limit: 9 };
    assert_eq!(reply("POST", &too_large).0, 413);
    assert_eq!(reply("POST", &Refusal::TooSlow).0, 408);
    let (status, words, headers) = reply("POST", &Refusal::unavailable("the bus is down"));
    assert_eq!((status, &*words, headers), (503, "the bus is down", vec![("Retry-After", "1".to_owned())]));
    let reply = router.find("GET", "/apps/42/events").unwrap_err();
    assert_eq!((reply.status, reply.headers), (405, vec![("Allow", "POST".to_owned())]));
}

proptest! {
    #[test]
    fn no_body_and_no_query_makes_it_panic(
        row in 0usize..5,
        channel in "[a-z%/#ä-]{0,6}|presence-[a-z]{0,2}",
        query in "(info|filter_by_prefix|x)=[a-z_,%-]{0,24}",
        body in "[\\[\\]{}:,\"a-z0-9 ]{0,24}|\\{\"(name|batch|data|channels?|socket_id|info)\":[\\[\\]{}:,\"a-z0-9. ]{0,24}\\}",
    ) {
        let paths = ["events", "batch_events", "channels", &format!("channels/{channel}"), &format!("channels/{channel}/users")];
        let path = format!("/apps/42/{}", paths[row]);
        let (method, body) = if row < 2 { ("POST", body) } else { ("GET", String::new()) };
        let request = Request { method: method.to_owned(), path, query: format!("{query}&@AUTH@"), body };
        let router = router(app(), "");
        match call(&router, &request) {
            Ok(request) => {
                let came = match &request {
                    MasterRequest::Publish { .. } => None,
                    MasterRequest::Query(QueryRequest::Members(..)) => Some(Answered::Members(MemberInfos::new())),
                    _ => Some(Answered::States(ChannelStates::new())),
                };
                prop_assert_eq!(reply(request, came).status, 200);
            }
            Err(reply) => prop_assert!((400..500).contains(&reply.status), "{}", reply.status),
        }
    }
}
