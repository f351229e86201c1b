//! What a client says, in both serializers.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::{
    dialect::{
        contract::{ClientMessage, Variant},
        pushex::json::{elements, object, string},
    },
    event::quote,
    refusal::CloseCause,
};

use super::V1;

/// The longest reference, as JSON. Clients count from 1; a subscription keeps it.
const LONGEST_REFERENCE: usize = 64;

/// A message of a client. What it carries does not matter: PushEx asks for nothing.
#[derive(Debug, Eq, PartialEq)]
pub struct ChannelMessage<'a> {
    /// Which subscription it is about.
    pub join_reference: PhoenixReference,
    /// By which the client knows the answer.
    pub reference: PhoenixReference,
    /// The channel.
    pub topic: Cow<'a, str>,
    /// What is asked.
    pub event: Cow<'a, str>,
}

/// A reference that a client chose, echoed as the JSON that it was. Strings that are equal are so however they were escaped.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PhoenixReference(Option<Box<str>>);

impl PhoenixReference {
    /// None at all.
    pub const NULL: Self = Self(None);

    /// `null`, or a number, a string or a boolean that is not too long.
    fn read(value: &RawValue) -> Option<Self> {
        let json = match value.get().as_bytes().first()? {
            b'n' => return Some(Self::NULL),
            b'"' => quote(&string(value)?),
            b'[' | b'{' => return None,
            _ => value.get().to_owned(),
        };
        (json.len() <= LONGEST_REFERENCE).then(|| Self(Some(json.into())))
    }

    /// A string.
    fn of_text(text: &[u8]) -> Option<Self> {
        let json = quote(str::from_utf8(text).ok()?);
        (json.len() <= LONGEST_REFERENCE).then(|| Self(Some(json.into())))
    }

    /// It as JSON.
    pub fn as_json(&self) -> &str {
        self.0.as_deref().unwrap_or("null")
    }

    /// Is there none?
    pub fn is_null(&self) -> bool {
        self.0.is_none()
    }

    /// The other one, if this is none.
    pub fn or<'a>(&'a self, other: &'a Self) -> &'a Self {
        if self.is_null() { other } else { self }
    }

    /// Its JSON, to be kept.
    pub fn into_json(self) -> Option<Box<str>> {
        self.0
    }
}

/// Read what a client says with the serializer `variant`.
///
/// # Errors
///
/// It is no message; the original's socket crashes.
pub fn read(variant: Variant, message: &ClientMessage) -> Result<ChannelMessage<'_>, CloseCause> {
    let read = match message {
        ClientMessage::Text(text) if variant == V1 => v1(text),
        // the original decodes a binary frame of V1 like a text
        ClientMessage::Binary(bytes) if variant == V1 => str::from_utf8(bytes).ok().and_then(v1),
        ClientMessage::Text(text) => v2(text),
        ClientMessage::Binary(bytes) => v2_binary(bytes),
    };
    read.ok_or(CloseCause::InvalidMessage)
}

/// `{"topic","event","payload","ref"}`; `join_ref` may be there.
fn v1(text: &str) -> Option<ChannelMessage<'_>> {
    let [topic, event, payload, reference, join] =
        object(text, ["topic", "event", "payload", "ref", "join_ref"]).ok()??;
    payload?;
    let join_reference = join.map_or(Some(PhoenixReference::NULL), PhoenixReference::read)?;
    message(join_reference, PhoenixReference::read(reference?)?, topic?, event?)
}

/// `[join_ref, ref, topic, event, payload]`; what follows is ignored.
fn v2(text: &str) -> Option<ChannelMessage<'_>> {
    let whole: &RawValue = serde_json::from_str(text).ok()?;
    let (mut fields, mut length) = ([None; 5], 0);
    elements(whole.get(), |element| {
        if let Some(field) = fields.get_mut(length) {
            *field = Some(element);
        }
        length += 1;
        true
    })
    .ok()?;
    let [join_reference, reference, topic, event, payload] = fields;
    payload?;
    message(PhoenixReference::read(join_reference?)?, PhoenixReference::read(reference?)?, topic?, event?)
}

/// A push in binary: a zero, four lengths, then the fields and the payload.
fn v2_binary(bytes: &[u8]) -> Option<ChannelMessage<'_>> {
    let [0, join_reference, reference, topic, event, rest @ ..] = bytes else { return None };
    let mut rest = rest;
    let mut take = |length: &u8| {
        let (field, behind) = rest.split_at_checked(usize::from(*length))?;
        rest = behind;
        Some(field)
    };
    let join_reference = PhoenixReference::of_text(take(join_reference)?)?;
    let reference = PhoenixReference::of_text(take(reference)?)?;
    let topic = str::from_utf8(take(topic)?).ok()?.into();
    let event = str::from_utf8(take(event)?).ok()?.into();
    Some(ChannelMessage { join_reference, reference, topic, event })
}

fn message<'a>(
    join_reference: PhoenixReference,
    reference: PhoenixReference,
    topic: &'a RawValue,
    event: &'a RawValue,
) -> Option<ChannelMessage<'a>> {
    Some(ChannelMessage { join_reference, reference, topic: string(topic)?, event: string(event)? })
}
