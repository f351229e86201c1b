//! How a server starts, refuses to start, and ends.

use std::process::{Command, Stdio};

use crate::support::{
    client::Client,
    http::Http,
    keys::signer,
    server::{Server, ServerLog, Setup},
    until, within,
};

#[tokio::test]
async fn sigterm_says_goodbye_to_everybody_and_ends_with_zero() {
    for signal in ["TERM", "INT", "HUP"] {
        // whoever runs the tests may have SIGHUP ignored
        let heard = "exec env --default-signal=HUP \"$0\" \"$@\";";
        let mut server = Setup::keyed().prelude(heard).start().await;
        let mut clients = Vec::new();
        for user in ["ann", "bob", "eve"] {
            clients.push(server.listener_on("demo", user, "news").await);
        }
        server.backend().await.push("demo", "news", "last", "1").await;
        server.signal(signal);
        for client in &mut clients {
            assert_eq!(client.next_event().await.event, "last", "what was accepted is delivered first");
            let close = client.closed().await;
            assert_eq!((close.code, close.reason.as_str()), (1001, "shutting down"));
        }
        assert_eq!(server.ended().await.code(), Some(0), "SIG{signal}");
    }
}

#[tokio::test]
async fn under_nohup_it_outlives_the_terminal() {
    let mut server = Setup::keyed().prelude("trap '' HUP;").start().await;
    server.signal("HUP");
    assert_eq!(server.readiness().await, (200, "ready".to_owned()));
    server.signal("TERM");
    assert_eq!(server.ended().await.code(), Some(0), "this was the first signal, not the second");
}

#[tokio::test]
async fn a_crowd_is_told_too() {
    let mut server = Server::start().await;
    let token = server.token("demo", "ann", &["*"]).await;
    let mut crowd = Vec::new();
    for _ in 0..400 {
        crowd.push(Client::connect(server.slave(), "demo", &token).await);
    }
    server.signal("TERM");
    for client in &mut crowd {
        assert_eq!(client.closed().await.code, 1001);
    }
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test]
async fn neither_idle_nor_half_sent_requests_nor_deaf_clients_hold_up_the_end() {
    let mut server = Setup::keyed().set("slave.drain", "2s").start().await;
    let mut idle = Http::to(server.master()).await;
    assert_eq!(idle.get("/healthz").await.status, 200);
    let silent = Http::to(server.slave()).await;
    let mut half = Http::to(server.master()).await;
    half.send(b"POST /api/push/a/b/c HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\nda").await.expect("open");
    let deaf = server.listener_on("demo", "deaf", "news").await;
    let big = "x".repeat(4 << 20);
    server.backend().await.push("demo", "news", "e", &big).await;
    let started = std::time::Instant::now();
    server.signal("TERM");
    assert_eq!(server.ended().await.code(), Some(0));
    assert!(started.elapsed().as_secs() < 12, "{:?}", started.elapsed());
    drop((idle, silent, half, deaf));
}

