//! Reading JSON without trees: values stay the text that they were until somebody wants one.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Error, value::RawValue};

/// The object that `json` is. serde would take a list of a struct's values for the struct; Pusher knows objects only.
pub fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, Error> {
    if json.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(serde::de::Error::custom("it does not begin with a brace"));
    }
    serde_json::from_slice(json)
}

/// The string that `value` is.
pub fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    let quoted = value.get();
    match quoted.strip_prefix('"')?.strip_suffix('"')? {
        plain if !plain.contains('\\') => Some(plain.into()),
        _ => serde_json::from_str(quoted).ok().map(Cow::Owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<String> {
        text(serde_json::from_str(json).unwrap()).map(Cow::into_owned)
    }

    #[test]
    fn a_string_is_read_with_and_without_escapes() {
        for (json, expected) in [
            (r#""""#, Some("")),
            (r#""ab ä""#, Some("ab ä")),
            (r#""a\"b\u00e4\\""#, Some("a\"bä\\")),
            (r#""\ud83d\ude00""#, Some("😀")),
            // half of a character is none
            (r#""\ud83d""#, None),
            ("1", None),
            ("null", None),
            (r#"["a"]"#, None),
        ] {
            assert_eq!(read(json).as_deref(), expected, "{json}");
        }
    }

    #[test]
    fn an_object_is_one_and_not_a_list_of_its_values() {
        #[derive(Debug, Deserialize)]
        struct OneField {
            a: u8,
        }
        assert_eq!(object::<OneField>(b" \n{\"a\":1, \"b\":[]} ").unwrap().a, 1);
        for json in ["[1]", "", "{", "{\"a\":1}x", "{\"a\":1,\"a\":1}", "\"a\""] {
            assert!(object::<OneField>(json.as_bytes()).is_err(), "{json}");
        }
        let deep = format!("{{\"a\":1,\"b\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
        assert!(object::<OneField>(deep.as_bytes()).is_ok());
    }
}
