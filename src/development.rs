//! Development mode: nothing is configured, so that a newcomer sees a message on the screen within a minute. A key that
//! lives as long as the process, one token signed with it, an app for Pusher's libraries, a token for Conveyor's callers,
//! lines to paste, and a page to try it on. All of it is gone as soon as a key is configured.

use std::{env, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result};
use aws_lc_rs::hmac;
use wellhead_proto::{
    dialect::{
        conveyor::{self, ConveyorApp},
        pusher::{self, AppLimits, PusherApp},
    },
    ids::AppId,
    jwt::{Key, Keyring},
    tenants::{DialectRecord, ListedTenant, Tenants},
};

use crate::{
    settings::{Settings, Unlisted},
    signing::{self, KeyKind, KeyPair, SigningKey},
};

/// How long the demo token is good for.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// The channel of the lines.
const CHANNEL: &str = "news";

/// What a process without keys makes for itself.
#[derive(Clone)]
pub struct Development {
    /// The app of the demo token.
    pub app: String,
    /// A JWT that lets its bearer subscribe to everything in that app.
    pub token: String,
    /// The public half of the key, in PEM: it verifies the token.
    pub public_key: String,
    /// Does a push need a key?
    pub push_key_needed: bool,
    /// The app for Pusher's libraries; none if the settings list apps themselves.
    pub pusher: Option<PusherDemo>,
    /// The server token for Conveyor's callers and clients; none if the settings say themselves who they are.
    pub conveyor: Option<String>,
}

/// What Pusher's libraries need to know of the demo app; its key is its name.
#[derive(Clone)]
pub struct PusherDemo {
    /// The secret that requests are signed with.
    pub secret: String,
    /// The path of its sockets, at the slave.
    pub sockets: String,
    /// The path of its HTTP API, at the master.
    pub requests: String,
}

/// The key of the demo app, and its id in Pusher's API.
const APP: &str = "demo";
const APP_ID: &str = "1";

/// The app that Pusher's libraries may use in development mode, unless the settings list apps themselves. Its secret
/// follows from the cluster's, which the nodes of a machine share: nobody has to be told it.
#[must_use]
pub fn pusher_app(settings: &Settings, cluster_secret: &[u8]) -> Option<PusherApp> {
    if !settings.apps.listed.is_empty() || settings.apps.unlisted == Unlisted::Refuse {
        return None;
    }
    let secret = derived(cluster_secret, "wellhead: the secret of the demo app in development mode");
    let key = AppId::try_from(APP).ok()?;
    Some(PusherApp::new(key, APP_ID.to_owned(), secret.into_bytes(), true, AppLimits::default()))
}

/// Conveyor's server token of the demo app, unless the settings list apps, give Conveyor a token or another app, or need none.
fn conveyor_token(settings: &Settings, cluster_secret: &[u8]) -> Option<String> {
    pusher_app(settings, cluster_secret)?;
    let rows = &settings.dialects.of::<conveyor::Settings>().conveyor;
    let has_chosen = rows.open || !rows.token.is_empty() || !rows.token_file.is_empty() || rows.app != APP;
    (!has_chosen).then(|| derived(cluster_secret, "wellhead: Conveyor's server token in development mode"))
}

/// A secret that follows from the cluster's.
fn derived(cluster_secret: &[u8], purpose: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, cluster_secret);
    let tag = hmac::sign(&key, purpose.as_bytes());
    tag.as_ref()[..20].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `tenants` with the throw-away `keys`, the app for Pusher's libraries, and the token for Conveyor's callers.
#[must_use]
pub fn tenants(tenants: &Tenants, settings: &Settings, keys: Keyring, cluster_secret: &[u8]) -> Tenants {
    let tenants = tenants.clone().with_keys(keys);
    let Some(app) = pusher_app(settings, cluster_secret) else { return tenants };
    let (key, id) = (app.key.clone(), Some(app.id.clone()));
    let of_dialects = vec![DialectRecord::new(id, app)];
    let tenants = tenants.with_listed(key.clone(), ListedTenant { of_dialects, ..ListedTenant::default() });
    match conveyor_token(settings, cluster_secret) {
        Some(token) => tenants.with_record(&DialectRecord::new(None, ConveyorApp::new(key, token.as_bytes()))),
        None => tenants,
    }
}

