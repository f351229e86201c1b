//! The door of sockets (pusher.md §2.1): the app's key in the path, the protocol in the query. Who cannot come in is told
//! so over the open socket, since libraries look for it there.

use crate::{
    dialect::contract::{ApiCall, ApiReply, Credentials, Guard, Knock, Role, Route, TurnedAway, Variant},
    refusal::Refusal,
    surface::text,
};

use super::{apps::Apps, sign::Params, wire::frames};

/// Numbers of these rows begin here, above those of the master's.
const FIRST: usize = 1 << 16;

/// The door behind `prefix`, twice: for upgrades, and for requests that are none and must hear so.
pub fn routes(prefix: &str) -> impl Iterator<Item = Route> {
    [Route::SOCKET, "GET"].into_iter().enumerate().map(move |(number, method)| Route {
        role: Role::Slave,
        method,
        path: format!("{prefix}/app/{{key}}"),
        guard: Guard::Own,
        row: FIRST + number,
    })
}

/// Is `row` the door?
pub fn is_row(row: usize) -> bool {
    row >= FIRST
}

/// Why a request is not let in that asks for no upgrade that we know.
pub fn no_upgrade(call: &ApiCall<'_>) -> Refusal {
    match call.headers.header("sec-websocket-version") {
        Some(version) if version.trim() != "13" => Refusal::WrongVersion,
        _ => Refusal::NotAHandshake("not a WebSocket handshake"),
    }
}

/// The app whose key is in the path, for a client of a protocol that we speak.
pub fn knock(apps: &Apps, call: &ApiCall<'_>) -> Result<Knock, Refusal> {
    let coded = |code, text: String| Refusal::Coded { code, text: text.into() };
    let [key] = &call.segments[..] else { return Err(Refusal::NotFound) };
    let Some(served) = apps.by_key(key) else {
        let words = "not in this cluster. Did you forget to specify the cluster?";
        return Err(coded(4001, format!("App key {key} {words}")));
    };
    let params = Params::of(call.query);
    let protocol = params.text("protocol").unwrap_or_default();
    match &*protocol {
        "5" | "6" | "7" => {
            Ok(Knock { app: served.app.key.clone(), credentials: Credentials::Later, variant: Variant::default() })
        }
        "" => Err(coded(4008, "No protocol version supplied".to_owned())),
        number if number.bytes().all(|byte| byte.is_ascii_digit()) => {
            Err(coded(4007, format!("Unsupported protocol version {number}: 5, 6 and 7 are spoken here")))
        }
        _ => Err(coded(4006, "Invalid version string format".to_owned())),
    }
}

/// Over HTTP, what is no handshake.
pub fn refuse(why: &Refusal) -> ApiReply {
    let reply = ApiReply::new(why.status(), "text/plain; charset=utf-8", format!("{why}\n"));
    match why {
        Refusal::NotFound => text(404, "404 page not found\n"),
        Refusal::WrongVersion => reply.with_header("Sec-WebSocket-Version", "13"),
        Refusal::Unavailable { retry_after, .. } => {
            reply.with_header("Retry-After", retry_after.as_secs().max(1).to_string())
        }
        _ => reply,
    }
}

/// Over the socket, what a client must understand: whether to come back, and when.
pub fn turn_away(why: &Refusal) -> Option<TurnedAway> {
    let (code, reason) = match why {
        Refusal::Coded { code, text } => (*code, text.to_string()),
        // not 4200: whoever comes back at once finds the same
        Refusal::Unavailable { why, .. } => (4100, format!("Over capacity: {why}")),
        Refusal::Forbidden(text) => (4009, format!("Connection is unauthorized: {text}")),
        Refusal::CredentialsInvalid | Refusal::WrongApp => (4009, "Connection is unauthorized".to_owned()),
        _ => return None,
    };
    Some(TurnedAway { says: frames::error(Some(code), &reason), code, reason })
}
