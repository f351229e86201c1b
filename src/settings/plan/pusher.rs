//! The apps that Pusher's libraries may use: those that have an id and a secret.

use std::{collections::HashMap, time::Duration};

use wellhead_proto::{dialect::pusher, ids::AppId};

use super::Check;
use crate::settings::{ListedApp, place::SettingsError};

/// No name in the house is longer, in bytes.
const LONGEST_NAME: usize = AppId::MAX_BYTES;

impl Check<'_> {
    /// What the settings come down to for Pusher's dialect.
    pub(super) fn pusher(&self) -> Result<pusher::Settings, SettingsError> {
        let pusher = &self.settings.pusher;
        let mut apps = Vec::new();
        let mut earlier = HashMap::new();
        for (index, app) in self.settings.apps.listed.iter().enumerate() {
            let key = format!("apps.listed.{index}");
            let Some(app) = self.pusher_app(&key, app)? else { continue };
            if let Some(other) = earlier.insert(app.id.clone(), app.key.clone()) {
                let message = format!("the app {:?} has the id {:?}, too", other.as_str(), app.id);
                return Err(self.error(&format!("{key}.id"), message).hint("give each app an id of its own"));
            }
            apps.push(app);
        }
        Ok(pusher::Settings {
            master_prefix: self.prefix("pusher.master_prefix", &pusher.master_prefix)?,
            slave_prefix: self.prefix("pusher.slave_prefix", &pusher.slave_prefix)?,
            apps,
        })
    }

    fn pusher_app(&self, key: &str, app: &ListedApp) -> Result<Option<pusher::App>, SettingsError> {
        let name = AppId::try_from(app.key.as_str()).map_err(|why| self.error(&format!("{key}.key"), why))?;
        let at = |name: &str| format!("{key}.{name}");
        self.app_limits(&at("limits"), app)?;
        let secret = self.secret(key, "secret", &app.secret, &app.secret_file)?;
        let secret = match (app.id.is_empty(), secret) {
            (true, None) if app.client_events => {
                let error =
                    self.error(&at("client_events"), "clients publish to each other over Pusher's protocol only");
                return Err(error.hint("give the app an id and a secret"));
            }
            (true, None) => return Ok(None),
            (true, Some(_)) => {
                let error = self.error(&at("id"), "the app has a secret, and no id");
                return Err(error.hint("Pusher's libraries need both: id = \"1\", or whatever stands in their app_id"));
            }
            (false, None) => {
                let error = self.error(&at("id"), "the app has an id, and no secret that signs its requests");
                return Err(error.hint("set secret or secret_file; `openssl rand -hex 20` makes a good one"));
            }
            (false, Some(secret)) => secret,
        };
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !app.id.bytes().all(fits) || app.id.len() > LONGEST_NAME || app.id.starts_with('.') {
            let error = self.error(&at("id"), format!("{:?} cannot stand in a path", app.id));
            return Err(error.hint("letters, digits, -, _ and ."));
        }
        Ok(Some(pusher::App {
            key: name,
            id: app.id.clone(),
            secret,
            client_events: app.client_events,
            limits: (&app.limits).into(),
        }))
    }

    fn app_limits(&self, key: &str, app: &ListedApp) -> Result<(), SettingsError> {
        let limits = &app.limits;
        for (name, limit, most) in [
            ("channel_name", limits.channel_name.bytes(), LONGEST_NAME),
            ("event_name", limits.event_name, LONGEST_NAME),
            ("event_data", limits.event_data.bytes(), usize::MAX),
            ("channels_per_event", limits.channels_per_event, usize::MAX),
            ("batch", limits.batch, usize::MAX),
            ("presence_members", limits.presence_members, usize::MAX),
            ("presence_info", limits.presence_info.bytes(), usize::MAX),
            ("presence_id", limits.presence_id, LONGEST_NAME),
            ("client_events", limits.client_events as usize, usize::MAX),
        ] {
            if limit == 0 {
                let error = self.error(&format!("{key}.{name}"), "must be more than nothing");
                return Err(match name {
                    "client_events" => error.hint("client_events = false of the app itself forbids them"),
                    _ => error,
                });
            }
            if limit > most {
                let message = format!("{limit} is more than the {most} bytes that a name may have anywhere");
                return Err(self.error(&format!("{key}.{name}"), message));
            }
        }
        if limits.activity_timeout.0 < Duration::from_secs(1) {
            let error = self.error(&format!("{key}.activity_timeout"), "clients are told whole seconds, at least one");
            return Err(error.hint("for example \"120s\""));
        }
        Ok(())
    }
}
