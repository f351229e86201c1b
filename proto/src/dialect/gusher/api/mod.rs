//! The master's routes (gusher.md §6 and §8): one table of both APIs, and how they refuse.

pub mod form;
pub mod json;
mod task;
mod v1;
mod v3;

use std::borrow::Cow;

use crate::{
    dialect::contract::{ApiCall, ApiReply, MasterRequest, Role, Route, RouteAuth, text},
    event::quote,
    ids::SocketIdSeal,
    push_key::Right,
    refusal::Refusal,
};

/// The content type of JSON replies of both APIs.
pub const JSON: &str = "application/json;charset=UTF-8";

/// The content type of errors and `pong`.
pub const TEXT: &str = "text/plain; charset=utf-8";

struct MasterRoute {
    at: RouteRoot,
    method: &'static str,
    path: &'static str,
    guard: RouteAuth,
    handle: fn(&ApiCall<'_>, &SocketIdSeal) -> Result<MasterRequest, Refusal>,
}

/// The path of a route, and so which API it belongs to.
#[derive(Clone, Copy, Eq, PartialEq)]
enum RouteRoot {
    /// v1, behind the prefix.
    Prefix,
    /// v1, without it.
    Bare,
    /// v3.
    Root,
}

/// The bare routes come last, so that they shadow nothing. `user` and `socket` win over an app of that name, as in the
/// original.
#[rustfmt::skip]
const ROUTES: &[MasterRoute] = &[
    route(RouteRoot::Prefix, "POST", "/push/user/{app}/{user}", PUSH, v1::push_user),
    route(RouteRoot::Prefix, "POST", "/push/socket/{app}/{socket}", PUSH, v1::push_socket),
    route(RouteRoot::Prefix, "POST", "/push/{app}/{channel}/{event}", PUSH, v1::push_channel),
    route(RouteRoot::Prefix, "POST", "/push_batch/{app}", PUSH, v1::push_batch),
    route(RouteRoot::Prefix, "POST", "/push/{app}", PUSH, v1::push_pattern),
    route(RouteRoot::Prefix, "POST", "/reload/channel/user/{app}/{user}", GRANT, v1::reload),
    route(RouteRoot::Prefix, "POST", "/add/channel/user/{app}/{user}", GRANT, v1::grant),
    route(RouteRoot::Prefix, "POST", "/decode", QUERY, v1::decode),
    route(RouteRoot::Prefix, "GET", "/ping", RouteAuth::Open, ping),
    route(RouteRoot::Prefix, "GET", "/{app}/channels", QUERY, task::channels),
    route(RouteRoot::Prefix, "GET", "/{app}/channels/count", QUERY, task::channel_count),
    route(RouteRoot::Prefix, "GET", "/{app}/online", QUERY, task::users),
    route(RouteRoot::Prefix, "GET", "/{app}/online/count", QUERY, task::user_count),
    route(RouteRoot::Prefix, "GET", "/{app}/online/bychannel/{channel}", QUERY, task::users_of),
    route(RouteRoot::Prefix, "GET", "/{app}/online/bychannel/{channel}/count", QUERY, task::user_count_of),

    route(RouteRoot::Root, "POST", "/v1/apps/{app}/channels/{channel}/messages", PUSH, v3::push_channel),
    route(RouteRoot::Root, "POST", "/v1/apps/{app}/messages", PUSH, v3::push_pattern),
    route(RouteRoot::Root, "POST", "/v1/apps/{app}/messages/batch", PUSH, v3::push_batch),
    route(RouteRoot::Root, "POST", "/v1/apps/{app}/users/{user}/messages", PUSH, v3::push_user),
    route(RouteRoot::Root, "POST", "/v1/apps/{app}/sockets/{socket}/messages", PUSH, v3::push_socket),
    route(RouteRoot::Root, "PUT", "/v1/apps/{app}/users/{user}/channels", GRANT, v3::reload),
    route(RouteRoot::Root, "POST", "/v1/apps/{app}/users/{user}/channels", GRANT, v3::grant),
    route(RouteRoot::Root, "POST", "/v1/auth/decode", QUERY, v3::decode),
    route(RouteRoot::Root, "GET", "/v1/apps/{app}/channels", QUERY, task::channels),
    route(RouteRoot::Root, "GET", "/v1/apps/{app}/channels/count", QUERY, task::channel_count),
    route(RouteRoot::Root, "GET", "/v1/apps/{app}/users", QUERY, task::users),
    route(RouteRoot::Root, "GET", "/v1/apps/{app}/users/count", QUERY, task::user_count),
    route(RouteRoot::Root, "GET", "/v1/apps/{app}/channels/{channel}/users", QUERY, task::users_of),
    route(RouteRoot::Root, "GET", "/v1/apps/{app}/channels/{channel}/users/count", QUERY, task::user_count_of),
    route(RouteRoot::Root, "GET", "/v1/apps", QUERY, v3::apps),
    route(RouteRoot::Root, "GET", "/v1/stats", QUERY, v3::stats),

    route(RouteRoot::Bare, "GET", "/{app}/channels", QUERY, task::channels),
    route(RouteRoot::Bare, "GET", "/{app}/channels/count", QUERY, task::channel_count),
    route(RouteRoot::Bare, "GET", "/{app}/online", QUERY, task::users),
    route(RouteRoot::Bare, "GET", "/{app}/online/count", QUERY, task::user_count),
    route(RouteRoot::Bare, "GET", "/{app}/online/bychannel/{channel}", QUERY, task::users_of),
    route(RouteRoot::Bare, "GET", "/{app}/online/bychannel/{channel}/count", QUERY, task::user_count_of),
];

const PUSH: RouteAuth = RouteAuth::PushKey(Right::Push);
const QUERY: RouteAuth = RouteAuth::PushKey(Right::Query);
const GRANT: RouteAuth = RouteAuth::PushKey(Right::Grant);

const fn route(
    at: RouteRoot,
    method: &'static str,
    path: &'static str,
    guard: RouteAuth,
    handle: fn(&ApiCall<'_>, &SocketIdSeal) -> Result<MasterRequest, Refusal>,
) -> MasterRoute {
    MasterRoute { at, method, path, guard, handle }
}

/// The routes, those of v1 behind `prefix`.
pub fn routes(prefix: &str) -> Vec<Route> {
    let to_route = |(number, route): (usize, &MasterRoute)| {
        let path =
            if route.at == RouteRoot::Prefix { format!("{prefix}{}", route.path) } else { route.path.to_owned() };
        Route { role: Role::Master, method: route.method, path, guard: route.guard, route_id: number }
    };
    ROUTES.iter().enumerate().map(to_route).collect()
}

/// What the role does for a request to one of them.
pub fn call(call: &ApiCall<'_>, seal: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    let route = ROUTES.get(call.route_id).ok_or(Refusal::NotFound)?;
    // `/v1` is the other API's: whatever it does not serve there is nothing, rather than an app of that name
    if route.at == RouteRoot::Bare && call.segments.first().is_some_and(|app| app == "v1") {
        return Err(Refusal::NotFound);
    }
    (route.handle)(call, seal)
}

/// v1 refuses in bare text, v3 in JSON.
pub fn refuse(route_id: usize, why: &Refusal) -> ApiReply {
    let json = ROUTES.get(route_id).is_some_and(|route| route.at == RouteRoot::Root);
    let reply = match why {
        Refusal::MethodNotAllowed if json => text(405, "Method Not Allowed\n"),
        Refusal::MethodNotAllowed => ApiReply::empty(405),
        Refusal::NotFound if !json => text(404, "404 page not found\n"),
        _ => {
            let words: Cow<'_, str> = match why {
                Refusal::CredentialsMissing => "a push key is needed here: Authorization: Bearer KEY".into(),
                Refusal::CredentialsInvalid => "no such push key".into(),
                Refusal::Malformed(words) | Refusal::Forbidden(words) => (&**words).into(),
                why => why.to_string().into(),
            };
            if json {
                ApiReply::new(why.status(), JSON, format!(r#"{{"error":{}}}"#, quote(&words)))
            } else {
                ApiReply::new(why.status(), TEXT, words.into_owned())
            }
        }
    };
    match why {
        Refusal::CredentialsMissing | Refusal::CredentialsInvalid => reply.with_header("WWW-Authenticate", "Bearer"),
        Refusal::Unavailable { retry_after, .. } => {
            reply.with_header("Retry-After", retry_after.as_secs().max(1).to_string())
        }
        _ => reply,
    }
}

/// Both roles answer `GET {prefix}/ping`.
pub fn pong() -> ApiReply {
    text(200, "pong")
}

fn ping(_: &ApiCall<'_>, _: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    Ok(MasterRequest::Answer(pong()))
}

#[cfg(test)]
mod tests;
