//! Apps for Pusher's libraries.

use std::time::Duration;

use wellhead_master::Keyless;
use wellhead_proto::dialect::pusher;

use super::*;

const APP: &str = "[[apps.listed]]\nkey = \"shop\"\nid = \"42\"\nsecret = \"0123456789abcdef0123\"\n";

fn plan(text: &str) -> Plan {
    Plan::new(&from_file(text).unwrap(), Roles::Standalone).unwrap()
}

#[test]
fn an_app_with_an_id_and_a_secret_is_pushers() {
    let folder = SettingsFolder::new("pusher");
    let file = folder.write("secret", "in a file, long enough\n").display().to_string();
    let text = format!(
        "[pusher]\nmaster_prefix = \"/push/\"\n[[apps.listed]]\nkey = \"plain\"\n{APP}client_events = true\n\
         authorized_connections = true\nauthorization_timeout = \"7s\"\n\
         watchlist = true\nsubscription_count_event = true\n\
         [apps.listed.limits]\nevent_data = \"20KiB\"\npresence_members = 7\nactivity_timeout = \"30s\"\n\
         [[apps.listed]]\nkey = \"other\"\nid = \"43\"\nsecret_file = \"{file}\"\n"
    );
    let plan = plan(&text);
    let [shop, other] = pushers(&plan)[..] else { panic!("{:?}", plan.tenants) };
    assert_eq!((shop.key.as_str(), shop.id.as_str(), &shop.secret[..]), ("shop", "42", &b"0123456789abcdef0123"[..]));
    assert!(shop.client_events && !other.client_events);
    assert!(shop.watchlist && shop.subscription_count_event && !other.watchlist && !other.subscription_count_event);
    let wants = |app: &str| plan.tenants.app(&app.parse().unwrap()).wants();
    assert!(wants("shop").watchlists && wants("shop").counts.is_some() && wants("other").counts.is_none());
    assert_eq!((shop.authorize_within, other.authorize_within), (Some(Duration::from_secs(7)), None));
    assert_eq!((shop.limits.event_data.bytes(), shop.limits.presence_members, shop.limits.batch), (20 << 10, 7, 10));
    assert_eq!(shop.limits.activity_timeout.0, Duration::from_secs(30));
    assert_eq!(other.limits, AppLimits::default());
    assert_eq!(other.secret, b"in a file, long enough");
    let rows = &plan.of_dialects.of::<pusher::Settings>().pusher;
    assert_eq!((rows.master_prefix.as_str(), rows.slave_prefix.as_str()), ("/push", ""));
    assert!(["plain", "shop", "other"].iter().all(|app| plan.tenants.named(app).is_listed()) && plan.development);
}

