//! Names and numbers. Each is checked once, when it is made; from then on its type says that it was.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// A name that breaks its type's rule.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadName {
    /// Longer than the type allows.
    #[error("{what} is {bytes} bytes long, at most {max} are allowed")]
    TooLong {
        /// Which kind of name it is.
        what: &'static str,
        /// Its length in bytes.
        bytes: usize,
        /// The longest that is allowed, in bytes.
        max: usize,
    },
    /// Empty, and its type may not be.
    #[error("{what} is empty")]
    Empty {
        /// Which kind of name it is.
        what: &'static str,
    },
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, empty: $empty:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The longest that is allowed, in bytes.
            pub const MAX_BYTES: usize = 1_024;

            /// The name itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            fn check(name: &str) -> Result<(), BadName> {
                if name.len() > Self::MAX_BYTES {
                    return Err(BadName::TooLong { what: $what, bytes: name.len(), max: Self::MAX_BYTES });
                }
                if name.is_empty() && !$empty {
                    return Err(BadName::Empty { what: $what });
                }
                Ok(())
            }
        }

        impl TryFrom<&str> for $name {
            type Error = BadName;

            fn try_from(name: &str) -> Result<Self, BadName> {
                Self::check(name)?;
                Ok(Self(name.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;

            fn try_from(name: String) -> Result<Self, BadName> {
                Self::try_from(name.as_str())
            }
        }

        impl FromStr for $name {
            type Err = BadName;

            fn from_str(name: &str) -> Result<Self, BadName> {
                Self::try_from(name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

name! {
    /// A tenant's key, as in paths and tokens. Never empty.
    AppId, "the app key", empty: false
}
name! {
    /// A channel inside an app. May be empty: a batch may name such a channel, though nobody can subscribe to it.
    ChannelName, "the channel name", empty: true
}
name! {
    /// A person as the backend names them. May be empty (an anonymous socket), which presence lists leave out.
    UserId, "the user id", empty: true
}
name! {
    /// What a pushed payload is called. May be empty in a batch, as in the original.
    EventName, "the event name", empty: true
}

impl UserId {
    /// The user of an anonymous socket.
    #[must_use]
    pub fn nobody() -> Self {
        Self("".into())
    }

    /// Is it the user of an anonymous socket?
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        self.0.is_empty()
    }
}

/// A channel of an app. Maps of channels have this as their key, so that no app receives what belongs to another.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ChannelKey {
    /// The tenant.
    pub app: AppId,
    /// Its channel.
    pub name: ChannelName,
}

/// One process of the cluster, drawn at random when it starts. 21 bits.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct NodeId(u32);

impl NodeId {
    /// How many bits of a socket id name the node.
    pub const BITS: u32 = 21;

    /// The node that `random` picks.
    #[must_use]
    pub fn from_random(random: u32) -> Self {
        Self(random & ((1 << Self::BITS) - 1))
    }
}

impl TryFrom<u32> for NodeId {
    type Error = BadId;

    fn try_from(id: u32) -> Result<Self, BadId> {
        if id >> Self::BITS == 0 { Ok(Self(id)) } else { Err(BadId) }
    }
}

impl From<NodeId> for u32 {
    fn from(id: NodeId) -> Self {
        id.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A number that is no id of a node or a socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not an id of this cluster")]
pub struct BadId;

/// The id of a socket: 53 bits, so that a JavaScript number holds it. The upper 21 name the node
/// (a command to one socket travels to its node only), the lower 32 count that node's sockets.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct SocketId(u64);

impl SocketId {
    /// The `counter`th socket of `node`.
    #[must_use]
    pub fn new(node: NodeId, counter: u32) -> Self {
        Self(u64::from(node.0) << 32 | u64::from(counter))
    }

    /// The node that holds the socket.
    #[must_use]
    pub fn node(self) -> NodeId {
        NodeId((self.0 >> 32) as u32)
    }

    /// Which of its node's sockets it is.
    #[must_use]
    pub fn counter(self) -> u32 {
        self.0 as u32
    }
}

impl TryFrom<u64> for SocketId {
    type Error = BadId;

    fn try_from(id: u64) -> Result<Self, BadId> {
        if id >> 53 == 0 { Ok(Self(id)) } else { Err(BadId) }
    }
}

impl From<SocketId> for u64 {
    fn from(id: SocketId) -> Self {
        id.0
    }
}

/// As it is displayed, and in no other way.
impl FromStr for SocketId {
    type Err = BadId;

    fn from_str(id: &str) -> Result<Self, BadId> {
        let (node, counter) = id.split_once('.').ok_or(BadId)?;
        let node = NodeId::try_from(node.parse::<u32>().map_err(|_| BadId)?)?;
        let socket = Self::new(node, counter.parse().map_err(|_| BadId)?);
        if socket.to_string() == id { Ok(socket) } else { Err(BadId) }
    }
}

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node(), self.counter())
    }
}

/// Prints socket ids as UUIDs and reads them back. Bits that the id does not need are a keyed hash of it, checked when
/// it comes back, so that nothing has to be stored and ids of other sockets cannot be guessed.
#[derive(Clone)]
pub struct SocketIdSeal(Arc<Hmac<Sha256>>);

impl SocketIdSeal {
    /// A seal that every node with the same cluster secret shares.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        let mut mac = Hmac::new_from_slice(secret).expect("HMAC takes a key of any length");
        mac.update(b"wellhead socket id");
        Self(Arc::new(mac))
    }

    /// `id` as a UUID of version 8 (RFC 9562 §5.8): 36 lower-case characters.
    #[must_use]
    pub fn print(&self, id: SocketId) -> String {
        let hex = format!("{:032x}", self.bits(id));
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// The id that `text` prints, if this cluster printed it.
    ///
    /// # Errors
    ///
    /// Not a UUID in lower case with hyphens, or not one of ours.
    pub fn read(&self, text: &str) -> Result<SocketId, BadId> {
        let bytes = text.as_bytes();
        if bytes.len() != 36 || [8, 13, 18, 23].iter().any(|&hyphen| bytes[hyphen] != b'-') {
            return Err(BadId);
        }
        let hex: String = text.chars().filter(|&c| c != '-').collect();
        if hex.len() != 32 || !hex.bytes().all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase()) {
            return Err(BadId);
        }
        let bits = u128::from_str_radix(&hex, 16).map_err(|_| BadId)?;
        let id = SocketId((bits as u64) & Self::ID);
        if bool::from(self.bits(id).to_be_bytes().ct_eq(&bits.to_be_bytes())) { Ok(id) } else { Err(BadId) }
    }

    const ID: u64 = (1 << 53) - 1;

    /// From the top: 48 bits of hash, version 8, 12 bits of hash, variant 0b10, 9 bits of hash, 53 bits of id.
    fn bits(&self, id: SocketId) -> u128 {
        const VERSION_AND_VARIANT: u128 = 0xF << 76 | 0b11 << 62;
        let mac = Hmac::clone(&self.0).chain_update(id.0.to_be_bytes()).finalize().into_bytes();
        let hash = u128::from_be_bytes(mac[..16].try_into().expect("a SHA-256 has 32 bytes"));
        let hash = hash & !VERSION_AND_VARIANT & !u128::from(Self::ID);
        hash | 0x8 << 76 | 0b10 << 62 | u128::from(id.0)
    }
}

/// Hides the key.
impl fmt::Debug for SocketIdSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SocketIdSeal")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_be_as_long_as_its_limit_and_no_longer() {
        assert!(ChannelName::try_from("x".repeat(1_024)).is_ok());
        assert_eq!(
            ChannelName::try_from("x".repeat(1_025)),
            Err(BadName::TooLong { what: "the channel name", bytes: 1_025, max: 1_024 })
        );
    }

    #[test]
    fn only_an_app_must_have_a_name() {
        assert_eq!(AppId::try_from(""), Err(BadName::Empty { what: "the app key" }));
        assert!(UserId::try_from("").is_ok());
        assert!(ChannelName::try_from("").is_ok());
    }

    #[test]
    fn a_socket_id_says_its_node_and_counter_and_fits_53_bits() {
        let node = NodeId::from_random(u32::MAX);
        let id = SocketId::new(node, 7);
        assert_eq!((id.node(), id.counter()), (node, 7));
        assert!(u64::from(SocketId::new(node, u32::MAX)) < 1 << 53);
        assert_eq!(SocketId::try_from(1 << 53), Err(BadId));
        assert_eq!(NodeId::try_from(1 << 21), Err(BadId));
    }

    #[test]
    fn a_socket_id_is_read_as_it_is_displayed() {
        for id in [0, 1, (1 << 53) - 1, 1 << 32 | 5] {
            let id = SocketId::try_from(id).unwrap();
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for text in ["", ".", "1", "1.", ".1", "01.1", "1.01", "+1.1", " 1.1", "2097152.1", "1.4294967296", "1.1.1"] {
            assert_eq!(text.parse::<SocketId>(), Err(BadId), "{text}");
        }
    }

    #[test]
    fn a_printed_socket_id_comes_back_and_a_forged_one_does_not() {
        let seal = SocketIdSeal::new(b"secret");
        for id in [0, 1, (1 << 53) - 1, 1 << 32 | 5] {
            let id = SocketId::try_from(id).unwrap();
            let text = seal.print(id);
            assert_eq!((text.len(), &text[14..15]), (36, "8"), "{text}");
            assert!("89ab".contains(&text[19..20]), "{text}");
            assert_eq!(seal.read(&text), Ok(id));
            assert_eq!(SocketIdSeal::new(b"other").read(&text), Err(BadId));
            let last = if text.ends_with('0') { "1" } else { "0" };
            assert_eq!(seal.read(&format!("{}{last}", &text[..35])), Err(BadId));
            assert_eq!(seal.read(&text.to_uppercase()), if text.to_uppercase() == text { Ok(id) } else { Err(BadId) });
        }
        for rubbish in ["", "x", "中中中中中中中中中中中中", "+0000000-0000-8000-8000-000000000000", &"-".repeat(36)]
        {
            assert_eq!(seal.read(rubbish), Err(BadId), "{rubbish}");
        }
    }
}
