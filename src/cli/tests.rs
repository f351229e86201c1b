//! The command line, up to what it would print.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use super::*;
use crate::settings::Settings;

/// What a command line prints; its settings come from its flags alone.
fn printed(line: &[&str]) -> Result<String> {
    let (command, source) = CliArgs::try_parse_from([&["wellhead"], line].concat())?.parts()?;
    match command {
        CliCommand::Token(command) => token::run(command, &source),
        CliCommand::Keys(command) => keys::run(command),
        CliCommand::CheckConfig(check) => check_config(&source, check.command.role),
        _ => unreachable!("the tests here run nothing else"),
    }
}

fn refused(line: &[&str]) -> String {
    format!("{:#}", printed(line).expect_err("a refusal"))
}

/// A fresh folder.
struct CliFolder(PathBuf);

impl CliFolder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("wellhead-cli-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn path(&self, file: &str) -> String {
        self.0.join(file).display().to_string()
    }
}

impl Drop for CliFolder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn the_command_line_is_consistent() {
    CliArgs::command().debug_assert();
}

#[test]
fn settings_are_named_before_and_behind_the_subcommand() {
    let parts = |line: &str| CliArgs::try_parse_from(line.split(' ')).unwrap().parts().unwrap().1;
    for command in ["", " standalone", " master", " slave", " check-config", " health", " token verify x"] {
        for line in [format!("wellhead -c x.toml{command}"), format!("wellhead{command} -c x.toml")] {
            assert_eq!(parts(&line).config, Some(PathBuf::from("x.toml")), "{line}");
        }
    }
    let both = parts("wellhead -c x.toml --set a.b=1 check-config --set a.b=2 -c y.toml");
    assert_eq!((both.config, both.set), (Some(PathBuf::from("y.toml")), vec!["a.b=1".to_owned(), "a.b=2".to_owned()]));
}

#[test]
fn whoever_reads_no_settings_says_so() {
    for command in ["push --app a --channel c --event e 1", "sub --channel c --token t", "keys generate", "version"] {
        let words: Vec<_> = command.split(' ').collect();
        for settings in [["-c", "x.toml"], ["--set", "a.b=1"]] {
            let before = CliArgs::try_parse_from([&["wellhead"][..], &settings, &words].concat()).unwrap().parts();
            let error = before.err().unwrap_or_else(|| panic!("{command}"));
            assert!(error.to_string().contains("reads no settings"), "{error}");
            assert_eq!(error.exit_code(), 2);
            let behind = CliArgs::try_parse_from([&["wellhead"][..], &words, &settings].concat());
            assert!(behind.is_err(), "{command}");
        }
        let mut help = CliArgs::command();
        let help = words
            .iter()
            .take_while(|word| !word.starts_with('-'))
            .fold(&mut help, |help, word| help.find_subcommand_mut(word).unwrap_or_else(|| panic!("{word}")));
        let help = help.render_long_help().to_string();
        assert!(!help.contains("--set") && !help.contains("--config"), "{help}");
    }
}

#[test]
fn a_key_pair_is_made_once_and_signs_what_it_verifies() {
    for algorithm in ["RS256", "ES256", "EdDSA"] {
        let folder = CliFolder::new(algorithm);
        let (out, private, public) = (folder.path("k"), folder.path("k/private.pem"), folder.path("k/public.pem"));
        let generate = ["keys", "generate", "--algorithm", algorithm, "--out", &out];
        printed(&generate).unwrap();
        assert_eq!(fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o600);
        let before = fs::read(&private).unwrap();
        assert!(refused(&generate).contains("exists"));
        assert_eq!(fs::read(&private).unwrap(), before);

        let sign =
            ["token", "sign", "--key", &private, "--app", "a", "--user", "ann", "--channel", "news", "--channel"];
        let token = printed(&[&sign[..], &["x*"]].concat()).unwrap();
        let said = printed(&["token", "verify", "--public-key", &public, &token]).unwrap();
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["gusher"], serde_json::json!({"user_id": "ann", "channels": ["news", "x*"], "app_key": "a"}));
        assert_eq!(said["exp"].as_u64().unwrap() - said["iat"].as_u64().unwrap(), 3_600);

        let setting = format!("jwt.public_keys={public}");
        printed(&["--set", &setting, "token", "verify", &token]).unwrap();
        let tampered = format!("{}x", token.trim());
        assert!(refused(&["token", "verify", "--public-key", &public, &tampered]).contains("refused"));
        assert!(refused(&["token", "sign", "--key", &public, "--app", "a"]).contains("public key"));
    }
}