#[test]
fn half_an_app_and_limits_of_nothing_are_refused_with_their_place() {
    let limit = |limit: &str| format!("{APP}[apps.listed.limits]\n{limit}");
    for (text, place, what) in [
        ("[[apps.listed]]\nkey = \"a\"\nid = \"1\"".to_owned(), "w.toml:3: apps.listed.0.id", "openssl rand"),
        ("[[apps.listed]]\nkey = \"a\"\nsecret = \"s\"".to_owned(), "w.toml:1: apps.listed.0.id", "no id"),
        ("[[apps.listed]]\nkey = \"a\"\nclient_events = true".to_owned(), "w.toml:3", "an id and a secret"),
        (
            "[[apps.listed]]\nkey = \"a\"\nauthorized_connections = true".to_owned(),
            "w.toml:3: apps.listed.0.authorized_connections",
            "an id and a secret",
        ),
        ("[[apps.listed]]\nkey = \"a\"\nwatchlist = true".to_owned(), "w.toml:3", "an id and a secret"),
        ("[[apps.listed]]\nkey = \"a\"\nsubscription_count_event = true".to_owned(), "w.toml:3", "an id and a secret"),
        (format!("{APP}authorization_timeout = \"0s\""), "w.toml:5", "authorized_connections = false"),
        (format!("{APP}authorization_timeout = \"999ms\""), "w.toml:5", "a second at least"),
        (format!("{APP}authorization_timeout = 30"), "w.toml:5", ""),
        (format!("{APP}{}", APP.replace("shop", "other")), "w.toml:7: apps.listed.1.id", "\"shop\" has the id \"42\""),
        (APP.replace("42", "4/2"), "w.toml:3", "cannot stand in a path"),
        (APP.replace("42", ".."), "w.toml:3", "cannot stand in a path"),
        (format!("{APP}secret_file = \"x\""), "w.toml:5", "set as well"),
        (format!("{APP}secret_fil = \"x\""), "w.toml:5", "did you mean `secret_file`?"),
        (limit("batch = 0"), "w.toml:6: apps.listed.0.limits.batch", "more than nothing"),
        (limit("client_events = 0"), "w.toml:6", "client_events = false"),
        (limit("event_data = \"0B\""), "w.toml:6", "more than nothing"),
        (limit("channel_name = \"1025B\""), "w.toml:6", "1024"),
        (limit("activity_timeout = \"999ms\""), "w.toml:6", "whole seconds"),
        (limit("members = 1"), "w.toml:6", "unknown"),
        ("[pusher]\nslave_prefix = \"ws\"".to_owned(), "w.toml:2: pusher.slave_prefix", "prefix"),
    ] {
        let error = refused(&text);
        assert!(error.starts_with(place) && error.contains(what), "{text}\n{error}");
    }
}

#[test]
fn an_apps_secret_is_shown_nowhere_and_comes_from_the_folder_of_its_file() {
    let text = APP.replace("0123456789abcdef0123", "hush hush hush");
    let loaded = from_file(&text).unwrap();
    let plan = Plan::new(&loaded, Roles::Standalone).unwrap();
    let shown = format!("{:?}{}{:?}", loaded.settings, toml::to_string(&loaded.settings).unwrap(), plan.tenants);
    assert!(!shown.contains("hush"), "{shown}");
    let warnings = plan.warnings.join("\n");
    assert!(warnings.contains("shorter than 16 bytes") && !warnings.contains("hush"), "{warnings}");

    let folder = SettingsFolder::new("pusher-file");
    folder.write("app.secret", "in the same folder");
    let text = "[[apps.listed]]\nkey = \"a\"\nid = \"1\"\nsecret_file = \"app.secret\"\n";
    let loaded = load::load(Some(&folder.write("w.toml", text)), &[]).unwrap();
    assert_eq!(pushers(&Plan::new(&loaded, Roles::Standalone).unwrap())[0].secret, b"in the same folder");
}

#[test]
fn signed_requests_guard_a_master_that_others_reach_and_its_other_rows_are_closed() {
    let beyond = "[master]\nlisten = \"0.0.0.0:0\"\n[slave]\nlisten = \"0.0.0.0:0\"\n";
    let exposed = plan(&format!("{beyond}{APP}"));
    assert!(!exposed.development, "nobody on other machines could have a throw-away key");
    assert_eq!((exposed.keyless(false), exposed.keyless(true)), (Keyless::Nobody, Keyless::Everybody));
    let warnings = exposed.warnings.join("\n");
    assert!(warnings.contains("only Pusher's clients") && warnings.contains("only signed requests"), "{warnings}");
    assert!(refused(&format!("{beyond}[[apps.listed]]\nkey = \"a\"")).contains("development mode"));

    let here = plan(APP);
    assert!(here.development && here.warnings.is_empty(), "{:?}", here.warnings);
    assert_eq!((here.keyless(false), here.keyless(true)), (Keyless::ThisMachine, Keyless::ThisMachine));

    let nats = format!("[cluster]\nbus = \"nats://127.0.0.1:4222\"\nsecret = \"{}\"\n", "x".repeat(32));
    assert!(!plan(&format!("{nats}{APP}")).development);
    assert!(refused(&nats).contains("nodes on NATS must share"));
}
