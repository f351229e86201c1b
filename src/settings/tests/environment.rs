//! The environment of a container: what of it is ours, and what is left alone.

use super::*;
use crate::settings::BusAddress;

fn from_variables(variables: &[(&str, &str)]) -> Result<Loaded, SettingsError> {
    let variables: Vec<_> = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    layers("w.toml", "", &variables, &[])
}

#[test]
fn what_others_put_there_is_left_alone() {
    let strays = [
        // Kubernetes, for a service called wellhead
        ("WELLHEAD_PORT", "tcp://10.0.0.7:7777"),
        ("WELLHEAD_PORT_7777_TCP", "tcp://10.0.0.7:7777"),
        ("WELLHEAD_PORT_7777_TCP_ADDR", "10.0.0.7"),
        ("WELLHEAD_SERVICE_HOST", "10.0.0.7"),
        ("WELLHEAD_SERVICE_PORT_HTTP", "7777"),
        ("WELLHEAD_APP_SERVICE_HOST", "10.0.0.8"),
        // our own examples
        ("WELLHEAD_JWT", "eyJ"),
        ("WELLHEAD_APP", "demo"),
        ("WELLHEAD_MASTER", "http://127.0.0.1:7777"),
        ("WELLHEAD_SLAVE", "http://127.0.0.1:8888"),
        ("WELLHEAD_PUSH_KEY", "wh_x"),
        ("WELLHEAD_", "x"),
        ("WELLHEAD__X", "x"),
    ];
    let loaded = from_variables(&strays).unwrap();
    assert_eq!((loaded.settings, loaded.warnings), (Settings::default(), Vec::new()));
}

#[test]
fn what_would_be_a_setting_is_warned_about_by_name_and_never_by_value() {
    for (name, right) in [
        ("WELLHEAD_SLAVE_LISTEN", "WELLHEAD_SLAVE__LISTEN"),
        ("WELLHEAD_CLUSTER_SECRET_FILE", "WELLHEAD_CLUSTER__SECRET_FILE"),
        ("WELLHEAD_NATS_TLS_CA_FILE", "WELLHEAD_NATS__TLS__CA_FILE"),
        ("WELLHEAD_APPS_LISTED", "WELLHEAD_APPS__LISTED"),
    ] {
        let loaded = from_variable(name, "hush").unwrap();
        assert_eq!(loaded.settings, Settings::default());
        let plan = Plan::new(&loaded, Roles::Standalone).unwrap();
        let [warning] = &plan.warnings[..] else { panic!("{:?}", plan.warnings) };
        assert!(warning.contains(&format!("{name} is ignored")) && warning.contains(right), "{warning}");
        assert!(!warning.contains("hush"), "{warning}");
    }
}

#[test]
fn an_empty_variable_is_not_set() {
    let names = [
        "WELLHEAD_SLAVE__ADMIN",
        "WELLHEAD_LIMITS__BODY",
        "WELLHEAD_SLAVE__LISEN",
        "WELLHEAD_PUSH_KEYS",
        "WELLHEAD_APP_ID",
    ];
    assert_eq!(from_variables(&names.map(|name| (name, ""))).unwrap().settings, Settings::default());
    let loaded = from_variable("WELLHEAD_SLAVE_LISTEN", "").unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    // the file and a flag can empty a setting
    assert_eq!(from_file("[slave]\nadmin = \"\"").unwrap().settings.slave.admin, "");
    assert_eq!(from_flag("slave.admin=").unwrap().settings.slave.admin, "");
}

