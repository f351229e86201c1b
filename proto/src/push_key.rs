//! The keys of backends as the settings name them: who may use the master's API, for which apps and channels.

use std::{fmt, str::FromStr};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Error as _},
};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::channel::ChannelPattern;

/// One of `[[push_keys]]`, a table, or only `name:sha256` for a key without limits. The key itself is stored nowhere, only
/// its hash.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct PushKey {
    /// What it is called in logs.
    pub name: String,
    /// SHA-256 of the key.
    pub sha256: KeyHash,
    /// The apps that it is for; `*` is every app.
    pub apps: Vec<String>,
    /// The channels that it reaches.
    pub channels: Vec<ChannelPattern>,
    /// What it may be used for.
    pub rights: Vec<Right>,
}

/// What a push key may be used for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// Push to channels, users and sockets.
    Push,
    /// Ask who is there, decode tokens, read sizes.
    Query,
    /// Change what users may subscribe to.
    Grant,
}

impl Right {
    /// Its name in the settings.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Query => "query",
            Self::Grant => "grant",
        }
    }
}

/// By hand, since serde's untagged enums cannot say which field is wrong.
impl<'de> Deserialize<'de> for PushKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            name: String,
            sha256: KeyHash,
            #[serde(default = "every_app")]
            apps: Vec<String>,
            #[serde(default = "every_channel")]
            channels: Vec<ChannelPattern>,
            #[serde(default = "every_right")]
            rights: Vec<Right>,
        }
        struct WordOrTable;
        impl<'de> de::Visitor<'de> for WordOrTable {
            type Value = PushKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("name:sha256, or { name, sha256, apps, channels, rights }")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<PushKey, E> {
                // what is no hash may be the key itself: it is not repeated
                let named = word.rsplit_once(':').filter(|(name, _)| !name.is_empty());
                let (name, hash) =
                    named.ok_or_else(|| E::custom(format!("a push key is written name:sha256; {HASH}")))?;
                let sha256 = hash.parse().map_err(E::custom)?;
                let (apps, channels, rights) = (every_app(), every_channel(), every_right());
                Ok(PushKey { name: name.to_owned(), sha256, apps, channels, rights })
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<PushKey, A::Error> {
                let table = Table::deserialize(de::value::MapAccessDeserializer::new(map))?;
                let Table { name, sha256, apps, channels, rights } = table;
                Ok(PushKey { name, sha256, apps, channels, rights })
            }
        }
        from.deserialize_any(WordOrTable)
    }
}

fn every_app() -> Vec<String> {
    vec!["*".to_owned()]
}

fn every_channel() -> Vec<ChannelPattern> {
    vec![ChannelPattern::everything()]
}

fn every_right() -> Vec<Right> {
    vec![Right::Push, Right::Query, Right::Grant]
}

/// The SHA-256 of a push key; 64 hexadecimal digits in the settings.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// The hash of `key`.
    #[must_use]
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Are both the same? Takes the same time whatever they are.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Shows its beginning, enough to tell keys apart.
impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}…", self.0[0], self.0[1])
    }
}

impl Serialize for KeyHash {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// The error for what is no hash.
const HASH: &str =
    "its sha256 has 64 hexadecimal digits; `wellhead keys push` prints a key and its line for the settings";

impl FromStr for KeyHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("a push key is given by its hash; {HASH}");
        let mut hash = [0; 32];
        if text.len() != 64 {
            return Err(wrong());
        }
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digit = |at: usize| (digits[at] as char).to_digit(16).ok_or_else(wrong);
            // two hexadecimal digits make at most 255
            *byte = (digit(0)? << 4 | digit(1)?) as u8;
        }
        Ok(Self(hash))
    }
}

impl<'de> Deserialize<'de> for KeyHash {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}
