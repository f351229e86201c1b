//! `wellhead push`, `sub` and `health` as clients of servers: over TLS, to every addressee, through both APIs, and after a
//! break.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::Arc,
};

use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use crate::support::{
    http::Http,
    keys::signer,
    pusher::DEMO,
    server::{ServerLog, Setup},
    until, within,
};

fn wellhead(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wellhead"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WELLHEAD_")) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

async fn output(mut command: Command) -> Output {
    let output = tokio::task::spawn_blocking(move || command.output().expect("the binary was built with this test"));
    within("the command ends", output).await.expect("no panic")
}

async fn run(arguments: &[&str]) -> Output {
    output(wellhead(arguments)).await
}

fn complaint(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).expect("text")
}

/// A `wellhead sub` that runs: what it prints, and what it says on the side.
struct SubProcess {
    child: Child,
    out: ServerLog,
    side: ServerLog,
}

impl SubProcess {
    fn start(command: Command) -> Self {
        let mut command = command;
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary");
        let (out, side) = (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
        Self { child, out: ServerLog::of(out), side: ServerLog::of(side) }
    }

    async fn notes(&self, what: &str) -> String {
        let found = self.side.find(|line| line.contains(what).then(|| line.to_owned()));
        within(what, found).await
    }

    async fn prints(&self, what: &str) -> String {
        let found = self.out.find(|line| line.contains(what).then(|| line.to_owned()));
        within(what, found).await
    }

    async fn ends(mut self) -> Option<i32> {
        let ended = tokio::task::spawn_blocking(move || self.child.wait().expect("our child"));
        within("it ends", ended).await.expect("no panic").code()
    }
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// A port of 127.0.0.1 that ends TLS with a certificate for `localhost`, and passes everything on to `behind`.
async fn tls(folder: &Path, behind: SocketAddr) -> SocketAddr {
    let (cert, key) = (folder.join("tls.pem"), folder.join("tls.key"));
    if !cert.exists() {
        let arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
                         -addext subjectAltName=DNS:localhost \
                         -addext basicConstraints=critical,CA:FALSE -keyout tls.key -out tls.pem";
        let made = Command::new("openssl").args(arguments.split_whitespace()).current_dir(folder).output();
        assert!(made.expect("openssl is there").status.success());
    }
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().expect("TLS 1.2 and 1.3").with_no_client_auth();
    let cert = CertificateDer::from_pem_file(cert).expect("openssl wrote it");
    let key = PrivateKeyDer::from_pem_file(key).expect("openssl wrote it");
    let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(vec![cert], key).expect("they fit")));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut outside) = acceptor.accept(stream).await else { return };
                let mut inside = TcpStream::connect(behind).await.expect("the server listens");
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn everything_goes_over_tls_and_only_to_whom_this_machine_trusts() {
    let setup = Setup::keyed();
    let folder = setup.folder().to_owned();
    let server = setup.start().await;
    let secure = async |address| format!("https://localhost:{}", tls(&folder, address).await.port());
    let (master, slave, admin) =
        (secure(server.master()).await, secure(server.slave()).await, secure(server.admin()).await);
    let trusting = |arguments: &[&str]| {
        let mut command = wellhead(arguments);
        command.env("SSL_CERT_FILE", folder.join("tls.pem")).env_remove("SSL_CERT_DIR");
        command
    };
    assert_eq!(output(trusting(&["health", "--url", &admin])).await.status.code(), Some(0));
    let jwt = signer().jwt("demo", "ann", &["news"]);
    let wss = slave.replace("https://", "wss://");
    let sub =
        SubProcess::start(trusting(&["sub", "--slave", &wss, "--channel", "news", "--token", &jwt, "--count", "1"]));
    sub.notes("subscribed to").await;
    // a keyless master takes no request for another host: localhost is this one
    let push = ["push", "--master", &master, "--app", "demo", "--channel", "news", "--event", "hi", "1"];
    let pushed = output(trusting(&push)).await;
    assert_eq!(pushed.status.code(), Some(0), "{pushed:?}");
    sub.prints("\"hi\"").await;
    assert_eq!(sub.ends().await, Some(0));

    // a certificate of nobody whom it knows
    let mut stranger = wellhead(&push);
    stranger.env("SSL_CERT_FILE", folder.join("public.pem")).env_remove("SSL_CERT_DIR");
    let said = complaint(&output(stranger).await);
    assert!(said.contains("TLS failed") || said.contains("certificate"), "{said}");
}

#[tokio::test]
async fn a_slave_that_refuses_says_why_and_the_command_repeats_it() {
    let server = Setup::keyed().set("slave.max_connections", "1").start().await;
    let slave = url(server.slave());
    let sub = |token: &str| {
        let arguments = ["sub", "--slave", &slave, "--app", "demo", "--channel", "news", "--token", token];
        arguments.map(str::to_owned)
    };
    let run_it = async |arguments: [String; 9]| run(&arguments.each_ref().map(String::as_str)).await;
    let said = complaint(&run_it(sub("rubbish")).await);
    assert!(said.contains("401") && said.contains("token error") && said.contains("jwt decode fail"), "{said}");

    let jwt = signer().jwt("other", "ann", &["news"]);
    let said = complaint(&run_it(sub(&jwt)).await);
    assert!(said.contains("401") && said.contains("appkey error"), "{said}");

    let _only = server.client("demo", "ann", &["news"]).await;
    let jwt = signer().jwt("demo", "ann", &["news"]);
    let said = complaint(&run_it(sub(&jwt)).await);
    assert!(said.contains("503"), "{said}");
    let text = Http::to(server.slave()).await.get("/readyz").await;
    assert_eq!(text.status, 200, "the slave itself is fine");

    let said =
        complaint(&run(&["push", "--master", &slave, "--app", "a", "--channel", "c", "--event", "e", "1"]).await);
    assert!(said.contains("404"), "{said}");
    let said = complaint(&run(&["health", "--url", "http://127.0.0.1:1"]).await);
    assert!(said.contains("cannot connect"), "{said}");
}

