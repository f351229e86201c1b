//! The handshake of sockets (pushex.md, "The socket"): the serializer and the token are in the query; phoenix 1.8 may show the
//! token as a subprotocol.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    dialect::contract::{
        ApiCall, ApiReply, ConnectRequest, Credentials, Headers, Role, Route, RouteAuth, Variant, text,
    },
    jwt::claimed_app,
    refusal::Refusal,
};

use super::{PushEx, api::unavailable, params::Params, protocol};

/// Numbers of these routes begin here, above those of the master's.
const FIRST: usize = 1 << 16;

const PATH: &str = "/push_socket/websocket";

/// The subprotocol of a client that shows its token as another.
const PHOENIX: &str = "phoenix";

/// What that other one begins with; the token behind it is in base64url.
const BEARER: &str = "base64url.bearer.phx.";

/// The route, twice: for upgrades, and for requests that are none and must be told so.
pub fn routes() -> impl Iterator<Item = Route> {
    [Route::SOCKET, "GET"].into_iter().enumerate().map(|(number, method)| Route {
        role: Role::Slave,
        method,
        path: PATH.to_owned(),
        guard: RouteAuth::Own,
        route_id: FIRST + number,
    })
}

/// Is `route_id` one of these?
pub fn is_route(route_id: usize) -> bool {
    route_id >= FIRST
}

/// The serializer that the client asks for, its token, and the app that this names.
pub fn connect_request(pushex: &PushEx, call: &ApiCall<'_>) -> Result<ConnectRequest, Refusal> {
    let params = Params::of(call.query)?;
    let version = match params.get("vsn") {
        None => Some("1.0.0"),
        Some(_) => params.text("vsn"),
    };
    let variant = version.and_then(serializer).ok_or(Refusal::Coded {
        code: 403,
        reason: "unsupported_vsn",
        text: "vsn must be 1.0.x or 2.0.x".into(),
    })?;
    let shown = params.text(&pushex.token_parameter).filter(|token| !token.is_empty()).map(str::to_owned);
    let token = match shown {
        Some(token) => Some(token),
        None => token_in(call.headers)?,
    };
    let (app, credentials) = match token {
        // the app is read before the token is verified, only to know whose it must be
        Some(token) => {
            let app = claimed_app(&token).or_else(|| pushex.app.clone()).ok_or(Refusal::CredentialsInvalid)?;
            (app, Credentials::Token(token))
        }
        None if pushex.public.is_empty() => return Err(Refusal::CredentialsMissing),
        None => (pushex.app.clone().ok_or(Refusal::CredentialsMissing)?, Credentials::Nobody),
    };
    Ok(ConnectRequest { app, credentials, variant })
}

/// Elixir's `~> 1.0.0` or `~> 2.0.0`.
fn serializer(version: &str) -> Option<Variant> {
    let (rest, build) = version.split_once('+').map_or((version, None), |(rest, build)| (rest, Some(build)));
    let (release, pre) = rest.split_once('-').map_or((rest, None), |(release, pre)| (release, Some(pre)));
    let fits =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    let (variant, patch) = match release.split_at_checked(4)? {
        ("1.0.", patch) => (protocol::V1, patch),
        ("2.0.", patch) => (protocol::V2, patch),
        _ => return None,
    };
    let is_number = patch == "0" || (patch.bytes().all(|digit| digit.is_ascii_digit()) && !patch.starts_with('0'));
    // what goes before a release is below it
    let is_below = patch == "0" && pre.is_some();
    let is_fine = !patch.is_empty() && is_number && !is_below && pre.is_none_or(fits) && build.is_none_or(fits);
    is_fine.then_some(variant)
}

/// Show each subprotocol that is offered.
fn offered(headers: &dyn Headers, visit: &mut dyn FnMut(&str)) {
    headers.values("sec-websocket-protocol", &mut |value| {
        value
            .split(|&byte| byte == b',')
            .filter_map(|name| str::from_utf8(name.trim_ascii()).ok())
            .for_each(&mut *visit);
    });
}

/// `phoenix`, if it is offered: a browser drops a connection that takes none of what it offers.
pub fn subprotocol(headers: &dyn Headers) -> Option<&'static str> {
    let mut chosen = None;
    offered(headers, &mut |name| {
        if name == PHOENIX {
            chosen = Some(PHOENIX);
        }
    });
    chosen
}

/// The token that is shown as a subprotocol.
fn token_in(headers: &dyn Headers) -> Result<Option<String>, Refusal> {
    let mut token = None;
    offered(headers, &mut |name| {
        if let Some(encoded) = name.strip_prefix(BEARER) {
            // phoenix.js writes the other alphabet
            let encoded = encoded.replace('+', "-").replace('/', "_");
            token = token.take().or_else(|| Some(URL_SAFE_NO_PAD.decode(encoded).ok().map(String::from_utf8)));
        }
    });
    match token {
        None => Ok(None),
        Some(Some(Ok(token))) => Ok(Some(token)),
        Some(_) => Err(Refusal::CredentialsInvalid),
    }
}

/// Without words where the original has none.
pub fn refuse(why: &Refusal) -> ApiReply {
    match why {
        Refusal::CredentialsMissing
        | Refusal::CredentialsInvalid
        | Refusal::WrongApp
        | Refusal::Forbidden(_)
        | Refusal::Coded { .. } => ApiReply::empty(403),
        Refusal::NotAHandshake(_) => text(400, "Bad Request"),
        Refusal::MethodNotAllowed => ApiReply::empty(400),
        Refusal::WrongVersion => ApiReply::empty(426).with_header("Sec-WebSocket-Version", "13"),
        Refusal::Unavailable { retry_after, .. } => unavailable(*retry_after),
        _ => ApiReply::empty(why.status()),
    }
}

#[cfg(test)]
mod tests;
