//! Reading an object of JSON without a tree: its values stay the text that they were, however deep it is.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Error, value::RawValue};

/// Show each key of the object that `json` is, with its value.
///
/// # Errors
///
/// It is no object, or more than one. Keys before what is wrong were shown.
pub fn each_key<'a>(json: &'a str, show: impl FnMut(&str, &'a RawValue)) -> Result<(), Error> {
    struct KeyVisitor<F>(F);

    impl<'de, F: FnMut(&str, &'de RawValue)> Visitor<'de> for KeyVisitor<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
            while let Some(key) = map.next_key::<ObjectKey<'de>>()? {
                (self.0)(&key.0, map.next_value()?);
            }
            Ok(())
        }
    }

    let mut json = serde_json::Deserializer::from_str(json);
    json.deserialize_map(KeyVisitor(show))?;
    json.end()
}

/// A key: borrowed, unless something in it is escaped.
#[derive(serde::Deserialize)]
struct ObjectKey<'a>(#[serde(borrow)] Cow<'a, str>);
