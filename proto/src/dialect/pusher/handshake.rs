//! The handshake of sockets (pusher.md §2.1): the app's key is in the path, the protocol in the query. A client that is refused
//! is told so over the open socket, since libraries look for it there.

use std::time::Duration;

use crate::{
    dialect::contract::{
        ApiCall, ApiReply, ConnectRequest, Credentials, RejectedSocket, Role, Route, RouteAuth, Variant, text,
    },
    refusal::Refusal,
};

use super::{apps::PusherApp, protocol::frames, sign::SignedParams};

/// Numbers of these routes begin here, above those of the master's.
const FIRST: usize = 1 << 16;

/// The route behind `prefix`, twice: for upgrades, and for requests that are none and must be told so.
pub fn routes(prefix: &str) -> impl Iterator<Item = Route> {
    [Route::SOCKET, "GET"].into_iter().enumerate().map(move |(number, method)| Route {
        role: Role::Slave,
        method,
        path: format!("{prefix}/app/{{key}}"),
        guard: RouteAuth::Own,
        route_id: FIRST + number,
    })
}

/// Is `route_id` the one that opens sockets?
pub fn is_route(route_id: usize) -> bool {
    route_id >= FIRST
}

/// Why a request is not let in that asks for no upgrade that we know.
pub fn no_upgrade(call: &ApiCall<'_>) -> Refusal {
    match call.headers.header("sec-websocket-version") {
        Some(version) if version.trim() != "13" => Refusal::WrongVersion,
        _ => Refusal::NotAHandshake("not a WebSocket handshake"),
    }
}

/// The app whose key is in the path, for a client of a supported protocol version.
pub fn connect_request(call: &ApiCall<'_>) -> Result<ConnectRequest, Refusal> {
    let coded = |code, reason, text: String| Refusal::Coded { code, reason, text: text.into() };
    let [key] = &call.segments[..] else { return Err(Refusal::NotFound) };
    let Some(app) = call.tenants.named(key).of::<PusherApp>() else {
        let words = "not in this cluster. Did you forget to specify the cluster?";
        return Err(coded(4001, "unknown_app", format!("App key {key} {words}")));
    };
    let params = SignedParams::of(call.query);
    let protocol = params.text("protocol").unwrap_or_default();
    match &*protocol {
        "5" | "6" | "7" => Ok(ConnectRequest {
            app: app.key.clone(),
            credentials: Credentials::PerSubscription,
            variant: Variant::default(),
        }),
        "" => Err(coded(4008, "no_protocol", "No protocol version supplied".to_owned())),
        number if number.bytes().all(|byte| byte.is_ascii_digit()) => Err(coded(
            4007,
            "unsupported_protocol",
            format!("Unsupported protocol version {number}: 5, 6 and 7 are spoken here"),
        )),
        _ => Err(coded(4006, "bad_protocol", "Invalid version string format".to_owned())),
    }
}

/// Over HTTP, what is no handshake.
pub fn refuse(why: &Refusal) -> ApiReply {
    let reply = ApiReply::new(why.status(), "text/plain; charset=utf-8", format!("{why}\n"));
    match why {
        Refusal::NotFound => text(404, "404 page not found\n"),
        Refusal::WrongVersion => reply.with_header("Sec-WebSocket-Version", "13"),
        Refusal::Unavailable { retry_after, .. } => reply.with_header("Retry-After", retry_after.as_secs().to_string()),
        _ => reply,
    }
}

