//! The v3 API's pushes, grants, decode and sizes: JSON in and out (gusher.md §8).

use serde_json::{Error, value::RawValue};

use crate::{
    dialect::contract::{ApiCall, ApiReply, MasterRequest},
    event::quote,
    ids::SocketIdSeal,
    refusal::Refusal,
};

use super::{
    JSON,
    json::{self, Rest},
    task::{self, PushBatch, app, malformed, payload, segments},
    v1::patterns,
};

pub fn push_channel(call: &ApiCall<'_>, _: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    let [app_key, channel] = segments(call)?;
    let [event, data] = body(call, ["event", "data"])?;
    let event = json::string(event).map_err(undecodable)?;
    if event.is_empty() {
        return Err(malformed("empty event"));
    }
    task::push_channel(app(app_key)?, channel, &event, payload(data))
}

pub fn push_pattern(call: &ApiCall<'_>, _: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    let [app_key] = segments(call)?;
    let [pattern, event, data] = body(call, ["channel_pattern", "event", "data"])?;
    let (pattern, event) = (json::string(pattern).map_err(undecodable)?, json::string(event).map_err(undecodable)?);
    task::push_pattern(app(app_key)?, pattern.into_owned(), &event, || Ok(payload(data)))
}

pub fn push_batch(call: &ApiCall<'_>, _: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    let [app_key] = segments(call)?;
    let mut batch = PushBatch::new(app(app_key)?, call.body.len());
    let mut refused = None;
    json::objects(&call.body, Rest::Ignored, ["channel", "event", "data"], |[channel, event, data]| {
        let (channel, event) = (json::string(channel), json::string(event));
        let (channel, event) = (channel.map_err(|_| "channel")?, event.map_err(|_| "event")?);
        batch.add(&channel, &event, data).inspect_err(|_| refused = Some(malformed("data error")))
    })
    .map_err(|error| refused.unwrap_or_else(|| undecodable(error)))?;
    Ok(batch.task(|total| format!(r#"{{"total":{total}}}"#)))
}

pub fn push_user(call: &ApiCall<'_>, _: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    let [app_key, user] = segments(call)?;
    let [data] = body(call, ["data"])?;
    let data = payload(data);
    let echo = data.clone();
    task::push_user(app(app_key)?, user, data, move || echo.to_json().into_owned())
}

pub fn push_socket(call: &ApiCall<'_>, seal: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    let [app_key, socket] = segments(call)?;
    let [data] = body(call, ["data"])?;
    let data = payload(data);
    let echo = data.clone();
    Ok(task::push_socket(app(app_key)?, socket, data, move || echo.to_json().into_owned(), seal))
}

/// A missing list takes everything away, like an empty one.
pub fn reload(call: &ApiCall<'_>, _: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    let [app_key, user] = segments(call)?;
    let [channels] = body(call, ["channels"])?;
    let channels = patterns(channels.map_or("null", RawValue::get), BODY)?;
    let echo: Vec<_> = channels.clone();
    let echo = move || task::list(echo.iter().map(|channel| channel.as_str()));
    task::reload(app(app_key)?, user, channels, echo, |list| list)
}

pub fn grant(call: &ApiCall<'_>, _: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    let [app_key, user] = segments(call)?;
    let [channel] = body(call, ["channel"])?;
    let channel = json::string(channel).map_err(undecodable)?;
    if channel.is_empty() {
        return Err(malformed("channel empty error"));
    }
    task::grant(app(app_key)?, user, channel.into_owned())
}

pub fn decode(call: &ApiCall<'_>, _: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    let [jwt] = body(call, ["jwt"])?;
    let jwt = json::string(jwt).map_err(undecodable)?;
    if jwt.is_empty() {
        return Err(malformed("data error"));
    }
    Ok(task::decode(jwt.into_owned(), "", || ApiReply::new(400, JSON, r#"{"error":"data error"}"#)))
}

/// A user of two apps counts twice, as in the original: users of different apps are different people.
pub fn stats(_: &ApiCall<'_>, _: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    Ok(task::stats(|apps| {
        let connections: u64 = apps.values().map(|app| app.connections).sum();
        let users: usize = apps.values().map(|app| app.users.len()).sum();
        format!(r#"{{"apps":{},"connections":{connections},"users":{users}}}"#, apps.len())
    }))
}

pub fn apps(_: &ApiCall<'_>, _: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    Ok(task::stats(|apps| {
        let apps = apps.iter().map(|(name, app)| {
            let (name, connections, users) = (quote(name.as_str()), app.connections, app.users.len());
            format!(r#"{{"app":{name},"connections":{connections},"users":{users}}}"#)
        });
        format!("[{}]", apps.collect::<Vec<_>>().join(","))
    }))
}

const BODY: &str = "body decode error";

fn body<'a, const N: usize>(call: &'a ApiCall<'_>, keys: [&str; N]) -> Result<json::Values<'a, N>, Refusal> {
    json::object(&call.body, keys).map_err(undecodable)
}

fn undecodable(_: Error) -> Refusal {
    malformed(BODY)
}
