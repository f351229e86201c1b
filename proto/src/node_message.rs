//! What nodes send each other. Versioned, since nodes of two releases meet during a rolling restart; signed, and checked
//! when it is read, since whoever reaches the bus could write to it.

mod signature;
mod v3;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use self::signature::MessageKey;
use crate::{
    command::PublishMatching,
    coordination::CoordinationMessage,
    envelope::Envelope,
    fingerprint::Fingerprint,
    ids::NodeId,
    member::MemberAnnouncement,
    membership::Heartbeat,
    node_request::{NodeRequest, NodeResponse},
    query::{Query, QueryResult},
};

/// One message between nodes, with what its receiver must know of its sender.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct NodeMessage {
    /// Tells two messages apart, whoever sent them. Its sender stands above the 43rd bit; below it they are numbered in the
    /// order in which the sender hands them to the bus.
    pub id: u64,
    /// Over which of the sender's connections it travels. What comes over one has no holes.
    pub session: u32,
    /// What it says.
    pub body: Body,
}

/// What nodes say.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum Body {
    /// To slaves: carry this out.
    Command(Envelope),
    /// To slaves: deliver this on the channels that match, and tell that node which did.
    PublishMatching {
        /// Stands in the answer, which is a [`Body::Result`].
        id: u64,
        /// Who asks.
        from: NodeId,
        /// What is delivered.
        push: PublishMatching,
    },
    /// To slaves with members of the channel: they have changed.
    Announcement(MemberAnnouncement),
    /// To slaves: answer this, to that node.
    Query {
        /// Stands in the answer.
        id: u64,
        /// Who asks.
        from: NodeId,
        /// What.
        query: Query,
    },
    /// To who asked.
    Result {
        /// The number of the question.
        id: u64,
        /// Who answers.
        from: NodeId,
        /// What it holds.
        result: QueryResult,
    },
    /// To one slave: answer this, to that node.
    Request {
        /// Stands in the answer.
        id: u64,
        /// Who asks.
        from: NodeId,
        /// What.
        request: NodeRequest,
    },
    /// To who asked.
    Response {
        /// The number of the question.
        id: u64,
        /// Who answers.
        from: NodeId,
        /// The answer.
        response: NodeResponse,
    },
    /// To everybody: "I am here".
    Heartbeat(Heartbeat),
    /// To everybody: "I am here, and who else is?"
    Hello(Heartbeat),
    /// To everybody: "I go", with the incarnation that goes.
    Goodbye(NodeId, u64),
    /// To a node whose settings differ: "these are mine", each by its name with a fingerprint.
    Settings {
        /// Whose.
        from: NodeId,
        /// All that nodes must share.
        settings: Vec<(String, Fingerprint)>,
    },
    /// To a coordinator or its standby.
    Reports {
        /// Who reports.
        from: NodeId,
        /// What.
        reports: Vec<CoordinationMessage>,
    },
    /// "What have you pushed behind that message of yours? It may have passed me by."
    AskPushed {
        /// Stands in the answer.
        no: u64,
        /// Who asks.
        from: NodeId,
        /// The message.
        after: u64,
    },
    /// To who asked.
    Pushed {
        /// The number of the question.
        no: u64,
        /// Who answers.
        from: NodeId,
        /// The messages that were not refused, each with where it went. `None`: that is too long ago.
        messages: Option<Vec<(PushedTo, u64)>>,
    },
    /// A part of a message that is too large to travel whole. The fragments travel in order.
    Fragment {
        /// Tells the messages apart that travel in fragments.
        of: u64,
        /// Which fragment, from 0.
        index: u32,
        /// How many there are.
        count: u32,
        /// What it holds of the message.
        bytes: Bytes,
    },
}

/// Where a message went, as far as its receivers must know.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum PushedTo {
    /// To everybody, or to who asks.
    All,
    /// To the nodes that listen to this slot of channels.
    Slot(u16),
    /// To the nodes that listen to this slot of users.
    UserSlot(u16),
}

/// How a message is written. The number is its first byte.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum MessageFormat {
    /// Of the previous release: not signed.
    V3 = 3,
    /// Of this release: the version, the message in postcard's format, and a signature of both.
    V4 = 4,
}