#[tokio::test]
async fn while_it_drains_it_is_not_ready_and_lets_nobody_in() {
    let mut server = Setup::keyed().set("slave.drain", "15s").start().await;
    let token = server.token("demo", "ann", &["*"]).await;
    // a client that does not answer the goodbye holds the drain up for a while
    let mut stubborn = server.listener_on("demo", "ann", "news").await;
    let mut admin = Http::to(server.admin()).await;
    assert_eq!(admin.get("/readyz").await.is(), (200, "ready"));
    server.signal("TERM");
    let close = stubborn.socket.next().await.expect("a close frame");
    assert_eq!(close.opcode, crate::support::websocket::CLOSE);
    let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n", crate::support::client::path("demo", &token));
    if let Ok(mut stream) = tokio::net::TcpStream::connect(server.slave()).await {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
        let request = format!("{request}{upgrade}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = within("an answer or the end", stream.read_to_end(&mut answer)).await;
        assert!(!answer.starts_with(b"HTTP/1.1 101"), "nobody is let in: {}", String::from_utf8_lossy(&answer));
    }
    drop(stubborn);
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut server = Setup::keyed().set("slave.drain", "10m").start().await;
    let mut stubborn = server.listener_on("demo", "ann", "news").await;
    // it neither reads nor answers any more: fill what the kernel takes
    let mut backend = server.backend().await;
    let big = "x".repeat(900 << 10);
    for _ in 0..8 {
        backend.push("demo", "news", "e", &big).await;
    }
    server.signal("TERM");
    until("it is told to end", true, || async {
        let lines = server.log.collect(|line| line.contains("shutting down").then_some(()));
        !lines.is_empty()
    })
    .await;
    // signals that come together are one, so it is sent until it is a second one
    let ended = loop {
        server.signal("TERM");
        if let Ok(ended) = tokio::time::timeout(std::time::Duration::from_millis(300), server.ended()).await {
            break ended;
        }
    };
    assert!(ended.code() != Some(101), "{ended:?}");
    stubborn.socket.pings += 1;
}

#[tokio::test]
async fn a_bad_configuration_is_refused_with_file_line_and_hint() {
    for (toml, words) in [
        ("[slave]\nlisten = \"127.0.0.1:0\"\nlistn = \"x\"\n", &["config.toml:", "listn", "listen"][..]),
        ("[slaves]\n", &["config.toml:", "slaves", "slave"]),
        ("[limits]\nmessage = \"64 potatoes\"\n", &["config.toml:", "64 potatoes", "KiB"]),
        ("[limits]\nmessage = 64\n", &["config.toml:2", "integer", "string"]),
        ("[jwt]\ntoken_ttl = \"sixty\"\n", &["config.toml:", "sixty", "60s"]),
        ("[jwt]\npublic_keys = [\"nowhere.pem\"]\n", &["nowhere.pem", "public_keys"]),
        ("[jwt]\npublic_keys = [\"config.toml\"]\n", &["config.toml", "PEM"]),
        ("[jwt]\npublic_keys = [{ file = \"public.pem\", algorithm = \"HS256\" }]\n", &["public.pem", "HS256"]),
        ("[jwt]\npublic_keys = [{ file = \"public.pem\", algorithm = \"ES256\" }]\n", &["public.pem", "ES256"]),
        (
            "[jwt]\npublic_keys = [\"public.pem\"]\none_time_tokens = true\n",
            &["one_time_tokens", "accept_jwt_as_token"],
        ),
        ("[jwt]\nsecret = \"short\"\n", &["secret", "32"]),
        ("[master]\nlisten = \"nonsense\"\n", &["listen", "nonsense"]),
        ("[log]\nformat = \"xml\"\n", &["config.toml:", "xml"]),
        ("[cluster]\nbus = \"carrier-pigeon\"\n", &["config.toml:2", "local", "nats://"]),
        ("[[push_keys]]\nname = \"a\"\nsha256 = \"xyz\"\n", &["config.toml:", "sha256"]),
        ("[[push_keys]]\nname = \"a\"\nsha256 = \"\"\nrights = [\"rule\"]\n", &["config.toml:"]),
        ("not toml at all", &["config.toml:"]),
    ] {
        // the environment would win over the file
        let setup = Setup::development().unset_all().toml(toml);
        std::fs::write(setup.folder().join("public.pem"), &signer().public_pem).expect("the folder is ours");
        let failure = setup.fails().await;
        assert_eq!(failure.code, Some(78), "{toml:?}: {failure:?}");
        for word in words {
            assert!(failure.said.contains(word), "{toml:?} should name {word:?}: {}", failure.said);
        }
    }
}

#[tokio::test]
async fn an_unknown_variable_is_refused_too() {
    let failure = Setup::keyed().set("slave.lissten", "x").fails().await;
    assert_eq!(failure.code, Some(78), "{failure:?}");
    assert!(failure.said.contains("WELLHEAD_SLAVE__LISSTEN"), "{failure:?}");
    let failure = Setup::keyed().set("limits.queue", "1 potato").fails().await;
    assert_eq!(failure.code, Some(78), "{failure:?}");
    assert!(failure.said.contains("WELLHEAD_LIMITS__QUEUE"), "{failure:?}");
    let failure = Setup::keyed().arguments(&["--no-such-flag"]).fails().await;
    assert_eq!(failure.code, Some(2), "{failure:?}");
}

#[tokio::test]
async fn a_container_brings_its_own_environment() {
    let setup = Setup::keyed()
        .variable("WELLHEAD_PORT", "tcp://10.0.0.7:7777")
        .variable("WELLHEAD_SERVICE_HOST", "10.0.0.7")
        .variable("WELLHEAD_JWT", "eyJ")
        .variable("WELLHEAD_SLAVE_LISTEN", "0.0.0.0:1")
        .variable("WELLHEAD_LIMITS__BODY", "")
        .variable("WELLHEAD_APP_KEY", "shop")
        .variable("WELLHEAD_APP_ID", "7")
        .variable("WELLHEAD_APP_SECRET", "a secret that a container is given")
        .variable("WELLHEAD_PUSH_KEYS", &format!("backend:{}", "0".repeat(64)));
    let checked = setup.clone().arguments(&["check-config"]).ends().await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.said.contains("WELLHEAD_SLAVE_LISTEN is ignored"), "{checked:?}");
    let server = setup.start().await;
    assert_eq!(server.said("WELLHEAD_SLAVE_LISTEN is ignored"), 1);
    // the app is there, and pushes need a key
    let signed = Http::to(server.master()).await.get("/apps/7/channels").await;
    assert_eq!(signed.status, 401, "it wants a signature: {signed:?}");
    assert_eq!(Http::to(server.master()).await.get("/apps/8/channels").await.status, 404);
    assert_eq!(Http::to(server.master()).await.get("/v1/apps").await.status, 401);

    let half = Setup::keyed().variable("WELLHEAD_APP_KEY", "shop").fails().await;
    assert_eq!(half.code, Some(78), "{half:?}");
    assert!(half.said.contains("WELLHEAD_APP_ID"), "{half:?}");
}

