//! The HTTP routes of both roles against golden files (from a request to the work and the reply), and what no file holds:
//! names of every kind, sizes, and which route wins.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    dialect::{
        Settings, all,
        contract::{ApiCall, ApiReply, Credentials, Role, Route},
        conveyor::ConveyorApp,
        golden::{self, GoldenRequest, RoleRequest},
        pusher::{AppLimits, PusherApp},
    },
    http_api::Router,
    ids::{AppId, NodeId, SocketId, SocketIdSeal},
    jwt::Keyring,
    origin::Origins,
    refusal::Refusal,
    tenants::{DialectRecord, ListedTenant, Tenants},
};

use super::task::MAX_ITEMS;

fn seal() -> SocketIdSeal {
    SocketIdSeal::new(b"golden")
}

fn router(role: Role) -> Router {
    Router::new(role, all(&Settings::default(), &seal()))
}

/// What a request comes down to, or the reply that refuses it.
fn call(role: Role, request: &GoldenRequest) -> Result<RoleRequest, ApiReply> {
    let (router, tenants) = (router(role), Tenants::default());
    let matched = router.find(&request.method, &request.path, &tenants)?;
    let call = ApiCall {
        route_id: router.route(&matched).route_id,
        method: &request.method,
        path: &request.path,
        segments: matched.segments.clone(),
        query: &request.query,
        headers: &request.headers,
        body: request.body.clone().into(),
        now: Duration::ZERO,
        tenants: &tenants,
    };
    let dialect = router.dialect(&matched);
    let asked = match role {
        Role::Master => dialect.master_request(call).map(RoleRequest::Master),
        Role::Slave => dialect.slave_request(call).map(RoleRequest::Slave),
    };
    asked.map_err(|why| router.refuse(&matched, &why))
}

