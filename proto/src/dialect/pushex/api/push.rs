//! `POST /api/push`: one event to several channels.

use std::collections::HashSet;

use crate::{
    command::Command,
    dialect::{
        contract::{ApiCall, ApiReply, MasterRequest},
        pushex::{PushEx, json, params::ParamValue},
    },
    envelope::Envelope,
    event::{Event, Payload, quote},
    ids::{ChannelName, EventName},
    refusal::Refusal,
};

use super::{
    JSON, app_of,
    body::{Argument, Arguments, acceptable},
};

/// Channels that a push may name: far more than backends name, few enough that a body of the shortest ones does not grow to a
/// hundred times its size in memory.
pub(super) const MOST_CHANNELS: usize = 1 << 18;

/// One of the channels that a push names.
struct Addressed {
    /// As the reply shows it.
    json: String,
    /// Nobody can be on a channel without a name, or with what is no name.
    channel: Option<ChannelName>,
}

/// What the master does for it.
pub fn push(pushex: &PushEx, call: &ApiCall<'_>) -> Result<MasterRequest, Refusal> {
    let arguments = Arguments::of(call)?;
    acceptable(call.headers)?;
    let app = app_of(pushex, call)?;
    let [channel, data, event] = arguments.get();
    let (channel, data, event) = channel.zip(data).zip(event).map(|((c, d), e)| (c, d, e)).ok_or_else(invalid)?;
    let event: EventName = text(&event)?.as_str().try_into().map_err(|_| invalid())?;
    let data = match data {
        Argument::Json(json) => json::compact(json.get()).into_owned(),
        // everything in a form is text
        Argument::Form(param) => param.to_json().ok_or_else(invalid)?,
    };
    let channels = channels(&channel)?;

    let head: Vec<_> = channels.iter().map(|addressed| addressed.json.as_str()).collect();
    let head = format!(r#"{{"channel":[{}],"data":"#, head.join(","));
    let event = Event::new(event, Payload::Json(data.into()));
    let names = channels.into_iter().filter_map(|addressed| addressed.channel);
    let envelope = |channel| {
        let command = Command::Publish { channel, event: event.clone(), except: None };
        Envelope { app: app.clone(), command }
    };
    let envelopes = names.map(envelope).collect();
    Ok(MasterRequest::publish(envelopes, move || {
        let (data, name) = (event.data.to_json(), quote(event.name.as_str()));
        ApiReply::new(200, JSON, [&*head, &*data, r#","event":"#, &*name, "}"].concat())
    }))
}

/// The one refusal for all that may be wrong with arguments.
fn invalid() -> Refusal {
    let text = "Invalid push arguments: channel, data, event are required.".into();
    Refusal::Coded { code: 422, reason: "invalid_arguments", text }
}

/// An argument that must be a string.
fn text(argument: &Argument<'_>) -> Result<String, Refusal> {
    match argument {
        Argument::Json(json) if json.get().starts_with('"') => {
            json::string(json).map(Into::into).ok_or_else(|| Refusal::Malformed("a string has half a character".into()))
        }
        Argument::Form(ParamValue::Text(text)) => Ok(text.clone()),
        _ => Err(invalid()),
    }
}

/// The channels, each once, in the order in which they come.
fn channels(argument: &Argument<'_>) -> Result<Vec<Addressed>, Refusal> {
    let mut channels = AddressedChannels::default();
    match argument {
        Argument::Json(json) if json.get().starts_with('[') => {
            let mut result = Ok(());
            let read = json::elements(json.get(), |element| {
                result = if element.get().starts_with('"') {
                    text(&Argument::Json(element)).and_then(|name| channels.name(&name))
                } else {
                    channels.other(json::compact(element.get()).into_owned())
                };
                result.is_ok()
            });
            result?;
            read.map_err(|_| invalid())?;
        }
        Argument::Form(ParamValue::List(values)) => {
            for value in values {
                match value {
                    ParamValue::Text(name) => channels.name(name)?,
                    value => channels.other(value.to_json().ok_or_else(invalid)?)?,
                }
            }
        }
        argument => channels.name(&text(argument)?)?,
    }
    Ok(channels.all)
}

#[derive(Default)]
struct AddressedChannels {
    seen: HashSet<String>,
    all: Vec<Addressed>,
}

impl AddressedChannels {
    fn name(&mut self, name: &str) -> Result<(), Refusal> {
        let channel = ChannelName::try_from(name).map_err(|_| invalid())?;
        self.add(quote(name), (!name.is_empty()).then_some(channel))
    }

    /// What is no string is shown, and nothing is pushed for it.
    fn other(&mut self, json: String) -> Result<(), Refusal> {
        self.add(json, None)
    }

    fn add(&mut self, json: String, channel: Option<ChannelName>) -> Result<(), Refusal> {
        if self.seen.contains(&json) {
            return Ok(());
        }
        if self.all.len() == MOST_CHANNELS {
            return Err(Refusal::TooLarge { what: "the channels of a push", limit: MOST_CHANNELS as u64 });
        }
        self.seen.insert(json.clone());
        self.all.push(Addressed { json, channel });
        Ok(())
    }
}
