//! A dialect with settings of its own is a folder and a row: the one in `tests/fixtures/dialect/aviary` goes through the
//! real loader, the real plan and a real server, which know nothing of it but [`Definition`].
//!
//! [`Definition`]: wellhead_proto::dialect::mount::Definition

#[path = "../fixtures/dialect/aviary/mod.rs"]
mod aviary;

use std::{fs, sync::LazyLock};

use wellhead::{
    app::{self, NodeProcess, Then},
    settings::{
        Dialects,
        load::{Loaded, layers_for, load_for},
        place::SettingsError,
        plan::{Plan, Roles},
    },
};
use wellhead_proto::{
    dialect::{
        self,
        mount::{self, Definition},
    },
    tenants::Tenants,
};

use self::aviary::{Aviary, AviaryApp, AviaryAppSettings, Settings};
use crate::support::http::Http;

/// What the list of dialects would be: the row is the last one.
static DIALECTS: LazyLock<Vec<&'static dyn Definition>> =
    LazyLock::new(|| [dialect::ALL, &[mount::of::<Aviary>()]].concat());

fn dialects() -> Dialects {
    &DIALECTS
}

fn from(text: &str, variables: &[(&str, &str)], flags: &[&str]) -> Result<Loaded, SettingsError> {
    let variables: Vec<_> = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let flags: Vec<_> = flags.iter().map(|&flag| flag.to_owned()).collect();
    layers_for(dialects(), "w.toml", text, &variables, &flags)
}

/// The error that settings make, whether they are read or a start is tried with them.
fn refused(text: &str) -> String {
    let tried = from(text, &[], &[])
        .map_err(anyhow::Error::from)
        .and_then(|loaded| NodeProcess::new(loaded, Roles::Standalone));
    tried.err().unwrap_or_else(|| panic!("{text}")).to_string()
}

const APP: &str = "[[apps.listed]]\nkey = \"wood\"\nring = \"the ring of the wood\"\nnests = 5\n";

#[test]
fn its_keys_are_read_from_a_file_the_environment_and_flags() {
    let text = format!("[aviary]\nprefix = \"/sky/\"\n{APP}");
    let prefix = |loaded: &Loaded| loaded.settings.dialects.of::<Settings>().aviary.prefix.clone();
    let loaded = from(&text, &[], &[]).unwrap();
    assert_eq!(prefix(&loaded), "/sky/");
    let app = loaded.settings.apps.listed[0].dialects.of::<AviaryAppSettings>().into_owned();
    assert_eq!((app.ring.expose(), app.nests), ("the ring of the wood", 5));
    assert_eq!(prefix(&from("", &[], &[]).unwrap()), "/aviary", "its default");

    let variable = ("WELLHEAD_AVIARY__PREFIX", "/branch");
    let loaded = from(&text, &[variable], &[]).unwrap();
    assert_eq!(prefix(&loaded), "/branch");
    assert_eq!(loaded.places.of("aviary.prefix").unwrap().to_string(), "environment variable WELLHEAD_AVIARY__PREFIX");
    let loaded = from(&text, &[variable], &["aviary.prefix=/twig", "aviary.trusting=true"]).unwrap();
    assert!(prefix(&loaded) == "/twig" && loaded.settings.dialects.of::<Settings>().aviary.trusting);
    let listed = ("WELLHEAD_APPS__LISTED", "[{ key = \"a\", ring = \"r\", nests = 7, client_events = false }]");
    let loaded = from(&text, &[listed], &[]).unwrap();
    assert_eq!(loaded.settings.apps.listed[0].dialects.of::<AviaryAppSettings>().nests, 7);
    // the settings of the others stand where they stood
    assert_eq!(loaded.settings.dialects.of::<dialect::gusher::Settings>().slave.prefix, "/gcs");
    assert!(!format!("{loaded:?}").contains("the ring of the wood"), "a secret is shown nowhere");
}

#[test]
fn what_is_none_of_its_keys_is_refused_with_a_hint() {
    for (text, place, hint) in [
        ("[aviary]\nprefx = \"/\"", "w.toml:2: ", "did you mean `prefix`?"),
        ("\n[aviry]", "w.toml:2: ", "did you mean `aviary`?"),
        ("[[apps.listed]]\nkey = \"a\"\nnets = 1", "w.toml:3: ", "did you mean `nests`?"),
        ("[aviary]\ntrusting = \"yes\"", "w.toml:2: ", "expected a boolean"),
        ("[[apps.listed]]\nkey = \"a\"\n\nnests = \"many\"", "w.toml:4: ", "expected usize"),
    ] {
        let error = refused(text);
        assert!(error.starts_with(place) && error.contains(hint), "{error}");
    }
    let error = from("", &[], &["aviary.prefx=/"]).unwrap_err().to_string();
    assert!(error.contains("did you mean `aviary.prefix`?"), "{error}");
    let error = from("", &[("WELLHEAD_AVIARY__TRUSTING", "maybe")], &[]).unwrap_err().to_string();
    assert!(error.contains("WELLHEAD_AVIARY__TRUSTING: ") && error.contains("true or false"), "{error}");
    let warnings = from("", &[("WELLHEAD_AVIARY_PREFIX", "/")], &[]).unwrap().warnings;
    assert!(warnings[0].contains("is written WELLHEAD_AVIARY__PREFIX"), "{warnings:?}");
    // where nobody has added the row, there is no such section
    assert!(wellhead::settings::load::layers("w.toml", "[aviary]", &[], &[]).is_err());
}