#[test]
fn lists_are_toml_or_json_or_words() {
    let hash = "0".repeat(64);
    let key_files = |text: &str| {
        let keys = from_variable("WELLHEAD_JWT__PUBLIC_KEYS", text).unwrap().settings.jwt.public_keys;
        keys.into_iter().map(|key| (key.file, key.kid)).collect::<Vec<_>>()
    };
    let (a, b) = (("a.pem".to_owned(), None), ("b.pem".to_owned(), Some("b".to_owned())));
    assert_eq!(key_files("[\"a.pem\", { file = \"b.pem\", kid = \"b\" }]"), [a.clone(), b.clone()]);
    assert_eq!(key_files(" [\"a.pem\",\n {\"file\":\"b.pem\",\n\"kid\":\"b\"}]"), [a.clone(), b]);
    assert_eq!(key_files("a.pem"), [a]);
    let apps = "[{\"key\":\"demo\",\"id\":\"1\",\"secret\":\"0123456789abcdef\",\"limits\":{\"batch\":7}}]";
    let apps = from_variable("WELLHEAD_APPS__LISTED", apps).unwrap().settings.apps.listed;
    let own = apps[0].dialects.of::<PusherAppSettings>();
    assert_eq!((own.id.as_str(), own.limits.batch), ("1", 7));
    let both = BusAddress::Nats(vec!["nats://a:1".to_owned(), "nats://b:2".to_owned()]);
    let bus = from_variable("WELLHEAD_CLUSTER__BUS", "[\"nats://a:1\", \"nats://b:2\"]").unwrap();
    assert_eq!(bus.settings.cluster.bus, both);
    for keys in [
        format!("backend:{hash},other:{hash}"),
        format!("[\"backend:{hash}\", \"other:{hash}\"]"),
        format!("[{{\"name\":\"backend\",\"sha256\":\"{hash}\"}},{{\"name\":\"other\",\"sha256\":\"{hash}\"}}]"),
        format!("[{{ name = \"backend\", sha256 = \"{hash}\" }}, \"other:{hash}\"]"),
    ] {
        let keys = from_variable("WELLHEAD_PUSH_KEYS", &keys).unwrap().settings.push_keys;
        let [backend, other] = &keys[..] else { panic!("{keys:?}") };
        assert_eq!((backend.name.as_str(), other.name.as_str(), backend.rights.len()), ("backend", "other", 3));
    }
    for keys in ["[1, null]", "[\"a\"\n]\nb = [1]", "[\"a\""] {
        let error = from_variable("WELLHEAD_JWT__PUBLIC_KEYS", keys).unwrap_err().to_string();
        assert!(error.contains("TOML or JSON"), "{error}");
    }
}

#[test]
fn variables_of_its_own_make_one_app() {
    let key = ("WELLHEAD_APP_KEY", "demo");
    let id = ("WELLHEAD_APP_ID", "1");
    let secret = ("WELLHEAD_APP_SECRET", "0123456789abcdef0123");
    let plan = Plan::new(&from_variables(&[key, id, secret]).unwrap(), Roles::Standalone).unwrap();
    let [app] = pushers(&plan)[..] else { panic!("{:?}", plan.tenants) };
    assert_eq!((app.key.as_str(), app.id.as_str(), &app.secret[..]), ("demo", "1", secret.1.as_bytes()));

    let folder = SettingsFolder::new("app-variables");
    let file = folder.write("secret", "in a file, long enough\n").display().to_string();
    let secret_file = ("WELLHEAD_APP_SECRET_FILE", file.as_str());
    let plan = Plan::new(&from_variables(&[key, id, secret_file]).unwrap(), Roles::Standalone).unwrap();
    assert_eq!(pushers(&plan)[0].secret, b"in a file, long enough");

    for (variables, place, what) in [
        (&[key][..], "WELLHEAD_APP_KEY: ", "WELLHEAD_APP_ID is not set"),
        (&[key, secret], "WELLHEAD_APP_KEY: ", "WELLHEAD_APP_ID is not set"),
        (&[key, id], "WELLHEAD_APP_KEY: ", "WELLHEAD_APP_SECRET or WELLHEAD_APP_SECRET_FILE is not set"),
        (&[id, secret], "WELLHEAD_APP_ID: ", "WELLHEAD_APP_KEY is not set"),
        (&[secret_file, ("WELLHEAD_APP_ID", "")], "WELLHEAD_APP_SECRET_FILE: ", "WELLHEAD_APP_KEY is not set"),
        (&[key, id, secret, secret_file], "WELLHEAD_APP_SECRET_FILE: ", "say it once"),
        (&[key, ("WELLHEAD_APP_ID", "a/b"), secret], "WELLHEAD_APP_ID: ", "cannot stand in a path"),
        (&[key, id, ("WELLHEAD_APP_SECRET_FILE", "nowhere")], "WELLHEAD_APP_SECRET_FILE: ", "cannot read"),
    ] {
        let error = from_variables(variables).and_then(|loaded| Plan::new(&loaded, Roles::Standalone).map(drop));
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with(&format!("environment variable {place}")) && error.contains(what), "{error}");
        assert!(!error.contains(secret.1), "{error}");
    }
    // beside other apps, but not twice
    let variables = [key, id, secret].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let loaded = layers("w.toml", "[[apps.listed]]\nkey = \"other\"", &variables, &[]).unwrap();
    assert_eq!(loaded.settings.apps.listed.len(), 2);
    let error = layers("w.toml", "[[apps.listed]]\nkey = \"demo\"", &variables, &[]).unwrap_err().to_string();
    assert!(error.starts_with("environment variable WELLHEAD_APP_KEY: ") && error.contains("(w.toml:1)"), "{error}");
}
