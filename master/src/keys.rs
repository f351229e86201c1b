//! Push keys: who may use the master's API and for what, and the rules that hold while there is no key at all.

use std::{fmt, str::FromStr};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Error as _},
};
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use wellhead_proto::{
    channel::{ChannelPattern, allowed},
    command::Command,
    dialect::contract::{Headers, MasterRequest, QueryRequest, Right},
    envelope::Envelope,
    ids::{AppId, ChannelName},
    local::{is_loopback, passed_on},
    query::{AppStats, CountQuery, Listing, MembersQuery, NamesQuery, StatesOf, StatesQuery},
    refusal::Refusal,
    surface::Head,
};

use crate::Keyless;

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

/// What a hash is, for whoever wrote something else.
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

/// All push keys of a master.
#[derive(Clone, Debug)]
pub struct Keys {
    keys: Vec<PushKey>,
    /// Who is served while there is none.
    keyless: Keyless,
}

/// Who calls.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Caller {
    /// Somebody whom no key limits: there is none, or the row asks for none.
    Anyone,
    /// The holder of one of the keys.
    Holder(usize),
}

impl Keys {
    /// These keys. `keyless` matters only if there are none.
    #[must_use]
    pub fn new(keys: Vec<PushKey>, keyless: Keyless) -> Self {
        Self { keys, keyless }
    }

    /// Who calls, if the caller may use `right` at all.
    ///
    /// # Errors
    ///
    /// No key, an unknown one, or one without the right; without any keys: a request that a browser or a proxy sent on.
    pub fn admit(&self, head: Head<'_>, right: Right) -> Result<Caller, Refusal> {
        match self.keyless {
            _ if !self.keys.is_empty() => self.admit_holder(head.headers, right),
            Keyless::ThisMachine => local(head).map(|()| Caller::Anyone),
            Keyless::Everybody => Ok(Caller::Anyone),
            Keyless::Nobody => Err(Refusal::CredentialsMissing),
        }
    }

    /// Like [`Keys::admit`], but without any keys nobody is let in.
    ///
    /// # Errors
    ///
    /// See there.
    pub fn admit_holder(&self, headers: &dyn Headers, right: Right) -> Result<Caller, Refusal> {
        if self.keys.is_empty() {
            return Err(Refusal::CredentialsMissing);
        }
        let holder = self.find(bearer(headers).ok_or(Refusal::CredentialsMissing)?)?;
        if self.keys[holder].rights.contains(&right) {
            Ok(Caller::Holder(holder))
        } else {
            Err(Refusal::Forbidden(format!("this push key has no right to {}", right.label()).into()))
        }
    }

    /// The index of the key. Every hash is compared, to the end, so that the time tells nothing.
    fn find(&self, key: &str) -> Result<usize, Refusal> {
        let hash = KeyHash::of(key);
        let mut found = u64::MAX;
        for (index, known) in self.keys.iter().enumerate() {
            found.conditional_assign(&(index as u64), known.sha256.0.ct_eq(&hash.0));
        }
        usize::try_from(found).ok().filter(|&index| index < self.keys.len()).ok_or(Refusal::CredentialsInvalid)
    }

    /// Is `request` within what the caller's key is for? What the key limits in part (channels that are asked for or
    /// pushed to by pattern, users, permissions that are replaced) is cut down to it.
    ///
    /// # Errors
    ///
    /// Any part of it that is not: then none of it may be done.
    pub fn limit(&self, caller: Caller, request: &mut MasterRequest) -> Result<(), Refusal> {
        let Caller::Holder(holder) = caller else { return Ok(()) };
        let key = &self.keys[holder];
        match request {
            MasterRequest::Publish { envelopes, .. } => key.sends(envelopes),
            MasterRequest::PublishAndQuery { envelopes, query, .. } => {
                key.sends(envelopes)?;
                key.asks_for_states(query)
            }
            MasterRequest::PublishMatching { push, .. } => {
                push.within.clone_from(&key.channels);
                key.serves(&push.app)
            }
            MasterRequest::Reload { app, within, channels, .. } => {
                key.serves(app)?;
                key.reloads(within, channels)
            }
            MasterRequest::Query(query) => key.asks(query),
            // limited by what it answers
            MasterRequest::Answer(_) | MasterRequest::Decode { .. } => Ok(()),
        }
    }

    /// May the caller see what concerns `app`?
    ///
    /// # Errors
    ///
    /// The caller's key is for other apps.
    pub fn shows(&self, caller: Caller, app: &AppId) -> Result<(), Refusal> {
        match caller {
            Caller::Anyone => Ok(()),
            Caller::Holder(holder) => self.keys[holder].serves(app),
        }
    }

    /// Those of `apps` that the caller's key is for; none, if it is for no channel.
    #[must_use]
    pub fn shown_of(&self, caller: Caller, mut apps: AppStats) -> AppStats {
        if let Caller::Holder(holder) = caller {
            let key = &self.keys[holder];
            apps.retain(|app, _| !key.channels.is_empty() && key.serves(app).is_ok());
        }
        apps
    }

