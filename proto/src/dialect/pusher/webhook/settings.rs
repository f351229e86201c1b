//! `webhooks` of an app in the settings.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    channel::ChannelPattern,
    dialect::mount::{BadSetting, SecretFiles},
    http_target::{BadTarget, HttpTarget, TargetUrl},
    secret::Secret,
};

use super::{Webhook, WebhookKind};

/// What stands for every kind of event, and for every channel.
const ALL: &str = "*";

/// One of `webhooks` of an app.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table such as { url = \"https://app.example.com/webhooks\" }")]
pub struct WebhookSettings {
    /// Where requests go.
    pub url: TargetUrl,
    /// The kinds of events that it wants; `*` is all.
    pub events: Vec<String>,
    /// Patterns of the channels that it wants to know of.
    pub channels: Vec<String>,
    /// A header of its own, as in `Authorization: Bearer secret`.
    pub header: Secret,
    /// A file that holds the header instead.
    pub header_file: String,
}

impl Default for WebhookSettings {
    fn default() -> Self {
        Self {
            url: TargetUrl::default(),
            events: vec![ALL.to_owned()],
            channels: vec![ALL.to_owned()],
            header: Secret::default(),
            header_file: String::new(),
        }
    }
}

/// The targets of an app that is at `place` in the settings, if it has an id and a secret (`signs`).
pub(in super::super) fn webhooks(
    place: &str,
    settings: &[WebhookSettings],
    signs: bool,
    files: &dyn SecretFiles,
) -> Result<Vec<Arc<Webhook>>, BadSetting> {
    if !settings.is_empty() && !signs {
        let error =
            BadSetting::new(format!("{place}.webhooks"), "webhooks are signed with the app's secret, and it has none");
        return Err(error.hint("give the app an id and a secret"));
    }
    let read = |(index, settings)| one(format!("{place}.webhooks.{index}"), settings, files).map(Arc::new);
    settings.iter().enumerate().map(read).collect()
}

fn one(place: String, settings: &WebhookSettings, files: &dyn SecretFiles) -> Result<Webhook, BadSetting> {
    let at = |name: &str| format!("{place}.{name}");
    let url = settings.url.expose();
    if url.is_empty() {
        return Err(BadSetting::new(at("url"), "is missing").hint("url = \"https://app.example.com/webhooks\""));
    }
    let target = HttpTarget::new(url).map_err(|why| {
        let error = BadSetting::new(at("url"), why);
        match why {
            BadTarget::Userinfo => error.hint("header = \"Authorization: Basic …\" says the same"),
            _ => error.hint("url = \"https://app.example.com/webhooks\""),
        }
    })?;
    let target = match files.secret(&place, "header", &settings.header, &settings.header_file)? {
        None => target,
        Some(header) => {
            let header = String::from_utf8(header).map_err(|_| BadSetting::new(at("header"), "is not text"))?;
            target.with_header(&header).map_err(|why| BadSetting::new(at("header"), why))?
        }
    };
    Ok(Webhook {
        target,
        events: kinds(&at("events"), &settings.events)?,
        channels: patterns(&at("channels"), &settings.channels)?,
        place,
    })
}

fn kinds(key: &str, names: &[String]) -> Result<Vec<WebhookKind>, BadSetting> {
    let known = || WebhookKind::ALL.map(WebhookKind::name).join(", ");
    if names.is_empty() {
        return Err(BadSetting::new(key, "is empty").hint(format!("\"*\" for all, or some of {}", known())));
    }
    let mut kinds = Vec::new();
    for (index, name) in names.iter().enumerate() {
        match name.parse() {
            _ if name == ALL => kinds.extend(WebhookKind::ALL),
            Ok(kind) => kinds.push(kind),
            Err(()) => {
                let error = BadSetting::new(format!("{key}.{index}"), format!("there is no event {name:?}"));
                return Err(error.hint(format!("\"*\" for all, or some of {}", known())));
            }
        }
    }
    Ok(kinds)
}

fn patterns(key: &str, patterns: &[String]) -> Result<Vec<ChannelPattern>, BadSetting> {
    let hint = "\"*\" for all channels, \"presence-*\" for those that begin so";
    if patterns.is_empty() {
        return Err(BadSetting::new(key, "is empty").hint(hint));
    }
    let read = |(index, pattern): (usize, &String)| {
        let bad = |why: String| BadSetting::new(format!("{key}.{index}"), why).hint(hint);
        if pattern.is_empty() {
            return Err(bad("is empty, and means no channel".to_owned()));
        }
        ChannelPattern::try_from(pattern.as_str()).map_err(|why| bad(why.to_string()))
    };
    patterns.iter().enumerate().map(read).collect()
}

/// The keys that are paths of files.
pub(in super::super) fn paths(settings: &mut [WebhookSettings]) -> impl Iterator<Item = (&'static str, &mut String)> {
    // errors name the whole key; which line of the file it is in is the same for all of the list
    settings.iter_mut().map(|webhook| ("webhooks", &mut webhook.header_file))
}

/// What the nodes compare. Nothing if there are none: nodes of the first release know of none.
pub(in super::super) fn alike(webhooks: &[Arc<Webhook>]) -> Option<Vec<u8>> {
    let one = |webhook: &Arc<Webhook>| {
        let Webhook { target, events, channels, .. } = &**webhook;
        format!("{:?} {:?} {events:?} {channels:?}", target.url().as_str(), target.header())
    };
    let all: Vec<_> = webhooks.iter().map(one).collect();
    (!all.is_empty()).then(|| all.join("\n").into_bytes())
}