/// Over the socket, what a client must understand: whether to come back, and when.
pub fn reject_socket(why: &Refusal) -> Option<RejectedSocket> {
    let (code, reason) = match why {
        Refusal::Coded { code, text, .. } => (*code, text.to_string()),
        Refusal::Unavailable { retry_after: Duration::ZERO, .. } => {
            (4200, "Server is shutting down, please reconnect".to_owned())
        }
        // not 4200: whoever comes back at once finds the same
        Refusal::Unavailable { why, .. } => (4100, format!("Over capacity: {why}")),
        Refusal::Forbidden(text) => (4009, format!("Connection is unauthorized: {text}")),
        Refusal::CredentialsInvalid | Refusal::WrongApp => (4009, "Connection is unauthorized".to_owned()),
        _ => return None,
    };
    Some(RejectedSocket { says: frames::error(Some(code), &reason), code, reason })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc, time::Duration};

    use super::*;
    use crate::{
        dialect::{
            Settings, all,
            contract::Dialect,
            pusher::{
                PusherRows, Settings as PusherSettings,
                apps::tests::{app, tenants},
            },
        },
        http_api::{Matched, Router},
        ids::SocketIdSeal,
        tenants::Tenants,
    };

    fn find(method: &str, path: &str) -> (Arc<dyn Dialect>, Router, Matched) {
        let pusher = PusherRows { slave_prefix: "/ws".to_owned(), ..PusherRows::default() };
        let settings = Settings::default().with(PusherSettings { pusher });
        let router = Router::new(Role::Slave, all(&settings, &SocketIdSeal::new(b"seal")));
        let matched = router.find(method, path, &apps()).expect(path);
        (router.dialect(&matched).clone(), router, matched)
    }

    fn apps() -> Tenants {
        tenants([app(), PusherApp { key: "a b:c".parse().unwrap(), id: "43".to_owned(), ..app() }])
    }

    fn with_call<T>(path: &str, query: &str, version: &str, use_it: impl FnOnce(&dyn Dialect, ApiCall<'_>) -> T) -> T {
        let (dialect, router, matched) = find(Route::SOCKET, path);
        let headers: BTreeMap<_, _> = [("sec-websocket-version".to_owned(), version.to_owned())].into();
        let call = ApiCall {
            route_id: router.route(&matched).route_id,
            method: "GET",
            path,
            segments: matched.segments.clone(),
            query,
            headers: &headers,
            body: "".into(),
            now: Duration::ZERO,
            tenants: &apps(),
        };
        use_it(&*dialect, call)
    }

    fn connect_request(path: &str, query: &str) -> Result<ConnectRequest, Refusal> {
        with_call(path, query, "13", |dialect, call| dialect.connect_request(&call))
    }

    #[test]
    fn whoever_names_an_app_and_a_protocol_comes_in_without_further_credentials() {
        let fine = |app: &str| {
            let app = app.parse().unwrap();
            Ok(ConnectRequest { app, credentials: Credentials::PerSubscription, variant: Variant::default() })
        };
        for query in
            ["protocol=7&client=js&version=8.6.0&flash=false", "protocol=6", "client=x&protocol=5", "protocol=%37"]
        {
            assert_eq!(connect_request("/ws/app/wh-key", query), fine("wh-key"), "{query}");
        }
        assert_eq!(connect_request("/ws/app/a%20b%3Ac", "protocol=7"), fine("a b:c"));
    }

    #[test]
    fn others_are_told_what_is_wrong_in_a_number_that_their_library_knows() {
        for (key, query, expected) in [
            ("x", "protocol=7", 4001),
            ("", "protocol=7", 4001),
            // an id is no key, and nothing about the protocol matters then
            ("42", "", 4001),
            ("wh-key", "", 4008),
            ("wh-key", "protocol=", 4008),
            ("wh-key", "Protocol", 4008),
            ("wh-key", "protocol=4", 4007),
            ("wh-key", "protocol=8", 4007),
            ("wh-key", "protocol=07", 4007),
            ("wh-key", "protocol=99999999999999999999", 4007),
            ("wh-key", "protocol=7.0", 4006),
            ("wh-key", "protocol=-7", 4006),
            ("wh-key", "protocol=%ff", 4006),
        ] {
            let path = format!("/ws/app/{key}");
            let why = connect_request(&path, query).expect_err(query);
            assert!(matches!(why, Refusal::Coded { code, .. } if code == expected), "{key} {query}: {why:?}");
            let (dialect, router, matched) = find(Route::SOCKET, &path);
            let away =
                dialect.reject_socket(router.route(&matched).route_id, &why).expect("it is told over the socket");
            assert_eq!((away.code, &away.reason), (expected, &why.to_string()));
            assert_eq!(away.says, frames::error(Some(expected), &why.to_string()));
        }
        let words = "App key x not in this cluster. Did you forget to specify the cluster?";
        assert_eq!(connect_request("/ws/app/x", "protocol=7").unwrap_err().to_string(), words);
    }

    #[test]
    fn a_client_is_told_whether_to_come_back_and_what_is_no_handshake_hears_so_over_http() {
        let (dialect, router, matched) = find(Route::SOCKET, "/ws/app/wh-key");
        let route_id = router.route(&matched).route_id;
        for (why, code) in [
            (Refusal::unavailable("shutting down"), Some(4100)),
            (Refusal::moved("shutting down"), Some(4200)),
            (Refusal::Forbidden("this origin may not".into()), Some(4009)),
            (Refusal::WrongApp, Some(4009)),
            (Refusal::WrongVersion, None),
            (Refusal::NotAHandshake("no key"), None),
            (Refusal::MethodNotAllowed, None),
            (Refusal::NotFound, None),
        ] {
            assert_eq!(dialect.reject_socket(route_id, &why).map(|away| away.code), code, "{why:?}");
        }
        let reply = dialect.refuse(route_id, &Refusal::WrongVersion);
        assert_eq!((reply.status, reply.headers), (426, vec![("Sec-WebSocket-Version", "13".to_owned())]));
        assert_eq!(dialect.refuse(route_id, &Refusal::NotAHandshake("no key")).status, 400);
        assert_eq!(dialect.refuse(route_id, &Refusal::unavailable("x")).headers, [("Retry-After", "1".to_owned())]);
    }

    #[test]
    fn a_request_that_asks_for_no_upgrade_gets_none() {
        let ask =
            |version| with_call("/ws/app/wh-key", "protocol=7", version, |dialect, call| dialect.slave_request(call));
        assert_eq!(ask("13").unwrap_err(), Refusal::NotAHandshake("not a WebSocket handshake"));
        assert_eq!(ask("8").unwrap_err(), Refusal::WrongVersion);
        let (_, router, matched) = find("GET", "/ws/app/wh-key");
        assert_eq!(router.route(&matched).method, "GET");
    }
}