    /// The name of the caller's key, for logs.
    #[must_use]
    pub fn name(&self, caller: Caller) -> &str {
        match caller {
            Caller::Anyone => "-",
            Caller::Holder(holder) => &self.keys[holder].name,
        }
    }
}

impl PushKey {
    fn serves(&self, app: &AppId) -> Result<(), Refusal> {
        if self.apps.iter().any(|own| own == "*" || own == app.as_str()) {
            Ok(())
        } else {
            Err(Refusal::Forbidden("this push key is not for that app".into()))
        }
    }

    fn sends(&self, envelopes: &mut [Envelope]) -> Result<(), Refusal> {
        envelopes.iter_mut().try_for_each(|envelope| {
            self.serves(&envelope.app)?;
            self.covers(&mut envelope.command)
        })
    }

    fn asks(&self, query: &mut QueryRequest) -> Result<(), Refusal> {
        match query {
            QueryRequest::Names(NamesQuery { app, of }, _) | QueryRequest::Count(CountQuery { app, of }, _) => {
                self.serves(app)?;
                self.lists(of)
            }
            QueryRequest::States(query, _) => self.asks_for_states(query),
            QueryRequest::Members(MembersQuery { app, channel }, _) => {
                self.serves(app)?;
                self.reaches(channel)
            }
            // limited by what it answers
            QueryRequest::Stats(..) => Ok(()),
        }
    }

    fn lists(&self, of: &mut Listing) -> Result<(), Refusal> {
        match of {
            Listing::Channels(within) => within.clone_from(&self.channels),
            Listing::Users { .. } if self.is_for_all() => {}
            Listing::Users { within } => *within = Some(self.channels.clone()),
            Listing::UsersOf(channel) => self.reaches(channel)?,
        }
        Ok(())
    }

    fn asks_for_states(&self, StatesQuery { app, of, .. }: &StatesQuery) -> Result<(), Refusal> {
        self.serves(app)?;
        match of {
            StatesOf::Named(channels) => channels.iter().try_for_each(|channel| self.reaches(channel)),
            StatesOf::Under(_) if self.is_for_all() => Ok(()),
            StatesOf::Under(_) => Err(Refusal::Forbidden("this push key is not for every channel".into())),
        }
    }

    fn is_for_all(&self) -> bool {
        self.channels.iter().any(ChannelPattern::is_everything)
    }

    fn reaches(&self, channel: &ChannelName) -> Result<(), Refusal> {
        if allowed(&self.channels, channel) {
            Ok(())
        } else {
            Err(Refusal::Forbidden("this push key is not for that channel".into()))
        }
    }

    fn covers(&self, command: &mut Command) -> Result<(), Refusal> {
        match command {
            Command::Publish { channel, .. } => self.reaches(channel),
            Command::Direct { .. } if self.is_for_all() => Ok(()),
            Command::Direct { .. } => {
                Err(Refusal::Forbidden("pushes to users and sockets need a push key for all channels (\"*\")".into()))
            }
            Command::Reload { within, channels, .. } => self.reloads(within, channels),
            Command::Grant { channel, .. } => self.grants(channel),
        }
    }

    /// Only what lies within the key's own channels is replaced, and only by what they cover.
    fn reloads(&self, within: &mut Vec<ChannelPattern>, channels: &[ChannelPattern]) -> Result<(), Refusal> {
        within.clone_from(&self.channels);
        channels.iter().try_for_each(|channel| self.grants(channel))
    }

    fn grants(&self, channel: &ChannelPattern) -> Result<(), Refusal> {
        if self.channels.iter().any(|own| own.covers(channel)) {
            Ok(())
        } else {
            Err(Refusal::Forbidden("this push key cannot grant that channel: its own do not cover it".into()))
        }
    }
}

/// The key in `Authorization: Bearer KEY`.
fn bearer(headers: &dyn Headers) -> Option<&str> {
    let (scheme, key) = headers.header("authorization")?.trim().split_once(' ')?;
    let key = key.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty()).then_some(key)
}

/// While there is no key, only programs of this machine are served: a page in a local browser could otherwise push
/// with a plain form, or by a name that it makes resolve to 127.0.0.1, and a proxy would serve the whole world.
fn local(head: Head<'_>) -> Result<(), Refusal> {
    const REMEDY: &str = "; this master has no push keys and serves local programs only: configure [[push_keys]]";
    let refuse = |what: &str| Err(Refusal::Forbidden(format!("{what}{REMEDY}").into()));
    let headers = head.headers;
    if let Some(why) = passed_on(head) {
        return refuse(why);
    }
    let host = headers.header("host").unwrap_or_default();
    if !is_loopback(host) {
        return refuse("the Host is not loopback");
    }
    if let Some(origin) = headers.header("origin")
        && !origin.strip_prefix("http://").is_some_and(|origin| origin.eq_ignore_ascii_case(host))
    {
        return refuse("a page of another origin asks");
    }
    if headers.header("sec-fetch-site").is_some_and(|site| site.trim().eq_ignore_ascii_case("cross-site")) {
        return refuse("a page of another site asks");
    }
    Ok(())
}
