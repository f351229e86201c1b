//! Requests against golden files, and what no file holds: what every reply has, and where a key may be shown.

use std::collections::BTreeMap;

use crate::{
    channel::ChannelPattern,
    dialect::{
        Settings, all,
        contract::Dialect,
        golden::{self, GoldenRequest, RoleRequest},
        pushex::{self, PushExRows},
    },
    http_api::Router,
    ids::SocketIdSeal,
    push_key::{KeyHash, PushKey},
    tenants::Tenants,
};

use super::*;

fn router() -> Router {
    let pushex =
        PushExRows { key_header: "x-api-key".to_owned(), key_parameter: "key".to_owned(), ..PushExRows::default() };
    Router::new(Role::Master, all(&Settings::default().with(pushex::Settings { pushex }), &SocketIdSeal::new(b"seal")))
}

/// A key for one app, one for two, and one for all.
fn tenants() -> Tenants {
    let key = |name: &str, apps: &[&str]| PushKey {
        name: name.to_owned(),
        sha256: KeyHash::of(name),
        apps: apps.iter().map(|&app| app.to_owned()).collect(),
        channels: vec![ChannelPattern::everything()],
        rights: vec![Right::Push],
    };
    let keys = vec![key("one", &["shop"]), key("many", &["shop", "demo"]), key("all", &["*"])];
    Tenants::default().with_push_keys(keys)
}

fn with_call<T>(request: &GoldenRequest, use_it: impl FnOnce(&dyn Dialect, ApiCall<'_>) -> T) -> Result<T, ApiReply> {
    let (router, tenants) = (router(), tenants());
    let matched = router.find(&request.method, &request.path, &tenants)?;
    let call = ApiCall {
        route_id: router.route(&matched).route_id,
        method: &request.method,
        path: &request.path,
        segments: matched.segments.clone(),
        query: &request.query,
        headers: &request.headers,
        body: request.body.clone().into(),
        now: Duration::from_secs(1_700_000_000),
        tenants: &tenants,
    };
    Ok(use_it(&**router.dialect(&matched), call))
}

#[test]
fn requests() {
    golden::check_http(
        "pushex/http.json",
        |text| text,
        |request| {
            let asked = with_call(request, |dialect, call| {
                let route_id = call.route_id;
                dialect.master_request(call).map_err(|why| dialect.refuse(route_id, &why))
            });
            asked?.map(RoleRequest::Master)
        },
    );
}

fn request(query: &str, headers: &[(&str, &str)]) -> GoldenRequest {
    let headers = headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>();
    let (method, path) = ("POST".to_owned(), "/api/push".to_owned());
    GoldenRequest { method, path, query: query.to_owned(), headers, body: String::new() }
}

#[test]
fn every_reply_shows_the_id_of_its_request() {
    let id = |given: &[(&str, &str)]| {
        let headers = with_call(&request("", given), |dialect, call| dialect.reply_headers(&call)).unwrap();
        let [(control, never), (name, id)] = <[_; 2]>::try_from(headers).unwrap();
        assert_eq!((control, &*never, name), ("Cache-Control", "max-age=0, private, must-revalidate", "X-Request-Id"));
        id
    };
    let router = router();
    let matched = router.find("POST", "/api/push", &tenants()).unwrap();
    assert_eq!(router.dialect(&matched).name(), "pushex");
    let fresh =
        |id: &str| id.len() == 20 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    assert!(fresh(&id(&[])));
    for echoed in ["2llo21pptuh5gla7cg00", "a b\"c<>;,=2llo21pptuh5gla7cg0002v4", &"x".repeat(200)] {
        assert_eq!(id(&[("x-request-id", echoed)]), echoed);
    }
    for other in [
        "short",
        "2llo21pptuh5gla7cg0",
        &"x".repeat(201),
        "2llo21pptuh5gla7cg00\r\nset-cookie: a",
        "2llo21pptuh5gla7cg00\u{e4}",
    ] {
        assert!(fresh(&id(&[("x-request-id", other)])), "{other}");
    }
    assert_ne!(request_id(Duration::ZERO, 1), request_id(Duration::ZERO, 2));
    assert_ne!(request_id(Duration::ZERO, 1), request_id(Duration::from_nanos(1), 1));
}

#[test]
fn a_key_is_shown_in_a_header_or_a_parameter_of_the_settings() {
    let shown = |query: &str, headers: &[(&str, &str)]| {
        with_call(&request(query, headers), |dialect, call| dialect.push_key(&call)).unwrap()
    };
    assert_eq!(shown("", &[]), None);
    assert_eq!(shown("key=a%20b&key=c", &[]).as_deref(), Some("c"));
    assert_eq!(shown("key[]=a", &[]), None);
    assert_eq!(shown("key=a&x=%zz", &[]), None);
    assert_eq!(shown("key=a", &[("x-api-key", " b ")]).as_deref(), Some("b"));
    assert_eq!(shown("key=a", &[("x-api-key", " ")]).as_deref(), Some("a"));
}

#[test]
fn what_cannot_be_queued_is_503_and_what_is_too_large_413() {
    let reply = refuse(&Refusal::unavailable("the bus is down"));
    assert_eq!((reply.status, &*reply.body), (503, &br#"{"errors":{"detail":"Service Unavailable"}}"#[..]));
    assert_eq!(reply.headers, [("Retry-After", "1".to_owned())]);
    let reply = refuse(&Refusal::TooLarge { what: "a request body", limit: 7 });
    assert_eq!((reply.status, &*reply.body), (413, &br#"{"errors":{"detail":"Request Entity Too Large"}}"#[..]));
    assert_eq!(refuse(&Refusal::TooSlow).status, 408);
    for why in [Refusal::CredentialsMissing, Refusal::CredentialsInvalid, Refusal::Forbidden("no".into())] {
        let reply = refuse(&why);
        assert_eq!((reply.status, &*reply.body, reply.body.len()), (403, &br#"{"error":"Access forbidden"}"#[..], 28));
    }
}

#[test]
fn a_push_may_not_name_too_many_channels() {
    let ask = |channels: usize| {
        let names = (0..channels).map(|no| format!("{no}")).collect::<Vec<_>>().join(",");
        let body = format!(r#"{{"channel":[{names}],"data":1,"event":"e"}}"#);
        let request = GoldenRequest { body, ..request("", &[("content-type", "application/json")]) };
        with_call(&request, |dialect, call| dialect.master_request(call).map_err(|why| why.status())).unwrap()
    };
    assert!(ask(MOST_CHANNELS).is_ok());
    assert_eq!(ask(MOST_CHANNELS + 1).unwrap_err(), 413);
}
