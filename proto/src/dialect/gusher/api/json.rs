//! JSON bodies as the original read them: keys match in any case, unknown ones are ignored, a missing value is `null`
//! and `null` is the empty value of its type (gusher.md §6 and §8). Values stay the bytes that they were.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Error, value::RawValue};

/// What an object says under each of the keys that were asked for; the last of several wins.
pub type Values<'a, const N: usize> = [Option<&'a RawValue>; N];

/// The object that `body` begins with; whatever follows it is ignored, as in the original.
pub fn object<'a, const N: usize>(body: &'a [u8], keys: [&str; N]) -> Result<Values<'a, N>, Error> {
    match std::str::from_utf8(body) {
        // text that is known to be text is not checked again, value by value
        Ok(text) => Object(&keys).deserialize(&mut serde_json::Deserializer::from_str(text)),
        // what is not may still begin with an object
        Err(_) => Object(&keys).deserialize(&mut serde_json::Deserializer::from_slice(body)),
    }
}

/// What may stand after a list.
#[derive(Clone, Copy, Eq, PartialEq)]
pub enum Rest {
    /// Blanks only.
    Blank,
    /// Anything; it is not looked at.
    Ignored,
}

/// The list of objects that `body` begins with, handed to `each` one after the other.
pub fn objects<'a, const N: usize>(
    body: &'a [u8],
    rest: Rest,
    keys: [&str; N],
    each: impl FnMut(Values<'a, N>) -> Result<(), &'static str>,
) -> Result<(), Error> {
    match std::str::from_utf8(body) {
        Ok(text) => objects_in(serde_json::Deserializer::from_str(text), rest, &keys, each),
        Err(_) => objects_in(serde_json::Deserializer::from_slice(body), rest, &keys, each),
    }
}

fn objects_in<'a, const N: usize>(
    mut json: serde_json::Deserializer<impl serde_json::de::Read<'a>>,
    rest: Rest,
    keys: &[&str; N],
    each: impl FnMut(Values<'a, N>) -> Result<(), &'static str>,
) -> Result<(), Error> {
    EachElement { element: || Object(keys), each }.deserialize(&mut json)?;
    if rest == Rest::Blank { json.end() } else { Ok(()) }
}

/// The strings in the list that the whole of `text` is, handed to `each` one after the other.
pub fn strings(text: &str, each: impl FnMut(String) -> Result<(), &'static str>) -> Result<(), Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    EachElement { element: || AnyString, each }.deserialize(&mut json)?;
    json.end()
}

/// A value as a string.
pub fn string(value: Option<&RawValue>) -> Result<Cow<'_, str>, Error> {
    let Some(value) = value else { return Ok(Cow::Borrowed("")) };
    // it is one JSON value, so what begins with a quote ends with one; without escapes it stands there as it is
    match value.get().strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(text) if !text.contains('\\') => Ok(Cow::Borrowed(text)),
        _ => AnyString.deserialize(&mut serde_json::Deserializer::from_str(value.get())).map(Cow::Owned),
    }
}

/// A string, or `null` for the empty one.
struct AnyString;

impl<'de> DeserializeSeed<'de> for AnyString {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        Ok(Option::deserialize(from)?.unwrap_or_default())
    }
}