/// Bytes that are no message of ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadMessage {
    /// From a release that writes another format.
    #[error(
        "message of version {0}, this node reads versions {previous} and {current}",
        previous = MessageFormat::V3 as u8,
        current = MessageFormat::V4 as u8
    )]
    Version(u8),
    /// Not signed by a node with this cluster's secret, or changed since.
    #[error("message without a valid signature")]
    Signature,
    /// Cut short, too long, or holding a name that breaks its rule.
    #[error("malformed message")]
    Malformed,
}

impl MessageFormat {
    /// The format that `message` says it has.
    #[must_use]
    pub fn of(message: &[u8]) -> Option<Self> {
        [Self::V3, Self::V4].into_iter().find(|format| message.first() == Some(&(*format as u8)))
    }

    /// What a fragment takes beside its bytes, at most.
    fn fragment_overhead(self) -> usize {
        match self {
            Self::V3 => 64,
            Self::V4 => 64 + MessageKey::SIGNATURE,
        }
    }
}

impl NodeMessage {
    /// What this release writes, unless a node of the previous one is to read it.
    pub const VERSION: u8 = MessageFormat::V4 as u8;

    /// The message as bytes, signed with `key` if the format has a signature.
    #[must_use]
    pub fn encode(&self, format: MessageFormat, key: &MessageKey) -> Bytes {
        let mut bytes = self.written(format);
        format.finish(&mut bytes, key);
        bytes.into()
    }

    /// The message as bytes of at most `most` each, to be sent in this order; one of them if that is enough.
    #[must_use]
    pub fn encode_within(&self, format: MessageFormat, key: &MessageKey, most: Option<usize>) -> Vec<Bytes> {
        let mut whole = self.written(format);
        let signature = if format == MessageFormat::V4 { MessageKey::SIGNATURE } else { 0 };
        let Some(most) = most.filter(|&most| whole.len() + signature > most) else {
            format.finish(&mut whole, key);
            return vec![whole.into()];
        };
        let whole = Bytes::from(whole);
        let size = most.saturating_sub(format.fragment_overhead()).max(1);
        let count = whole.len().div_ceil(size) as u32;
        let fragment = |index: u32| {
            let from = index as usize * size;
            let bytes = whole.slice(from..whole.len().min(from + size));
            let body = Body::Fragment { of: self.id, index, count, bytes };
            Self { id: self.id, session: self.session, body }.encode(format, key)
        };
        (0..count).map(fragment).collect()
    }

    /// Version and message, without a signature. This is what fragments hold parts of: each of them is signed.
    fn written(&self, format: MessageFormat) -> Vec<u8> {
        match format {
            MessageFormat::V3 => v3::encode(self.clone()),
            MessageFormat::V4 => {
                postcard::to_extend(self, vec![Self::VERSION]).expect("names and payloads always encode")
            }
        }
    }

    /// The message that `bytes` hold, its signature verified, every name checked; and its format.
    ///
    /// # Errors
    ///
    /// Another version, a signature of something else or by another key, anything that does not parse, and anything after
    /// the end.
    pub fn decode(bytes: &[u8], key: &MessageKey) -> Result<(Self, MessageFormat), BadMessage> {
        let (&version, rest) = bytes.split_first().ok_or(BadMessage::Malformed)?;
        let format = MessageFormat::of(bytes).ok_or(BadMessage::Version(version))?;
        let message = match format {
            MessageFormat::V3 => v3::decode(rest)?,
            MessageFormat::V4 => Self::parsed(key.verify(bytes).ok_or(BadMessage::Signature)?)?,
        };
        Ok((message, format))
    }

    /// The message that fragments of this format hold together. Each of them was verified.
    ///
    /// # Errors
    ///
    /// As [`NodeMessage::decode`]; and fragments in fragments.
    pub fn defragment(whole: &[u8], format: MessageFormat) -> Result<Self, BadMessage> {
        if MessageFormat::of(whole) != Some(format) {
            return Err(BadMessage::Malformed);
        }
        let message = match format {
            MessageFormat::V3 => v3::decode(&whole[1..])?,
            MessageFormat::V4 => Self::parsed(whole)?,
        };
        match message.body {
            Body::Fragment { .. } => Err(BadMessage::Malformed),
            _ => Ok(message),
        }
    }