#[tokio::test]
async fn a_master_without_keys_stays_on_loopback_unless_told() {
    let failure = Setup::keyed().set("master.listen", "0.0.0.0:0").fails().await;
    assert_eq!(failure.code, Some(78), "{failure:?}");
    assert!(failure.said.contains("push key") && failure.said.contains("master.open"), "{failure:?}");
    for setting in ["master.listen", "slave.listen", "master.admin"] {
        let setup = Setup::development().set(setting, "0.0.0.0:0").set("master.open", "true");
        let failure = setup.fails().await;
        assert_eq!(failure.code, Some(78), "development mode is for loopback only ({setting}): {failure:?}");
    }
}

#[tokio::test]
async fn servers_with_the_same_secret_honour_each_others_tokens() {
    let secret = "a secret that all servers of this cluster share";
    let one = Setup::keyed().set("cluster.secret", secret).start().await;
    let two = Setup::keyed().set("cluster.secret", secret).start().await;
    let token = one.token("demo", "ann", &["*"]).await;
    let mut ann = Client::connect(two.slave(), "demo", &token).await;
    assert_eq!(ann.subscribe("news").await, "gusher.subscribe_succeeded");
    let other = Setup::keyed().set("cluster.secret", secret).set("cluster.name", "other").start().await;
    let path = crate::support::client::path("demo", &token);
    let refused = crate::support::websocket::WebSocket::open(other.slave(), &path, &[]).await.err().expect("refused");
    assert_eq!(refused.is(), (401, "token error\n"), "a token names its cluster");
}

#[tokio::test]
async fn more_sockets_than_file_descriptors_are_refused() {
    let failure = Setup::keyed().set("slave.max_connections", "1000000000000").fails().await;
    assert_eq!(failure.code, Some(78), "{failure:?}");
    assert!(failure.said.contains("slave.max_connections") && failure.said.contains("LimitNOFILE"), "{failure:?}");
    let master = Setup::keyed().set("slave.max_connections", "1000000000000").role("master").start().await;
    assert_eq!(master.readiness().await.0, 200, "a master holds no sockets");
}

#[tokio::test]
async fn a_port_that_is_taken_is_a_failure_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("bound").to_string();
    let failure = Setup::keyed().set("slave.listen", &address).fails_only_when_started().await;
    assert_eq!(failure.code, Some(1), "{failure:?}");
    assert!(failure.said.contains(&address), "{failure:?}");
}

#[tokio::test]
async fn check_config_says_ok() {
    let fine = Setup::keyed().arguments(&["check-config"]).ends().await;
    assert_eq!(fine.code, Some(0), "{fine:?}");
    assert!(fine.said.contains("ok"), "{fine:?}");
}

