//! Frames of clients (pusher.md §2.2): an object with an event; its `data` is an object, or a string of one.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::dialect::pusher::json::{object, text};

/// A client's frame. Other keys are ignored, a repeated one is malformed.
#[derive(Deserialize)]
pub struct ClientFrame<'a> {
    #[serde(borrow)]
    event: &'a RawValue,
    /// The channel; only events of clients have it here.
    #[serde(borrow, default)]
    pub channel: Option<&'a RawValue>,
    /// Its payload. `null` counts as a payload: it is published like any other.
    #[serde(borrow, default, deserialize_with = "present")]
    pub data: Option<&'a RawValue>,
}

/// What `pusher:subscribe` asks for.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Wish<'a> {
    /// The channel.
    pub channel: Cow<'a, str>,
    /// The signature that allows it.
    pub auth: Option<Cow<'a, str>>,
    /// The member, in the exact text that was signed.
    pub channel_data: Option<Cow<'a, str>>,
}

/// What `pusher:signin` shows.
#[derive(Debug, Eq, PartialEq)]
pub struct SignIn<'a> {
    /// The signature.
    pub auth: Cow<'a, str>,
    /// The user, in the exact text that was signed.
    pub user_data: Cow<'a, str>,
}

/// A frame and the name of its event.
pub fn read(message: &str) -> Result<(Cow<'_, str>, ClientFrame<'_>), &'static str> {
    const WORDS: &str = "Invalid message: it must be a JSON object with the name of an event";
    let said: ClientFrame<'_> = object(message.as_bytes()).map_err(|_| WORDS)?;
    Ok((text(said.event).ok_or(WORDS)?, said))
}

/// The error for data that is no [`Wish`].
pub const NO_WISH: &str = "Invalid data: it must be a JSON object whose channel, auth and channel_data are strings";
/// The error for data that names no channel.
pub const NO_CHANNEL: &str = "Invalid data: it must be a JSON object whose channel is a string";

/// Data that is no [`Wish`].
#[derive(Debug, Eq, PartialEq)]
pub struct Unreadable {
    /// The channel, if that much can be read: then the error names it, too.
    pub channel: Option<String>,
}

/// What the data of a `pusher:subscribe` asks for.
pub fn wish<'a>(data: Option<&'a RawValue>) -> Result<Wish<'a>, Unreadable> {
    #[derive(Deserialize)]
    struct Data<'a> {
        #[serde(borrow)]
        channel: &'a RawValue,
        #[serde(borrow, default)]
        auth: Option<&'a RawValue>,
        #[serde(borrow, default)]
        channel_data: Option<&'a RawValue>,
    }
    fn read<'a>(json: &'a str) -> Option<Wish<'a>> {
        let data: Data<'a> = object(json.as_bytes()).ok()?;
        let maybe = |value: Option<&'a RawValue>| match value {
            Some(value) => text(value).map(Some),
            None => Some(None),
        };
        Some(Wish { channel: text(data.channel)?, auth: maybe(data.auth)?, channel_data: maybe(data.channel_data)? })
    }
    let wish = data.and_then(|data| match unwrapped(data)? {
        Cow::Borrowed(json) => read(json),
        Cow::Owned(json) => {
            let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
            let Wish { channel, auth, channel_data } = read(&json)?;
            Some(Wish { channel: own(channel), auth: auth.map(own), channel_data: channel_data.map(own) })
        }
    });
    wish.ok_or_else(|| Unreadable { channel: channel(data) })
}

/// What the data of a `pusher:signin` shows.
pub fn sign_in(data: Option<&RawValue>) -> Option<SignIn<'_>> {
    #[derive(Deserialize)]
    struct SignInData<'a> {
        #[serde(borrow)]
        auth: &'a RawValue,
        #[serde(borrow)]
        user_data: &'a RawValue,
    }
    fn read(json: &str) -> Option<SignIn<'_>> {
        let SignInData { auth, user_data } = object(json.as_bytes()).ok()?;
        Some(SignIn { auth: text(auth)?, user_data: text(user_data)? })
    }
    match unwrapped(data?)? {
        Cow::Borrowed(json) => read(json),
        Cow::Owned(json) => {
            let SignIn { auth, user_data } = read(&json)?;
            Some(SignIn { auth: auth.into_owned().into(), user_data: user_data.into_owned().into() })
        }
    }
}

/// The one channel that the data of a subscription names, whatever else it says.
pub fn channel(data: Option<&RawValue>) -> Option<String> {
    #[derive(Deserialize)]
    struct ChannelData<'a> {
        #[serde(borrow)]
        channel: &'a RawValue,
    }
    let json = unwrapped(data?)?;
    let data: ChannelData<'_> = object(json.as_bytes()).ok()?;
    text(data.channel).map(Cow::into_owned)
}

/// The JSON of the data: some clients encode it twice, as servers do.
fn unwrapped(data: &RawValue) -> Option<Cow<'_, str>> {
    if data.get().starts_with('"') { text(data) } else { Some(data.get().into()) }
}

/// Whatever is there, also a `null`.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(from).map(Some)
}
