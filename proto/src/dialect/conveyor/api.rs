//! The HTTP endpoints of backends: a temporary token, and a message to a channel. Their errors come in the order of the
//! original: the token, which is in the head; whether there are channels; the channel; the message.

use bytestring::ByteString;
use serde_json::value::RawValue;

use crate::{
    command::Command,
    dialect::{
        contract::{ApiCall, ApiReply, MasterRequest, Role, Route, RouteAuth},
        object::each_key,
    },
    envelope::Envelope,
    event::{Payload, quote},
    ids::{ChannelKey, ChannelName},
    push_key::Right,
    refusal::Refusal,
};

use super::{
    handshake::token,
    protocol::{frames::message_event, message::text},
    settings::ConveyorApp,
};

const JSON: &str = "application/json";

const AUTH: usize = 0;
const MESSAGE: usize = 1;
/// Another method on one of the two paths: 404, behind the token.
const OTHER_METHOD: usize = 2;

const PATHS: [(usize, &str); 2] = [(AUTH, "/conveyor/auth"), (MESSAGE, "/conveyor/message")];
const OTHER_METHODS: [&str; 5] = ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// The routes of backends.
pub fn routes() -> impl Iterator<Item = Route> {
    let of = |method, path: &str, route_id| Route {
        role: Role::Master,
        method,
        path: path.to_owned(),
        guard: RouteAuth::Own,
        route_id,
    };
    PATHS.into_iter().flat_map(move |(route_id, path)| {
        let others = OTHER_METHODS.into_iter().map(move |method| of(method, path, OTHER_METHOD));
        [of("POST", path, route_id)].into_iter().chain(others)
    })
}

/// The right that a route needs where push keys guard it.
pub fn right(route_id: usize) -> Right {
    if route_id == AUTH { Right::Grant } else { Right::Push }
}

/// Only the server token opens the endpoints: a temporary one does not.
pub fn authenticate(app: &ConveyorApp, head: &ApiCall<'_>) -> Result<(), Refusal> {
    match token(head.query) {
        Some(token) if app.is_server_token(&token) => Ok(()),
        Some(_) => Err(Refusal::CredentialsInvalid),
        None => Err(Refusal::CredentialsMissing),
    }
}

/// What a request comes down to whose caller is known.
pub fn call(app: &ConveyorApp, call: &ApiCall<'_>) -> Result<MasterRequest, Refusal> {
    if call.route_id == OTHER_METHOD {
        return Err(Refusal::NotFound);
    }
    if !app.channels {
        return Err(bad(400, "channels_disabled", "Channels not enabled!"));
    }
    let body = EndpointBody::read(&call.body);
    if call.route_id == AUTH { auth(app, &body) } else { message(app, &body) }
}

/// A body, as far as it can be read; of a key that is there twice the last value counts, as in PHP.
#[derive(Default)]
struct EndpointBody<'a> {
    channel: Option<&'a RawValue>,
    message: Option<&'a RawValue>,
}

impl<'a> EndpointBody<'a> {
    /// Nothing, if it is no JSON object.
    fn read(json: &'a [u8]) -> Self {
        let mut body = Self::default();
        let Ok(text) = std::str::from_utf8(json) else { return body };
        let read = each_key(text, |name, value| match name {
            "channel" => body.channel = Some(value),
            "message" => body.message = Some(value),
            _ => {}
        });
        if read.is_ok() { body } else { Self::default() }
    }
}

fn auth(app: &ConveyorApp, body: &EndpointBody<'_>) -> Result<MasterRequest, Refusal> {
    let channel = match body.channel.and_then(scalar).filter(|name| !name.is_empty()) {
        Some(name) => {
            let why = |_| bad(400, "malformed", "Invalid channel!");
            Some(ChannelName::try_from(name).map_err(why)?)
        }
        None => None,
    };
    let reply = |token: String| json(200, format!(r#"{{"auth":{}}}"#, quote(&token)));
    Ok(MasterRequest::MintToken { app: app.key.clone(), channel, ttl: app.temporary_ttl, reply: Box::new(reply) })
}

fn message(app: &ConveyorApp, body: &EndpointBody<'_>) -> Result<MasterRequest, Refusal> {
    let not_found = || bad(404, "channel_not_found", "Channel not found!");
    let name = body.channel.and_then(scalar).filter(|name| !name.is_empty()).ok_or_else(not_found)?;
    let name = ChannelName::try_from(name).map_err(|_| not_found())?;
    let message = body.message.and_then(scalar).filter(|text| !is_empty_in_php(text, body.message));
    let is_valid = message.is_some();
    let publish = |text: String| {
        let event = message_event(Payload::Text(ByteString::from(text)), None);
        let command = Command::Publish { channel: name.clone(), event, except: None };
        Envelope { app: app.key.clone(), command }
    };
    let envelope = message.map(publish);
    let reply = move |found: bool| match (found, is_valid) {
        (false, _) => refuse(&bad(404, "channel_not_found", "Channel not found!")),
        (true, false) => refuse(&bad(400, "invalid_message", "Invalid message!")),
        (true, true) => json(200, r#"{"success":"Message sent successfully!"}"#),
    };
    let channel = ChannelKey { app: app.key.clone(), name };
    Ok(MasterRequest::PublishIfOccupied { channel, envelope, reply: Box::new(reply) })
}

/// A string, a number or `true`, as the original makes a string of it.
fn scalar(value: &RawValue) -> Option<String> {
    match value.get().as_bytes().first()? {
        b'"' => text(value),
        b'0'..=b'9' | b'-' => Some(value.get().to_owned()),
        b't' => Some("1".to_owned()),
        _ => None,
    }
}

/// Does PHP take it for empty? The text `"0"` and each number that is 0.
fn is_empty_in_php(text: &str, written: Option<&RawValue>) -> bool {
    let is_number = written.is_some_and(|written| !written.get().starts_with('"'));
    text.is_empty() || text == "0" || (is_number && text.parse::<f64>() == Ok(0.0))
}

fn bad(code: u16, reason: &'static str, text: &'static str) -> Refusal {
    Refusal::Coded { code, reason, text: text.into() }
}

fn json(status: u16, body: impl Into<bytes::Bytes>) -> ApiReply {
    ApiReply::new(status, JSON, body)
}

/// `{"error":…}`, but for what is not there.
pub fn refuse(why: &Refusal) -> ApiReply {
    let error = |status, text: &str| json(status, format!(r#"{{"error":{}}}"#, quote(text)));
    match why {
        Refusal::NotFound | Refusal::MethodNotAllowed => json(404, "[]"),
        Refusal::CredentialsMissing | Refusal::CredentialsInvalid | Refusal::WrongApp => error(401, "Unauthorized!"),
        Refusal::Coded { code, text, .. } => error(*code, text),
        Refusal::WrongVersion => error(426, &why.to_string()).with_header("Sec-WebSocket-Version", "13"),
        Refusal::Unavailable { retry_after, .. } => {
            error(503, &why.to_string()).with_header("Retry-After", retry_after.as_secs().max(1).to_string())
        }
        _ => error(why.status(), &why.to_string()),
    }
}