#[tokio::test]
async fn development_mode_prints_lines_that_work() {
    let server = Setup::development().start().await;
    within("the last of what is printed", server.out.find(|line| line.ends_with("/try").then_some(()))).await;
    let lines = server.out.collect(|line| Some(line.trim().to_owned()));
    let subscribe = lines.iter().find(|line| line.contains(" sub ")).unwrap_or_else(|| panic!("{lines:?}"));
    let push = lines.iter().find(|line| line.starts_with("curl ")).unwrap_or_else(|| panic!("{lines:?}"));

    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("exec {subscribe}")).stdin(Stdio::null());
    let mut subscriber = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("sh is there");
    let arrives = ServerLog::of(subscriber.stdout.take().expect("a pipe"));
    let _complains = ServerLog::of(subscriber.stderr.take().expect("a pipe"));
    until("the pasted line connects", 1, || server.connections()).await;
    until("it is on a channel", false, || async {
        server.backend().await.names("/api/demo/channels").await.is_empty()
    })
    .await;
    let pushed = Command::new("sh").arg("-c").arg(push).stdin(Stdio::null()).output().expect("sh is there");
    assert!(pushed.status.success(), "{pushed:?}");
    let delivered: serde_json::Value = serde_json::from_slice(&pushed.stdout).expect("the master's reply");
    let text = delivered["data"].to_string();
    let arrived = within("the push on the screen", arrives.find(|line| line.contains(&text).then(|| line.to_owned())));
    assert!(arrived.await.contains(&text));
    // the third goes through Pusher's API, to the same channel
    let signed = lines.iter().find(|line| line.starts_with("B=")).unwrap_or_else(|| panic!("{lines:?}"));
    let pushed = Command::new("sh").arg("-c").arg(signed).stdin(Stdio::null()).output().expect("sh is there");
    assert_eq!(String::from_utf8_lossy(&pushed.stdout), "{}", "{pushed:?}");
    let arrived = arrives.find(|line| line.contains("\"It works\"").then(|| line.to_owned()));
    assert!(within("the signed push on the screen", arrived).await.contains("hello"));
    let _ = subscriber.kill();
    let _ = subscriber.wait();
}

#[tokio::test]
async fn the_demo_is_gone_once_a_key_is_configured() {
    let development = Setup::development().start().await;
    let page = Http::to(development.master()).await.get("/try").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
    let policy = page.header("content-security-policy").expect("a page that runs scripts says which");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(Http::to(development.slave()).await.get("/try").await.status, 404);
    let printed = development.out.collect(|line| Some(line.to_owned())).join("\n");
    let jwt = printed.split(|letter: char| !letter.is_ascii_alphanumeric() && !"-_.".contains(letter));
    let jwt = jwt.into_iter().find(|word| word.starts_with("eyJ")).expect("a demo JWT").to_owned();
    let mut demo = Client::connect(development.slave(), "demo", &jwt).await;
    assert_eq!(demo.subscribe("anything").await, "gusher.subscribe_succeeded");

    let keyed = Server::start().await;
    assert_eq!(Http::to(keyed.master()).await.get("/try").await.status, 404);
    assert_eq!(keyed.auth(&jwt).await.status, 401);
    assert!(keyed.out.collect(|line| Some(line.to_owned())).is_empty(), "nothing is printed");
    let other = Setup::development().start().await;
    assert_eq!(other.auth(&jwt).await.status, 401, "a throw-away key is thrown away");
}

#[tokio::test]
async fn health_and_metrics_are_on_the_admin_listener_only() {
    let server = Server::start().await;
    let _ann = server.listener_on("demo", "ann", "news").await;
    server.backend().await.push("demo", "news", "e", "1").await;
    let metrics = Http::to(server.admin()).await.get("/metrics").await;
    assert_eq!(metrics.status, 200);
    for name in ["wellhead_connections", "wellhead_build_info", "process_"] {
        assert!(metrics.text().contains(name), "{name} in {}", metrics.text());
    }
    assert!(!metrics.text().contains("news") && !metrics.text().contains("ann\""), "no names of channels or users");
    for address in [server.master(), server.slave()] {
        assert_eq!(Http::to(address).await.get("/metrics").await.status, 404);
    }
    assert_eq!(Http::to(server.admin()).await.get("/api/demo/online").await.status, 404);
}

#[tokio::test]
async fn no_secret_is_ever_logged() {
    let server = Setup::keyed().set("log.level", "trace").start().await;
    let jwt = signer().jwt("demo", "ann", &["*"]);
    let token = server.token("demo", "ann", &["*"]).await;
    let _client = Client::connect(server.slave(), "demo", &token).await;
    let mut backend = server.backend().await.with_key("a-very-secret-push-key");
    backend.http.call("POST", "/api/push/demo/c/e?data=in-the-query", &[], "").await;
    backend.get("/api/demo/channels").await;
    let reply = server.auth("not.a\u{7}.jwt").await;
    assert_eq!(reply.status, 401);
    let log = server.log.collect(|line| Some(line.to_owned()));
    assert!(!log.is_empty());
    for line in &log {
        for secret in [jwt.as_str(), &token, "a-very-secret-push-key", "in-the-query"] {
            assert!(!line.contains(secret), "{line}");
        }
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}
