//! Frames of clients: objects with an action. What is no JSON object or array is the data of a base action, as a whole.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// What a client said.
#[derive(Debug)]
pub enum Said<'a> {
    /// An object.
    Object(ClientWords<'a>),
    /// JSON that no action comes of.
    Nothing,
    /// Some text.
    Text,
}

/// The keys that actions know; `null` counts as missing. Of a key that is there twice the last value counts, as in PHP.
#[derive(Debug, Default)]
pub struct ClientWords<'a> {
    pub action: Option<&'a RawValue>,
    pub data: Option<&'a RawValue>,
    pub channel: Option<&'a RawValue>,
    pub auth: Option<&'a RawValue>,
    pub user: Option<&'a RawValue>,
    pub id: Option<&'a RawValue>,
}

/// What `text` says.
pub fn read(text: &str) -> Said<'_> {
    match text.trim_start().as_bytes().first() {
        Some(b'{') => {
            let mut words = ClientWords::default();
            match each_key(text, |name, value| words.take(name, value)) {
                true => Said::Object(words),
                false => Said::Text,
            }
        }
        Some(b'[') if serde_json::from_str::<&RawValue>(text).is_ok() => Said::Nothing,
        _ => Said::Text,
    }
}

impl<'a> ClientWords<'a> {
    fn take(&mut self, name: &str, value: &'a RawValue) {
        let place = match name {
            "action" => &mut self.action,
            "data" => &mut self.data,
            "channel" => &mut self.channel,
            "auth" => &mut self.auth,
            "userId" => &mut self.user,
            "id" => &mut self.id,
            _ => return,
        };
        *place = Some(value).filter(|value| value.get() != "null");
    }
}

/// Show each key of the object that `json` is, with its value. `false`, if it is none.
pub fn each_key<'a>(json: &'a str, show: impl FnMut(&str, &'a RawValue)) -> bool {
    struct KeyVisitor<F>(F);

    impl<'de, F: FnMut(&str, &'de RawValue)> Visitor<'de> for KeyVisitor<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
            while let Some(name) = map.next_key::<Name<'de>>()? {
                (self.0)(&name.0, map.next_value()?);
            }
            Ok(())
        }
    }

    let mut json = serde_json::Deserializer::from_str(json);
    json.deserialize_map(KeyVisitor(show)).is_ok() && json.end().is_ok()
}

/// The name of a key: borrowed, unless something in it is escaped.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// The string that `value` is.
pub fn text(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

/// The whole number that `value` is, or that a string holds.
pub fn number(value: &RawValue) -> Option<i64> {
    let written = value.get();
    if written.starts_with('"') { text(value)?.trim().parse().ok() } else { written.parse().ok() }
}
