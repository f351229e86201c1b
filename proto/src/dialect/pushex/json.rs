//! Reading JSON without trees: values stay the text that they were until somebody wants one. Like Elixir's maps, an object
//! holds the last of several values under one key.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer,
    de::{self, SeqAccess, Visitor},
};
use serde_json::{Error, value::RawValue};

use crate::dialect::object::each_key;

/// What an object holds under each of the keys that were asked for.
pub type Fields<'a, const N: usize> = [Option<&'a RawValue>; N];

/// What `json` holds under these keys. `None`: it is JSON, and no object.
pub fn object<'a, const N: usize>(json: &'a str, keys: [&str; N]) -> Result<Option<Fields<'a, N>>, Error> {
    if !json.trim_ascii_start().starts_with('{') {
        return serde_json::from_str::<&RawValue>(json).map(|_| None);
    }
    let mut fields = [None; N];
    each_key(json, |key, value| {
        if let Some(at) = keys.iter().position(|wanted| *wanted == key) {
            fields[at] = Some(value);
        }
    })?;
    Ok(Some(fields))
}

/// Show `each` element of the list that `json` is, until it says no more (`false`).
pub fn elements<'a>(json: &'a str, each: impl FnMut(&'a RawValue) -> bool) -> Result<(), Error> {
    struct ElementsVisitor<F>(F);
    impl<'de, F: FnMut(&'de RawValue) -> bool> Visitor<'de> for ElementsVisitor<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
            while let Some(element) = list.next_element()? {
                if !(self.0)(element) {
                    return Err(de::Error::custom("no more are wanted"));
                }
            }
            Ok(())
        }
    }
    serde_json::Deserializer::from_str(json).deserialize_seq(ElementsVisitor(each))
}

/// The string that `value` is.
pub fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    match value.get().strip_prefix('"')?.strip_suffix('"')? {
        plain if !plain.contains('\\') => Some(plain.into()),
        _ => serde_json::from_str(value.get()).ok().map(Cow::Owned),
    }
}

/// JSON without the blanks outside its strings.
pub fn compact(json: &str) -> Cow<'_, str> {
    let (mut in_string, mut is_escaped) = (false, false);
    let mut is_kept = |byte: u8| {
        if in_string {
            in_string = is_escaped || byte != b'"';
            is_escaped = !is_escaped && byte == b'\\';
            return true;
        }
        in_string = byte == b'"';
        !matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
    };
    let Some(first) = json.bytes().position(|byte| !is_kept(byte)) else { return Cow::Borrowed(json) };
    let mut kept = Vec::with_capacity(json.len());
    kept.extend_from_slice(&json.as_bytes()[..first]);
    kept.extend(json.bytes().skip(first + 1).filter(|&byte| is_kept(byte)));
    Cow::Owned(String::from_utf8(kept).expect("only blanks were left out"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_holds_the_last_of_several_values() {
        let read = |json: &'static str| {
            let fields = object(json, ["a", "b"]).map_err(drop)?;
            Ok::<_, ()>(fields.map(|fields| fields.map(|field| field.map(RawValue::get))))
        };
        assert_eq!(read(r#" {"a":1, "\u0062": [1 ,2],"a":null,"c":{}} "#), Ok(Some([Some("null"), Some("[1 ,2]")])));
        for json in ["[1]", "1", "null", "\"a\""] {
            assert_eq!(read(json), Ok(None), "{json}");
        }
        for json in ["", "{", "{\"a\":1}x", "{\"a\":01}", "[", "{\"a\"}", "{1:2}"] {
            assert_eq!(read(json), Err(()), "{json}");
        }
    }

    #[test]
    fn nesting_of_any_depth_costs_no_stack() {
        let deep = "[ ".repeat(300_000) + &"]".repeat(300_000);
        let body = format!("{{\"x\":{deep},\"a\":{deep}}}");
        let [Some(a)] = object(&body, ["a"]).unwrap().unwrap() else { panic!("it is there") };
        assert_eq!(compact(a.get()).len(), 600_000);
    }

    #[test]
    fn blanks_go_but_for_those_in_strings() {
        for (json, expected) in [
            ("{ \"a b\" :\t[1 , 2.50,\r\n\"\\\" \\\\\" ] }", "{\"a b\":[1,2.50,\"\\\" \\\\\"]}"),
            ("\"\\\\\" ", "\"\\\\\""),
            ("{\"ä\" :\"中 \"}", "{\"ä\":\"中 \"}"),
        ] {
            assert_eq!(compact(json), expected);
            assert!(matches!(compact(expected), Cow::Borrowed(_)), "{expected}");
        }
    }
}