impl Development {
    /// A fresh key, as the ring that verifies with it, and a token that it signed.
    ///
    /// # Errors
    ///
    /// The machine has no randomness to give.
    pub fn start(settings: &Settings, cluster_secret: &[u8]) -> Result<(Self, Keyring)> {
        let pair = KeyPair::generate(KeyKind::Es256)?;
        let public = Key::from_pem(None, pair.public.as_bytes(), None).context("the throw-away key")?;
        let app = match settings.apps.listed.first() {
            Some(app) if settings.apps.unlisted == Unlisted::Refuse => app.key.clone(),
            _ => APP.to_owned(),
        };
        let pusher = pusher_app(settings, cluster_secret).map(|app| {
            let below = |prefix: &str| prefix.trim_end_matches('/').to_owned();
            let rows = &settings.dialects.of::<pusher::Settings>().pusher;
            PusherDemo {
                secret: String::from_utf8_lossy(&app.secret).into_owned(),
                sockets: format!("{}/app/{APP}", below(&rows.slave_prefix)),
                requests: format!("{}/apps/{APP_ID}", below(&rows.master_prefix)),
            }
        });
        let claims = signing::claims(&app, "demo", &["*".to_owned()], TTL);
        let token = SigningKey::from_pem(&pair.private)?.sign(&claims, None)?;
        let keys = Keyring::new(vec![public], settings.jwt.require_exp);
        let push_key_needed = !settings.push_keys.is_empty();
        let conveyor = conveyor_token(settings, cluster_secret);
        Ok((Self { app, token, public_key: pair.public, push_key_needed, pusher, conveyor }, keys))
    }

    /// What is told to the newcomer: loudly that this is no way to run it for real, then lines that work when they
    /// are pasted. `start_slave`: there is none in this process; with the file that it is to be started with, if any.
    #[must_use]
    pub fn notice(&self, master: SocketAddr, slave: &str, start_slave: Option<Option<&Path>>) -> String {
        let program = env::current_exe().map_or_else(|_| "wellhead".to_owned(), |program| from_here(&program));
        let Self { app, token, .. } = self;
        let (program, app_word) = (quoted(&program), quoted(app));
        let key = if self.push_key_needed { "-H \"Authorization: Bearer $PUSH_KEY\" " } else { "" };
        let path_app = percent_encoding::utf8_percent_encode(app, percent_encoding::NON_ALPHANUMERIC);
        let slave_line = start_slave.map_or_else(String::new, |file| {
            let file = file.map_or_else(String::new, |file| format!(" -c {}", quoted(&file.display().to_string())));
            format!("0. Start a slave, in another terminal, unless one is running:\n\n{program}{file} slave\n\n")
        });
        let pusher = self.pusher.as_ref().map_or_else(String::new, |pusher| pusher.notice(master, slave));
        let conveyor = self.conveyor.as_ref().map_or_else(String::new, |token| {
            format!(
                "4. Or as Conveyor's callers do, with this server token. Its clients connect to ws://{slave}/?token=…\n\
                 \n\
                 curl -sS -X POST 'http://{master}/conveyor/message?token={token}' \
                 -d '{{\"channel\":\"{CHANNEL}\",\"message\":\"It works\"}}'\n\n",
            )
        });
        format!(
            "\n\
             ****  DEVELOPMENT MODE: no key is configured (jwt.public_keys), so a throw-away one was made.       ****\n\
             ****  It ends with this process and serves this machine only. `wellhead keys generate` makes keys.  ****\n\
             \n\
             The demo JWT, good for 24 hours, for every channel of the app {app}:\n\
             \n\
             {token}\n\
             \n\
             {slave_line}\
             1. Subscribe, in a second terminal:\n\
             \n\
             {program} sub --slave http://{slave} --app {app_word} --channel {CHANNEL} --token {token}\n\
             \n\
             2. Push, in a third:\n\
             \n\
             curl -sS {key}-X POST http://{master}/v1/apps/{path_app}/channels/{CHANNEL}/messages \
             -d '{{\"event\":\"hello\",\"data\":{{\"text\":\"It works\"}}}}'\n\
             \n\
             {pusher}{conveyor}\
             Or watch pushes arrive in a browser: http://{master}/try\n\n",
        )
    }
}

