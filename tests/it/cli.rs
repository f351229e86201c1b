//! The subcommands, as a person would use them: from making keys to a message on the screen.

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::support::{
    client::Client,
    http::Http,
    server::{Server, ServerLog, Setup},
    until, within,
};

/// A subcommand, run in `folder` with nothing but its arguments.
fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wellhead"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WELLHEAD_")) {
        command.env_remove(name);
    }
    command.current_dir(folder).args(arguments).stdin(Stdio::null());
    command
}

async fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = command(folder, arguments);
    let output = tokio::task::spawn_blocking(move || command.output().expect("the binary was built with this test"));
    within("the command ends", output).await.expect("no panic")
}

fn said(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("text").trim().to_owned()
}

#[tokio::test]
async fn from_keys_to_a_message_on_the_screen() {
    for algorithm in ["RS256", "ES256", "EdDSA"] {
        let setup = Setup::keyed();
        let folder = setup.folder().to_owned();
        let keys = folder.join("keys");
        std::fs::create_dir(&keys).expect("the folder is ours");
        said(&run(&keys, &["keys", "generate", "--algorithm", algorithm]).await);
        let mode = std::fs::metadata(keys.join("private.pem")).expect("it was written").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "nobody else reads a private key");
        let again = run(&keys, &["keys", "generate"]).await;
        assert_eq!(again.status.code(), Some(1), "it overwrites nothing: {again:?}");

        let made = said(&run(&keys, &["keys", "push", "--name", "backend"]).await);
        let hash = made.split('"').find(|word| word.len() == 64).expect("the hash, ready to paste").to_owned();
        let is_key = |word: &&str| word.len() >= 32 && !word.contains(&hash) && !word.contains('=');
        let key = made.split_whitespace().find(is_key).expect("the key, once").to_owned();

        std::fs::copy(keys.join("public.pem"), folder.join("public.pem")).expect("the folder is ours");
        // each of the two that it prints is ready to paste
        let push_keys = format!("[[push_keys]]\nname = \"backend\"\nsha256 = \"{hash}\"\n");
        let variable = format!("WELLHEAD_PUSH_KEYS='backend:{hash}'");
        // the table stands last, and what was said is trimmed
        assert!(made.ends_with(push_keys.trim_end()) && made.contains(&variable), "{made}");
        let server = match algorithm {
            "EdDSA" => setup.variable("WELLHEAD_PUSH_KEYS", &format!("backend:{hash}")),
            _ => setup.toml(&push_keys),
        };
        let server = server.start().await;
        let (master, slave) = (format!("http://{}", server.master()), format!("http://{}", server.slave()));

        let sign = ["token", "sign", "--key", "private.pem", "--app", "demo", "--user", "ann", "--channel", "n*"];
        let jwt = said(&run(&keys, &sign).await);
        let verified = said(&run(&keys, &["token", "verify", "--public-key", "public.pem", &jwt]).await);
        assert!(verified.contains("demo") && verified.contains("ann") && verified.contains("n*"), "{verified}");
        let (head, tail) = jwt.split_at(jwt.len() - 10);
        let forged = format!("{head}{}{}", if tail.starts_with('A') { 'B' } else { 'A' }, &tail[1..]);
        assert_eq!(
            run(&keys, &["token", "verify", "--public-key", "public.pem", &forged]).await.status.code(),
            Some(1)
        );
        let mut ann = Client::connect(server.slave(), "demo", &jwt).await;
        assert_eq!(ann.subscribe("secret").await, "gusher.subscribe_error");
        assert_eq!(ann.subscribe("news").await, "gusher.subscribe_succeeded");

        let sub =
            ["sub", "--slave", &slave, "--app", "demo", "--channel", "news", "--key", "private.pem", "--count", "1"];
        let mut sub = command(&keys, &sub);
        let mut sub = sub.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary");
        let (arrives, _complains) =
            (ServerLog::of(sub.stdout.take().expect("a pipe")), ServerLog::of(sub.stderr.take().expect("a pipe")));
        until("both are on the channel", 2.0, || server.metric("wellhead_subscriptions", "")).await;
        let push = ["push", "--master", &master, "--key", &key, "--app", "demo", "--channel", "news", "--event", "hi"];
        let refused = run(&keys, &[&push[..3], &push[5..], &["1"]].concat()).await;
        assert_eq!(refused.status.code(), Some(1), "without the key: {refused:?}");
        said(&run(&keys, &[&push[..], &[r#"{"n":1.0}"#]].concat()).await);
        let line =
            within("it is on the screen", arrives.find(|line| line.contains("1.0").then(|| line.to_owned()))).await;
        assert!(line.contains("news") && line.contains("hi") && line.contains(r#"{"n":1.0}"#), "{line}");
        assert_eq!(ann.next_event().await.data, r#"{"n":1.0}"#);
        let ended = tokio::task::spawn_blocking(move || sub.wait().expect("our child"));
        assert_eq!(within("it ends after one message", ended).await.expect("no panic").code(), Some(0));
    }
}

#[tokio::test]
async fn health_tells_by_its_exit_code() {
    let server = Server::start().await;
    let folder = std::env::temp_dir();
    let url = format!("http://{}", server.admin());
    said(&run(&folder, &["health", "--url", &url]).await);
    drop(server);
    assert_eq!(run(&folder, &["health", "--url", &url]).await.status.code(), Some(1));
}

#[tokio::test]
async fn help_and_version_need_no_configuration() {
    let folder = std::env::temp_dir();
    assert!(said(&run(&folder, &["version"]).await).contains(env!("CARGO_PKG_VERSION")));
    assert!(said(&run(&folder, &["--version"]).await).contains(env!("CARGO_PKG_VERSION")));
    let help = said(&run(&folder, &["help"]).await);
    for subcommand in
        ["standalone", "master", "slave", "check-config", "token", "keys", "push", "sub", "health", "version"]
    {
        assert!(help.contains(subcommand), "{help}");
        assert!(!said(&run(&folder, &[subcommand, "--help"]).await).is_empty());
    }
    assert_eq!(run(&folder, &["dance"]).await.status.code(), Some(2));
}

#[tokio::test]
async fn the_shipped_configuration_is_fine_and_flags_come_on_either_side() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml");
    let folder = std::env::temp_dir();
    for arguments in [
        ["check-config", "-c", shipped, "--set", "log.level=debug"],
        ["-c", shipped, "check-config", "--set", "log.level=debug"],
        ["--set", "log.level=debug", "-c", shipped, "check-config"],
    ] {
        assert!(said(&run(&folder, &arguments).await).contains("ok"), "{arguments:?}");
    }
    let unknown = run(&folder, &["check-config", "-c", shipped, "--set", "log.levle=debug"]).await;
    assert_eq!(unknown.status.code(), Some(78), "{unknown:?}");
    let missing = run(&folder, &["check-config", "-c", "/nowhere/config.toml"]).await;
    assert_eq!(missing.status.code(), Some(78), "{missing:?}");
}

#[tokio::test]
async fn it_serves_without_a_subcommand_and_as_standalone() {
    let server = Setup::keyed().arguments(&["standalone"]).start().await;
    assert_eq!(Http::to(server.slave()).await.get("/gcs/ping").await.is(), (200, "pong"));
}
