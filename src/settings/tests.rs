//! Settings as people write them, right and wrong.

mod cluster;
mod environment;
mod files;
mod one_port;
mod origins;
mod pusher;
mod secrets;
mod webhooks;

use std::{fs, path::PathBuf};

use wellhead_proto::dialect::{
    self, gusher,
    pusher::{AppLimits, PusherApp, PusherAppSettings},
};

use super::{
    Settings, Unlisted,
    load::{self, Loaded, layers},
    place::SettingsError,
    plan::{Plan, Roles},
    read,
};
use crate::signing::{KeyKind, KeyPair};

const SHIPPED: &str = include_str!("../../config.toml");

fn from_file(text: &str) -> Result<Loaded, SettingsError> {
    layers("w.toml", text, &[], &[])
}

fn from_variable(name: &str, value: &str) -> Result<Loaded, SettingsError> {
    layers("w.toml", "", &[(name.to_owned(), value.to_owned())], &[])
}

fn from_flag(flag: &str) -> Result<Loaded, SettingsError> {
    layers("w.toml", "", &[], &[flag.to_owned()])
}

/// What is known of apps that have an id and a secret.
fn pushers(plan: &Plan) -> Vec<&PusherApp> {
    plan.tenants.all_of().collect()
}

/// The error that a file makes, whether it is found while it is read or when everything is put together.
fn refused(text: &str) -> String {
    let error = from_file(text).and_then(|loaded| Plan::new(&loaded, Roles::Standalone).map(drop));
    error.expect_err(text).to_string()
}

/// A fresh folder with a public and a private key in it.
struct SettingsFolder(PathBuf);

impl SettingsFolder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("wellhead-settings-{}-{name}", std::process::id()));
        fs::create_dir_all(folder.join("keys")).unwrap();
        let pair = KeyPair::generate(KeyKind::Es256).unwrap();
        fs::write(folder.join("keys/public.pem"), pair.public).unwrap();
        fs::write(folder.join("keys/private.pem"), pair.private).unwrap();
        Self(folder)
    }

    fn write(&self, file: &str, text: &str) -> PathBuf {
        let path = self.0.join(file);
        fs::write(&path, text).unwrap();
        path
    }

    fn key(&self, file: &str) -> String {
        self.0.join("keys").join(file).display().to_string()
    }
}

impl Drop for SettingsFolder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn shipped_config_states_the_defaults_and_every_key() {
    assert_eq!(from_file(SHIPPED).unwrap().settings, Settings::default());
    let stated: toml::Table = toml::from_str(SHIPPED).unwrap();
    let (mut stated_keys, mut keys) = (Vec::new(), Vec::new());
    super::place::flatten("", &stated, &mut stated_keys);
    super::place::flatten("", &read::schema(dialect::ALL), &mut keys);
    // these stand there as samples
    keys.retain(|key| !["apps.listed", "push_keys"].contains(&key.as_str()));
    stated_keys.sort();
    keys.sort();
    assert_eq!(stated_keys, keys);
}

#[test]
fn no_key_of_an_app_belongs_to_two() {
    let neutral = ["key", "allowed_origins", "public_keys", "remote"].map(ToOwned::to_owned);
    let own = dialect::ALL.iter().flat_map(|dialect| dialect.app_defaults()).map(|(key, _)| key);
    let mut keys: Vec<_> = neutral.into_iter().chain(own).collect();
    let all = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), all, "{keys:?}");
}

#[test]
fn an_unknown_key_hears_of_those_of_dialects_too() {
    for (text, known) in [
        ("[x]", "`log`, `webhooks`, `pusher`"),
        ("[master]\nx = 1", "expected one of `listen`, `admin`, `open`, `prefix`"),
        (
            "[[apps.listed]]\nkey = \"a\"\nx = 1",
            "expected one of `key`, `allowed_origins`, `public_keys`, `remote`, `authorization_timeout`, `authorized_connections`, `client_events`, `id`, `limits`, `secret`, `secret_file`, `subscription_count_event`, `watchlist`, `webhooks`",
        ),
        ("[pusher]\nx = 1", "expected `master_prefix` or `slave_prefix`"),
        ("[[apps.listed]]\nkey = \"a\"\n[apps.listed.limits]\nx = 1", "expected one of `channel_name`, `event_name`"),
    ] {
        let error = from_file(text).unwrap_err().to_string();
        assert!(error.contains("unknown field `x`") && error.contains(known), "{error}");
    }
}

