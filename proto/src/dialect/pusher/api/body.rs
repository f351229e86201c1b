//! JSON bodies: objects whose unknown fields are ignored, and lists that are not read to their end if that is far.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{dialect::pusher::json, refusal::Refusal};

use super::bad;

/// The object that `json` is.
pub fn object<'a, T: Deserialize<'a>>(json: &'a [u8], what: &str) -> Result<T, Refusal> {
    json::object(json).map_err(|why| bad(format!("{what} must be a JSON object: {why}")))
}

/// The string in a field, if it is there.
pub fn field<'a>(name: &str, value: Option<&'a RawValue>) -> Result<Option<Cow<'a, str>>, Refusal> {
    value.map(|value| json::text(value).ok_or_else(|| bad(format!("{name} must be a string")))).transpose()
}

/// The list that `value` is, if it has at most `most` elements; `None` if it has more.
pub fn list<'a, T: Deserialize<'a>>(value: &'a RawValue, most: usize) -> Result<Option<Vec<T>>, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(value.get());
    match (BoundedList { most, item: PhantomData }).deserialize(&mut json) {
        Ok(items) => Ok(Some(items)),
        Err(why) if why.to_string().starts_with(TOO_MANY) => Ok(None),
        Err(why) => Err(why),
    }
}

const TOO_MANY: &str = "too many elements";

struct BoundedList<T> {
    most: usize,
    item: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for BoundedList<T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Vec<T>, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for BoundedList<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            if items.len() == self.most {
                return Err(serde::de::Error::custom(TOO_MANY));
            }
            items.push(item);
        }
        Ok(items)
    }
}
