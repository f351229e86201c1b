//! Who may open a socket, with which serializer, and what others are told.

use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::{
    channel::ChannelPattern,
    dialect::{
        Settings, all,
        contract::Dialect,
        pushex::{self, PushExRows},
    },
    http_api::Router,
    ids::SocketIdSeal,
    tenants::Tenants,
};

fn with_call<T>(
    rows: PushExRows,
    query: &str,
    protocols: &str,
    use_it: impl FnOnce(&dyn Dialect, ApiCall<'_>) -> T,
) -> T {
    let settings = Settings::default().with(pushex::Settings { pushex: rows });
    let router = Router::new(Role::Slave, all(&settings, &SocketIdSeal::new(b"seal")));
    let matched = router.find(Route::SOCKET, PATH, &Tenants::default()).expect("it is there");
    let headers: BTreeMap<_, _> = [("sec-websocket-protocol".to_owned(), protocols.to_owned())].into();
    let call = ApiCall {
        route_id: router.route(&matched).route_id,
        method: "GET",
        path: PATH,
        segments: Vec::new(),
        query,
        headers: &headers,
        body: "".into(),
        now: Duration::ZERO,
        tenants: &Tenants::default(),
    };
    use_it(&**router.dialect(&matched), call)
}

fn connect(rows: PushExRows, query: &str, protocols: &str) -> Result<ConnectRequest, Refusal> {
    with_call(rows, query, protocols, |dialect, call| dialect.connect_request(&call))
}

fn token_of(app: &str) -> String {
    format!("x.{}.x", URL_SAFE_NO_PAD.encode(format!(r#"{{"gusher":{{"app_key":"{app}"}}}}"#)))
}

fn open() -> PushExRows {
    let public = vec![ChannelPattern::try_from("news").unwrap()];
    PushExRows { app: "shop".to_owned(), public, ..PushExRows::default() }
}

#[test]
fn the_version_picks_the_serializer_and_is_the_first_if_there_is_none() {
    let variant = |query: &str| connect(open(), query, "").map(|request| request.variant).map_err(|why| refuse(&why));
    for (query, expected) in [
        ("", protocol::V1),
        ("vsn=1.0.0", protocol::V1),
        ("vsn=1.0.27", protocol::V1),
        ("x=1&vsn=2.0.0", protocol::V2),
        ("vsn=1.0.0&vsn=2.0.0", protocol::V2),
        ("vsn=2.0.1-rc.1", protocol::V2),
        ("vsn=2.0.0%2Bbuild", protocol::V2),
    ] {
        assert_eq!(variant(query), Ok(expected), "{query}");
    }
    for query in [
        "vsn=",
        "vsn=1",
        "vsn=1.0",
        "vsn=1.1.0",
        "vsn=2.1.0",
        "vsn=3.0.0",
        "vsn=2.0.00",
        "vsn=2.0.0-rc",
        "vsn=2.0.x",
        "vsn=2.0.1-",
        "vsn=2.0.1-%C3%A4",
        "vsn[]=2.0.0",
        "vsn=02.0.0",
        "vsn=%C3%A4%C3%A4%C3%A4",
    ] {
        assert_eq!(variant(query), Err(ApiReply::empty(403)), "{query}");
    }
}

#[test]
fn the_token_names_the_app_and_without_one_there_may_be_public_channels() {
    let request =
        |app: &str, credentials| ConnectRequest { app: app.parse().unwrap(), credentials, variant: protocol::V1 };
    let token = token_of("other");
    let shown = Ok(request("other", Credentials::Token(token.clone())));
    assert_eq!(connect(PushExRows::default(), &format!("token={token}"), ""), shown);
    let named = PushExRows { token_parameter: "jwt".to_owned(), ..PushExRows::default() };
    assert_eq!(connect(named.clone(), &format!("token=x&jwt={token}"), ""), shown);
    assert_eq!(connect(named, &format!("token={token}"), ""), Err(Refusal::CredentialsMissing));
    // what names none is for the app of the settings, and verified there
    assert_eq!(connect(open(), "token=r.1.2", ""), Ok(request("shop", Credentials::Token("r.1.2".to_owned()))));
    assert_eq!(connect(open(), "", ""), Ok(request("shop", Credentials::Nobody)));
    assert_eq!(connect(open(), "token=&token[]=x", ""), Ok(request("shop", Credentials::Nobody)));
    assert_eq!(connect(PushExRows::default(), "token=", ""), Err(Refusal::CredentialsMissing));
    let nowhere = PushExRows { app: String::new(), ..PushExRows::default() };
    assert_eq!(connect(nowhere, "token=rubbish", ""), Err(Refusal::CredentialsInvalid));
    assert!(matches!(connect(open(), "token=%zz", ""), Err(Refusal::Malformed(_))));
}

#[test]
fn a_token_may_come_as_a_subprotocol_and_phoenix_is_chosen() {
    let token = token_of("other");
    let offered = format!("phoenix, {BEARER}{}", URL_SAFE_NO_PAD.encode(&token));
    let request = connect(open(), "", &offered).unwrap();
    assert_eq!((request.app.as_str(), request.credentials), ("other", Credentials::Token(token)));
    let request = connect(open(), "token=x", &offered).unwrap();
    assert_eq!(request.credentials, Credentials::Token("x".to_owned()), "the parameter goes first");
    for bad in ["!", "_w", "ab="] {
        assert_eq!(connect(open(), "", &format!("{BEARER}{bad}")), Err(Refusal::CredentialsInvalid), "{bad}");
    }
    let chosen = |offered| with_call(open(), "", offered, |dialect, call| dialect.subprotocol(call.headers));
    assert_eq!(chosen(&offered).as_deref(), Some("phoenix"));
    assert_eq!(chosen("other,phoenix").as_deref(), Some("phoenix"));
    assert_eq!(chosen("phoenix2"), None);
    assert_eq!(chosen(""), None);
}

#[test]
fn what_is_public_is_so_in_one_app() {
    with_call(open(), "", "", |dialect, _| {
        let is_public = |app: &str, channel: &str| dialect.is_public(&app.parse().unwrap(), &channel.parse().unwrap());
        assert!(is_public("shop", "news"));
        assert!(!is_public("shop", "news2") && !is_public("demo", "news"));
    });
}

#[test]
fn others_hear_a_status_and_few_words() {
    for (why, status, body) in [
        (Refusal::CredentialsInvalid, 403, ""),
        (Refusal::WrongApp, 403, ""),
        (Refusal::Forbidden("this origin".into()), 403, ""),
        (Refusal::NotAHandshake("no key"), 400, "Bad Request"),
        (Refusal::MethodNotAllowed, 400, ""),
        (Refusal::WrongVersion, 426, ""),
        (Refusal::unavailable("full"), 503, r#"{"errors":{"detail":"Service Unavailable"}}"#),
    ] {
        let reply = refuse(&why);
        assert_eq!((reply.status, &*reply.body), (status, body.as_bytes()), "{why:?}");
    }
    let router = Router::new(Role::Slave, all(&Settings::default(), &SocketIdSeal::new(b"seal")));
    assert_eq!(router.find("POST", PATH, &Tenants::default()), Err(ApiReply::empty(400)));
    assert_eq!(router.find(Route::SOCKET, "/push_socket/longpoll", &Tenants::default()).unwrap_err().status, 404);
    let plain = with_call(open(), "", "", |dialect, call| dialect.slave_request(call).unwrap_err());
    assert_eq!(refuse(&plain).status, 400);
}
