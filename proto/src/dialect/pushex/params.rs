//! Parameters of a query string or a form, as Plug reads them: `a[]=1&a[]=2` is a list, `a[k]=v` a map, and the last of
//! several values stands. Everything stays text. How deep they nest and how many there are is bounded.

use std::{borrow::Cow, collections::BTreeMap};

use percent_encoding::percent_decode_str;

use crate::{event::quote, refusal::Refusal};

/// Parameters that are read at most: some hundred bytes each, in memory.
const MOST: usize = 1 << 16;

/// Brackets of one name.
const DEEPEST: usize = 32;

/// Brackets of all names: each may become a map, of which an empty one has some hundred bytes as well.
const MOST_BRACKETS: usize = MOST;

/// The value of a parameter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ParamValue {
    /// Text.
    Text(String),
    /// Values of names that end with `[]`.
    List(Vec<ParamValue>),
    /// Values of names with brackets, by what stands in them.
    Map(BTreeMap<String, ParamValue>),
    /// A file of a form; what is in it is not kept.
    File,
}

/// Parameters by name.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Params(BTreeMap<String, ParamValue>);

impl Params {
    /// Those in a query string or an urlencoded body.
    ///
    /// # Errors
    ///
    /// A bad escape, text that is not UTF-8, or too many or too deep brackets.
    pub fn of(encoded: &str) -> Result<Self, Refusal> {
        let pairs = encoded.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((unescape(name)?, ParamValue::Text(unescape(value)?.into_owned())))
        });
        Self::of_pairs(pairs)
    }

    /// Those of these names and values, in their order.
    ///
    /// # Errors
    ///
    /// That of a pair, or too many or too deep brackets.
    pub fn of_pairs<'a>(
        pairs: impl Iterator<Item = Result<(Cow<'a, str>, ParamValue), Refusal>>,
    ) -> Result<Self, Refusal> {
        let mut all = Vec::new();
        for pair in pairs {
            if all.len() == MOST {
                return Err(Refusal::TooLarge { what: "the number of parameters", limit: MOST as u64 });
            }
            all.push(pair?);
        }
        let (mut params, mut brackets) = (BTreeMap::new(), 0);
        // from the end, where the first that is met stands: an earlier one of another shape is dropped
        for (name, value) in all.into_iter().rev() {
            let segments = segments(&name);
            if segments.len() > DEEPEST {
                return Err(Refusal::Malformed("parameters nest too deeply".into()));
            }
            brackets += segments.len() - 1;
            if brackets > MOST_BRACKETS {
                return Err(Refusal::TooLarge { what: "the brackets of parameters", limit: MOST_BRACKETS as u64 });
            }
            assign(&mut params, &segments, value);
        }
        params.values_mut().for_each(put_in_order);
        Ok(Self(params))
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&ParamValue> {
        self.0.get(name)
    }

    /// The same if it is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            ParamValue::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl ParamValue {
    /// It as JSON. `None`: there is a file in it.
    pub fn to_json(&self) -> Option<String> {
        let mut json = String::new();
        self.write(&mut json).then_some(json)
    }

    fn write(&self, to: &mut String) -> bool {
        match self {
            Self::Text(text) => to.push_str(&quote(text)),
            Self::List(values) => {
                for (at, value) in values.iter().enumerate() {
                    to.push(if at == 0 { '[' } else { ',' });
                    if !value.write(to) {
                        return false;
                    }
                }
                to.push_str(if values.is_empty() { "[]" } else { "]" });
            }
            Self::Map(values) => {
                for (at, (name, value)) in values.iter().enumerate() {
                    to.push(if at == 0 { '{' } else { ',' });
                    to.extend([quote(name).as_str(), ":"]);
                    if !value.write(to) {
                        return false;
                    }
                }
                to.push_str(if values.is_empty() { "{}" } else { "}" });
            }
            Self::File => return false,
        }
        true
    }
}

/// `a[b][]` is `a`, `b` and the empty one. What is deeper than allowed is not read to its end.
fn segments(name: &str) -> Vec<&str> {
    let Some(inner) = name.strip_suffix(']') else { return vec![name] };
    match inner.split_once('[') {
        Some((first, rest)) => std::iter::once(first).chain(rest.split("][")).take(DEEPEST + 1).collect(),
        None => vec![inner],
    }
}

fn assign(params: &mut BTreeMap<String, ParamValue>, segments: &[&str], value: ParamValue) {
    let [name, rest @ ..] = segments else { return };
    let name = (*name).to_owned();
    match rest {
        [] => {
            params.entry(name).or_insert(value);
        }
        ["", rest @ ..] => {
            if let ParamValue::List(values) = params.entry(name).or_insert_with(|| ParamValue::List(Vec::new())) {
                values.push(if rest.is_empty() { value } else { nested(rest, value) });
            }
        }
        rest => {
            if let ParamValue::Map(values) = params.entry(name).or_insert_with(|| ParamValue::Map(BTreeMap::new())) {
                assign(values, rest, value);
            }
        }
    }
}

