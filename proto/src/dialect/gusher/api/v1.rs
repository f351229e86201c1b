//! The v1 API's pushes, grants and decode: parameters in a form or the query, bare texts for errors (gusher.md §6).

use crate::{
    channel::ChannelPattern,
    dialect::contract::{ApiCall, ApiReply, MasterRequest, text},
    event::{Payload, quote},
    ids::SocketIdSeal,
    refusal::Refusal,
};

use super::{
    form::FormParams,
    json::{self, Rest},
    task::{self, MAX_ITEMS, PushBatch, app, bad_name, malformed, segments},
};

pub fn push_channel(call: &ApiCall<'_>, _: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    let [app_key, channel, event] = segments(call).map_err(|_| malformed("empty param"))?;
    let data = FormParams::of(call).value("data");
    if data.is_empty() {
        return Err(malformed("empty data"));
    }
    task::push_channel(app(app_key)?, channel, event, Payload::sniff(data.into()))
}

pub fn push_pattern(call: &ApiCall<'_>, _: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    let [app_key] = segments(call)?;
    let params = FormParams::of(call);
    task::push_pattern(app(app_key)?, params.value("channel_pattern"), &params.value("event"), || {
        let data = params.value("data");
        if data.is_empty() { Err(malformed("empty data")) } else { Ok(Payload::sniff(data.into())) }
    })
}

pub fn push_batch(call: &ApiCall<'_>, _: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    let [app_key] = segments(call)?;
    let data = FormParams::of(call).value("batch_data");
    if data.is_empty() {
        return Err(malformed("empty batch data"));
    }
    let mut batch = PushBatch::new(app(app_key)?, data.len());
    json::objects(data.as_bytes(), Rest::Blank, ["channel", "event", "data"], |[channel, event, data]| {
        let (channel, event) = (json::string(channel), json::string(event));
        let (channel, event) = (channel.map_err(|_| "channel")?, event.map_err(|_| "event")?);
        batch.add(&channel, &event, data)
    })
    .map_err(|_| malformed("data error"))?;
    let cap = data.len();
    Ok(batch.task(move |total| format!(r#"{{"total":{total},"cap":{cap}}}"#)))
}

pub fn push_user(call: &ApiCall<'_>, _: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    let [app_key, user] = segments(call)?;
    let data = FormParams::of(call).value("data");
    task::push_user(app(app_key)?, user, Payload::sniff(data.clone().into()), move || quote(&data))
}

pub fn push_socket(call: &ApiCall<'_>, seal: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    let [app_key, socket] = segments(call)?;
    let data = FormParams::of(call).value("data");
    let payload = Payload::sniff(data.clone().into());
    Ok(task::push_socket(app(app_key)?, socket, payload, move || quote(&data), seal))
}

pub fn reload(call: &ApiCall<'_>, _: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    let [app_key, user] = segments(call)?;
    let data = FormParams::of(call).value("data");
    let channels = patterns(&data, "data unmarshal error")?;
    task::reload(app(app_key)?, user, channels, move || quote(&data), |list| quote(&list))
}

pub fn grant(call: &ApiCall<'_>, _: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    let [app_key, user] = segments(call)?;
    let channel = FormParams::of(call).value("data");
    if channel.is_empty() {
        return Err(malformed("data empty error"));
    }
    task::grant(app(app_key)?, user, channel)
}

pub fn decode(call: &ApiCall<'_>, _: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    let jwt = FormParams::of(call).value("data");
    if jwt.is_empty() {
        return Err(malformed("data error"));
    }
    Ok(task::decode(jwt, "\n", bad_token))
}

fn bad_token() -> ApiReply {
    text(400, "data error")
}

/// A JSON list of permissions; `otherwise` says that it is none.
pub fn patterns(text: &str, otherwise: &'static str) -> Result<Vec<ChannelPattern>, Refusal> {
    let mut patterns = Vec::new();
    let mut refused = None;
    let read = json::strings(text, |pattern| {
        if patterns.len() == MAX_ITEMS {
            refused = Some(malformed("too many channels"));
            return Err("too many");
        }
        patterns.push(ChannelPattern::try_from(pattern).map_err(|bad| {
            refused = Some(bad_name(bad));
            "too long"
        })?);
        Ok(())
    });
    match (read, refused) {
        (Ok(()), _) => Ok(patterns),
        (Err(_), Some(refused)) => Err(refused),
        (Err(_), None) => Err(malformed(otherwise)),
    }
}
