//! The HTTP API of backends (pusher.md §1): which routes there are, who may call them, and how they refuse.

mod body;
mod info;
mod publish;
mod query;
mod users;

use crate::{
    dialect::{
        contract::{ApiCall, ApiReply, MasterRequest, Role, Route, RouteAuth, text},
        conveyor::ConveyorApp,
    },
    refusal::Refusal,
};

use super::{
    apps::PusherApp,
    sign::{self, SignedParams, check_body, verify},
};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// A request with a valid signature.
struct SignedRequest<'a> {
    /// Its app.
    app: &'a PusherApp,
    /// The channel or the user in the path; empty if there is none.
    name: &'a str,
    params: SignedParams<'a>,
    body: &'a [u8],
}

struct SignedRoute {
    method: &'static str,
    path: &'static str,
    handle: fn(&SignedRequest<'_>) -> Result<MasterRequest, Refusal>,
}

const ROUTES: &[SignedRoute] = &[
    SignedRoute { method: "POST", path: "/apps/{id}/events", handle: publish::event },
    SignedRoute { method: "POST", path: "/apps/{id}/batch_events", handle: publish::batch },
    SignedRoute { method: "GET", path: "/apps/{id}/channels", handle: query::channels },
    SignedRoute { method: "GET", path: "/apps/{id}/channels/{channel}", handle: query::channel },
    SignedRoute { method: "GET", path: "/apps/{id}/channels/{channel}/users", handle: query::users },
    SignedRoute { method: "POST", path: "/apps/{id}/users/{user}/terminate_connections", handle: users::terminate },
    SignedRoute { method: "POST", path: WITHOUT_APP, handle: users::terminate },
];

/// What Python's library calls: the app is that of `auth_key`.
const WITHOUT_APP: &str = "/users/{user}/terminate_connections";

/// The routes behind `prefix`.
pub fn routes(prefix: &str) -> impl Iterator<Item = Route> {
    ROUTES.iter().enumerate().map(move |(number, route)| Route {
        role: Role::Master,
        method: route.method,
        path: format!("{prefix}{}", route.path),
        guard: RouteAuth::Own,
        route_id: number,
    })
}

/// The app that a request is for, and the channel or user in its path; empty if there is none.
fn target<'a>(call: &'a ApiCall<'_>) -> Result<(&'a PusherApp, &'a str), Refusal> {
    let (id, name) = match &call.segments[..] {
        [user] if ROUTES.get(call.route_id).is_some_and(|route| route.path == WITHOUT_APP) => {
            return Ok((sign::app(call)?, user.as_str()));
        }
        [id] => (id, ""),
        [id, name] => (id, name.as_str()),
        _ => return Err(Refusal::NotFound),
    };
    let unknown = || Refusal::Coded {
        // Conveyor's callers know no 404 here
        code: if call.tenants.has::<ConveyorApp>() { 401 } else { 404 },
        reason: "unknown_app",
        text: "No app has this id (apps.listed with an id and a secret)".into(),
    };
    Ok((call.tenants.by_id(id).ok_or_else(unknown)?, name))
}

/// Is the head of a request signed by the app that it is for?
pub fn authenticate(prefix: &str, head: &ApiCall<'_>) -> Result<(), Refusal> {
    let (app, _) = target(head)?;
    verify(app, head, head.path.strip_prefix(prefix).unwrap_or(head.path), &SignedParams::of(head.query))
}

/// What the master does for a request whose head was signed.
pub fn call(call: &ApiCall<'_>) -> Result<MasterRequest, Refusal> {
    let route = ROUTES.get(call.route_id).ok_or(Refusal::NotFound)?;
    let (app, name) = target(call)?;
    let params = SignedParams::of(call.query);
    check_body(&params, &call.body)?;
    (route.handle)(&SignedRequest { app, name, params, body: &call.body })
}

/// In plain text: libraries hand it through as it is (pusher.md §1.12).
pub fn refuse(why: &Refusal) -> ApiReply {
    match why {
        Refusal::Coded { code, text, .. } => ApiReply::new(*code, TEXT, text.clone().into_owned()),
        Refusal::NotFound => text(404, "404 page not found\n"),
        Refusal::Unavailable { retry_after, .. } => ApiReply::new(why.status(), TEXT, why.to_string())
            .with_header("Retry-After", retry_after.as_secs().max(1).to_string()),
        _ => ApiReply::new(why.status(), TEXT, why.to_string()),
    }
}

/// 400 with these words.
fn bad(words: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::Malformed(words.into())
}

/// 200. Libraries take no other status for a success, and want JSON with it.
fn json(body: impl Into<bytes::Bytes>) -> ApiReply {
    ApiReply::new(200, JSON, body)
}

#[cfg(test)]
mod tests;
