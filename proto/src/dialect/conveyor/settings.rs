//! The settings of Conveyor: its one app, the token that opens everything, and what of the original's options is on.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    dialect::mount::{BadSetting, SecretFiles},
    ids::AppId,
    secret::Secret,
    tenants::Tenants,
    units::{Size, Span},
};

/// Server tokens that are shorter can be guessed.
const SHORT_TOKEN: usize = 16;
/// A temporary token lives no longer than a day: until then, its slave remembers it.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Conveyor's keys of the process.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `[conveyor]`.
    pub conveyor: ConveyorRows,
}

/// `[conveyor]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "struct Conveyor")]
pub struct ConveyorRows {
    /// The key of the app whose channels are served.
    pub app: String,
    /// The server token; without one the dialect is off, unless it is open.
    pub token: Secret,
    /// A file that holds the token instead.
    pub token_file: String,
    /// Do sockets need no token?
    pub open: bool,
    /// Are there channels?
    pub channels: bool,
    /// Are sockets told who is on their channel, when somebody comes or goes?
    pub presence: bool,
    /// Do frames have ids, and are frames of clients that have one acknowledged?
    pub acknowledgment: bool,
    /// How long a temporary token is valid.
    pub temporary_ttl: Span,
    /// Broadcasts, fan-outs and changes of channels of one socket, a second.
    pub client_events: u32,
    /// The data of one broadcast or fan-out of a client.
    pub event_data: Size,
}

impl Default for ConveyorRows {
    fn default() -> Self {
        Self {
            app: "demo".to_owned(),
            token: Secret::default(),
            token_file: String::new(),
            open: false,
            channels: true,
            presence: false,
            acknowledgment: false,
            temporary_ttl: Span::seconds(60),
            client_events: 10,
            event_data: Size(10 << 10),
        }
    }
}

impl Settings {
    pub(super) fn check(self) -> Result<Self, BadSetting> {
        let ConveyorRows { app, temporary_ttl, client_events, event_data, .. } = &self.conveyor;
        AppId::try_from(app.as_str()).map_err(|why| BadSetting::new("conveyor.app", why))?;
        if temporary_ttl.0 < Duration::from_secs(1) || temporary_ttl.0 > LONGEST {
            let error = BadSetting::new("conveyor.temporary_ttl", "must be between one second and one day");
            return Err(error.hint("for example \"60s\""));
        }
        for (name, limit) in [("client_events", *client_events as usize), ("event_data", event_data.bytes())] {
            if limit == 0 {
                return Err(BadSetting::new(format!("conveyor.{name}"), "must be greater than 0"));
            }
        }
        Ok(self)
    }

    /// The app, if the dialect is on.
    pub(super) fn app(&self, files: &dyn SecretFiles) -> Result<Option<ConveyorApp>, BadSetting> {
        let ConveyorRows { app, token, token_file, open, .. } = &self.conveyor;
        let token = files.secret(NAME, "token", token, token_file)?;
        let access = match (token, open) {
            (None, false) => return Ok(None),
            (Some(_), true) => {
                let error = BadSetting::new("conveyor.open", "sockets need the token or no token, not both");
                return Err(error.hint("keep conveyor.token, or set conveyor.open = true without it"));
            }
            (Some(token), false) => Access::Token(ServerToken::new(&token)),
            (None, true) => Access::Open,
        };
        let key = AppId::try_from(app.as_str()).map_err(|why| BadSetting::new("conveyor.app", why))?;
        Ok(Some(ConveyorApp { access, ..ConveyorApp::of_rows(key, &self.conveyor) }))
    }
}

const NAME: &str = super::NAME;

/// The app as Conveyor's callers and clients know it. It is kept in the directory of tenants, and is there while the dialect
/// is on.
#[derive(Clone)]
pub struct ConveyorApp {
    /// Its key.
    pub key: AppId,
    /// Are there channels?
    pub channels: bool,
    /// Are sockets told who is on their channel?
    pub presence: bool,
    /// Do frames have ids?
    pub acknowledgment: bool,
    /// How long a temporary token is valid.
    pub temporary_ttl: Duration,
    /// Broadcasts, fan-outs and changes of channels of one socket, a second.
    pub client_events: u32,
    /// The data of one broadcast or fan-out of a client, in bytes.
    pub event_data: usize,
    pub(super) access: Access,
}

#[derive(Clone)]
pub(super) enum Access {
    Token(ServerToken),
    Open,
}

/// The server token, as its hash: the hashes of two tokens take equally long to compare, whatever the tokens are.
#[derive(Clone)]
pub(super) struct ServerToken {
    hash: [u8; 32],
    bytes: usize,
}

impl ServerToken {
    fn new(token: &[u8]) -> Self {
        Self { hash: Sha256::digest(token).into(), bytes: token.len() }
    }
}

impl ConveyorApp {
    /// An app with this server token, and the default of everything else.
    #[must_use]
    pub fn new(key: AppId, token: &[u8]) -> Self {
        let app = Self::of_rows(key, &ConveyorRows::default());
        Self { access: Access::Token(ServerToken::new(token)), ..app }
    }

    fn of_rows(key: AppId, rows: &ConveyorRows) -> Self {
        Self {
            key,
            channels: rows.channels,
            presence: rows.presence,
            acknowledgment: rows.acknowledgment,
            temporary_ttl: rows.temporary_ttl.0,
            client_events: rows.client_events,
            event_data: rows.event_data.bytes(),
            access: Access::Open,
        }
    }

    /// Do sockets need no token?
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.access, Access::Open)
    }

    /// Is `shown` the server token? An open app has none.
    #[must_use]
    pub fn is_server_token(&self, shown: &str) -> bool {
        let Access::Token(token) = &self.access else { return false };
        bool::from(token.hash.ct_eq(&<[u8; 32]>::from(Sha256::digest(shown.as_bytes()))))
    }

    pub(super) fn short_token(&self) -> Option<String> {
        let Access::Token(token) = &self.access else { return None };
        let words = || format!("conveyor.token is shorter than {SHORT_TOKEN} bytes: it could be guessed");
        (token.bytes < SHORT_TOKEN).then(words)
    }

    pub(super) fn check_served(&self, tenants: &Tenants) -> Result<(), BadSetting> {
        if tenants.app(&self.key).is_served() {
            return Ok(());
        }
        let message = format!("the app {:?} is not listed, and apps.unlisted is \"refuse\"", self.key.as_str());
        Err(BadSetting::new("conveyor.app", message).hint("list it under [[apps.listed]], or name one that is"))
    }

    /// What every node must have alike.
    pub(super) fn alike(&self) -> Vec<Vec<u8>> {
        let Self { key, channels, presence, acknowledgment, temporary_ttl, client_events, event_data, access } = self;
        let token = match access {
            Access::Token(token) => token.hash.to_vec(),
            Access::Open => Vec::new(),
        };
        let rest = format!("{channels} {presence} {acknowledgment} {temporary_ttl:?} {client_events} {event_data}");
        vec![key.as_str().into(), token, rest.into_bytes()]
    }
}

/// Hides the token.
impl fmt::Debug for ConveyorApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConveyorApp").field("key", &self.key).field("open", &self.is_open()).finish_non_exhaustive()
    }
}
