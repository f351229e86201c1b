//! Wellhead's own HTTP API: routes below `/v1/apps/` for what no foreign API has a word for (`docs/native.md`). It opens no
//! sockets. A route is a row in [`ROUTES`]; its handler is in a file by what it is about.

mod terminate;
mod webhooks;

use crate::{
    dialect::{
        contract::{
            ApiCall, ApiReply, ClientMessage, ConnectRequest, Dialect, MasterRequest, Protocol, Role, Route, RouteAuth,
            Variant,
        },
        mount::{Mount, NoKeys},
    },
    event::quote,
    frame::{Frame, SharedFrame},
    ids::{AppId, BadName, SocketId, SocketIdSeal},
    notice::{ActionOutcome, Notice},
    push_key::Right,
    refusal::{CloseCause, Refusal},
};

const JSON: &str = "application/json";

struct NativeRoute {
    method: &'static str,
    path: &'static str,
    guard: RouteAuth,
    handle: fn(&ApiCall<'_>, &SocketIdSeal) -> Result<MasterRequest, Refusal>,
}

const QUERY: RouteAuth = RouteAuth::PushKey(Right::Query);
const GRANT: RouteAuth = RouteAuth::PushKey(Right::Grant);

#[rustfmt::skip]
const ROUTES: &[NativeRoute] = &[
    NativeRoute { method: "DELETE", path: "/v1/apps/{app}/users/{user}/connections", guard: GRANT, handle: terminate::user },
    NativeRoute { method: "DELETE", path: "/v1/apps/{app}/sockets/{socket}", guard: GRANT, handle: terminate::socket },
    NativeRoute { method: "GET", path: "/v1/apps/{app}/webhooks", guard: QUERY, handle: webhooks::states },
    NativeRoute { method: "POST", path: "/v1/apps/{app}/webhooks/{id}/resend", guard: GRANT, handle: webhooks::resend },
];

/// The API.
pub struct Native {
    routes: Vec<Route>,
    seal: SocketIdSeal,
}

impl Mount for Native {
    type Settings = NoKeys;
    type AppSettings = NoKeys;
    type App = ();

    fn new(_: NoKeys, seal: &SocketIdSeal) -> Self {
        let to_route = |(route_id, route): (usize, &NativeRoute)| {
            let NativeRoute { method, path, guard, .. } = *route;
            Route { role: Role::Master, method, path: path.to_owned(), guard, route_id }
        };
        Self { routes: ROUTES.iter().enumerate().map(to_route).collect(), seal: seal.clone() }
    }
}

impl Dialect for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn routes(&self) -> &[Route] {
        &self.routes
    }

    fn variants(&self) -> u8 {
        0
    }

    fn master_request(&self, call: ApiCall<'_>) -> Result<MasterRequest, Refusal> {
        let route = ROUTES.get(call.route_id).ok_or(Refusal::NotFound)?;
        (route.handle)(&call, &self.seal)
    }

    fn connect_request(&self, _: &ApiCall<'_>) -> Result<ConnectRequest, Refusal> {
        Err(Refusal::NotFound)
    }

    fn open(&self, _: &AppId, _: Variant, socket: SocketId) -> Box<dyn Protocol> {
        Box::new(NoProtocol(socket))
    }

    fn encode(&self, _: Variant, _: Notice<'_>) -> Option<SharedFrame> {
        None
    }

    fn refuse(&self, _: usize, why: &Refusal) -> ApiReply {
        refuse(why)
    }
}

/// The protocol of sockets that nobody opens.
struct NoProtocol(SocketId);

impl Protocol for NoProtocol {
    fn socket_id(&self) -> String {
        self.0.to_string()
    }

    fn receive(
        &mut self,
        _: ClientMessage,
        _: &crate::tenants::Tenants,
        _: std::time::Duration,
    ) -> Result<crate::action::Action, CloseCause> {
        Err(CloseCause::PolicyViolation)
    }

    fn reply(&mut self, _: ActionOutcome<'_>) -> Option<Frame> {
        None
    }
}

/// `{"error": …}`.
fn refuse(why: &Refusal) -> ApiReply {
    let words = match why {
        Refusal::CredentialsMissing => "a push key is needed here: Authorization: Bearer KEY".to_owned(),
        Refusal::CredentialsInvalid => "no such push key".to_owned(),
        why => why.to_string(),
    };
    let reply = ApiReply::new(why.status(), JSON, format!(r#"{{"error":{}}}"#, quote(&words)));
    match why {
        Refusal::CredentialsMissing | Refusal::CredentialsInvalid => reply.with_header("WWW-Authenticate", "Bearer"),
        Refusal::Unavailable { retry_after, .. } => {
            reply.with_header("Retry-After", retry_after.as_secs().max(1).to_string())
        }
        _ => reply,
    }
}

/// 200 with this JSON.
fn json(body: impl Into<bytes::Bytes>) -> ApiReply {
    ApiReply::new(200, JSON, body)
}

/// 404 with these words.
fn not_found(words: &str) -> ApiReply {
    ApiReply::new(404, JSON, format!(r#"{{"error":{}}}"#, quote(words)))
}

/// 400 with these words.
fn bad(words: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::Malformed(words.into())
}

/// 400 that says what is wrong with a name.
fn bad_name(why: BadName) -> Refusal {
    bad(why.to_string())
}

/// The segments of the path that are names, none of them empty.
fn names<'a, const N: usize>(call: &'a ApiCall<'_>) -> Result<[&'a str; N], Refusal> {
    let mut names = [""; N];
    if call.segments.len() != N || call.segments.iter().any(String::is_empty) {
        return Err(Refusal::NotFound);
    }
    for (name, segment) in names.iter_mut().zip(&call.segments) {
        *name = segment;
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
