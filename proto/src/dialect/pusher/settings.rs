//! The settings of Pusher: the prefixes of its routes, and of each app its id, its secret and its limits.

use serde::{Deserialize, Serialize};

use crate::{
    dialect::mount::{AppEntry, BadSetting, SecretFiles, prefix},
    ids::AppId,
    secret::Secret,
    units::Span,
};

use super::{
    apps::PusherApp,
    limits::AppLimits,
    webhook::{self, WebhookSettings},
};

/// No name in Wellhead is longer, in bytes.
const LONGEST_NAME: usize = AppId::MAX_BYTES;

/// Secrets of apps that are shorter can be guessed by who has seen a signature.
const SHORT_SECRET: usize = 16;

/// Pusher's keys of the process.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `[pusher]`.
    pub pusher: PusherRows,
}

/// The prefixes of Pusher's routes.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "struct Pusher")]
pub struct PusherRows {
    /// The prefix before `/apps` on the master; usually empty, and no part of what is signed.
    pub master_prefix: String,
    /// The prefix before `/app` on the slave; usually empty.
    pub slave_prefix: String,
}

impl Settings {
    /// The prefixes without their last slashes.
    pub(super) fn check(mut self) -> Result<Self, BadSetting> {
        let PusherRows { master_prefix, slave_prefix } = &mut self.pusher;
        *master_prefix = prefix("pusher.master_prefix", master_prefix)?;
        *slave_prefix = prefix("pusher.slave_prefix", slave_prefix)?;
        Ok(self)
    }
}

/// Pusher's keys of an app.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PusherAppSettings {
    /// Its id, as in the paths of the HTTP API; without one, Pusher's libraries cannot use the app.
    pub id: String,
    /// What Pusher's libraries sign with.
    pub secret: Secret,
    /// A file that holds the secret instead.
    pub secret_file: String,
    /// May clients publish to each other on private and presence channels?
    pub client_events: bool,
    /// Are clients closed that neither sign in nor join a channel with a signature?
    pub authorized_connections: bool,
    /// After how long.
    pub authorization_timeout: Span,
    /// May clients name users when they sign in, and hear when those come online and go offline?
    pub watchlist: bool,
    /// Are the subscribers of a channel told how many they are?
    pub subscription_count_event: bool,
    /// How much of everything its clients and backends may have.
    pub limits: AppLimits,
    /// What is told of its channels, and whom.
    pub webhooks: Vec<WebhookSettings>,
}

impl Default for PusherAppSettings {
    fn default() -> Self {
        Self {
            id: String::new(),
            secret: Secret::default(),
            secret_file: String::new(),
            client_events: false,
            authorized_connections: false,
            authorization_timeout: Span::seconds(30),
            watchlist: false,
            subscription_count_event: false,
            limits: AppLimits::default(),
            webhooks: Vec::new(),
        }
    }
}