    /// The heartbeat, or hello, that `bytes` hold, whoever signed it: a node with another secret says so in it. Not to be
    /// believed in anything else.
    #[must_use]
    pub fn unverified_heartbeat(bytes: &[u8]) -> Option<Self> {
        /// More than a heartbeat ever has.
        const MOST: usize = 128;
        if bytes.len() > MOST || MessageFormat::of(bytes) != Some(MessageFormat::V4) {
            return None;
        }
        let message = Self::parsed(bytes.get(..bytes.len() - MessageKey::SIGNATURE.min(bytes.len()))?).ok()?;
        matches!(message.body, Body::Heartbeat(_) | Body::Hello(_)).then_some(message)
    }

    /// Behind the version.
    fn parsed(message: &[u8]) -> Result<Self, BadMessage> {
        match message.get(1..).map(postcard::take_from_bytes) {
            Some(Ok((message, []))) => Ok(message),
            _ => Err(BadMessage::Malformed),
        }
    }
}

impl MessageFormat {
    /// Sign what was written, if the format has a signature.
    fn finish(self, written: &mut Vec<u8>, key: &MessageKey) {
        if self == Self::V4 {
            key.sign(written);
        }
    }
}

#[cfg(test)]
mod golden;

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::{
        command::{Command, Target},
        event::{Event, Payload},
        ids::SocketId,
    };

    const FORMATS: [MessageFormat; 2] = [MessageFormat::V3, MessageFormat::V4];

    fn key() -> MessageKey {
        MessageKey::new(b"secret")
    }

    fn order(app: &str, command: Command) -> NodeMessage {
        NodeMessage { id: 7, session: 3, body: Body::Command(Envelope { app: app.parse().unwrap(), command }) }
    }

    fn payload() -> impl Strategy<Value = Payload> {
        prop_oneof![
            any::<String>().prop_map(|text| Payload::Text(text.into())),
            any::<f64>().prop_map(|number| Payload::Json(number.to_string().into())),
            Just(Payload::Absent),
        ]
    }

    fn socket() -> impl Strategy<Value = SocketId> {
        (any::<u32>(), any::<u32>()).prop_map(|(node, counter)| SocketId::new(NodeId::from_random(node), counter))
    }

    fn command() -> impl Strategy<Value = Command> {
        let name = "\\PC{0,40}";
        prop_oneof![
            (name, name, payload(), option::of(socket())).prop_map(|(channel, event, data, except)| {
                let event = Event::new(event.parse().unwrap(), data);
                Command::Publish { channel: channel.parse().unwrap(), event, except }
            }),
            (name, payload())
                .prop_map(|(user, data)| Command::Direct { to: Target::User(user.parse().unwrap()), data }),
            (socket(), payload()).prop_map(|(socket, data)| Command::Direct { to: Target::Socket(socket), data }),
            (name, vec(name, 0..5), vec(name, 0..5)).prop_map(|(user, within, channels)| {
                let patterns = |names: Vec<String>| names.into_iter().map(|name| name.try_into().unwrap()).collect();
                Command::Reload { user: user.parse().unwrap(), within: patterns(within), channels: patterns(channels) }
            }),
            (name, name).prop_map(|(user, channel)| Command::Grant {
                user: user.parse().unwrap(),
                channel: channel.try_into().unwrap(),
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(app in "\\PC{1,40}", command in command()) {
            let message = order(&app, command);
            for format in FORMATS {
                let read = NodeMessage::decode(&message.encode(format, &key()), &key());
                prop_assert_eq!(read, Ok((message.clone(), format)));
            }
        }

        #[test]
        fn what_is_cut_or_longer_is_refused(command in command(), cut in any::<prop::sample::Index>()) {
            for format in FORMATS {
                let bytes = order("a", command.clone()).encode(format, &key());
                prop_assert!(NodeMessage::decode(&bytes[..cut.index(bytes.len())], &key()).is_err());
                prop_assert!(NodeMessage::decode(&[&bytes[..], b"x"].concat(), &key()).is_err());
            }
        }

        #[test]
        fn a_signed_message_of_which_a_bit_was_turned_is_refused(
            command in command(), at in any::<prop::sample::Index>(), bit in 0..8u8,
        ) {
            let bytes = order("a", command).encode(MessageFormat::V4, &key());
            let mut turned = bytes.to_vec();
            turned[at.index(bytes.len())] ^= 1u8 << bit;
            // with another version it is another matter, and none that this node would take for the same message
            if turned[0] == bytes[0] {
                prop_assert_eq!(NodeMessage::decode(&turned, &key()), Err(BadMessage::Signature));
            }
            let other = MessageKey::new(b"another secret");
            prop_assert_eq!(NodeMessage::decode(&bytes, &other), Err(BadMessage::Signature));
        }

        #[test]
        fn a_large_message_travels_in_fragments_that_fit(command in command(), most in 100..200usize) {
            let message = order("a", command);
            for format in FORMATS {
                let fragments = message.encode_within(format, &key(), Some(most));
                prop_assert!(fragments.iter().all(|fragment| fragment.len() <= most));
                let whole = message.encode(format, &key());
                if whole.len() <= most {
                    prop_assert_eq!(fragments, [whole]);
                    continue;
                }
                let mut joined = Vec::new();
                for (expected, fragment) in fragments.iter().enumerate() {
                    match NodeMessage::decode(fragment, &key()).unwrap().0.body {
                        Body::Fragment { of: 7, index, count, bytes } => {
                            prop_assert_eq!((index as usize, count as usize), (expected, fragments.len()));
                            joined.extend(bytes);
                        }
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
                prop_assert_eq!(NodeMessage::defragment(&joined, format), Ok(message.clone()));
                let other = FORMATS.into_iter().find(|&other| other != format).unwrap();
                prop_assert_eq!(NodeMessage::defragment(&joined, other), Err(BadMessage::Malformed));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200), version in 0..6u8) {
            for bytes in [bytes.clone(), [&[version][..], &bytes].concat()] {
                let _ = NodeMessage::decode(&bytes, &key());
                let _ = NodeMessage::unverified_heartbeat(&bytes);
                for format in FORMATS {
                    let _ = NodeMessage::defragment(&bytes, format);
                }
            }
        }
    }

    #[test]
    fn another_version_and_a_name_that_breaks_its_rule_are_refused() {
        let read = |bytes: &[u8]| NodeMessage::decode(bytes, &key());
        assert_eq!(read(&[1, 0]), Err(BadMessage::Version(1)));
        assert_eq!(read(&[5, 0]), Err(BadMessage::Version(5)));
        assert_eq!(read(&[]), Err(BadMessage::Malformed));
        let long = "x".repeat(1_025);
        // a command (variant 0) for an app with that name
        let forged = postcard::to_allocvec(&(7u64, 3u32, 0u32, long.as_str(), 0u8)).unwrap();
        for format in FORMATS {
            let mut forged = [&[format as u8][..], &forged].concat();
            format.finish(&mut forged, &key());
            assert_eq!(read(&forged), Err(BadMessage::Malformed));
        }
    }

    #[test]
    fn a_heartbeat_with_another_secret_can_be_read_and_nothing_else_can() {
        let beat = Heartbeat {
            secret: Fingerprint::of_secret(b"other"),
            ..Heartbeat::new(NodeId::from_random(1), true, u64::MAX)
        };
        let beat = Heartbeat { unix_millis: u64::MAX, settings: beat.secret, ..beat };
        let message = |body| NodeMessage { id: u64::MAX, session: u32::MAX, body };
        for body in [Body::Heartbeat(beat), Body::Hello(beat)] {
            let bytes = message(body.clone()).encode(MessageFormat::V4, &MessageKey::new(b"other"));
            assert_eq!(NodeMessage::decode(&bytes, &key()), Err(BadMessage::Signature));
            assert_eq!(NodeMessage::unverified_heartbeat(&bytes), Some(message(body)));
        }
        let goodbye = message(Body::Goodbye(beat.node, 1)).encode(MessageFormat::V4, &key());
        assert_eq!(NodeMessage::unverified_heartbeat(&goodbye), None);
        let old = message(Body::Heartbeat(beat)).encode(MessageFormat::V3, &key());
        assert_eq!(NodeMessage::unverified_heartbeat(&old), None);
    }
}