/// An object with these keys among others, or `null` for the empty one.
struct Object<'k, const N: usize>(&'k [&'k str; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for Object<'_, N> {
    type Value = Values<'de, N>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Object<'_, N> {
    type Value = Values<'de, N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok([None; N])
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = [None; N];
        while let Some(place) = map.next_key_seed(KeyPlace(self.0))? {
            match place {
                Some(place) => values[place] = Some(map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(values)
    }
}

/// Which of the keys a key is.
struct KeyPlace<'k>(&'k [&'k str]);

impl<'de> DeserializeSeed<'de> for KeyPlace<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyPlace<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|wanted| wanted.eq_ignore_ascii_case(key)))
    }
}

/// A list, or `null` for the empty one. Its elements are never held together: a body of a few MiB can hold millions.
struct EachElement<M, F> {
    element: M,
    each: F,
}

impl<'de, S, M, F> DeserializeSeed<'de> for EachElement<M, F>
where
    S: DeserializeSeed<'de>,
    M: FnMut() -> S,
    F: FnMut(S::Value) -> Result<(), &'static str>,
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de, S, M, F> Visitor<'de> for EachElement<M, F>
where
    S: DeserializeSeed<'de>,
    M: FnMut() -> S,
    F: FnMut(S::Value) -> Result<(), &'static str>,
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(value) = list.next_element_seed((self.element)())? {
            (self.each)(value).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(body: &str) -> Result<[Option<&str>; 2], String> {
        let values = object(body.as_bytes(), ["event", "data"]).map_err(|error| error.to_string())?;
        Ok(values.map(|value| value.map(RawValue::get)))
    }

    #[test]
    fn keys_match_in_any_case_and_values_stay_as_they_are() {
        assert_eq!(values(r#"{"EVENT":"e","Data":{"b": 1.0}}"#), Ok([Some("\"e\""), Some("{\"b\": 1.0}")]));
        assert_eq!(values(r#"{"event":"a","x":[[[]]],"Event":"b"}"#), Ok([Some("\"b\""), None]));
        assert_eq!(values("null"), Ok([None, None]));
        assert_eq!(values("{\"data\":null} and more"), Ok([None, Some("null")]));
        assert_eq!(values("{}{"), Ok([None, None]));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for body in ["", "[]", "1", "\"a\"", "{", "{\"event\"}", "data=x", "{\"a\":1,}", "\u{feff}{}", "true"] {
            assert!(values(body).is_err(), "{body}");
        }
        assert!(object(b"{\"event\":\"\xff\"}", ["event"]).is_err());
    }

    #[test]
    fn a_string_is_what_it_says() {
        for (text, expected) in [
            (r#""""#, Some("")),
            (r#""a 中""#, Some("a 中")),
            (r#""\"""#, Some("\"")),
            (r#""a\\""#, Some("a\\")),
            (r#""\u4e2d""#, Some("中")),
            ("null", Some("")),
            ("1", None),
            ("[\"a\"]", None),
            (r#""\ud800""#, None),
        ] {
            let value = serde_json::from_str::<&RawValue>(text).unwrap();
            assert_eq!(string(Some(value)).ok().as_deref(), expected, "{text}");
        }
        assert_eq!(string(None).unwrap(), "");
    }

    #[test]
    fn what_follows_need_not_be_text() {
        assert_eq!(object(b"{\"a\":1}\xff", ["a"]).unwrap()[0].unwrap().get(), "1");
        let mut seen = 0;
        let mut count = |_: Values<'_, 1>| {
            seen += 1;
            Ok(())
        };
        objects(b"[{\"a\":1}]\xff", Rest::Ignored, ["a"], &mut count).unwrap();
        assert!(objects(b"[{\"a\":1}]\xff", Rest::Blank, ["a"], &mut count).is_err());
        assert!(objects(b"[{\"a\":\"\xff\"}]", Rest::Ignored, ["a"], &mut count).is_err());
        assert_eq!(seen, 2);
    }

    #[test]
    fn any_depth_costs_no_stack() {
        let deep = format!("{{\"x\":{0}{1},\"data\":{0}{1}}}", "[".repeat(200_000), "]".repeat(200_000));
        assert!(values(&deep).is_ok());
        assert!(values(&"[".repeat(500_000)).is_err());
        assert!(strings(&"[".repeat(500_000), |_| Ok(())).is_err());
    }

    #[test]
    fn a_list_is_wholly_of_its_kind() {
        let list = |text: &str| {
            let mut list = Vec::new();
            strings(text, |item| {
                list.push(item);
                Ok(())
            })
            .map(|()| list)
            .map_err(drop)
        };
        assert_eq!(list(r#" ["a","\u4e2d",null] "#), Ok(vec!["a".to_owned(), "中".to_owned(), String::new()]));
        assert_eq!(list("null"), Ok(vec![]));
        for text in ["", "[1]", "[\"a\"", "[\"a\"] x", "{}", "\"a\"", "[[\"a\"]]"] {
            assert_eq!(list(text), Err(()), "{text}");
        }
        assert!(strings("[\"a\"]", |_| Err("no")).is_err());
    }
}