#[test]
fn its_checks_fail_a_start_with_their_place() {
    for (text, place, what) in [
        ("[aviary]\nprefix = \"sky\"".to_owned(), "w.toml:2: aviary.prefix: ", "no prefix of paths"),
        (APP.replace('5', "0"), "w.toml:4: apps.listed.0.nests: ", "hint: nests = 3"),
        (format!("{APP}ring_file = \"x\""), "w.toml:5: apps.listed.0.ring_file: ", "ring is set as well"),
        (APP.replace("ring =", "ring_file ="), "w.toml:3: apps.listed.0.ring_file: ", "cannot read the file"),
    ] {
        let error = refused(&text);
        assert!(error.starts_with(place) && error.contains(what), "{error}");
    }
}

#[test]
fn its_paths_are_meant_from_the_folder_of_the_file() {
    let folder = std::env::temp_dir().join(format!("wellhead-aviary-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("ring"), "of the wood\n").unwrap();
    let file = folder.join("w.toml");
    fs::write(&file, "[[apps.listed]]\nkey = \"wood\"\nring_file = \"ring\"\n").unwrap();
    let plan = Plan::new(&load_for(dialects(), Some(&file), &[]).unwrap(), Roles::Standalone).unwrap();
    assert_eq!(plan.tenants.named("wood").of::<AviaryApp>().unwrap().ring, b"of the wood");
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn its_rules_say_who_may_be_reached() {
    let plan = |text: &str| Plan::new(&from(text, &[], &[]).unwrap(), Roles::Standalone).unwrap();
    let beyond = "[master]\nlisten = \"0.0.0.0:0\"\n[slave]\nlisten = \"0.0.0.0:0\"\n";
    // its own credentials guard what others reach, without push keys and keys for tokens
    let exposed = plan(&format!("{beyond}{APP}"));
    assert!(!exposed.development);
    let warnings = exposed.warnings.join("\n");
    assert!(warnings.contains("only birds can come") && warnings.contains("only requests with a ring"), "{warnings}");
    assert!(refused(beyond).contains("development mode"));
    // and its own rule judges what they are
    let short = APP.replace("the ring of the wood", "short");
    let error = refused(&format!("[aviary]\ntrusting = false\n{beyond}{short}"));
    assert!(error.starts_with("w.toml:2: aviary.trusting: ") && error.contains("longer rings"), "{error}");
    let trusting = plan(&format!("[aviary]\ntrusting = true\n{beyond}{short}"));
    assert!(trusting.warnings.contains(&"aviary.trusting is true".to_owned()));
    assert!(plan(&short).development, "nobody reaches it");
}

#[actix_rt::test]
async fn its_row_answers() {
    let text = format!(
        "[master]\nlisten = \"127.0.0.1:0\"\nadmin = \"\"\n[slave]\nlisten = \"127.0.0.1:0\"\n\
         [aviary]\nprefix = \"/sky\"\n{APP}"
    );
    let loaded = from(&text, &[], &[]).unwrap();
    assert!(app::check(&loaded, Roles::Standalone).is_ok(), "as check-config does");
    let running = NodeProcess::new(loaded, Roles::Standalone).unwrap().bind().await.unwrap().serve().await.unwrap();
    let mut http = Http::to(running.addresses.master.unwrap()).await;
    let mut nests = async |path: &str, ring: &str| {
        let reply = http.call("GET", path, &[("Ring", ring)], "").await;
        (reply.status, reply.text().to_owned())
    };
    assert_eq!(nests("/sky/wood/nests", "the ring of the wood").await, (200, "5".to_owned()));
    assert_eq!(nests("/sky/wood/nests", "another").await.0, 401);
    assert_eq!(nests("/sky/heath/nests", "the ring of the wood").await.0, 404);
    assert_eq!(nests("/aviary/wood/nests", "the ring of the wood").await.0, 404);
    // without an app there is no row
    running.tenants.swap(Tenants::default());
    assert_eq!(nests("/sky/wood/nests", "the ring of the wood").await, (404, "404 page not found\n".to_owned()));
    running.stop(Then::End).await;
}
