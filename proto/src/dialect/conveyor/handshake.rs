//! The handshake of sockets: any upgrade at `/`, with the server token or a temporary one as `?token=`.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::{
    action::TemporaryToken,
    dialect::contract::{ApiCall, ConnectRequest, Credentials, Headers, Role, Route, RouteAuth},
    refusal::Refusal,
};

use super::{PLAIN, WITH_IDS, settings::ConveyorApp};

/// The number of the route, above those of the master's.
const SOCKET: usize = 1 << 16;

/// The subprotocol of the original.
const SUBPROTOCOL: &str = "socketconveyor.com";
/// The longest one that is repeated to a client.
const LONGEST: usize = 64;

/// The route that opens sockets.
pub fn route() -> Route {
    Route { role: Role::Slave, method: Route::SOCKET, path: "/".to_owned(), guard: RouteAuth::Own, route_id: SOCKET }
}

/// What a client shows that wants to connect.
pub fn connect_request(app: &ConveyorApp, call: &ApiCall<'_>) -> Result<ConnectRequest, Refusal> {
    let credentials = match token(call.query) {
        _ if app.is_open() => Credentials::Nobody,
        None => return Err(Refusal::CredentialsMissing),
        Some(token) if app.is_server_token(&token) => Credentials::Nobody,
        Some(token) => Credentials::Temporary(temporary(&token).ok_or(Refusal::CredentialsInvalid)?),
    };
    let variant = if app.acknowledgment { WITH_IDS } else { PLAIN };
    Ok(ConnectRequest { app: app.key.clone(), credentials, variant })
}

/// The token in a query, decoded; of several the first. A `+` is a plus sign: clients write tokens as they are.
pub fn token(query: &str) -> Option<Cow<'_, str>> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("token="))?;
    percent_decode_str(value).decode_utf8().ok().filter(|token| !token.is_empty())
}

/// `token`, if it looks like a temporary one: 32 lower-case hexadecimal digits.
pub fn temporary(token: &str) -> Option<TemporaryToken> {
    let fits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (token.len() == 32 && token.bytes().all(fits)).then(|| TemporaryToken(token.to_owned()))
}

/// The subprotocol to name in the answer: Conveyor's own if it is offered, else the only one that is, verbatim. Browsers give
/// up on a server that names none.
pub fn subprotocol(headers: &dyn Headers) -> Option<String> {
    let (mut offered, mut whole) = (Vec::new(), true);
    headers.values("sec-websocket-protocol", &mut |value| match std::str::from_utf8(value) {
        Ok(text) if offered.len() < LONGEST => {
            // a list in a header may have empty places
            let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
            offered.extend(names.map(str::to_owned));
        }
        _ => whole = false,
    });
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    match &offered[..] {
        names if names.iter().any(|name| name == SUBPROTOCOL) => Some(SUBPROTOCOL.to_owned()),
        [only] if whole && only.len() <= LONGEST && only.bytes().all(is_token) => Some(only.clone()),
        _ => None,
    }
}