fn nested(segments: &[&str], value: ParamValue) -> ParamValue {
    let mut values = BTreeMap::new();
    assign(&mut values, segments, value);
    ParamValue::Map(values)
}

/// Lists were filled from the end.
fn put_in_order(param: &mut ParamValue) {
    match param {
        ParamValue::List(values) => {
            values.reverse();
            values.iter_mut().for_each(put_in_order);
        }
        ParamValue::Map(values) => values.values_mut().for_each(put_in_order),
        ParamValue::Text(_) | ParamValue::File => {}
    }
}

/// `+` is a blank and `%41` an A.
fn unescape(text: &str) -> Result<Cow<'_, str>, Refusal> {
    let bytes = text.as_bytes();
    if !bytes.iter().any(|byte| matches!(byte, b'+' | b'%')) {
        return Ok(text.into());
    }
    let is_escape = |at: usize| bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    if bytes.iter().enumerate().any(|(at, &byte)| byte == b'%' && !is_escape(at)) {
        return Err(Refusal::Malformed("a parameter has a bad escape".into()));
    }
    let plain = text.replace('+', " ");
    let plain = percent_decode_str(&plain).decode_utf8().map(Cow::into_owned);
    plain.map(Cow::Owned).map_err(|_| Refusal::Malformed("a parameter is not UTF-8".into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(encoded: &str) -> String {
        match Params::of(encoded) {
            Ok(Params(params)) => ParamValue::Map(params).to_json().unwrap(),
            Err(why) => why.status().to_string(),
        }
    }

    #[test]
    fn brackets_make_lists_and_maps_as_plug_makes_them() {
        for (encoded, expected) in [
            ("", "{}"),
            ("a=1&a=2", r#"{"a":"2"}"#),
            ("a", r#"{"a":""}"#),
            ("a=b=c&&", r#"{"a":"b=c"}"#),
            ("a[]=1&a[]=2", r#"{"a":["1","2"]}"#),
            ("a%5B%5D=1&a[]=%31+1", r#"{"a":["1","1 1"]}"#),
            ("a[k]=v&a[b][c]=w&a[k]=x", r#"{"a":{"b":{"c":"w"},"k":"x"}}"#),
            ("a[k][]=1&a[k][]=2", r#"{"a":{"k":["1","2"]}}"#),
            ("a[][k]=1&a[][k]=2", r#"{"a":[{"k":"1"},{"k":"2"}]}"#),
            // of two shapes the later one stands
            ("a=1&a[k]=2", r#"{"a":{"k":"2"}}"#),
            ("a[k]=2&a=1", r#"{"a":"1"}"#),
            ("a[]=2&a[k]=1", r#"{"a":{"k":"1"}}"#),
            ("a]=1", r#"{"a":"1"}"#),
            ("a[=1", r#"{"a[":"1"}"#),
            ("a%00=%E4%B8%AD", "{\"a\\u0000\":\"中\"}"),
        ] {
            assert_eq!(shown(encoded), expected, "{encoded}");
        }
    }

    #[test]
    fn what_cannot_be_read_or_is_too_much_is_refused() {
        for bad in ["a=%", "a=%2", "a=%zz", "%ff=1", "a=%ff", "a=%C0%80"] {
            assert_eq!(shown(bad), "400", "{bad}");
        }
        assert_eq!(shown(&format!("a{}=1", "[k]".repeat(31))).len(), r#"{"a":"1"}"#.len() + 31 * r#"{"k":}"#.len());
        assert_eq!(shown(&format!("a{}=1", "[k]".repeat(32))), "400");
        assert_eq!(shown(&format!("a{}=1", "[]".repeat(5_000))), "400");
        assert_eq!(shown(&"a[]&".repeat(MOST)).len(), r#"{"a":[]}"#.len() + 3 * MOST - 1);
        assert_eq!(shown(&"a[]&".repeat(MOST + 1)), "413");
        let nested = |names: usize| (0..names).map(|no| format!("a[{no}]{}&", "[k]".repeat(30))).collect::<String>();
        assert_ne!(shown(&nested(MOST_BRACKETS / 31)), "413");
        assert_eq!(shown(&nested(MOST_BRACKETS / 31 + 1)), "413");
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_json(encoded in r"[ab=&%0-9\[\]+]{0,60}") {
            if let Ok(Params(params)) = Params::of(&encoded) {
                let json = ParamValue::Map(params).to_json().unwrap();
                prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{}", json);
            }
        }
    }
}
