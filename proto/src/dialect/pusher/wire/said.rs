//! What clients write (pusher.md §2.2): an object with an event; its `data` is an object, or a string of one.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::dialect::pusher::json::{object, text};

/// A client's frame. Other keys are ignored, a repeated one is malformed.
#[derive(Deserialize)]
pub struct Said<'a> {
    #[serde(borrow)]
    event: &'a RawValue,
    /// Where it is said; only events of clients have it here.
    #[serde(borrow, default)]
    pub channel: Option<&'a RawValue>,
    /// The rest of it.
    #[serde(borrow, default)]
    pub data: Option<&'a RawValue>,
}

/// What `pusher:subscribe` and `pusher:unsubscribe` ask for.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Wish<'a> {
    /// The channel.
    pub channel: Cow<'a, str>,
    /// Shows that the client may.
    pub auth: Option<Cow<'a, str>>,
    /// Says as whom, in the very text that was signed.
    pub channel_data: Option<Cow<'a, str>>,
}

/// A frame and the name of its event.
pub fn read(message: &str) -> Result<(Cow<'_, str>, Said<'_>), &'static str> {
    const WORDS: &str = "Invalid message: it must be a JSON object with the name of an event";
    let said: Said<'_> = object(message.as_bytes()).map_err(|_| WORDS)?;
    Ok((text(said.event).ok_or(WORDS)?, said))
}

/// The data of a subscription.
pub fn subscription<'a>(data: Option<&'a RawValue>) -> Result<Wish<'a>, &'static str> {
    #[derive(Deserialize)]
    struct Data<'a> {
        #[serde(borrow, default)]
        channel: Option<&'a RawValue>,
        #[serde(borrow, default)]
        auth: Option<&'a RawValue>,
        #[serde(borrow, default)]
        channel_data: Option<&'a RawValue>,
    }
    const WORDS: &str = "Invalid data: it must be a JSON object whose channel, auth and channel_data are strings";
    fn wish<'a>(json: &'a str) -> Option<Wish<'a>> {
        let data: Data<'a> = object(json.as_bytes()).ok()?;
        let maybe = |value: Option<&'a RawValue>| match value {
            Some(value) => text(value).map(Some),
            None => Some(None),
        };
        Some(Wish { channel: text(data.channel?)?, auth: maybe(data.auth)?, channel_data: maybe(data.channel_data)? })
    }
    let data = data.ok_or(WORDS)?;
    if !data.get().starts_with('"') {
        return wish(data.get()).ok_or(WORDS);
    }
    // some clients encode it twice, as servers do
    let inner = text(data).ok_or(WORDS)?;
    let Wish { channel, auth, channel_data } = wish(&inner).ok_or(WORDS)?;
    let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
    Ok(Wish { channel: own(channel), auth: auth.map(own), channel_data: channel_data.map(own) })
}
