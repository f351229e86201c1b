//! Frames of clients: objects with an action. What is no JSON object or array is the data of a base action, as a whole.

use serde_json::value::RawValue;

use crate::dialect::object::each_key;

/// A message of a client.
#[derive(Debug)]
pub enum ConveyorMessage<'a> {
    /// An object.
    Object(MessageFields<'a>),
    /// JSON that no action comes of.
    Nothing,
    /// Some text.
    Text,
}

/// The keys that actions know; `null` counts as missing. Of a key that is there twice the last value counts, as in PHP.
#[derive(Debug, Default)]
pub struct MessageFields<'a> {
    pub action: Option<&'a RawValue>,
    pub data: Option<&'a RawValue>,
    pub channel: Option<&'a RawValue>,
    pub auth: Option<&'a RawValue>,
    pub user: Option<&'a RawValue>,
    pub id: Option<&'a RawValue>,
}

/// The message that `text` is.
pub fn read(text: &str) -> ConveyorMessage<'_> {
    match text.trim_start().as_bytes().first() {
        Some(b'{') => {
            let mut fields = MessageFields::default();
            match each_key(text, |name, value| fields.take(name, value)) {
                Ok(()) => ConveyorMessage::Object(fields),
                Err(_) => ConveyorMessage::Text,
            }
        }
        Some(b'[') if serde_json::from_str::<&RawValue>(text).is_ok() => ConveyorMessage::Nothing,
        _ => ConveyorMessage::Text,
    }
}

impl<'a> MessageFields<'a> {
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

/// The string that `value` is.
pub fn text(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

/// The whole number that `value` is, or that a string holds.
pub fn number(value: &RawValue) -> Option<i64> {
    let written = value.get();
    if written.starts_with('"') { text(value)?.trim().parse().ok() } else { written.parse().ok() }
}
