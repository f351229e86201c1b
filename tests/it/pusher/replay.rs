//! The requests of Pusher's libraries for PHP and Ruby, signed and sent by PHP and Ruby themselves: the libraries are not
//! at hand, what they send is known. Where a language is not installed its half is passed over, and says so.

use std::process::{Command, Stdio};

use crate::support::{
    pusher::{DEMO, PusherClient},
    server::Setup,
    within,
};

#[tokio::test]
async fn php_and_ruby_sign_what_we_accept_with_and_without_a_prefix() {
    for (command, script, prefix, base) in [
        ("php", "replay.php", "", ""),
        ("php", "replay.php", "/push", "/push/"),
        ("ruby", "replay.rb", "", ""),
        ("ruby", "replay.rb", "/push", "/push"),
    ] {
        if Command::new(command).arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("{command} is not installed: its requests are not replayed");
            continue;
        }
        let server = Setup::keyed().set("pusher.master_prefix", prefix).toml(&DEMO.listed("")).start().await;
        let mut page = PusherClient::connect(server.slave(), DEMO).await;
        page.subscribe("news").await;
        let script = format!("{}/tests/clients/{script}", env!("CARGO_MANIFEST_DIR"));
        let base = format!("http://{}{base}", server.master());
        let mut replay = Command::new(command);
        replay.args([&script, &base, DEMO.key, DEMO.secret, DEMO.id]);
        let ran = tokio::task::spawn_blocking(move || replay.output().expect("it is installed"));
        let ran = within("the replay", ran).await.expect("no panic");
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines.len(), 4, "{command} under {prefix:?}: {ran:?}");
        assert_eq!(lines[..3], ["200 {}", "200 {}", r#"200 {"channels":{}}"#], "{command} under {prefix:?}");
        assert!(lines[3].starts_with("200 {") && lines[3].contains(r#""subscription_count":1"#), "{said}");
        let pushed = page.next().await;
        assert_eq!(pushed.event, "App\\Events\\Ordered");
        assert_eq!(pushed.inner()["text"], "Grüße/1");
        assert_eq!(page.next().await.event, "second");
    }
}
