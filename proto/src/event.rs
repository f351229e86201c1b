//! The named payload that is pushed; carried as the publisher wrote it and never parsed.

use std::borrow::Cow;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ids::{EventName, SocketId, UserId};

/// A published payload: valid JSON, or text that is not JSON. Its bytes arrive as the publisher wrote them (numbers,
/// key order, escapes).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Payload {
    /// One JSON value, without blanks around it.
    Json(ByteString),
    /// Text, which each dialect delivers its own way.
    Text(ByteString),
    /// None at all. Only a client's event can have none; a dialect whose events always carry something shows `null`.
    Absent,
}

impl Payload {
    /// `text` as JSON if the whole of it is one JSON value (blanks around it allowed), else as text.
    #[must_use]
    pub fn sniff(text: ByteString) -> Self {
        match json(&text) {
            Some(json) => Self::Json(text.slice_ref(json)),
            None => Self::Text(text),
        }
    }

    /// A JSON value that was already checked.
    #[must_use]
    pub fn from_raw(raw: &RawValue) -> Self {
        Self::Json(ByteString::from(raw.get()))
    }

    /// The JSON `null`.
    #[must_use]
    pub fn null() -> Self {
        Self::Json(ByteString::from_static("null"))
    }

    /// The payload as JSON text: itself, text that is wholly JSON as that JSON, any other text as a JSON string, and
    /// `null` where there is none.
    #[must_use]
    pub fn to_json(&self) -> Cow<'_, str> {
        match self {
            Self::Json(json) => Cow::Borrowed(json),
            Self::Text(text) => json(text).map_or_else(|| Cow::Owned(quote(text)), Cow::Borrowed),
            Self::Absent => Cow::Borrowed("null"),
        }
    }

    /// Its length in bytes, as published.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Json(text) | Self::Text(text) => text.len(),
            Self::Absent => 0,
        }
    }

    /// Is it the empty text, or none at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// `text` as a JSON string.
#[must_use]
pub fn quote(text: &str) -> String {
    ["\"", &escaped(text), "\""].concat()
}

/// `text` as it stands between the quotes of a JSON string. Most names and texts stand there as they are.
#[must_use]
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        return Cow::Borrowed(text);
    }
    let mut quoted = serde_json::to_string(text).expect("a string is always JSON");
    quoted.pop();
    quoted.remove(0);
    Cow::Owned(quoted)
}

/// The one JSON value that `text` is, without the blanks around it.
fn json(text: &str) -> Option<&str> {
    serde_json::from_str::<&RawValue>(text).ok().map(RawValue::get)
}

/// A named payload on its way to subscribers.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Event {
    /// Its name.
    pub name: EventName,
    /// Its payload.
    pub data: Payload,
    /// The client that sent it; `None` for an event of a backend.
    pub sender: Option<Sender>,
}

/// A client that published an event.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Sender {
    /// A socket on a channel without members.
    Socket,
    /// A member of a presence channel.
    Member(UserId),
    /// A socket whose number the receivers of its own dialect are shown. For all others the event is like a backend's.
    Numbered(SocketId),
}

impl Event {
    /// An event of a backend.
    #[must_use]
    pub fn new(name: EventName, data: Payload) -> Self {
        Self { name, data, sender: None }
    }

    /// The event as one value, for those who get payloads without names: `{"event":…,"data":…}`.
    #[must_use]
    pub fn to_payload(&self) -> Payload {
        let (name, data) = (quote(self.name.as_str()), self.data.to_json());
        Payload::Json(["{\"event\":", &name, ",\"data\":", &data, "}"].concat().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_as_it_was_written_and_the_rest_is_text() {
        for (text, expected) in [
            (
                r#"{"b":1.0,"a":12345678901234567890,"a":"\u003c"}"#,
                r#"{"b":1.0,"a":12345678901234567890,"a":"\u003c"}"#,
            ),
            (" 123\n", "123"),
            ("null", "null"),
            ("\"s\"", "\"s\""),
            ("hello", "\"hello\""),
            ("{broken", "\"{broken\""),
            ("1 2", "\"1 2\""),
            ("", "\"\""),
        ] {
            let payload = Payload::sniff(text.into());
            assert_eq!(payload.to_json(), expected, "{text:?}");
            assert_eq!(Payload::Text(text.into()).to_json(), expected, "{text:?} as text");
        }
    }

    #[test]
    fn every_character_is_quoted_as_json_wants_it() {
        let all: String = ('\0'..'\u{800}').chain(['\u{2028}', '\u{ffff}', '😀']).collect();
        for text in all.chars().map(String::from).chain([all.clone(), String::new()]) {
            assert_eq!(quote(&text), serde_json::to_string(&text).unwrap());
            assert_eq!(serde_json::from_str::<String>(&quote(&text)).unwrap(), text);
        }
    }

    #[test]
    fn an_event_as_one_value_is_json_whatever_it_is() {
        for (data, expected) in [
            (Payload::Json(r#"{"b":1.0}"#.into()), r#"{"event":"a\"b","data":{"b":1.0}}"#),
            (Payload::Text("1".into()), r#"{"event":"a\"b","data":1}"#),
            (Payload::Text("hello".into()), r#"{"event":"a\"b","data":"hello"}"#),
            (Payload::Absent, r#"{"event":"a\"b","data":null}"#),
        ] {
            let event = Event::new("a\"b".parse().unwrap(), data);
            assert_eq!(event.to_payload(), Payload::Json(expected.into()));
        }
    }

    #[test]
    fn nesting_of_any_depth_costs_no_stack() {
        let deep = "[".repeat(500_000) + &"]".repeat(500_000);
        assert_eq!(Payload::sniff(deep.clone().into()), Payload::Json(deep.into()));
    }
}
