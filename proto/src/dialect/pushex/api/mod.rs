//! The HTTP push API (pushex.md, "The API"): its one route, who may use it, and its words for what goes wrong.

mod body;
mod multipart;
mod push;

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE};

use crate::{
    dialect::contract::{ApiCall, ApiReply, Role, Route, RouteAuth, bearer},
    ids::AppId,
    push_key::Right,
    refusal::Refusal,
};

use super::{PushEx, params::Params};

#[cfg(test)]
use self::push::MOST_CHANNELS;
pub use self::push::push;

const JSON: &str = "application/json; charset=utf-8";

/// The route, with and without a last slash.
pub fn routes() -> impl Iterator<Item = Route> {
    ["/api/push", "/api/push/"].into_iter().enumerate().map(|(number, path)| Route {
        role: Role::Master,
        method: "POST",
        path: path.to_owned(),
        guard: RouteAuth::PushKey(Right::Push),
        route_id: number,
    })
}

/// The push key of a caller who shows none as a bearer.
pub fn key_elsewhere(pushex: &PushEx, head: &ApiCall<'_>) -> Option<String> {
    let PushEx { key_header, key_parameter, .. } = pushex;
    let header = || head.headers.header(key_header).map(str::trim).filter(|key| !key.is_empty()).map(str::to_owned);
    let parameter = || Params::of(head.query).ok()?.text(key_parameter).map(str::to_owned);
    let header = if key_header.is_empty() { None } else { header() };
    header.or_else(|| if key_parameter.is_empty() { None } else { parameter() })
}

/// The app of the caller's key, if that is for one app; else that of the settings.
fn app_of(pushex: &PushEx, call: &ApiCall<'_>) -> Result<AppId, Refusal> {
    let shown = match bearer(call.headers) {
        Some(key) => Some(key.to_owned()),
        None => key_elsewhere(pushex, call),
    };
    let key = shown.and_then(|shown| call.tenants.push_key(&shown));
    let of_key = key.and_then(|key| match &key.apps[..] {
        [app] if app != "*" => AppId::try_from(app.as_str()).ok(),
        _ => None,
    });
    let none = || Refusal::Forbidden("the push key is not for one app, and pushex.app is empty".into());
    of_key.or_else(|| pushex.app.clone()).ok_or_else(none)
}

/// What each reply shows of its request, which is the `number`th.
pub fn reply_headers(head: &ApiCall<'_>, number: u32) -> Vec<(&'static str, String)> {
    let given = head
        .headers
        .header("x-request-id")
        .filter(|id| (20..=200).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '));
    let id = given.map_or_else(|| request_id(head.now, number), str::to_owned);
    vec![("Cache-Control", "max-age=0, private, must-revalidate".to_owned()), ("X-Request-Id", id)]
}

/// An id of 20 characters: when it came, on which thread, and which of the process it is.
fn request_id(now: Duration, number: u32) -> String {
    let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    let process = std::process::id().to_be_bytes();
    let mut bytes = [0; 15];
    bytes[..8].copy_from_slice(&nanos.to_be_bytes());
    bytes[8..11].copy_from_slice(&process[1..]);
    bytes[11..].copy_from_slice(&number.to_be_bytes());
    URL_SAFE.encode(bytes)
}

/// The words of the original's framework; who may not push hears the controller's, and so does who forgot something.
pub fn refuse(why: &Refusal) -> ApiReply {
    match why {
        Refusal::CredentialsMissing | Refusal::CredentialsInvalid | Refusal::WrongApp | Refusal::Forbidden(_) => {
            ApiReply::new(403, JSON, r#"{"error":"Access forbidden"}"#)
        }
        Refusal::Coded { code: code @ 422, text, .. } => {
            ApiReply::new(*code, JSON, ["{\"error\":\"", text, "\"}"].concat())
        }
        Refusal::Coded { code, .. } => detail(*code),
        // the original has no 405
        Refusal::NotFound | Refusal::MethodNotAllowed => detail(404),
        Refusal::Unavailable { retry_after, .. } => unavailable(*retry_after),
        _ => detail(why.status()),
    }
}

/// Nothing can be queued now.
pub fn unavailable(retry_after: Duration) -> ApiReply {
    detail(503).with_header("Retry-After", retry_after.as_secs().to_string())
}

/// A status by its name.
fn detail(status: u16) -> ApiReply {
    let name = match status {
        400 => "Bad Request",
        404 => "Not Found",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        413 => "Request Entity Too Large",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    };
    ApiReply::new(status, JSON, format!(r#"{{"errors":{{"detail":"{name}"}}}}"#))
}

#[cfg(test)]
mod tests;
