//! `gusher.remote`: commands of clients that are posted to the backend of their app, which each test plays itself.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    cluster::field::{By, Field},
    support::{
        client::Client,
        keys::{claims, signer},
        pusher::DEMO,
        server::{Server, Setup},
        within,
    },
};

/// A backend that takes commands.
struct RemoteBackend(TcpListener);

/// A command as it came, which waits for its answer.
struct PostedRemote {
    head: String,
    body: String,
    stream: TcpStream,
}

const GOOD: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

impl RemoteBackend {
    async fn listen() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.expect("a free port"))
    }

    fn url(&self) -> String {
        format!("http://{}/commands?key=hush-url", self.0.local_addr().expect("it listens"))
    }

    /// An app whose commands go here.
    fn app(&self) -> String {
        DEMO.listed(&format!("remote = {{ url = \"{}\", header = \"X-Token: hush-header\" }}", self.url()))
    }

    fn setup(&self) -> Setup {
        Setup::keyed().toml(&self.app()).set("webhooks.allow_private", "true")
    }

    async fn next(&self) -> PostedRemote {
        let (mut stream, _) = within("a command", self.0.accept()).await.expect("a connection");
        let mut read = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&read).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if length.is_some_and(|length| length.parse() == Ok(body.len())) {
                    return PostedRemote { head: head.to_owned(), body: body.to_owned(), stream };
                }
            }
            let more = within("the rest of a command", stream.read_buf(&mut read)).await.expect("a whole command");
            assert!(more > 0, "the command ends: {text}");
        }
    }
}

impl PostedRemote {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    async fn answer(mut self, answer: &str) {
        self.stream.write_all(answer.as_bytes()).await.expect("it waits for an answer");
    }
}

/// A JWT that allows `cmd` and not `no`.
fn jwt(user: &str) -> String {
    let mut claims = claims("demo", user, &["news"]);
    claims["gusher"]["remotes"] = json!({ "cmd": true, "a \"b\"": true, "no": false, "null": null });
    signer().sign(&claims)
}

async fn client(server: &Server, user: &str) -> Client {
    Client::connect(server.slave(), "demo", &jwt(user)).await
}