/// What is known of those of `apps` that have an id and a secret.
pub(super) fn apps(
    apps: &[AppEntry<'_, PusherAppSettings>],
    files: &dyn SecretFiles,
) -> Result<Vec<Option<PusherApp>>, BadSetting> {
    let mut known: Vec<Option<PusherApp>> = Vec::with_capacity(apps.len());
    for entry in apps {
        let app = one(entry, files)?;
        if let Some(app) = &app
            && let Some(other) = known.iter().flatten().find(|other| other.id == app.id)
        {
            let message = format!("the app {:?} has the id {:?}, too", other.key.as_str(), app.id);
            return Err(BadSetting::new(entry.at("id"), message).hint("give each app an id of its own"));
        }
        known.push(app);
    }
    Ok(known)
}

fn one(entry: &AppEntry<'_, PusherAppSettings>, files: &dyn SecretFiles) -> Result<Option<PusherApp>, BadSetting> {
    let PusherAppSettings {
        id,
        secret,
        secret_file,
        client_events,
        authorized_connections,
        authorization_timeout,
        watchlist,
        subscription_count_event,
        limits,
        webhooks,
    } = &entry.settings;
    let bad = |name: &str, message: &str| BadSetting::new(entry.at(name), message);
    if let Some((name, why)) = limits.wrong() {
        let error = bad(&format!("limits.{name}"), &why);
        return Err(match name {
            "client_events" => error.hint("client_events = false of the app itself forbids them"),
            "activity_timeout" => error.hint("for example \"120s\""),
            _ => error,
        });
    }
    if authorization_timeout.0.as_secs() == 0 {
        let error = bad("authorization_timeout", "clients have a second at least");
        return Err(error.hint("authorized_connections = false lets them stay as long as they like"));
    }
    let webhooks = webhook::webhooks(entry.place, webhooks, !id.is_empty(), files)?;
    let secret = match (id.is_empty(), files.secret(entry.place, "secret", secret, secret_file)?) {
        (true, None) if *client_events => {
            let error = bad("client_events", "clients publish to each other over Pusher's protocol only");
            return Err(error.hint("give the app an id and a secret"));
        }
        (true, None) if *authorized_connections => {
            let error = bad("authorized_connections", "clients sign in over Pusher's protocol only");
            return Err(error.hint("give the app an id and a secret"));
        }
        (true, None) if *watchlist => {
            let error = bad("watchlist", "clients sign in over Pusher's protocol only");
            return Err(error.hint("give the app an id and a secret"));
        }
        (true, None) if *subscription_count_event => {
            let error = bad("subscription_count_event", "clients hear it over Pusher's protocol only");
            return Err(error.hint("give the app an id and a secret"));
        }
        (true, None) => return Ok(None),
        (true, Some(_)) => {
            let error = bad("id", "the app has a secret, and no id");
            return Err(error.hint("Pusher's libraries need both: id = \"1\", or whatever stands in their app_id"));
        }
        (false, None) => {
            let error = bad("id", "the app has an id, and no secret that signs its requests");
            return Err(error.hint("set secret or secret_file; `openssl rand -hex 20` makes a good one"));
        }
        (false, Some(secret)) => secret,
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !id.bytes().all(fits) || id.len() > LONGEST_NAME || id.starts_with('.') {
        return Err(bad("id", &format!("{id:?} cannot stand in a path")).hint("letters, digits, -, _ and ."));
    }
    let app = PusherApp::new(entry.key.clone(), id.clone(), secret, *client_events, limits.clone());
    let authorize_within = authorized_connections.then_some(authorization_timeout.0);
    let (watchlist, subscription_count_event) = (*watchlist, *subscription_count_event);
    Ok(Some(PusherApp { authorize_within, watchlist, subscription_count_event, webhooks, ..app }))
}

/// What the nodes compare, in the words of the first release: nodes of two releases are not to find each other different.
pub(super) fn alike(settings: &PusherAppSettings, app: Option<&PusherApp>, origins: &str) -> Vec<Vec<u8>> {
    // in the settings or in a file: the app knows
    let secret = app.map(|app| app.secret.clone()).unwrap_or_default();
    let mut rest = format!("{} {origins} {:?}", settings.client_events, settings.limits);
    if settings.authorized_connections {
        rest.push_str(&format!(" authorized within {:?}", settings.authorization_timeout));
    }
    for (name, on) in [("watchlist", settings.watchlist), ("counts", settings.subscription_count_event)] {
        if on {
            rest.extend([" ", name]);
        }
    }
    let webhooks = app.and_then(|app| webhook::alike(&app.webhooks));
    [settings.id.clone().into_bytes(), secret, rest.into_bytes()].into_iter().chain(webhooks).collect()
}

/// Secrets that could be guessed.
pub(super) fn warnings<'a>(apps: impl Iterator<Item = &'a PusherApp>) -> Vec<String> {
    let short = apps.filter(|app| app.secret.len() < SHORT_SECRET);
    let words = |app: &PusherApp| {
        let PusherApp { key, id, .. } = app;
        format!("the secret of the app {key} (id {id}) is shorter than {SHORT_SECRET} bytes: it could be guessed")
    };
    short.map(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_the_first_release_find_an_app_alike() {
        let settings = PusherAppSettings { id: "42".to_owned(), client_events: true, ..PusherAppSettings::default() };
        let [id, secret, rest] = &alike(&settings, None, "None")[..] else { panic!("three parts") };
        assert_eq!((&id[..], &secret[..]), (&b"42"[..], &b""[..]));
        let words = "true None AppLimits { channel_name: Size(200), event_name: 200, event_data: Size(10240), \
                     channels_per_event: 100, batch: 10, presence_members: 100, presence_info: Size(1024), \
                     presence_id: 128, client_events: 10, activity_timeout: Span(120s) }";
        assert_eq!(std::str::from_utf8(rest), Ok(words));
        let strict = PusherAppSettings { authorized_connections: true, ..settings };
        let later = PusherAppSettings { authorization_timeout: Span::seconds(7), ..strict.clone() };
        let [rest, later] = [strict, later].map(|settings| alike(&settings, None, "None").pop());
        assert!(rest != Some(words.into()) && rest != later);
        let plain = PusherAppSettings { id: "42".to_owned(), client_events: true, ..PusherAppSettings::default() };
        let watched = alike(&PusherAppSettings { watchlist: true, ..plain.clone() }, None, "None").pop();
        let counted = alike(&PusherAppSettings { subscription_count_event: true, ..plain }, None, "None").pop();
        assert!(watched != counted && ![watched, counted].contains(&Some(words.into())));
    }

    /// The page says each limit with its default, in units that people read.
    #[test]
    fn the_page_states_the_limits() {
        let page = include_str!("../../../../docs/pusher.md");
        let table = page.split_once("### 1.11").expect("the section").1.split_once("### 1.12").expect("the next").0;
        let limits = serde_json::to_value(AppLimits::default()).expect("plain values");
        for (name, default) in limits.as_object().expect("a struct") {
            let route_id = table
                .lines()
                .find(|route_id| route_id.starts_with(&format!("| `{name}` | ")))
                .unwrap_or_else(|| panic!("{name}"));
            let said = match default.as_str() {
                None => default.to_string(),
                Some("2m") => "120 s".to_owned(),
                Some(size) => size
                    .strip_suffix('B')
                    .filter(|size| size.parse::<u64>().is_ok())
                    .map_or_else(|| size.replace("KiB", " KiB"), |bytes| format!("{bytes} bytes")),
            };
            assert!(route_id.contains(&format!("| {said}")), "{route_id}: {said}");
        }
    }
}
