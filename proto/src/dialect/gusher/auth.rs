//! The slave's rows (gusher.md §3 and §8): a JWT for a connection token, and the doors where sockets come in.

use std::borrow::Cow;

use crate::{
    dialect::contract::{
        ApiCall, ApiReply, ConnectRequest, Credentials, Role, Route, RouteAuth, SlaveRequest, Variant,
    },
    event::quote,
    refusal::Refusal,
    surface::text,
};

use super::api::{
    JSON, TEXT,
    form::{Params, has_type},
    json, pong,
};

/// Numbers of these rows begin here, above those of the master's.
const FIRST: usize = 1 << 16;

struct Row {
    /// Behind the prefix (v1), or at the root (v3).
    prefixed: bool,
    method: &'static str,
    path: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Kind {
    Auth,
    Preflight,
    Door,
    Ping,
}

/// Each door is there twice: for upgrades, and for requests that are none and must hear so.
const ROWS: &[Row] = &[
    row(true, "POST", "/auth", Kind::Auth),
    row(true, "OPTIONS", "/auth", Kind::Preflight),
    row(false, "POST", "/v1/auth", Kind::Auth),
    row(false, "OPTIONS", "/v1/auth", Kind::Preflight),
    row(true, Route::SOCKET, "/ws/{app}", Kind::Door),
    row(true, "GET", "/ws/{app}", Kind::Door),
    row(true, Route::SOCKET, "/wtf/{app}", Kind::Door),
    row(true, "GET", "/wtf/{app}", Kind::Door),
    row(false, Route::SOCKET, "/v1/apps/{app}/ws", Kind::Door),
    row(false, "GET", "/v1/apps/{app}/ws", Kind::Door),
    row(true, "GET", "/ping", Kind::Ping),
];

const fn row(prefixed: bool, method: &'static str, path: &'static str, kind: Kind) -> Row {
    Row { prefixed, method, path, kind }
}

/// The rows, those of v1 behind `prefix`.
pub fn routes(prefix: &str) -> Vec<Route> {
    let route = |(number, row): (usize, &Row)| {
        let path = if row.prefixed { format!("{prefix}{}", row.path) } else { row.path.to_owned() };
        // a JWT is checked by the exchange, a token by the handshake
        let guard = if row.kind == Kind::Ping { RouteAuth::Open } else { RouteAuth::Own };
        Route { role: Role::Slave, method: row.method, path, guard, row: FIRST + number }
    };
    ROWS.iter().enumerate().map(route).collect()
}

/// Is `row` one of these?
pub fn is_row(row: usize) -> bool {
    find(row).is_some()
}

fn find(number: usize) -> Option<&'static Row> {
    number.checked_sub(FIRST).and_then(|number| ROWS.get(number))
}

/// What the role does for a request to one of them.
pub fn call(call: &ApiCall<'_>) -> Result<SlaveRequest, Refusal> {
    let row = find(call.row).ok_or(Refusal::NotFound)?;
    match row.kind {
        Kind::Auth => Ok(exchange(if row.prefixed { v1_jwt(call) } else { v3_jwt(call)? })),
        Kind::Preflight => Ok(SlaveRequest::Answer(preflight())),
        Kind::Door => Err(no_upgrade(call)),
        Kind::Ping => Ok(SlaveRequest::Answer(pong())),
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
    Params::of(call).value("jwt")
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

/// Why a request at a door is not let in when it asks for no upgrade that we know.
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
    let door = find(call.row).is_some_and(|row| row.kind == Kind::Door);
    let [app] = &call.segments[..] else { return Err(Refusal::NotFound) };
    if !door {
        return Err(Refusal::NotFound);
    }
    let token = Params::in_query(call).value("token");
    if token.is_empty() || app.is_empty() {
        return Err(Refusal::CredentialsMissing);
    }
    // no token is for an app whose name is too long
    let app = app.as_str().try_into().map_err(|_| Refusal::WrongApp)?;
    Ok(ConnectRequest { app, credentials: Credentials::Token(token), variant: Variant::default() })
}

/// The slave refuses in plain text, on both APIs.
pub fn refuse(row: usize, why: &Refusal) -> ApiReply {
    let row = find(row);
    let auth = row.is_some_and(|row| matches!(row.kind, Kind::Auth | Kind::Preflight));
    let reply = match why {
        Refusal::MethodNotAllowed if row.is_some_and(|row| row.prefixed) => ApiReply::empty(405),
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
