//! Frames of the server, in both serializers. Keys stand in the order in which the original writes them.

use crate::{
    dialect::contract::Variant,
    event::quote,
    frame::{Frame, SharedFrame},
    notice::Notice,
};

use super::{V1, message::PhoenixReference};

/// What the server says of a channel.
pub struct TopicMessage<'a> {
    /// Which subscription it is about. V1 has no place for it.
    pub join_reference: &'a PhoenixReference,
    /// Which message of the client it answers.
    pub reference: &'a PhoenixReference,
    /// The channel.
    pub topic: &'a str,
}

impl TopicMessage<'_> {
    /// `event` with `payload`, which is JSON.
    pub fn frame(&self, variant: Variant, event: &str, payload: &str) -> Frame {
        let Self { join_reference, reference, topic } = self;
        let (join_reference, reference, topic) = (join_reference.as_json(), reference.as_json(), quote(topic));
        Frame::text(&if variant == V1 {
            format!(r#"{{"event":"{event}","payload":{payload},"ref":{reference},"topic":{topic}}}"#)
        } else {
            format!(r#"[{join_reference},{reference},{topic},"{event}",{payload}]"#)
        })
    }

    /// The reply that all is well.
    pub fn ok(&self, variant: Variant) -> Frame {
        self.frame(variant, "phx_reply", r#"{"response":{},"status":"ok"}"#)
    }

    /// The reply that it is not.
    pub fn error(&self, variant: Variant, reason: &str) -> Frame {
        let payload = format!(r#"{{"response":{{"reason":"{reason}"}},"status":"error"}}"#);
        self.frame(variant, "phx_reply", &payload)
    }
}

/// What a client did not ask for: events of channels. In V2 the head of each socket goes before what all of them share. Nothing
/// else has a frame: each belongs to a channel.
pub fn encode(variant: Variant, notice: Notice<'_>) -> Option<SharedFrame> {
    let Notice::Event { channel, event } = notice else { return None };
    let (topic, name, data) = (quote(channel.as_str()), quote(event.name.as_str()), event.data.to_json());
    Some(if variant == V1 {
        let pieces = [
            r#"{"event":"msg","payload":{"data":"#,
            &data,
            r#","event":"#,
            &name,
            r#"},"ref":null,"topic":"#,
            &topic,
            "}",
        ];
        SharedFrame::Whole(Frame::text_of(&pieces))
    } else {
        let pieces = [",null,", &topic, r#","msg",{"data":"#, &data, r#","event":"#, &name, "}]"];
        SharedFrame::Tail(pieces.concat().into())
    })
}

/// What goes before an event's tail: the subscription that `tag` names.
pub fn head(tag: &str) -> String {
    ["[", if tag.is_empty() { "null" } else { tag }].concat()
}
