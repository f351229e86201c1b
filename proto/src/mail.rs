//! What nodes send each other. Versioned, since nodes of two releases meet during a rolling restart; checked when it is
//! read, since whoever reaches the bus could write to it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    envelope::Envelope,
    fingerprint::Fingerprint,
    ids::NodeId,
    query::{Ask, Census},
    report::CoordinationMessage,
    roster::Beat,
};

/// One message between nodes.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Letter {
    /// Tells two letters apart, whoever sent them. Its sender stands above the 43rd bit; below it they are numbered in the
    /// order in which the sender hands them to the bus.
    pub id: u64,
    /// Over which of the sender's connections it travels. What comes over one has no holes.
    pub session: u32,
    /// What it says.
    pub mail: Mail,
}

/// What nodes say.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum Mail {
    /// To slaves: carry this out.
    Order(Envelope),
    /// To slaves: answer this, to that node.
    Ask {
        /// Stands in the answer.
        id: u64,
        /// Who asks.
        from: NodeId,
        /// What.
        ask: Ask,
    },
    /// To who asked.
    Answer {
        /// The number of the question.
        id: u64,
        /// Who answers.
        from: NodeId,
        /// What it holds.
        census: Census,
    },
    /// To everybody: "I am here".
    Beat(Beat),
    /// To everybody: "I go", with the incarnation that goes.
    Goodbye(NodeId, u64),
    /// To a keeper or its deputy.
    Reports {
        /// Who reports.
        from: NodeId,
        /// What.
        reports: Vec<CoordinationMessage>,
    },
    /// A piece of a letter that is too large to travel whole. The pieces travel in order.
    Part {
        /// Tells the letters apart that travel in pieces.
        of: u64,
        /// Which piece, from 0.
        index: u32,
        /// How many there are.
        count: u32,
        /// The piece.
        bytes: Bytes,
    },
    /// To everybody: "I am here, and who else is?"
    Hello(Beat),
    /// To a node whose settings differ: "these are mine", each by its name with a fingerprint.
    Settings {
        /// Whose.
        from: NodeId,
        /// All that nodes must share.
        settings: Vec<(String, Fingerprint)>,
    },
    /// "What have you pushed behind that letter of yours? It may have passed me by."
    AskPushed {
        /// Stands in the answer.
        no: u64,
        /// Who asks.
        from: NodeId,
        /// The letter.
        after: u64,
    },
    /// To who asked.
    Pushed {
        /// The number of the question.
        no: u64,
        /// Who answers.
        from: NodeId,
        /// The letters that were not refused, each with its slot; or with none, if it went to everybody or to who asks. `None`:
        /// that is too long ago.
        letters: Option<Vec<(Option<u16>, u64)>>,
    },
}

/// Bytes that are no letter of ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadLetter {
    /// From a release that writes another format.
    #[error("letter of version {0}, this node reads version {version}", version = Letter::VERSION)]
    Version(u8),
    /// Cut short, too long, or holding a name that breaks its rule.
    #[error("malformed letter")]
    Malformed,
}

impl Letter {
    /// The format that this release reads and writes: one byte of version, then the struct in postcard's format.
    pub const VERSION: u8 = 3;

    /// What a piece takes beside its bytes, at most.
    const PART_OVERHEAD: usize = 64;

    /// The letter as bytes.
    ///
    /// # Panics
    ///
    /// Never: names and payloads always encode.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let buffer = vec![Self::VERSION];
        postcard::to_extend(self, buffer).expect("names and payloads always encode").into()
    }

    /// The letter as messages of at most `most` bytes, to be sent in this order; one message if that is enough.
    #[must_use]
    pub fn encode_within(&self, most: Option<usize>) -> Vec<Bytes> {
        let whole = self.encode();
        let Some(most) = most.filter(|&most| whole.len() > most) else {
            return vec![whole];
        };
        let size = most.saturating_sub(Self::PART_OVERHEAD).max(1);
        let count = whole.len().div_ceil(size) as u32;
        let part = |index: u32| {
            let from = index as usize * size;
            let bytes = whole.slice(from..whole.len().min(from + size));
            Self { id: self.id, session: self.session, mail: Mail::Part { of: self.id, index, count, bytes } }.encode()
        };
        (0..count).map(part).collect()
    }

    /// The letter that `bytes` hold, every name checked.
    ///
    /// # Errors
    ///
    /// Another version, anything that does not parse, and anything after the end.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadLetter> {
        let (version, body) = bytes.split_first().ok_or(BadLetter::Malformed)?;
        if *version != Self::VERSION {
            return Err(BadLetter::Version(*version));
        }
        match postcard::take_from_bytes(body) {
            Ok((letter, [])) => Ok(letter),
            _ => Err(BadLetter::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::{
        command::{Command, Target},
        event::{Event, Payload},
        ids::SocketId,
    };

    fn order(app: &str, command: Command) -> Letter {
        Letter { id: 7, session: 3, mail: Mail::Order(Envelope { app: app.parse().unwrap(), command }) }
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
            let letter = order(&app, command);
            prop_assert_eq!(Letter::decode(&letter.encode()), Ok(letter));
        }

        #[test]
        fn what_is_cut_or_longer_is_refused(command in command(), cut in any::<prop::sample::Index>()) {
            let bytes = order("a", command).encode();
            prop_assert!(Letter::decode(&bytes[..cut.index(bytes.len())]).is_err());
            prop_assert_eq!(Letter::decode(&[&bytes[..], b"x"].concat()), Err(BadLetter::Malformed));
        }

        #[test]
        fn a_large_letter_travels_in_pieces_that_fit(command in command(), most in 80..200usize) {
            let letter = order("a", command);
            let pieces = letter.encode_within(Some(most));
            prop_assert!(pieces.iter().all(|piece| piece.len() <= most));
            let whole = letter.encode();
            if whole.len() <= most {
                prop_assert_eq!(pieces, [whole]);
            } else {
                let mut joined = Vec::new();
                for (expected, piece) in pieces.iter().enumerate() {
                    match Letter::decode(piece).unwrap().mail {
                        Mail::Part { of: 7, index, count, bytes } => {
                            prop_assert_eq!((index as usize, count as usize), (expected, pieces.len()));
                            joined.extend(bytes);
                        }
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
                prop_assert_eq!(joined, whole);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200)) {
            let _ = Letter::decode(&bytes);
        }
    }

    #[test]
    fn another_version_and_a_name_that_breaks_its_rule_are_refused() {
        assert_eq!(Letter::decode(&[1, 0]), Err(BadLetter::Version(1)));
        assert_eq!(Letter::decode(&[]), Err(BadLetter::Malformed));
        let long = "x".repeat(1_025);
        // an order (variant 0) for an app with that name
        let mut forged = vec![Letter::VERSION];
        forged.extend(postcard::to_allocvec(&(7u64, 3u32, 0u32, long.as_str(), 0u8)).unwrap());
        assert_eq!(Letter::decode(&forged), Err(BadLetter::Malformed));
    }
}
