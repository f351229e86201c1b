//! What the settings say, refuse, and warn of.

use crate::support::{
    conveyor::{ConveyorClient, TOKEN},
    pusher::{Api, DEMO},
    server::Setup,
};

fn loaded(text: &str) -> Result<wellhead::settings::plan::Plan, String> {
    use wellhead::settings::{
        load::layers,
        plan::{Plan, Roles},
    };
    let loaded = layers("w.toml", text, &[], &[]).map_err(|error| error.to_string())?;
    Plan::new(&loaded, Roles::Standalone).map_err(|error| error.to_string())
}

const KEYED: &str = "[jwt]\nsecret = \"a shared secret that is long enough for it\"\nrequire_exp = true\n";

#[test]
fn what_contradicts_itself_fails_the_start_with_its_place_and_a_hint() {
    for (text, place, hint) in [
        (
            format!("[conveyor]\ntoken = \"{TOKEN}\"\nopen = true\n"),
            "w.toml:3: conveyor.open: ",
            "hint: keep conveyor.token, or set conveyor.open = true without it",
        ),
        (
            "[conveyor]\ntoken_file = \"nowhere\"\n".to_owned(),
            "w.toml:2: conveyor.token_file: ",
            "cannot read the file",
        ),
        (
            format!("[conveyor]\ntoken = \"{TOKEN}\"\ntoken_file = \"x\"\n"),
            "w.toml:3: conveyor.token_file: ",
            "conveyor.token is set as well",
        ),
        ("[conveyor]\napp = \"\"\n".to_owned(), "w.toml:2: conveyor.app: ", "is empty"),
        ("[conveyor]\ntemporary_ttl = \"0s\"\n".to_owned(), "w.toml:2: conveyor.temporary_ttl: ", "hint: for example"),
        ("[conveyor]\nclient_events = 0\n".to_owned(), "w.toml:2: conveyor.client_events: ", "greater than 0"),
        ("[conveyor]\ntokn = \"x\"\n".to_owned(), "w.toml:2: ", "did you mean `token`?"),
        (
            format!(
                "[conveyor]\napp = \"other\"\ntoken = \"{TOKEN}\"\n[apps]\nunlisted = \"refuse\"\n{}",
                DEMO.listed("")
            ),
            "w.toml:2: conveyor.app: ",
            "hint: list it under [[apps.listed]]",
        ),
        (DEMO.listed("stale_timestamp_status = 402"), "w.toml:6: apps.listed.0.stale_timestamp_status: ", "401"),
        // open sockets make no credentials of what backends call
        (
            format!("{KEYED}[conveyor]\nopen = true\n[master]\nlisten = \"0.0.0.0:0\"\n"),
            "w.toml:7: master.listen: ",
            "without push keys the master serves this machine only",
        ),
    ] {
        let error = loaded(&text).err().unwrap_or_else(|| panic!("{text}"));
        assert!(error.starts_with(place) && error.contains(hint), "{error}");
        assert!(!error.contains(TOKEN), "{error}");
    }
}

#[test]
fn what_others_reach_is_warned_of_and_a_server_token_guards_it() {
    let beyond = "[master]\nlisten = \"0.0.0.0:0\"\n[slave]\nlisten = \"0.0.0.0:0\"\n";
    let plan = loaded(&format!("{beyond}[conveyor]\ntoken = \"{TOKEN}\"\n")).expect("the token guards both");
    let warnings = plan.warnings.join("\n");
    assert!(!plan.development);
    assert!(warnings.contains("only Conveyor's clients can come"), "{warnings}");
    assert!(warnings.contains("only requests with Conveyor's server token are"), "{warnings}");
    assert!(!warnings.contains(TOKEN) && !warnings.contains("conveyor.open"), "{warnings}");

    let plan = loaded(&format!("{beyond}[conveyor]\ntoken = \"short\"\n")).expect("it is warned of");
    assert!(plan.warnings.join("\n").contains("conveyor.token is shorter than 16 bytes"));

    let open = format!("{KEYED}[slave]\nlisten = \"0.0.0.0:0\"\n[conveyor]\nopen = true\n");
    let warnings = loaded(&open).expect("it may").warnings.join("\n");
    assert!(warnings.contains("conveyor.open is true: whoever reaches 0.0.0.0:0 may read every channel"), "{warnings}");
    let warnings = loaded(&format!("{KEYED}[conveyor]\nopen = true\n")).expect("it may").warnings.join("\n");
    assert!(!warnings.contains("conveyor.open"), "on this machine only: {warnings}");
    assert!(loaded(beyond).err().expect("nothing guards it").contains("development mode"));
}

#[tokio::test]
async fn its_pusher_mode_answers_as_its_callers_expect() {
    let more = "stale_timestamp_status = 400\n[apps.listed.limits]\nevent_data = \"10000B\"\n";
    let server = Setup::keyed().set("conveyor.token", TOKEN).toml(&DEMO.listed(more)).start().await;
    let mut api = Api::of(&server, DEMO).await;
    let body = |bytes: usize| serde_json::json!({ "name": "e", "channel": "a", "data": "x".repeat(bytes) });
    assert_eq!(api.post("/events", &body(10_000)).await.is(), (200, "{}"));
    assert_eq!(api.post("/events", &body(10_001)).await.status, 413);
    let event = body(1).to_string();
    let stale = |path: &str, at| format!("{path}?{}", DEMO.signed("POST", path, &[], &event, at));
    let (path, now) = ("/apps/17/events", crate::support::keys::now());
    for (at, status) in [(now - 700, 400), (now + 700, 400), (now - 500, 200)] {
        assert_eq!(api.http.json("POST", &stale(path, at), &event).await.status, status);
    }
    // an app that there is not: 401 while Conveyor is on
    assert_eq!(api.http.json("POST", &stale("/apps/99/events", now), &event).await.status, 401);
    let off = Setup::keyed().toml(&DEMO.listed("")).start().await;
    let mut api = Api::of(&off, DEMO).await;
    assert_eq!(api.http.json("POST", &stale("/apps/99/events", now), &event).await.status, 404);
    assert_eq!(api.http.json("POST", &stale(path, now - 700), &event).await.status, 401);
    // the token may be in a file
    let setup = Setup::keyed().set("conveyor.token_file", "token");
    std::fs::write(setup.folder().join("token"), format!("{TOKEN}\n")).expect("the folder is ours");
    let server = setup.start().await;
    assert!(ConveyorClient::open(server.slave(), TOKEN).await.is_ok());
}