#[test]
fn the_samples_of_the_shipped_config_are_valid_and_state_every_key() {
    let mut samples = String::new();
    let mut inside = false;
    for line in SHIPPED.lines() {
        inside = (inside || line.starts_with("# [[")) && line.starts_with("# ");
        if inside {
            samples.push_str(&line[2..].replace('…', &"0".repeat(64)));
            samples.push('\n');
        }
    }
    let settings = from_file(&samples).unwrap().settings;
    let [key] = &settings.push_keys[..] else { panic!("{samples}") };
    assert_eq!((key.name.as_str(), key.rights.len(), key.apps.len(), key.channels.len()), ("backend", 3, 1, 1));
    let [app] = &settings.apps.listed[..] else { panic!("{samples}") };
    assert!(app.allowed_origins.is_some() && !app.public_keys.is_empty());
    let own = app.dialects.of::<PusherAppSettings>();
    assert_eq!((own.id.as_str(), own.client_events, own.secret.is_empty()), ("1", false, false));
    assert_eq!(own.limits, AppLimits::default());
    let (stated, in_limits) = samples.split_once("[apps.listed.limits]").expect("a sample");
    for (key, value) in dialect::ALL.iter().flat_map(|dialect| dialect.app_defaults()) {
        assert!(stated.contains(&format!("\n{key} = ")) || value.is_object(), "{key}");
        for (limit, _) in value.as_object().into_iter().flatten() {
            assert!(in_limits.contains(&format!("\n{limit} = ")), "{limit}");
        }
    }
}

