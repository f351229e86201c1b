//! The slave's routes (gusher.md §3 and §8): a JWT for a connection token, and the handshakes of sockets.

use std::borrow::Cow;

use crate::{
    dialect::contract::{
        ApiCall, ApiReply, ConnectRequest, Credentials, Role, Route, RouteAuth, SlaveRequest, Variant, text,
    },
    event::quote,
    refusal::Refusal,
};

use super::api::{
    JSON, TEXT,
    form::{FormParams, has_type},
    json, pong,
};

/// Numbers of these routes begin here, above those of the master's.
const FIRST: usize = 1 << 16;

struct SlaveRoute {
    /// Behind the prefix (v1), or at the root (v3).
    prefixed: bool,
    method: &'static str,
    path: &'static str,
    kind: SlaveRouteKind,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum SlaveRouteKind {
    Auth,
    Preflight,
    Socket,
    Ping,
}

/// Each path of sockets has two routes: for upgrades, and for requests that are none and must be told so.
const ROUTES: &[SlaveRoute] = &[
    route(true, "POST", "/auth", SlaveRouteKind::Auth),
    route(true, "OPTIONS", "/auth", SlaveRouteKind::Preflight),
    route(false, "POST", "/v1/auth", SlaveRouteKind::Auth),
    route(false, "OPTIONS", "/v1/auth", SlaveRouteKind::Preflight),
    route(true, Route::SOCKET, "/ws/{app}", SlaveRouteKind::Socket),
    route(true, "GET", "/ws/{app}", SlaveRouteKind::Socket),
    route(true, Route::SOCKET, "/wtf/{app}", SlaveRouteKind::Socket),
    route(true, "GET", "/wtf/{app}", SlaveRouteKind::Socket),
    route(false, Route::SOCKET, "/v1/apps/{app}/ws", SlaveRouteKind::Socket),
    route(false, "GET", "/v1/apps/{app}/ws", SlaveRouteKind::Socket),
    route(true, "GET", "/ping", SlaveRouteKind::Ping),
];

const fn route(prefixed: bool, method: &'static str, path: &'static str, kind: SlaveRouteKind) -> SlaveRoute {
    SlaveRoute { prefixed, method, path, kind }
}

/// The routes, those of v1 behind `prefix`.
pub fn routes(prefix: &str) -> Vec<Route> {
    let to_route = |(number, route): (usize, &SlaveRoute)| {
        let path = if route.prefixed { format!("{prefix}{}", route.path) } else { route.path.to_owned() };
        // a JWT is checked by the exchange, a token by the handshake
        let guard = if route.kind == SlaveRouteKind::Ping { RouteAuth::Open } else { RouteAuth::Own };
        Route { role: Role::Slave, method: route.method, path, guard, route_id: FIRST + number }
    };
    ROUTES.iter().enumerate().map(to_route).collect()
}

/// Is `route_id` one of these?
pub fn is_route(route_id: usize) -> bool {
    find(route_id).is_some()
}

fn find(number: usize) -> Option<&'static SlaveRoute> {
    number.checked_sub(FIRST).and_then(|number| ROUTES.get(number))
}

/// What the role does for a request to one of them.
pub fn call(call: &ApiCall<'_>) -> Result<SlaveRequest, Refusal> {
    let route = find(call.route_id).ok_or(Refusal::NotFound)?;
    match route.kind {
        SlaveRouteKind::Auth => Ok(exchange(if route.prefixed { v1_jwt(call) } else { v3_jwt(call)? })),
        SlaveRouteKind::Preflight => Ok(SlaveRequest::Answer(preflight())),
        SlaveRouteKind::Socket => Err(no_upgrade(call)),
        SlaveRouteKind::Ping => Ok(SlaveRequest::Answer(pong())),
    }
}

fn exchange(jwt: String) -> SlaveRequest {
    let reply = |token: Result<String, _>| {
        open_to_all(match token {
            Ok(token) => ApiReply::new(200, JSON, format!("{{\"token\":{}}}\n", quote(&token))),
            Err(_) => text(401, "jwt decode fail\n"),
        })
    };
    SlaveRequest::Exchange { jwt, reply: Box::new(reply) }
}