#[tokio::test]
async fn a_push_finds_channels_patterns_users_and_sockets() {
    let server = Setup::keyed().start().await;
    let master = url(server.master());
    let mut ann = server.client("demo", "ann", &["*"]).await.subscribed("news").await;
    let id = ann.id().await;
    let push = async |to: &[&str]| {
        let pushed = run(&[&["push", "--master", &master, "--app", "demo"], to].concat()).await;
        assert_eq!(pushed.status.code(), Some(0), "{pushed:?}");
    };
    push(&["--channel", "news", "--event", "e", "1"]).await;
    assert_eq!(ann.next_event().await.data, "1");
    push(&["--pattern", "^n", "--event", "e", "{\"n\": 2.0}"]).await;
    assert_eq!(ann.next_event().await.data, "{\"n\": 2.0}");
    push(&["--user", "ann", "3"]).await;
    assert_eq!(ann.socket.text().await, "3");
    push(&["--socket", &id, "\"4\""]).await;
    assert_eq!(ann.socket.text().await, "\"4\"");
}

#[tokio::test]
async fn a_subscriber_comes_back_with_the_token_that_its_file_holds_then() {
    let setup = Setup::keyed();
    let folder = setup.folder().to_owned();
    let server = setup.clone().start().await;
    let (slave, file) = (server.slave(), folder.join("token"));
    std::fs::write(&file, signer().jwt("demo", "ann", &["news"])).expect("the folder is ours");
    let arguments = ["sub", "--slave", &url(slave), "--channel", "news", "--reconnect", "--count", "1"];
    let mut command = wellhead(&arguments);
    command.arg("--token-file").arg(&file);
    let sub = SubProcess::start(command);
    sub.notes("subscribed to").await;
    drop(server);
    sub.notes("trying again").await;
    let server = setup.set("slave.listen", &slave.to_string()).start().await;
    until("it is back", 1.0, || server.metric("wellhead_subscriptions", "")).await;
    server.backend().await.push("demo", "news", "hi", "1").await;
    sub.prints("\"hi\"").await;
    assert_eq!(sub.ends().await, Some(0));

    // what is refused for good ends it, whatever was wanted
    std::fs::write(&file, "rubbish").expect("the folder is ours");
    let mut command = wellhead(&["sub", "--slave", &url(slave), "--app", "demo", "--channel", "news", "--reconnect"]);
    command.arg("--token-file").arg(&file);
    assert!(complaint(&output(command).await).contains("401"));
}

#[tokio::test]
async fn both_ends_speak_pusher() {
    let server = Setup::keyed().toml(&DEMO.listed("client_events = true")).start().await;
    let (master, slave) = (url(server.master()), url(server.slave()));
    let secret = ["--pusher-key", DEMO.key, "--pusher-secret", DEMO.secret];
    let sub = ["sub", "--slave", &slave, "--user", "7", "--count", "3"];
    let channels = ["--channel", "news", "--channel", "private-a", "--channel", "presence-a"];
    let sub = SubProcess::start(wellhead(&[&sub[..], &channels, &secret].concat()));
    for channel in ["news", "private-a", "presence-a"] {
        sub.notes(channel).await;
    }
    for (no, channel) in ["news", "private-a", "presence-a"].into_iter().enumerate() {
        let push = ["push", "--master", &master, "--pusher-id", DEMO.id, "--channel", channel, "--event", "hi"];
        let pushed = run(&[&push[..], &secret, &[&json!({ "n": no }).to_string()]].concat()).await;
        assert_eq!(pushed.status.code(), Some(0), "{pushed:?}");
        sub.prints(channel).await;
    }
    assert_eq!(sub.ends().await, Some(0));

    // what is refused says why
    let wrong = ["--pusher-key", DEMO.key, "--pusher-secret", "another"];
    let push = ["push", "--master", &master, "--pusher-id", DEMO.id, "--channel", "news", "--event", "hi", "1"];
    let said = complaint(&run(&[&push[..], &wrong].concat()).await);
    assert!(said.contains("401"), "{said}");
    let said = complaint(&run(&[&["sub", "--slave", &slave, "--channel", "private-a"], &wrong[..]].concat()).await);
    assert!(said.contains("Invalid signature"), "{said}");
    let unknown = ["sub", "--slave", &slave, "--channel", "news", "--pusher-key", "nobody", "--reconnect"];
    let said = complaint(&run(&unknown).await);
    assert!(said.contains("4001"), "{said}");
    let said = complaint(&run(&["sub", "--slave", &slave, "--channel", "private-a", "--pusher-key", DEMO.key]).await);
    assert!(said.contains("--pusher-secret-file"), "{said}");
}