impl PusherDemo {
    /// How to use the demo app: what to tell a library, and a line that needs none.
    fn notice(&self, master: SocketAddr, slave: &str) -> String {
        let Self { secret, requests, .. } = self;
        let body = format!(r#"{{"name":"hello","channel":"{CHANNEL}","data":"It works"}}"#);
        let path = format!("/apps/{APP_ID}/events");
        let where_to = match master.to_string() {
            master if master == slave => format!("requests and sockets to {master}"),
            master => format!("requests to {master} and sockets to {slave}"),
        };
        format!(
            "3. Or as Pusher's libraries do, with the app id {APP_ID}, the key {APP}, the secret {secret},\n   \
             {where_to}, without TLS:\n\
             \n\
             B='{body}'; \
             Q=\"auth_key={APP}&auth_timestamp=$(date +%s)&auth_version=1.0\
             &body_md5=$(printf %s \"$B\" | openssl md5 -r | cut -c1-32)\"; \
             S=$(printf 'POST\\n{path}\\n%s' \"$Q\" | openssl dgst -sha256 -hmac {secret} -r | cut -c1-64); \
             curl -sS -H 'Content-Type: application/json' -d \"$B\" \
             \"http://{master}{requests}/events?$Q&auth_signature=$S\"\n\n",
        )
    }
}

/// The program as it is called from the folder of this process.
fn from_here(program: &Path) -> String {
    let here = env::current_dir().ok().and_then(|here| program.strip_prefix(here).ok().map(Path::to_owned));
    match here {
        Some(program) => format!("./{}", program.display()),
        None => program.display().to_string(),
    }
}

/// `word` as a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/:@+=".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{ListedApp, load::load};

    #[test]
    fn the_token_verifies_with_the_throw_away_key_and_no_other() {
        let settings = Settings::default();
        let (development, keys) = Development::start(&settings, b"secret").unwrap();
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        assert_eq!(keys.verify(&development.token, now).unwrap().grant.app.as_str(), "demo");
        let (_, others) = Development::start(&settings, b"secret").unwrap();
        assert!(others.verify(&development.token, now).is_err());
    }

    #[test]
    fn the_token_is_for_an_app_that_is_served() {
        let mut settings = Settings::default();
        settings.apps.unlisted = Unlisted::Refuse;
        settings.apps.listed = vec![ListedApp { key: "a b".to_owned(), ..ListedApp::default() }];
        let (development, _) = Development::start(&settings, b"secret").unwrap();
        let (master, slave) = ("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2");
        let notice = development.notice(master, slave, None);
        assert!(notice.contains("--app 'a b' ") && !notice.contains("0. Start"), "{notice}");
        let one = development.notice("127.0.0.1:2".parse().unwrap(), slave, None);
        assert!(one.contains("--slave http://127.0.0.1:2 ") && one.contains("http://127.0.0.1:2/try"), "{one}");
        let alone = development.notice(master, slave, Some(Some(Path::new("a b.toml"))));
        assert!(alone.contains(" -c 'a b.toml' slave\n"), "{alone}");
        assert!(notice.contains("http://127.0.0.1:1/v1/apps/a%20b/channels/news/messages"), "{notice}");
    }

    #[test]
    fn the_app_for_pushers_libraries_is_the_same_wherever_the_secret_is() {
        let settings = Settings::default();
        let app = pusher_app(&settings, b"one").unwrap();
        assert_eq!((app.key.as_str(), app.id.as_str(), app.client_events), ("demo", "1", true));
        assert_eq!(app.secret.len(), 40);
        assert_eq!(pusher_app(&settings, b"one").unwrap().secret, app.secret);
        assert_ne!(pusher_app(&settings, b"two").unwrap().secret, app.secret);
        let mut own = Settings::default();
        own.apps.listed = vec![ListedApp { key: "mine".to_owned(), ..ListedApp::default() }];
        assert!(pusher_app(&own, b"one").is_none(), "who lists apps has chosen");
        assert!(conveyor_token(&own, b"one").is_none());
    }

    #[test]
    fn conveyors_token_is_the_same_wherever_the_secret_is_unless_somebody_has_chosen() {
        let token = conveyor_token(&Settings::default(), b"one").unwrap();
        assert_eq!(token.len(), 40);
        assert_eq!(conveyor_token(&Settings::default(), b"one").unwrap(), token);
        assert_ne!(conveyor_token(&Settings::default(), b"two").unwrap(), token);
        for chosen in ["token=\"a token of one's own\"", "token_file=\"a file\"", "open=true", "app=\"mine\""] {
            let settings = load(None, &[format!("conveyor.{chosen}")]).unwrap().settings;
            assert!(conveyor_token(&settings, b"one").is_none(), "{chosen}");
        }
        let keys = Keyring::new(Vec::new(), false);
        let tenants = tenants(&Tenants::default(), &Settings::default(), keys, b"one");
        let apps: Vec<_> = tenants.all_of::<ConveyorApp>().collect();
        assert!(matches!(apps[..], [app] if app.is_server_token(&token) && !app.is_open()));
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(quoted("./target/wellhead"), "./target/wellhead");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