/// v1: a form or the query; JSON is taken, too. Whatever cannot be read is a JWT that does not verify.
fn v1_jwt(call: &ApiCall<'_>) -> String {
    if has_type(call.headers, "application/json")
        && let Ok([Some(jwt)]) = json::object(&call.body, ["jwt"])
    {
        return json::string(Some(jwt)).unwrap_or_default().into_owned();
    }
    FormParams::of(call).value("jwt")
}

fn v3_jwt(call: &ApiCall<'_>) -> Result<String, Refusal> {
    let undecodable = |_| Refusal::Malformed("body decode fail\n".into());
    let [jwt] = json::object(&call.body, ["jwt"]).map_err(undecodable)?;
    json::string(jwt).map(Cow::into_owned).map_err(undecodable)
}

fn preflight() -> ApiReply {
    open_to_all(ApiReply::empty(204))
        .with_header("Access-Control-Allow-Methods", "POST, OPTIONS")
        .with_header("Access-Control-Allow-Headers", "Content-Type, X-Requested-With")
        .with_header("Access-Control-Max-Age", "86400")
}

/// Any page may read it: what it shows in return for a JWT is for whoever holds that.
fn open_to_all(reply: ApiReply) -> ApiReply {
    reply.with_header("Access-Control-Allow-Origin", "*")
}

/// Why a request for a socket is refused that asks for no upgrade that we know.
fn no_upgrade(call: &ApiCall<'_>) -> Refusal {
    if let Err(missing) = connect_request(call) {
        return missing;
    }
    match call.headers.header("sec-websocket-version") {
        Some(version) if version.trim() != "13" => Refusal::WrongVersion,
        _ => Refusal::NotAHandshake("not a WebSocket handshake"),
    }
}

/// The app of the path and the token of the query; the first of several.
pub fn connect_request(call: &ApiCall<'_>) -> Result<ConnectRequest, Refusal> {
    let door = find(call.route_id).filter(|route| route.kind == SlaveRouteKind::Socket).ok_or(Refusal::NotFound)?;
    let [app] = &call.segments[..] else { return Err(Refusal::NotFound) };
    let token = FormParams::in_query(call).value("token");
    if token.is_empty() || app.is_empty() {
        return Err(Refusal::CredentialsMissing);
    }
    // no token is for an app whose name is too long
    let app = app.as_str().try_into().map_err(|_| Refusal::WrongApp)?;
    // v3 has no remote commands
    let credentials = if door.prefixed { Credentials::TokenWithRemotes(token) } else { Credentials::Token(token) };
    Ok(ConnectRequest { app, credentials, variant: Variant::default() })
}

/// The slave refuses in plain text, on both APIs.
pub fn refuse(route_id: usize, why: &Refusal) -> ApiReply {
    let route = find(route_id);
    let auth = route.is_some_and(|route| matches!(route.kind, SlaveRouteKind::Auth | SlaveRouteKind::Preflight));
    let reply = match why {
        Refusal::MethodNotAllowed if route.is_some_and(|route| route.prefixed) => ApiReply::empty(405),
        Refusal::MethodNotAllowed => text(405, "Method Not Allowed\n"),
        Refusal::CredentialsMissing | Refusal::CredentialsInvalid | Refusal::WrongApp if auth => {
            text(401, "jwt decode fail\n")
        }
        Refusal::CredentialsMissing => text(401, "app_key is nil\n"),
        Refusal::CredentialsInvalid => text(401, "token error\n"),
        Refusal::WrongApp => text(401, "appkey error\n"),
        Refusal::NotFound => text(404, "404 page not found\n"),
        Refusal::NotAHandshake(_) => text(400, "Bad Request\n"),
        Refusal::WrongVersion => text(426, "Upgrade Required\n").with_header("Sec-WebSocket-Version", "13"),
        Refusal::Malformed(words) => ApiReply::new(why.status(), TEXT, words.clone().into_owned()),
        _ => ApiReply::new(why.status(), TEXT, format!("{why}\n")),
    };
    let reply = match why {
        Refusal::Unavailable { retry_after, .. } => reply.with_header("Retry-After", retry_after.as_secs().to_string()),
        _ => reply,
    };
    if auth { open_to_all(reply) } else { reply }
}
