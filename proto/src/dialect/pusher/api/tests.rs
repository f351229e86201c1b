//! The HTTP API against golden files (requests as the libraries send them, and every rule), each limit at its edge, and
//! that no body makes it panic.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    dialect::{
        Settings, all,
        contract::{ApiCall, ApiReply, MasterRequest, QueryRequest, Role},
        golden::{self, GoldenAnswer, GoldenRequest, RoleRequest},
        pusher::{
            AppLimits, PusherApp, PusherRows, Settings as PusherSettings,
            apps::tests::{app, tenants},
            sign::tests::signed,
        },
    },
    http_api::Router,
    ids::SocketIdSeal,
    refusal::Refusal,
    tenants::Tenants,
    units::Size,
};

const NOW: Duration = Duration::from_secs(1_700_000_000);

/// A master that serves one app.
struct House {
    router: Router,
    tenants: Tenants,
}

fn router(app: PusherApp, master_prefix: &str) -> House {
    let pusher = PusherRows { master_prefix: master_prefix.to_owned(), ..PusherRows::default() };
    let settings = Settings::default().with(PusherSettings { pusher });
    let router = Router::new(Role::Master, all(&settings, &SocketIdSeal::new(b"seal")));
    House { router, tenants: tenants([app]) }
}

/// What a request comes down to, or the reply that refuses it.
fn call(house: &House, request: &GoldenRequest) -> Result<MasterRequest, ApiReply> {
    let House { router, tenants } = house;
    let GoldenRequest { method, path, query, headers, body } = request;
    let matched = router.find(method, path, tenants)?;
    // `@AUTH@` stands for the parameters of the signature
    let query = match query.split_once("@AUTH@") {
        Some((before, "")) => signed(method, path, before.trim_end_matches('&'), body.as_bytes(), NOW),
        _ => query.clone(),
    };
    let head = ApiCall {
        route_id: router.route(&matched).route_id,
        method,
        path,
        segments: matched.segments.clone(),
        query: &query,
        headers,
        body: Bytes::new(),
        now: NOW,
        tenants,
    };
    let dialect = router.dialect(&matched);
    let judged = dialect.authenticate(&head);
    let task = judged.and_then(|()| dialect.master_request(ApiCall { body: body.clone().into(), ..head }));
    task.map_err(|why| router.refuse(&matched, &why))
}

fn post(path: &str, body: impl ToString) -> GoldenRequest {
    request("POST", path, "@AUTH@", body)
}

fn request(method: &str, path: &str, query: &str, body: impl ToString) -> GoldenRequest {
    let headers = BTreeMap::new();
    GoldenRequest { method: method.into(), path: path.into(), query: query.into(), headers, body: body.to_string() }
}

fn check(file: &str) {
    let router = router(app(), "");
    golden::check_http(file, |text| text, |request| call(&router, request).map(RoleRequest::Master));
}

#[test]
fn requests_of_the_libraries() {
    check("pusher/http_libraries.json");
}

#[test]
fn every_rule() {
    check("pusher/http_rules.json");
}

/// 200, or the refusal.
fn outcome(app: &PusherApp, path: &str, body: &Value) -> (u16, String) {
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
    let limits = AppLimits {
        event_data: Size(3),
        channels_per_event: 1,
        batch: 1,
        event_name: 2,
        channel_name: Size(2),
        ..AppLimits::default()
    };
    let app = PusherApp { limits, ..app() };
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
    let other = PusherApp { id: "43".to_owned(), key: "other".parse().unwrap(), ..app() };
    assert_eq!(outcome(&other, "/apps/43/events", &event), (401, "Unknown auth_key".to_owned()));
    // without apps there is nothing at all
    let nobody = Router::new(Role::Master, all(&Settings::default(), &SocketIdSeal::new(b"seal")));
    assert_eq!(nobody.find("POST", "/apps/42/events", &tenants([])).unwrap_err().status, 404);
}

#[test]
fn a_prefix_is_not_signed() {
    let router = router(app(), "/push/er");
    let body = json!({"name": "e", "data": "d", "channel": "a"}).to_string();
    let query = signed("POST", "/apps/42/events", "", body.as_bytes(), NOW);
    let signed_for = |path: &str, query: &str| call(&router, &request("POST", path, query, &body));
    assert!(signed_for("/push/er/apps/42/events", &query).is_ok());
    assert_eq!(signed_for("/apps/42/events", &query).unwrap_err().status, 404);
    let with_prefix = signed("POST", "/push/er/apps/42/events", "", body.as_bytes(), NOW);
    assert_eq!(signed_for("/push/er/apps/42/events", &with_prefix).unwrap_err().status, 401);
}

#[test]
fn no_is_said_in_plain_text() {
    let House { router, tenants } = router(app(), "");
    let reply = |method: &str, why: &Refusal| {
        let reply = router.refuse(&router.find(method, "/apps/42/events", &tenants).unwrap(), why);
        (reply.status, String::from_utf8(reply.body.into()).unwrap(), reply.headers)
    };
    let too_large = Refusal::TooLarge { what: "a body", limit: 9 };
    assert_eq!(reply("POST", &too_large).0, 413);
    assert_eq!(reply("POST", &Refusal::TooSlow).0, 408);
    let (status, words, headers) = reply("POST", &Refusal::unavailable("the bus is down"));
    assert_eq!((status, &*words, headers), (503, "the bus is down", vec![("Retry-After", "1".to_owned())]));
    let reply = router.find("GET", "/apps/42/events", &tenants).unwrap_err();
    assert_eq!((reply.status, reply.headers), (405, vec![("Allow", "POST".to_owned())]));
}

proptest! {
    #[test]
    fn no_body_and_no_query_makes_it_panic(
        route_id in 0usize..5,
        channel in "[a-z%/#ä-]{0,6}|presence-[a-z]{0,2}",
        query in "(info|filter_by_prefix|x)=[a-z_,%-]{0,24}",
        body in "[\\[\\]{}:,\"a-z0-9 ]{0,24}|\\{\"(name|batch|data|channels?|socket_id|info)\":[\\[\\]{}:,\"a-z0-9. ]{0,24}\\}",
    ) {
        let paths = ["events", "batch_events", "channels", &format!("channels/{channel}"), &format!("channels/{channel}/users")];
        let path = format!("/apps/42/{}", paths[route_id]);
        let (method, body) = if route_id < 2 { ("POST", body) } else { ("GET", String::new()) };
        let request = request(method, &path, &format!("{query}&@AUTH@"), body);
        let router = router(app(), "");
        match call(&router, &request) {
            Ok(request) => {
                let came = match &request {
                    MasterRequest::Publish { .. } => None,
                    MasterRequest::Query(QueryRequest::Members(..)) => Some(GoldenAnswer::Members(BTreeMap::new())),
                    _ => Some(GoldenAnswer::Channels(BTreeMap::new())),
                };
                prop_assert_eq!(golden::reply(RoleRequest::Master(request), came).status, 200);
            }
            Err(reply) => prop_assert!((400..500).contains(&reply.status), "{}", reply.status),
        }
    }
}