#[test]
fn the_environment_overrides_the_file_and_flags_override_both() {
    let file = "[log]\nlevel = \"warn\"\n[limits]\nbody = \"1MiB\"\nsubscriptions = 5\n";
    let variables = [
        ("WELLHEAD_LOG__LEVEL", "error"),
        ("WELLHEAD_JWT__REQUIRE_EXP", "true"),
        ("WELLHEAD_LIMITS__SUBSCRIPTIONS", "6"),
        ("WELLHEAD_SLAVE__ALLOWED_ORIGINS", "https://a.example, https://b.example"),
        ("WELLHEAD_JWT__PUBLIC_KEYS", "[{ file = \"a.pem\", kid = \"a\" }]"),
        ("WELLHEAD_CLUSTER__SECRET", "12345"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let loaded = layers("w.toml", file, &variables, &["log.level=debug".to_owned()]).unwrap();
    let settings = &loaded.settings;
    assert_eq!(settings.log.level, "debug");
    assert_eq!(settings.limits.body.to_string(), "1MiB");
    assert_eq!(settings.limits.subscriptions, 6);
    assert!(settings.jwt.require_exp);
    assert_eq!(settings.slave.allowed_origins, ["https://a.example", "https://b.example"]);
    assert_eq!(settings.jwt.public_keys[0].kid.as_deref(), Some("a"));
    assert_eq!(settings.cluster.secret.expose(), "12345");
    let place = |key| loaded.places.of(key).map(ToString::to_string);
    assert_eq!(place("log.level").as_deref(), Some("--set log.level"));
    assert_eq!(place("limits.body").as_deref(), Some("w.toml:4"));
    assert_eq!(place("jwt.public_keys.0").as_deref(), Some("environment variable WELLHEAD_JWT__PUBLIC_KEYS"));
    assert_eq!(place("master.listen"), None);
}

#[test]
fn no_error_names_its_key_twice() {
    let mut keys = Vec::new();
    super::place::flatten("", &toml::from_str(SHIPPED).unwrap(), &mut keys);
    let mut refused = 0;
    for key in &keys {
        for value in ["?!", "0", "-1", "nats://", "[1]", "[\"?!\"]", "/nowhere"] {
            let loaded = from_flag(&format!("{key}={value}"));
            let Err(error) = loaded.and_then(|loaded| Plan::new(&loaded, Roles::Standalone)) else { continue };
            let error = error.to_string();
            let said = error.lines().next().unwrap_or_default();
            assert!(said.matches(&**key).count() == 1, "{said}");
            refused += 1;
        }
    }
    assert!(refused > 150, "only {refused} values are wrong");
    let error = from_flag("slave.lisen=1").unwrap_err().to_string();
    assert_eq!(error.matches("slave.lisen").count(), 1, "{error}");
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_a_suggestion() {
    for (error, place, near) in [
        (from_file("[slave]\n\nlisen = \"x\""), "w.toml:3: ", "did you mean `listen`?"),
        (from_file("[slvae]"), "w.toml:1: ", "did you mean `slave`?"),
        (from_file("[apps]\nunlisted = \"refused\""), "w.toml:2: ", "did you mean `refuse`?"),
        (from_file("[[push_keys]]\nname = \"a\"\nsha265 = \"\""), "w.toml:3: ", "did you mean `sha256`?"),
        (from_file("[jwt]\npublic_keys = [{ file = \"a\", kidd = \"b\" }]"), "w.toml:2: ", "did you mean `kid`?"),
        (from_variable("WELLHEAD_SLAVE__LISEN", "x"), "WELLHEAD_SLAVE__LISEN: ", "did you mean `slave.listen`?"),
        (from_variable("WELLHEAD_NATS__TLS", "x"), "WELLHEAD_NATS__TLS: ", "no setting of that name"),
        (from_flag("slave.lissten=x"), "--set slave.lissten: ", "did you mean `slave.listen`?"),
        (from_flag("slave.listen"), "", "--set section.key=value"),
    ] {
        let error = error.unwrap_err().to_string();
        assert!(error.contains(place) && error.contains(near), "{error}");
    }
}

#[test]
fn settings_of_later_parts_are_unknown() {
    for text in ["[pushex]", "[conveyor]"] {
        assert!(refused(text).contains("unknown"), "{text}");
    }
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_with_its_place() {
    for (text, place, what) in [
        ("[jwt]\ntoken_ttl = 60", "w.toml:2", "string"),
        ("[jwt]\ntoken_ttl = \"60\"", "w.toml:2", "unit"),
        ("[limits]\nbody = \"10\"", "w.toml:2", "unit"),
        ("[limits]\nbody = \"0B\"", "w.toml:2", "more than nothing"),
        ("[limits]\n\nsubscriptions = -1", "w.toml:3", "-1"),
        ("[slave]\nping_interval = \"0s\"", "w.toml:2", "longer"),
        ("[log]\nlevel = \"loud\"", "w.toml:2", "\"loud\""),
        ("[log]\nformat = \"xml\"", "w.toml:2", "json"),
        ("[master]\nlisten = \"7777\"", "w.toml:2", "host:port"),
        ("[master]\nlisten = \":7777\"", "w.toml:2", "0.0.0.0:7777"),
        ("[slave]\nlisten = \"127.0.0.1:99999\"", "w.toml:2", "not an address"),
        ("[master]\nprefix = \"api\"", "w.toml:2", "prefix"),
        ("[slave]\nprefix = \"/a{b}\"", "w.toml:2", "prefix"),
        ("[cluster]\nname = \"\"", "w.toml:2", "empty"),
        ("[cluster]\nname = \"a.b\"", "w.toml:2", "letters"),
        ("[cluster]\nbus = \"redis://h:1\"", "w.toml:2", "redis://"),
        ("[cluster]\nbus = \"lokal\"", "w.toml:2", "local"),
        ("[cluster]\nbus = []", "w.toml:2", "local"),
        ("[cluster]\nbus = [\"nats://h:1\", \"h:2\"]", "w.toml:2", "nats://host:4222"),
        ("[cluster]\nbus = 1", "w.toml:2", "list"),
        ("[master]\nlisten = \"127.0.0.1:8888\"", "", "8888"),
        ("[slave]\nlisten = \"127.0.0.1:9601\"", "", "slave.listen"),
        ("[nats.tls]\nca = \"x\"", "w.toml:2", "ca_file"),
        ("[[push_keys]]\nname = \"a\"\nsha256 = \"abc\"", "w.toml:3", "64 hexadecimal"),
        ("[[apps.listed]]\nkey = \"\"", "w.toml:2", "empty"),
        ("[[apps.listed]]\nkey = \"a\"\n[[apps.listed]]\nkey = \"a\"", "w.toml:4", "twice"),
        ("[apps]\nunlisted = \"refuse\"", "w.toml:2", "nobody could connect"),
        ("[jwt]\none_time_tokens = true", "w.toml:2", "accept_jwt_as_token = false"),
        ("[jwt]\nsecret = \"short\"", "w.toml:2", "32"),
        ("not toml", "w.toml:1", ""),
    ] {
        let error = refused(text);
        assert!(error.starts_with(place) && error.contains(what), "{text}\n{error}");
    }
    let error = from_variable("WELLHEAD_JWT__TOKEN_TTL", "60").unwrap_err().to_string();
    assert!(error.starts_with("environment variable WELLHEAD_JWT__TOKEN_TTL: jwt.token_ttl: "), "{error}");
    let error = from_flag("limits.subscriptions=many").unwrap_err().to_string();
    assert!(error.contains("whole number"), "{error}");
}

#[test]
fn two_push_keys_of_one_name_are_refused() {
    let key = format!("[[push_keys]]\nname = \"a\"\nsha256 = \"{}\"\n", "0".repeat(64));
    assert!(refused(&format!("{key}{key}")).contains("another key named \"a\""));
}

#[test]
fn a_key_that_cannot_verify_is_refused_with_its_place() {
    let folder = SettingsFolder::new("bad-keys");
    let (public, private) = (folder.key("public.pem"), folder.key("private.pem"));
    let rubbish = folder.write("keys/rubbish.pem", "rubbish").display().to_string();
    for (keys, what) in [
        ("\"missing.pem\"".to_owned(), "cannot read missing.pem"),
        (format!("\"{private}\""), "private key"),
        (format!("\"{rubbish}\""), "not a PEM"),
        (format!("{{ file = \"{public}\", algorithm = \"HS256\" }}"), "jwt.secret"),
        (format!("{{ file = \"{public}\", algorithm = \"RS256\" }}"), "cannot verify RS256"),
        (format!("{{ file = \"{public}\", algorithm = \"none\" }}"), "unknown algorithm"),
    ] {
        let error = refused(&format!("[jwt]\npublic_keys = [\n  \"{public}\",\n  {keys},\n]"));
        assert!(error.starts_with("w.toml:4: jwt.public_keys.1: ") && error.contains(what), "{error}");
        let error = refused(&format!("[[apps.listed]]\nkey = \"a\"\npublic_keys = [{keys}]"));
        assert!(error.starts_with("w.toml:3: apps.listed.0.public_keys.0: ") && error.contains(what), "{error}");
    }
}

#[test]
fn a_secret_comes_from_a_file_or_the_settings_but_not_from_both() {
    let folder = SettingsFolder::new("secrets");
    let file = folder.write("secret", "a secret in a file, long enough to use\r\n").display().to_string();
    let loaded = from_variable("WELLHEAD_CLUSTER__SECRET_FILE", &file).unwrap();
    let secret = Plan::new(&loaded, Roles::Standalone).unwrap().secret.unwrap();
    assert_eq!(secret, b"a secret in a file, long enough to use");

    let error = refused(&format!("[cluster]\nsecret = \"x\"\nsecret_file = \"{file}\""));
    assert!(error.starts_with("w.toml:3: cluster.secret_file: ") && error.contains("set as well"), "{error}");
    let error = refused("[jwt]\nsecret_file = \"missing\"");
    assert!(error.starts_with("w.toml:2: jwt.secret_file: cannot read the file"), "{error}");
    let empty = folder.write("empty", "\n").display().to_string();
    assert!(refused(&format!("[jwt]\nsecret_file = \"{empty}\"")).contains("is empty"));
}

#[test]
fn paths_of_a_file_are_meant_from_its_folder() {
    let folder = SettingsFolder::new("paths");
    let file = folder.write("w.toml", "[jwt]\npublic_keys = [\"keys/public.pem\", { file = \"keys/public.pem\" }]\n");
    let loaded = load::load(Some(&file), &[]).unwrap();
    assert_eq!(loaded.settings.jwt.public_keys[0].file, folder.key("public.pem"));
    assert!(!Plan::new(&loaded, Roles::Standalone).unwrap().development);
    let loaded = load::load(Some(&file), &["jwt.public_keys=other.pem".to_owned()]).unwrap();
    assert_eq!(loaded.settings.jwt.public_keys[0].file, "other.pem");
    let error = load::load(Some(&folder.0.join("missing.toml")), &[]).unwrap_err().to_string();
    assert!(error.contains("missing.toml") && error.contains("hint: "), "{error}");
}

#[test]
fn what_other_machines_reach_needs_keys() {
    let folder = SettingsFolder::new("exposure");
    let jwt = format!("[jwt]\npublic_keys = [\"{}\"]\n", folder.key("public.pem"));
    let push = format!("[[push_keys]]\nname = \"a\"\nsha256 = \"{}\"\n", "0".repeat(64));
    // development mode stays on this machine, whatever `open` and push keys say
    for listener in ["[master]\nopen = true\nlisten", "[slave]\nlisten", "[master]\nadmin"] {
        let error = refused(&format!("{push}{listener} = \"0.0.0.0:0\""));
        assert!(error.contains("development mode") && error.contains("keys generate"), "{error}");
    }
    let master = "[master]\nlisten = \"0.0.0.0:0\"\n";
    let error = refused(&format!("{jwt}{master}"));
    assert!(error.starts_with("w.toml:4: master.listen: ") && error.contains("keys push"), "{error}");
    let plan = |text: &str| Plan::new(&from_file(text).unwrap(), Roles::Standalone).unwrap();
    assert!(!plan(&format!("{jwt}{push}{master}")).development);
    let warnings = plan(&format!("{jwt}{master}open = true\n")).warnings.join("\n");
    assert!(warnings.contains("master.open") && warnings.contains("jwt.require_exp"), "{warnings}");
    assert!(plan(&format!("{jwt}[slave]\nlisten = \"[::]:0\"")).slave.unwrap().ip().is_unspecified());
    let warnings = plan(&format!("{jwt}[master]\nadmin = \"0.0.0.0:0\"")).warnings.join("\n");
    assert!(warnings.contains("/metrics refuses everybody"), "{warnings}");
}

#[test]
fn any_key_ends_development_mode() {
    let folder = SettingsFolder::new("development");
    let key = folder.key("public.pem");
    let development = |text: &str| Plan::new(&from_file(text).unwrap(), Roles::Standalone).unwrap().development;
    assert!(development(""));
    assert!(!development(&format!("[jwt]\npublic_keys = [\"{key}\"]")));
    assert!(!development(&format!("[jwt]\nsecret = \"{}\"", "x".repeat(32))));
    assert!(!development(&format!("[[apps.listed]]\nkey = \"a\"\npublic_keys = [\"{key}\"]")));
}

#[test]
fn prefixes_lose_their_last_slash_and_other_apps_may_be_refused() {
    let text = "[master]\nprefix = \"/api/\"\n[slave]\nprefix = \"/\"\n\
                [apps]\nunlisted = \"refuse\"\n[[apps.listed]]\nkey = \"a\"";
    let loaded = from_file(text).unwrap();
    assert_eq!(loaded.settings.apps.unlisted, Unlisted::Refuse);
    let plan = Plan::new(&loaded, Roles::Standalone).unwrap();
    let rows = plan.of_dialects.of::<gusher::Settings>();
    assert_eq!((rows.master.prefix.as_str(), rows.slave.prefix.as_str()), ("/api", ""));
    assert!(plan.tenants.named("a").is_served() && !plan.tenants.named("b").is_served());
}