fn post(path: &str, body: String) -> GoldenRequest {
    let headers = [("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned())].into();
    GoldenRequest { method: "POST".to_owned(), path: path.to_owned(), query: String::new(), headers, body }
}

fn check(file: &str, role: Role) {
    // the only socket that exists in the files
    let socket = seal().print(SocketId::new(NodeId::from_random(0), 7));
    golden::check_http(file, |text| text.replace("@SOCKET@", &socket), |request| call(role, request));
}

#[test]
fn v1_of_the_master() {
    check("gusher/http_master_v1.json", Role::Master);
}

#[test]
fn v3_of_the_master() {
    check("gusher/http_master_v3.json", Role::Master);
}

#[test]
fn the_slave() {
    check("gusher/http_slave.json", Role::Slave);
}

#[test]
fn names_of_every_kind_arrive_as_they_are_meant() {
    let long = "中".repeat(341) + "x";
    assert_eq!(long.len(), 1_024);
    for name in ["/", "%2F", "*", "#GUSHERFUNC-TOUID#", ">", ".", "..", "a b", "中文", "\"", "\\", "user", "+", &long]
    {
        let escaped = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string();
        for path in [
            format!("/api/push/{escaped}/{escaped}/{escaped}"),
            format!("/v1/apps/{escaped}/channels/{escaped}/messages"),
        ] {
            // `/push/user/app/id` is taken by users
            if name == "user" && path.starts_with("/api") {
                continue;
            }
            let mut request = post(&path, "data=1".to_owned());
            if path.starts_with("/v1") {
                request.body = json!({ "event": name, "data": 1 }).to_string();
            }
            let task = call(Role::Master, &request).expect(name);
            let push = json!({ "app": name, "channel": name, "event": name, "json": "1" });
            assert_eq!(golden::shown(&task), json!({ "publish": [push] }), "{name}");
            let echo: Value = serde_json::from_slice(&golden::reply(task, None).body).expect(name);
            assert_eq!(echo, json!({ "channel": name, "event": name, "data": 1 }), "{name}");
        }
    }
}

#[test]
fn a_name_of_1025_bytes_is_refused_wherever_it_stands() {
    let long = "x".repeat(1_025);
    let pattern = |max| format!("the {max} is 1025 bytes long, at most 1024 are allowed");
    for (path, body, words) in [
        (format!("/api/push/{long}/c/e"), "data=1".to_owned(), pattern("app key")),
        (format!("/api/push/a/{long}/e"), "data=1".to_owned(), pattern("channel name")),
        (format!("/api/push/a/c/{long}"), "data=1".to_owned(), pattern("event name")),
        (format!("/api/push/user/a/{long}"), "data=1".to_owned(), pattern("user id")),
        ("/api/push/a".to_owned(), format!("channel_pattern=a&data=1&event={long}"), pattern("event name")),
        (format!("/api/reload/channel/user/a/{long}"), "data=[]".to_owned(), pattern("user id")),
        ("/api/reload/channel/user/a/u".to_owned(), format!("data=[\"{long}\"]"), pattern("channel pattern")),
        ("/api/add/channel/user/a/u".to_owned(), format!("data={long}"), pattern("channel pattern")),
        ("/api/push_batch/a".to_owned(), format!("batch_data=[{{}},{{\"channel\":\"{long}\"}}]"), "data error".into()),
        ("/api/push_batch/a".to_owned(), format!("batch_data=[{{}},{{\"event\":\"{long}\"}}]"), "data error".into()),
    ] {
        let reply = call(Role::Master, &post(&path, body)).expect_err(&words);
        assert_eq!((reply.status, &reply.body[..]), (400, words.as_bytes()));
    }
    let mut v3 = post("/v1/apps/a/messages/batch", format!("[{{}},{{\"channel\":\"{long}\"}}]"));
    assert_eq!(&call(Role::Master, &v3).expect_err("too long").body[..], br#"{"error":"data error"}"#);
    v3 = post("/v1/apps/a/users/u/channels", format!("{{\"channel\":\"{long}\"}}"));
    assert_eq!(call(Role::Master, &v3).expect_err("too long").status, 400);
    // an id that is too long for a socket is an id that no socket has
    let task = call(Role::Master, &post(&format!("/api/push/socket/a/{long}"), String::new())).expect("any id is fine");
    assert_eq!(golden::shown(&task), json!({ "publish": [] }));
}

#[test]
fn a_batch_and_a_list_of_channels_have_an_end() {
    let items = |item: &str, count| format!("[{}{item}]", format!("{item},").repeat(count - 1));
    let batch = |count| call(Role::Master, &post("/api/push_batch/a", format!("batch_data={}", items("{}", count))));
    assert_eq!(golden::shown(&batch(MAX_ITEMS).expect("as many as allowed")), json!({ "publish": [] }));
    assert_eq!(&batch(MAX_ITEMS + 1).expect_err("one more").body[..], b"data error");
    let list = post("/api/reload/channel/user/a/u", format!("data={}", items("\"\"", MAX_ITEMS + 1)));
    assert_eq!(&call(Role::Master, &list).expect_err("one more").body[..], b"too many channels");
}

#[test]
fn nested_json_costs_no_stack() {
    let deep = "[".repeat(200_000) + &"]".repeat(200_000);
    for (path, body, fine) in [
        ("/api/push/a/c/e", format!("data={deep}"), true),
        ("/api/push_batch/a", format!("batch_data=[{{\"data\":{deep}}}]"), true),
        ("/api/push_batch/a", format!("batch_data={deep}"), false),
        ("/api/reload/channel/user/a/u", format!("data={deep}"), false),
        ("/v1/apps/a/channels/c/messages", format!("{{\"event\":\"e\",\"data\":{deep}}}"), true),
        ("/v1/apps/a/users/u/channels", format!("{{\"channel\":{deep}}}"), false),
    ] {
        assert_eq!(call(Role::Master, &post(path, body)).is_ok(), fine, "{path}");
    }
}

#[test]
fn bare_rows_shadow_nothing() {
    let key: AppId = "shop".parse().expect("a name");
    let app = PusherApp::new(key.clone(), "1".to_owned(), Vec::new(), false, AppLimits::default());
    let of_dialects = vec![DialectRecord::new(None, app)];
    let listed = [(key, ListedTenant { of_dialects, ..ListedTenant::default() })];
    let conveyor = ConveyorApp::new("shop".parse().expect("a name"), b"token");
    let tenants = Tenants::new(Keyring::default(), listed, true, Origins::any());
    let tenants = tenants.with_record(&DialectRecord::new(None, conveyor));
    for role in [Role::Master, Role::Slave] {
        let router = router(role);
        for dialect in all(&Settings::default(), &seal()) {
            for route in dialect.routes().iter().filter(|route| route.role == role) {
                let path = route.path.replace(['{', '}'], "");
                let found = router.find(route.method, &path, &tenants).expect("a row finds itself");
                assert_eq!(router.route(&found).route_id, route.route_id, "{} {path}", route.method);
            }
        }
    }
    for path in ["/healthz", "/readyz", "/version", "/try", "/ui", "/"] {
        assert_eq!(router(Role::Master).find("GET", path, &Tenants::default()).expect_err(path).status, 404);
    }
}

#[test]
fn a_door_tells_who_knocks() {
    let router = router(Role::Slave);
    let connect_request = |path: &str, query: &str| {
        let matched = router.find(Route::SOCKET, path, &Tenants::default()).expect(path);
        let headers = BTreeMap::new();
        let route_id = router.route(&matched).route_id;
        let segments = matched.segments.clone();
        let call = ApiCall {
            route_id,
            method: "GET",
            path,
            segments,
            query,
            headers: &headers,
            body: "".into(),
            now: Duration::ZERO,
            tenants: &Tenants::default(),
        };
        router.dialect(&matched).connect_request(&call).map(|connect_request| {
            let (token, knows_remotes) = match connect_request.credentials {
                Credentials::Token(token) => (token, false),
                Credentials::TokenWithRemotes(token) => (token, true),
                Credentials::PerSubscription | Credentials::Nobody | Credentials::Temporary(_) => panic!("no token"),
            };
            (connect_request.app.to_string(), token, knows_remotes)
        })
    };
    for (path, knows_remotes) in [("/gcs/ws/a%2Fb", true), ("/gcs/wtf/a%2Fb", true), ("/v1/apps/a%2Fb/ws", false)] {
        let wanted = ("a/b".to_owned(), "x.y-z".to_owned(), knows_remotes);
        assert_eq!(connect_request(path, "token=x.y%2Dz&token=2"), Ok(wanted));
        for query in ["", "token=", "token", "Token=x", "token=%zz"] {
            assert_eq!(connect_request(path, query), Err(Refusal::CredentialsMissing), "{query}");
        }
    }
    assert_eq!(connect_request("/gcs/ws/", "token=x"), Err(Refusal::CredentialsMissing));
    assert_eq!(connect_request(&format!("/gcs/ws/{}", "x".repeat(1_025)), "token=x"), Err(Refusal::WrongApp));
}

#[test]
fn doors_and_rows_say_no_each_in_their_own_words() {
    let reply = |role, method: &str, path: &str, why: &Refusal| {
        let router = router(role);
        let reply = router.refuse(&router.find(method, path, &Tenants::default()).expect(path), why);
        (reply.status, String::from_utf8(reply.body.into()).expect("UTF-8"), reply.headers)
    };
    let door = |why| reply(Role::Slave, Route::SOCKET, "/gcs/ws/a", &why);
    assert_eq!(door(Refusal::CredentialsInvalid), (401, "token error\n".to_owned(), vec![]));
    assert_eq!(door(Refusal::WrongApp), (401, "appkey error\n".to_owned(), vec![]));
    assert_eq!(door(Refusal::NotAHandshake("no key")), (400, "Bad Request\n".to_owned(), vec![]));
    assert_eq!(door(Refusal::Forbidden("origin".into())), (403, "origin\n".to_owned(), vec![]));
    assert_eq!(door(Refusal::WrongVersion).2, [("Sec-WebSocket-Version", "13".to_owned())]);
    let (status, _, headers) = door(Refusal::unavailable("draining"));
    assert_eq!((status, headers), (503, vec![("Retry-After", "1".to_owned())]));

    let cors = ("Access-Control-Allow-Origin", "*".to_owned());
    let too_large = Refusal::TooLarge { what: "a body", limit: 9 };
    assert_eq!(reply(Role::Slave, "POST", "/gcs/auth", &too_large).0, 413);
    assert_eq!(reply(Role::Slave, "POST", "/gcs/auth", &too_large).2, std::slice::from_ref(&cors));
    assert!(reply(Role::Slave, "POST", "/v1/auth", &Refusal::unavailable("x")).2.contains(&cors));

    let bearer = vec![("WWW-Authenticate", "Bearer".to_owned())];
    let (status, words, headers) = reply(Role::Master, "GET", "/v1/stats", &Refusal::CredentialsMissing);
    assert_eq!((status, headers), (401, bearer.clone()));
    assert_eq!(words, r#"{"error":"a push key is needed here: Authorization: Bearer KEY"}"#);
    let (status, words, headers) = reply(Role::Master, "GET", "/api/a/online", &Refusal::CredentialsInvalid);
    assert_eq!((status, words.as_str(), headers), (401, "no such push key", bearer));
    let words = r#"{"error":"larger than the 9 bytes that a body may have"}"#;
    assert_eq!(reply(Role::Master, "GET", "/v1/apps", &too_large), (413, words.to_owned(), vec![]));
    assert_eq!(reply(Role::Master, "GET", "/api/ping", &Refusal::TooSlow).0, 408);
}

proptest! {
    #[test]
    fn no_request_makes_a_row_panic_and_every_reply_is_whole(
        route_id in any::<prop::sample::Index>(),
        segments in prop::collection::vec("[a-z%{}\"*/\u{0}中]{0,4}|%[0-9a-fA-F]{2}", 4),
        query in "(data|token|jwt|%64ata)=\\PC{0,8}",
        body in "(data|batch_data|channel_pattern|event|jwt)=[\\[\\]{}:,\"a-z0-9%+ ]{0,24}|[\\[\\]{}:,\"aedvtn]{0,24}",
        json in any::<bool>(),
    ) {
        let dialects = all(&Settings::default(), &seal());
        let route = route_id.get(dialects[0].routes());
        let mut path = String::new();
        let mut names = segments.iter().cycle();
        for segment in route.path.split('/').skip(1) {
            path.push('/');
            path += if segment.starts_with('{') { names.next().expect("a cycle has no end") } else { segment };
        }
        let media = if json { "application/json" } else { "application/x-www-form-urlencoded" };
        let headers = [("content-type".to_owned(), media.to_owned())].into();
        let request = GoldenRequest { method: route.method.to_owned(), path, query, headers, body };
        match call(route.role, &request) {
            Ok(asked) => prop_assert!(golden::shown(&asked) != "nothing" || route.path.ends_with("ping") || route.method == "OPTIONS"),
            Err(reply) => prop_assert!((400..500).contains(&reply.status), "{}", reply.status),
        }
    }
}
