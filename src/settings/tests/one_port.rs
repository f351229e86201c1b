//! One address for both roles.

use wellhead_master::Keyless;

use super::{SettingsFolder, from_file, from_variable, refused};
use crate::settings::plan::{Plan, Roles};

const APP: &str = "[[apps.listed]]\nkey = \"shop\"\nid = \"42\"\nsecret = \"0123456789abcdef0123\"\n";
const HERE: &str = "[standalone]\nlisten = \"127.0.0.1:6001\"\n";

fn plan(text: &str) -> Plan {
    Plan::new(&from_file(text).unwrap(), Roles::Standalone).unwrap()
}

#[test]
fn one_address_is_standalones_and_stands_for_those_of_the_roles() {
    let ports = |plan: &Plan| [plan.master, plan.slave, plan.admin].map(|at| at.map(|at| at.port()));
    let nonsense = "[master]\nlisten = \"nonsense\"\n[slave]\nlisten = \"0.0.0.0:9601\"\n";
    let one = plan(&format!("{HERE}{nonsense}"));
    assert!(one.one_port);
    assert_eq!(ports(&one), [Some(6001), Some(6001), Some(9601)]);
    let roles = format!("{HERE}[master]\nlisten = \"127.0.0.1:1\"\n[slave]\nlisten = \"127.0.0.1:2\"\n");
    let of = |roles_of| Plan::new(&from_file(&roles).unwrap(), roles_of).unwrap();
    assert_eq!(ports(&of(Roles::Master)), [Some(1), None, Some(9601)]);
    assert_eq!(ports(&of(Roles::Slave)), [None, Some(2), Some(9602)]);
    let bad = from_file("[standalone]\nlisten = \"nonsense\"").unwrap();
    assert!(Plan::new(&bad, Roles::Master).is_ok_and(|plan| !plan.one_port) && Plan::new(&bad, Roles::Slave).is_ok());
    assert!(Plan::new(&bad, Roles::Standalone).is_err());
    assert!(!plan("[standalone]\nlisten = \"\"").one_port);
    let loaded = from_variable("WELLHEAD_STANDALONE__LISTEN", "localhost:8080").unwrap();
    assert_eq!(Plan::new(&loaded, Roles::Standalone).unwrap().slave.unwrap().port(), 8080);

    for (text, place, what) in [
        ("[standalone]\nlisten = \"8080\"", "w.toml:2: standalone.listen: ", "host:port"),
        ("[standalone]\nlisten = \"127.0.0.1:9601\"", "", "where standalone.listen listens already"),
        ("[standalone]\nlisen = \"\"", "w.toml:2", "did you mean `listen`?"),
        (&format!("{HERE}[master]\nprefix = \"\"\n[slave]\nprefix = \"/\""), "w.toml:2: standalone.listen", "/ping"),
    ] {
        let error = refused(text);
        assert!(error.starts_with(place) && error.contains(what), "{text}\n{error}");
    }
}

#[test]
fn without_push_keys_nobody_is_served_there_but_in_development_mode() {
    let folder = SettingsFolder::new("one-port");
    let jwt = format!("[jwt]\npublic_keys = [\"{}\"]\n", folder.key("public.pem"));
    let push = format!("[[push_keys]]\nname = \"a\"\nsha256 = \"{}\"\n", "0".repeat(64));
    let keyless = |plan: &Plan| [plan.keyless(false), plan.keyless(true)];
    let warned = |plan: &Plan| plan.warnings.join("\n");

    let development = plan(HERE);
    assert!(development.development && development.warnings.is_empty(), "{:?}", development.warnings);
    assert_eq!(keyless(&development), [Keyless::ThisMachine; 2]);
    // an app's secret is what the clients of a proxy come with: the throw-away key would open the rest to that proxy
    let of_app = plan(&format!("{HERE}{APP}"));
    assert!(!of_app.development && plan(APP).development);
    assert_eq!(keyless(&of_app), [Keyless::Nobody, Keyless::Everybody]);
    assert!(warned(&of_app).contains("only Pusher's clients"), "{:?}", of_app.warnings);

    let keyed = plan(&format!("{jwt}{HERE}"));
    assert_eq!(keyless(&keyed), [Keyless::Nobody, Keyless::Everybody]);
    assert!(warned(&keyed).contains("at 127.0.0.1:6001 no backend is served"), "{:?}", keyed.warnings);
    let with_app = plan(&format!("{jwt}{HERE}{APP}"));
    assert!(warned(&with_app).contains("at 127.0.0.1:6001 only signed requests"), "{:?}", with_app.warnings);
    let open = plan(&format!("{jwt}{HERE}[master]\nopen = true\n"));
    assert!(warned(&open).contains("whoever reaches 127.0.0.1:6001 may push"), "{:?}", open.warnings);
    assert!(!warned(&plan(&format!("{jwt}{HERE}{push}"))).contains("push key"));
}

#[test]
fn what_others_reach_is_judged_by_that_address() {
    let folder = SettingsFolder::new("one-port-exposure");
    let jwt = format!("[jwt]\npublic_keys = [\"{}\"]\n", folder.key("public.pem"));
    let push = format!("[[push_keys]]\nname = \"a\"\nsha256 = \"{}\"\n", "0".repeat(64));
    let beyond = "[standalone]\nlisten = \"0.0.0.0:0\"\n";
    let error = refused(&format!("{beyond}{push}"));
    assert!(error.starts_with("w.toml:2: standalone.listen: ") && error.contains("development mode"), "{error}");
    let error = refused(&format!("{jwt}{beyond}"));
    assert!(error.starts_with("w.toml:4: standalone.listen: ") && error.contains("keys push"), "{error}");
    let exposed = plan(&format!("{jwt}{push}{beyond}"));
    assert!(exposed.master.unwrap().ip().is_unspecified() && exposed.master == exposed.slave);
    let signed = plan(&format!("{beyond}{APP}"));
    assert!(!signed.development, "signed requests guard it");
    assert_eq!(signed.keyless(false), Keyless::Nobody);
    // where nobody listens, nobody comes
    let roles = "[master]\nlisten = \"0.0.0.0:1\"\n[slave]\nlisten = \"0.0.0.0:2\"\n";
    assert!(plan(&format!("{HERE}{roles}")).development);
}