async fn ask(client: &mut Client, remote: &str, debug: bool, payload: &str) {
    let data = format!(r#"{{"remote":{},"uid":"u","payload":{payload}}}"#, crate::support::quoted(remote));
    let debug = if debug { r#","debug":true"# } else { "" };
    client.socket.send_text(&format!(r#"{{"event":"gusher.remote"{debug},"data":{data}}}"#)).await;
}

async fn succeeds(client: &mut Client, remote: &str) {
    let told = ("gusher.remote_succeeded".to_owned(), json!({ "remote": remote, "msg": null }));
    assert_eq!(client.reply().await, told);
}

async fn fails(client: &mut Client, remote: &str) {
    let told = ("gusher.remote_error".to_owned(), json!({ "remote": remote, "msg": null }));
    assert_eq!(client.reply().await, told);
}

async fn result(server: &Server, result: &str, wanted: f64) {
    server.metric_becomes("wellhead_remote_commands_total", &format!("result=\"{result}\""), wanted).await;
}

#[tokio::test]
async fn a_command_is_posted_and_signed_and_told_of_if_it_was_debugged() {
    let backend = RemoteBackend::listen().await;
    let server = backend.setup().start().await;
    let token = server.auth(&jwt("ann")).await.json()["token"].as_str().expect("a token").to_owned();
    let mut taken = 0.0;
    for token in [jwt("ann"), token] {
        let mut ann = Client::connect(server.slave(), "demo", &token).await;
        let id = ann.id().await;
        let payload = r#"{"n": 1.0,"big":12345678901234567890,"text":"\u4e2d"}"#;
        for remote in ["cmd", "a \"b\""] {
            ask(&mut ann, remote, true, payload).await;
            let posted = backend.next().await;
            assert!(posted.head.starts_with("POST /commands?key=hush-url HTTP/1.1\r\n"), "{}", posted.head);
            assert_eq!(posted.header("content-type"), Some("application/json"));
            assert_eq!(posted.header("x-token"), Some("hush-header"));
            assert_eq!(posted.header("x-wellhead-key"), Some("demo"));
            assert_eq!(posted.header("x-wellhead-signature"), Some(&*DEMO.sign(&posted.body)));
            let remote_json = Value::from(remote);
            let wanted = format!(
                r#"{{"user_id":"ann","socket_id":"{id}","uid":"u","app_key":"demo","remote":{remote_json},"data":{payload}}}"#
            );
            assert_eq!(posted.body, wanted, "as the client wrote it");
            posted.answer(GOOD).await;
            succeeds(&mut ann, remote).await;
        }
        // without debug nothing is told
        ask(&mut ann, "cmd", false, "null").await;
        backend.next().await.answer("HTTP/1.1 204 No\r\nconnection: close\r\n\r\n").await;
        taken += 3.0;
        result(&server, "ok", taken).await;
        ask(&mut ann, "cmd", true, "0").await;
        backend.next().await.answer(GOOD).await;
        succeeds(&mut ann, "cmd").await;
        taken += 1.0;
    }
    // what is allowed to nobody, or to others, never leaves
    let mut ann = client(&server, "ann").await;
    for remote in ["no", "null", "", "CMD", "cmd "] {
        ask(&mut ann, remote, true, "1").await;
        fails(&mut ann, remote).await;
    }
    let mut bob = server.client("demo", "bob", &["*"]).await;
    ask(&mut bob, "cmd", true, "1").await;
    fails(&mut bob, "cmd").await;
    result(&server, "not_permitted", 6.0).await;
    for secret in ["hush", DEMO.secret] {
        assert_eq!(server.said(secret), 0, "{secret} is logged");
    }
}

#[tokio::test]
async fn a_token_that_is_redeemed_by_another_slave_allows_the_same() {
    let backend = RemoteBackend::listen().await;
    let field = Field::start_with(By::Nats, 1, 2, |setup| {
        let once = setup.set("jwt.one_time_tokens", "true").set("jwt.accept_jwt_as_token", "false");
        once.toml(&backend.app()).set("webhooks.allow_private", "true")
    })
    .await;
    let token = field.slaves[0].auth(&jwt("ann")).await.json()["token"].as_str().expect("a token").to_owned();
    let mut ann = Client::connect(field.slaves[1].slave(), "demo", &token).await;
    ask(&mut ann, "cmd", true, "1").await;
    backend.next().await.answer(GOOD).await;
    succeeds(&mut ann, "cmd").await;
}

#[tokio::test]
async fn a_backend_that_fails_is_an_error_each_time() {
    let (backend, elsewhere) = (RemoteBackend::listen().await, RemoteBackend::listen().await);
    let server = backend.setup().start().await;
    let mut ann = client(&server, "ann").await;
    let moved = format!(
        "HTTP/1.1 301 Moved\r\nlocation: {}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        elsewhere.url()
    );
    for answer in ["HTTP/1.1 500 No\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", &*moved] {
        ask(&mut ann, "cmd", true, "1").await;
        backend.next().await.answer(answer).await;
        fails(&mut ann, "cmd").await;
    }
    result(&server, "status", 2.0).await;
    // a connection that breaks
    ask(&mut ann, "cmd", false, "1").await;
    drop(backend.next().await);
    fails(&mut ann, "cmd").await;
    result(&server, "broken", 1.0).await;
    // an answer of any length is an answer
    ask(&mut ann, "cmd", true, "1").await;
    let mut posted = backend.next().await;
    let long = tokio::spawn(async move {
        let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1000000000\r\n\r\n";
        posted.stream.write_all(head.as_bytes()).await.expect("the head is read");
        // until nobody reads it any more
        while posted.stream.write_all(&[b'x'; 65_536]).await.is_ok() {}
    });
    succeeds(&mut ann, "cmd").await;
    within("nobody reads on", long).await.expect("no panic");
    // whoever does not answer is given up
    ask(&mut ann, "cmd", false, "1").await;
    let silent = backend.next().await;
    fails(&mut ann, "cmd").await;
    result(&server, "timeout", 1.0).await;
    drop(silent);
    assert!(
        tokio::time::timeout(std::time::Duration::ZERO, elsewhere.0.accept()).await.is_err(),
        "no redirect is followed"
    );
    // nobody is there
    drop(backend);
    ask(&mut ann, "cmd", false, "1").await;
    fails(&mut ann, "cmd").await;
    result(&server, "connect", 1.0).await;
    assert_eq!(
        server.said("does not take a remote command of demo"),
        2,
        "said when it begins, twice with the one between"
    );
}

#[tokio::test]
async fn private_addresses_are_refused_unless_they_are_allowed() {
    let backend = RemoteBackend::listen().await;
    let port = backend.0.local_addr().expect("it listens").port();
    let app = |host: &str| DEMO.listed(&format!("remote = {{ url = \"http://{host}:{port}/\" }}"));
    for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "2130706433"] {
        let failure = Setup::keyed().toml(&app(host)).fails().await;
        assert_eq!(failure.code, Some(78), "{host}: {failure:?}");
        assert!(
            failure.said.contains("apps.listed.0.remote.url") && failure.said.contains("allow_private"),
            "{failure:?}"
        );
        // a master sends nothing
        Setup::keyed().toml(&app(host)).role("master").start().await;
    }
    let server = Setup::keyed().toml(&app("localhost")).start().await;
    let mut ann = client(&server, "ann").await;
    ask(&mut ann, "cmd", true, "1").await;
    fails(&mut ann, "cmd").await;
    result(&server, "refused", 1.0).await;
    assert!(tokio::time::timeout(std::time::Duration::ZERO, backend.0.accept()).await.is_err(), "nobody connected");
}

#[tokio::test]
async fn a_socket_has_one_under_way_and_goes_on_meanwhile() {
    let backend = RemoteBackend::listen().await;
    let server = backend.setup().start().await;
    let (mut ann, mut bob) = (client(&server, "ann").await, client(&server, "bob").await);
    ask(&mut ann, "cmd", true, "1").await;
    let posted = backend.next().await;
    assert_eq!(ann.subscribe("news").await, "gusher.subscribe_succeeded", "others are answered before it");
    ask(&mut ann, "cmd", true, "2").await;
    fails(&mut ann, "cmd").await;
    result(&server, "under_way", 1.0).await;
    // another socket is another matter
    ask(&mut bob, "cmd", true, "3").await;
    backend.next().await.answer(GOOD).await;
    succeeds(&mut bob, "cmd").await;
    server.backend().await.push("demo", "news", "e", "1").await;
    assert_eq!(ann.next_event().await.data, "1");
    posted.answer(GOOD).await;
    succeeds(&mut ann, "cmd").await;
    ask(&mut ann, "cmd", true, "4").await;
    backend.next().await.answer(GOOD).await;
    succeeds(&mut ann, "cmd").await;
}

#[tokio::test]
async fn a_socket_that_ends_meanwhile_is_told_nothing_and_holds_nothing() {
    let backend = RemoteBackend::listen().await;
    let server = backend.setup().start().await;
    for n in 0..5 {
        let mut ann = client(&server, "ann").await;
        ask(&mut ann, "cmd", true, "1").await;
        let posted = backend.next().await;
        ann.socket.leave().await;
        assert_eq!(server.connections().await, 0);
        posted.answer(GOOD).await;
        result(&server, "ok", f64::from(n + 1)).await;
    }
}

#[tokio::test]
async fn commands_are_bounded_in_size_number_and_pace() {
    let backend = RemoteBackend::listen().await;
    let server = backend.setup().start().await;
    let mut ann = client(&server, "ann").await;
    // with its uid, which has one byte
    let sized = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 3));
    ask(&mut ann, "cmd", true, &sized(10_240)).await;
    backend.next().await.answer(GOOD).await;
    succeeds(&mut ann, "cmd").await;
    ask(&mut ann, "cmd", true, &sized(10_241)).await;
    fails(&mut ann, "cmd").await;
    result(&server, "too_large", 1.0).await;
    // a crowd of them at once: each fails for being one of several, or for being too many
    let one = r#"{"event":"gusher.remote","data":{"remote":"cmd","uid":"u","payload":1}}"#;
    let mut frames = Vec::new();
    for _ in 0..200 {
        frames.extend(crate::support::websocket::frame(1, one.as_bytes()));
    }
    ann.socket.send_bytes(&frames).await.expect("it is open");
    let first = backend.next().await;
    for _ in 0..199 {
        fails(&mut ann, "cmd").await;
    }
    first.answer(GOOD).await;
    let too_often = server.metric("wellhead_remote_commands_total", "result=\"too_often\"").await;
    assert!(too_often > 0.0, "{too_often}");

    // of an app
    let (mut crowd, mut posted) = (Vec::new(), Vec::new());
    for n in 0..100 {
        crowd.push(client(&server, &format!("user-{n}")).await);
    }
    let mut late = client(&server, "late").await;
    for client in &mut crowd {
        ask(client, "cmd", true, "1").await;
    }
    for _ in 0..100 {
        posted.push(backend.next().await);
    }
    ask(&mut late, "cmd", true, "1").await;
    fails(&mut late, "cmd").await;
    result(&server, "too_many", 1.0).await;
    let of_first = posted.iter().position(|posted| posted.body.contains("\"user-0\"")).expect("one of them");
    posted.swap_remove(of_first).answer(GOOD).await;
    succeeds(&mut crowd[0], "cmd").await;
    ask(&mut late, "cmd", true, "1").await;
    backend.next().await.answer(GOOD).await;
    succeeds(&mut late, "cmd").await;
}

#[tokio::test]
async fn without_a_target_commands_fail_and_v3_does_not_know_them() {
    let server = Setup::keyed().toml(&DEMO.listed("")).start().await;
    let mut ann = client(&server, "ann").await;
    ask(&mut ann, "cmd", true, "1").await;
    fails(&mut ann, "cmd").await;
    let backend = RemoteBackend::listen().await;
    for (server, path, knows) in [
        (backend.setup().start().await, "/v1/apps/demo/ws", false),
        (backend.setup().start().await, "/gcs/wtf/demo", true),
    ] {
        let path = format!("{path}?token={}", jwt("ann"));
        let socket = crate::support::websocket::WebSocket::open(server.slave(), &path, &[]).await;
        let mut ann = Client { socket: socket.unwrap_or_else(|reply| panic!("{reply:?}")) };
        ask(&mut ann, "cmd", true, "1").await;
        if knows {
            backend.next().await.answer(GOOD).await;
            succeeds(&mut ann, "cmd").await;
        } else {
            assert_eq!(ann.closed().await.code, 1008);
        }
    }
    // what is no command closes the socket, as before
    let server = backend.setup().start().await;
    for data in
        [r#"{"remote":"cmd","uid":"u"}"#, r#"{"uid":"u","payload":1}"#, r#"{"remote":"cmd","uid":1,"payload":1}"#, "1"]
    {
        let mut ann = client(&server, "ann").await;
        ann.say("gusher.remote", data).await;
        assert_eq!(ann.closed().await.code, 1008, "{data}");
    }
}

#[tokio::test]
async fn a_target_that_cannot_be_used_is_found_at_start() {
    for (toml, words) in [
        ("[[apps.listed]]\nkey = \"demo\"\nremote = { url = \"http://example.com/\" }".to_owned(), "no secret"),
        (DEMO.listed("remote = { url = \"ftp://example.com/hush\" }"), "http"),
        (DEMO.listed("remote = { url = \"hush\" }"), "not a URL"),
        (DEMO.listed("remote = { url = \"http://hush:hush@example.com/\" }"), "user name"),
        (DEMO.listed("remote = { url = \"http://example.com/\", header = \"hush\" }"), "header"),
        (DEMO.listed("remote = { url = \"http://example.com/\", header = \"Host: hush\" }"), "Wellhead itself"),
        (DEMO.listed("remote = { header = \"X-Token: hush\" }"), "remote.url"),
        (DEMO.listed("remote = { url = \"http://example.com/\", headers = \"x\" }"), "headers"),
    ] {
        let failure = Setup::keyed().toml(&toml).fails().await;
        assert_eq!(failure.code, Some(78), "{toml}: {failure:?}");
        assert!(failure.said.contains(words), "{toml}: {failure:?}");
        let said = failure.said.replace(&toml, "");
        assert!(!said.contains("hush"), "{toml}: {said}");
    }
}
