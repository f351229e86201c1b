//! `[pushex]`: where its keys come from, and what is refused with its place and a hint.

use wellhead_proto::dialect::pushex;

use super::*;

/// The error that a start with `text` makes.
fn refused(text: &str) -> String {
    let tried = from_file(text).and_then(|loaded| Plan::new(&loaded, Roles::Standalone));
    tried.err().unwrap_or_else(|| panic!("{text}")).to_string()
}

#[test]
fn what_cannot_be_used_is_refused_with_its_place_and_a_hint() {
    const CLOSED: &str = "[apps]\nunlisted = \"refuse\"\n[[apps.listed]]\nkey = \"mart\"\n";
    let closed = |pushex: &str| format!("[pushex]\n{pushex}\n{CLOSED}");
    for (text, place, what) in [
        ("[pushex]\npublic = [\"\"]".to_owned(), "w.toml:2: pushex.public", "\"score-*\""),
        (format!("[pushex]\npublic = [\"{}\"]", "x".repeat(1_025)), "w.toml:2", "1024 are allowed"),
        ("[pushex]\napp = \"\"\npublic = [\"a\"]".to_owned(), "w.toml:3: pushex.public", "pushex.app"),
        ("[pushex]\nkey_header = \"a b\"".to_owned(), "w.toml:2: pushex.key_header", "x-api-key"),
        ("[pushex]\nkey_parameter = \"data\"".to_owned(), "w.toml:2", "argument of a push"),
        ("[pushex]\ntoken_parameter = \"\"".to_owned(), "w.toml:2", "token"),
        ("[pushex]\nidle_timeout = \"10ms\"".to_owned(), "w.toml:2", "45s"),
        ("[pushex]\nap = \"a\"".to_owned(), "w.toml:2", "did you mean `app`?"),
        (closed("app = \"shop\""), "w.toml:2: pushex.app", "[[apps.listed]] with key = \"shop\""),
        (closed("public = [\"a\"]"), "pushex.app", "[[apps.listed]] with key = \"demo\""),
    ] {
        let why = refused(&text);
        assert!(why.contains(place) && why.contains(what), "{text}: {why}");
    }
    // who does not use it has nothing to list
    assert!(Plan::new(&from_file(&closed("")).unwrap(), Roles::Standalone).is_ok());
    let listed = format!("{}[[apps.listed]]\nkey = \"shop\"\n", closed("app = \"shop\"\npublic = [\"*\"]"));
    let plan = Plan::new(&from_file(&listed).unwrap(), Roles::Standalone).unwrap();
    assert_eq!(plan.of_dialects.of::<pushex::Settings>().pushex.app, "shop");
    assert!(plan.warnings.iter().any(|warning| warning.contains("pushex.public allows every channel")));
}

#[test]
fn who_needs_no_token_is_not_said_to_be_shut_out() {
    let text =
        "[slave]\nlisten = \"0.0.0.0:0\"\n[pushex]\npublic = [\"news\"]\n[conveyor]\ntoken = \"0123456789abcdefgh\"\n";
    let plan = Plan::new(&from_file(text).unwrap(), Roles::Standalone).unwrap();
    let said = "only Conveyor's clients can come, and those who need no token";
    assert!(plan.warnings.iter().any(|warning| warning.ends_with(said)), "{:?}", plan.warnings);
}
