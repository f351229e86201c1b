//! What travels on the bus. Versioned, since nodes of two releases meet during a rolling restart; checked when it is
//! read, since whoever reaches the bus could write to it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{command::Command, ids::AppId};

/// A command and the app it is for: nothing travels without its app.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Envelope {
    /// The only app that hears of it.
    pub app: AppId,
    /// What to do.
    pub command: Command,
}

/// Bytes that are no envelope of ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadEnvelope {
    /// From a release that writes another format.
    #[error("envelope of version {0}, this node reads version {version}", version = Envelope::VERSION)]
    Version(u8),
    /// Cut short, too long, or holding a name that breaks its rule.
    #[error("malformed envelope")]
    Malformed,
}

impl Envelope {
    /// The format that this release reads and writes: one byte of version, then the struct in postcard's format.
    pub const VERSION: u8 = 1;

    /// The envelope as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let buffer = vec![Self::VERSION];
        postcard::to_extend(self, buffer).expect("names and payloads always encode").into()
    }

    /// The envelope that `bytes` hold, every name checked.
    ///
    /// # Errors
    ///
    /// Another version, anything that does not parse, and anything after the end.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadEnvelope> {
        let (version, body) = bytes.split_first().ok_or(BadEnvelope::Malformed)?;
        if *version != Self::VERSION {
            return Err(BadEnvelope::Version(*version));
        }
        match postcard::take_from_bytes(body) {
            Ok((envelope, [])) => Ok(envelope),
            _ => Err(BadEnvelope::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::{
        command::Target,
        event::{Event, Payload},
        ids::{NodeId, SocketId},
    };

    fn payload() -> impl Strategy<Value = Payload> {
        prop_oneof![
            any::<String>().prop_map(|text| Payload::Text(text.into())),
            any::<f64>().prop_map(|number| Payload::Json(number.to_string().into())),
        ]
    }

    fn socket() -> impl Strategy<Value = SocketId> {
        (any::<u32>(), any::<u32>()).prop_map(|(node, counter)| SocketId::new(NodeId::from_random(node), counter))
    }

    fn command() -> impl Strategy<Value = Command> {
        let name = "\\PC{0,40}";
        prop_oneof![
            (name, name, payload(), option::of(socket())).prop_map(|(channel, event, data, except)| {
                let event = Event { name: event.parse().unwrap(), data };
                Command::Publish { channel: channel.parse().unwrap(), event, except }
            }),
            (name, payload())
                .prop_map(|(user, data)| Command::Direct { to: Target::User(user.parse().unwrap()), data }),
            (socket(), payload()).prop_map(|(socket, data)| Command::Direct { to: Target::Socket(socket), data }),
            (name, vec(name, 0..5)).prop_map(|(user, channels)| Command::Reload {
                user: user.parse().unwrap(),
                channels: channels.into_iter().map(|channel| channel.try_into().unwrap()).collect(),
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
            let envelope = Envelope { app: app.parse().unwrap(), command };
            prop_assert_eq!(Envelope::decode(&envelope.encode()), Ok(envelope));
        }

        #[test]
        fn what_is_cut_or_longer_is_refused(command in command(), cut in any::<prop::sample::Index>()) {
            let bytes = Envelope { app: "a".parse().unwrap(), command }.encode();
            prop_assert!(Envelope::decode(&bytes[..cut.index(bytes.len())]).is_err());
            prop_assert_eq!(Envelope::decode(&[&bytes[..], b"x"].concat()), Err(BadEnvelope::Malformed));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200)) {
            let _ = Envelope::decode(&bytes);
        }
    }

    #[test]
    fn another_version_and_a_name_that_breaks_its_rule_are_refused() {
        assert_eq!(Envelope::decode(&[2, 0]), Err(BadEnvelope::Version(2)));
        assert_eq!(Envelope::decode(&[]), Err(BadEnvelope::Malformed));
        let long = "x".repeat(1_025);
        let mut forged = vec![Envelope::VERSION];
        forged.extend(postcard::to_allocvec(&(long.as_str(), 0u8)).unwrap());
        assert_eq!(Envelope::decode(&forged), Err(BadEnvelope::Malformed));
    }
}