#[test]
fn a_token_is_signed_with_the_secret_of_the_settings() {
    let secret = format!("jwt.secret={}", "s".repeat(32));
    let token = printed(&["token", "sign", "--app", "a", "--ttl", "1m", "--set", &secret]).unwrap();
    assert!(printed(&["token", "verify", "--set", &secret, &token]).unwrap().contains("\"app_key\": \"a\""));
    let other = format!("jwt.secret={}", "t".repeat(32));
    assert!(refused(&["token", "verify", "--set", &other, &token]).contains("bad signature"));
    assert!(refused(&["token", "sign", "--app", "a"]).contains("nothing to sign with"));
    assert!(refused(&["token", "verify", &token]).contains("no key is configured"));
    assert!(refused(&["token", "sign", "--app", "", "--set", &secret]).contains("empty"));
}

#[test]
fn a_push_key_comes_with_the_lines_that_let_it_in() {
    let said = printed(&["keys", "push", "--name", "back\"end"]).unwrap();
    let key = said.lines().find(|line| line.starts_with("wh_")).unwrap();
    let lines = &said[said.find("[[push_keys]]").unwrap()..];
    assert!(!lines.contains(key), "{said}");
    let settings: Settings = toml::from_str(lines).unwrap();
    assert_eq!(settings.push_keys[0].name, "back\"end");
    assert_eq!(settings.push_keys[0].sha256, wellhead_master::keys::KeyHash::of(key));
    assert_ne!(said, printed(&["keys", "push", "--name", "back\"end"]).unwrap());
    // a name that is no word between commas has a table only
    assert!(said.contains("\nWELLHEAD_PUSH_KEYS='back\"end:"), "{said}");
    assert!(!printed(&["keys", "push", "--name", "a,b"]).unwrap().contains("WELLHEAD_PUSH_KEYS"));
}

#[test]
fn check_config_says_what_a_start_would() {
    let secret = format!("jwt.secret={}", "s".repeat(32));
    let said = printed(&["check-config", "--set", &secret]).unwrap();
    assert!(said.contains("warning: jwt.require_exp is false") && said.contains("\nok ("), "{said}");
    assert!(printed(&["check-config"]).unwrap().starts_with("note: no key is configured"));
    let error = printed(&["check-config", "--set", "slave.listen=8888"]).unwrap_err();
    assert!(error.is::<SettingsError>(), "{error:#}");
}

#[test]
fn a_message_is_one_line_and_cannot_steer_the_terminal() {
    assert_eq!(one_line("{\"a\":\n 1, \"b\":\"\u{9b}2J\"}\n"), "{\"a\":  1, \"b\":\"\\u009b2J\"}");
}

#[test]
fn a_push_has_one_addressee_and_an_event_where_there_is_one() {
    let parse = |arguments: &str| CliArgs::try_parse_from(format!("wellhead push {arguments}").split(' ')).is_ok();
    for fine in [
        "--app a --channel c --event e 1",
        "--app a --pattern ^c --event e 1",
        "--app a --user ann 1",
        "--app a --socket x 1",
        "--pusher-key k --pusher-id 1 --pusher-secret s --channel c --event e 1",
        "--pusher-key k --pusher-id 1 --pusher-secret-file f --channel c --event e 1",
    ] {
        assert!(parse(fine), "{fine}");
    }
    for wrong in [
        "--app a --event e 1",
        "--channel c --event e 1",
        "--app a --channel c 1",
        "--app a --channel c --user ann --event e 1",
        "--app a --user ann --event e 1",
        "--pusher-key k --pusher-id 1 --user ann 1",
        "--app a --channel c --event e --pusher-id 1 1",
    ] {
        assert!(!parse(wrong), "{wrong}");
    }
}

#[test]
fn a_subscriber_shows_one_proof() {
    let parse =
        |arguments: &str| CliArgs::try_parse_from(format!("wellhead sub --channel c {arguments}").split(' ')).is_ok();
    for fine in [
        "--token t",
        "--token-file f --reconnect",
        "--key k --app a",
        "--pusher-key k",
        "--pusher-key k --pusher-secret s",
    ] {
        assert!(parse(fine), "{fine}");
    }
    for wrong in ["--reconnect", "--token t --token-file f", "--key k", "--pusher-key k --token t", "--pusher-secret s"]
    {
        assert!(!parse(wrong), "{wrong}");
    }
}
