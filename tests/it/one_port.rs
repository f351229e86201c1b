//! One address for backends and clients (`standalone.listen`): every route of both roles is served there as it is at two, and
//! whoever comes through a proxy of clients is no program of this machine.

use std::{net::TcpListener, sync::Arc};

use serde_json::json;
use wellhead_master::keys::KeyHash;
use wellhead_proto::{
    dialect::{
        self,
        contract::{Role, Route},
    },
    ids::SocketIdSeal,
};

use crate::support::{
    client::{Client, ReceivedEvent, path},
    http::{Http, Reply},
    keys::signer,
    pusher::{Api, DEMO, OTHER, PusherClient, PusherMessage},
    server::{Server, Setup},
    websocket::{HANDSHAKE, WebSocket},
    within,
};

const KEY: &str = "the push key of this test";

/// An app for Pusher's libraries.
fn with_app(setup: Setup) -> Setup {
    setup.toml(&DEMO.listed("client_events = true"))
}

fn with_push_key(setup: Setup) -> Setup {
    setup.toml(&format!("[[push_keys]]\nname = \"backend\"\nsha256 = \"{}\"\n", KeyHash::of(KEY)))
}

fn at_one(setup: Setup) -> Setup {
    setup.set("standalone.listen", "127.0.0.1:0")
}

/// What there is to compare of two replies: times and ids differ.
fn comparable(reply: &Reply) -> (u16, Option<&str>, Option<&str>, Option<&str>, usize) {
    let header = |name| reply.header(name);
    (reply.status, header("content-type"), header("allow"), header("www-authenticate"), reply.body.len())
}

#[tokio::test]
async fn every_route_of_both_roles_answers_as_it_does_at_an_address_of_its_own() {
    let setup = with_push_key(with_app(crate::support::conveyor::setup()));
    let (two, one) = (setup.clone().start().await, at_one(setup).start().await);
    assert_eq!(one.master(), one.slave());
    let bearer = format!("Bearer {KEY}");
    let keyed = [("Authorization", bearer.as_str())];
    let mut tried = 0;
    for dialect in dialect::all(&dialect::Settings::default(), &SocketIdSeal::new(b"seal")) {
        for Route { role, method, path, .. } in dialect.routes() {
            let segment = |segment: &str| match segment {
                "{id}" => DEMO.id.to_owned(),
                "{app}" | "{key}" => "demo".to_owned(),
                segment => segment.trim_matches(['{', '}']).to_owned(),
            };
            let path = path.split('/').map(segment).collect::<Vec<_>>().join("/");
            let apart = match role {
                Role::Master => two.master(),
                Role::Slave => two.slave(),
            };
            // what asks for no socket there is told what the port is
            let tries = [&[][..], &keyed, &HANDSHAKE].into_iter().skip(if path == "/" { 2 } else { 0 });
            for headers in tries {
                // without credentials, with a key, and as a handshake
                let method = if *method == Route::SOCKET { "GET" } else { method };
                let asked = async |address| Http::to(address).await.call(method, &path, headers, "").await;
                let (wanted, got) = (asked(apart).await, asked(one.master()).await);
                if wanted.status != 101 {
                    assert_eq!(comparable(&got), comparable(&wanted), "{method} {path} {headers:?}: {got:?}");
                }
                assert_eq!(got.status, wanted.status, "{method} {path}");
                assert!(!got.body.starts_with(b"404"), "{method} {path}: {got:?}");
                tried += 1;
            }
        }
    }
    assert!(tried > 100, "{tried}");
}

#[tokio::test]
async fn a_path_of_nobody_is_404_and_a_wrong_method_405() {
    let server = at_one(with_app(Setup::keyed())).start().await;
    let mut http = Http::to(server.master()).await;
    for path in ["/nope", "/v1/nope", "/api", "/gcs", "/app", "/apps", "/metrics", "/try", "/v1/apps/demo/nope"] {
        // no other port is named: there is none
        assert_eq!(http.get(path).await.is(), (404, "404 page not found\n"), "{path}");
    }
    let refused = WebSocket::open(server.slave(), "/nope", &[]).await.err().expect("no such path");
    assert_eq!(refused.is(), (404, "404 page not found\n"));
    for (method, path, allow) in [
        ("GET", "/api/push/demo/news/e", "POST"),
        ("GET", "/v1/auth", "OPTIONS, POST"),
        ("POST", "/gcs/ping", "GET"),
        ("DELETE", "/app/demo", "GET"),
        ("DELETE", "/apps/17/events", "POST"),
    ] {
        let reply = http.call(method, path, &[], "").await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some(allow)), "{method} {path}: {reply:?}");
    }
    for path in ["/healthz", "/readyz", "/version"] {
        assert_eq!(http.get(path).await.status, 200, "{path}");
    }
    let index = http.get("/").await;
    assert!(index.text().contains("backends push here, and clients connect here"), "{index:?}");
    assert_eq!(server.metric("wellhead_http_connections", "role=\"standalone\"").await, 1.0);
    assert!(server.metric("wellhead_http_requests_total", "role=\"standalone\"").await > 10.0);
}

#[tokio::test]
async fn backends_and_clients_of_both_dialects_meet_there() {
    let server = at_one(with_push_key(with_app(Setup::keyed()))).start().await;
    let mut ann = server.listener_on("demo", "ann", "news").await;
    let jwt = signer().jwt("demo", "bob", &["*"]);
    let v3 = WebSocket::open(server.slave(), &format!("/v1/apps/demo/ws?token={jwt}"), &[]).await.expect("101");
    let mut eve = PusherClient::connect(server.slave(), DEMO).await.subscribed("news").await;
    let mut backend = server.backend().await.with_key(KEY);
    backend.push("demo", "news", "v1", "1").await;
    assert_eq!(ann.next_event().await, ReceivedEvent::new("news", "v1", "1"));
    assert_eq!(eve.next().await, PusherMessage::event("news", "v1", "1"));
    let body = r#"{"event":"v3","data":2}"#;
    assert_eq!(backend.json("POST", "/v1/apps/demo/channels/news/messages", body).await.status, 200);
    assert_eq!(ann.next_event().await, ReceivedEvent::new("news", "v3", "2"));
    assert_eq!(eve.next().await, PusherMessage::event("news", "v3", "2"));
    let mut api = Api::of(&server, DEMO).await;
    api.trigger("news", "signed", "three").await;
    assert_eq!(ann.next_event().await, ReceivedEvent::new("news", "signed", "\"three\""));
    assert_eq!(eve.next().await, PusherMessage::event("news", "signed", "three"));
    assert_eq!(eve.join("presence-room", "eve").await, ["eve"]);
    assert_eq!(api.users("presence-room").await, ["eve"]);
    assert_eq!(backend.names("/v1/apps/demo/users").await, ["ann", "bob"]);
    // a client may send no more than to a slave, a backend as much as to a master
    let large = "x".repeat(1 << 20);
    assert_eq!(Http::to(server.slave()).await.form("/gcs/auth", &[("jwt", &large)]).await.status, 413);
    let pushed = backend.form("/api/push/demo/elsewhere/e", &[("data", &large)]).await;
    assert_eq!(pushed.status, 200);
    drop(v3);
}

#[tokio::test]
async fn without_push_keys_nobody_pushes_there_not_even_from_this_machine() {
    let server = at_one(with_app(Setup::keyed())).start().await;
    assert_eq!(server.said("there is no push key: at"), 1);
    let mut http = Http::to(server.master()).await;
    for (method, path) in [
        ("POST", "/api/push/demo/news/e?data=1"),
        ("POST", "/v1/apps/demo/channels/news/messages"),
        ("PUT", "/v1/apps/demo/users/ann/channels"),
        ("GET", "/v1/stats"),
        ("GET", "/demo/channels"),
    ] {
        let reply = http.call(method, path, &[], "").await;
        assert_eq!(reply.status, 401, "{method} {path}: {reply:?}");
    }
    assert_eq!(http.get("/api/ping").await.status, 200, "it needs no key");
    // clients and signed requests need none either
    let mut ann = server.listener_on("demo", "ann", "news").await;
    Api::of(&server, DEMO).await.trigger("news", "signed", "1").await;
    assert_eq!(ann.next_event().await, ReceivedEvent::new("news", "signed", "1"));
    let unsigned = http.get("/apps/17/channels").await;
    assert_eq!(unsigned.status, 401, "{unsigned:?}");

    // a tutorial's app and nothing else is no development mode: a proxy that is not seen to be one reaches nothing more
    let tutorial = at_one(with_app(Setup::development())).start().await;
    let mut http = Http::to(tutorial.master()).await;
    assert_eq!(http.get("/v1/stats").await.status, 401);
    assert_eq!(http.get("/try").await.status, 404);
    let mut eve = PusherClient::connect(tutorial.slave(), DEMO).await.subscribed("news").await;
    Api::of(&tutorial, DEMO).await.trigger("news", "signed", "1").await;
    assert_eq!(eve.next().await, PusherMessage::event("news", "signed", "1"));

    // whoever says so serves everybody
    let open = at_one(Setup::keyed()).set("master.open", "true").start().await;
    open.backend().await.push("demo", "news", "e", "1").await;
    assert_eq!(open.said("master.open is true"), 1);
    // at two addresses it is as ever
    let two = Setup::keyed().start().await;
    two.backend().await.push("demo", "news", "e", "1").await;
}

#[tokio::test]
async fn development_mode_prints_the_one_address_and_serves_this_machine() {
    let server = at_one(Setup::development()).start().await;
    within("the last of what is printed", server.out.find(|line| line.ends_with("/try").then_some(()))).await;
    let printed = server.out.collect(|line| Some(line.to_owned())).join("\n");
    let address = server.master().to_string();
    for words in [
        format!(" sub --slave http://{address} --app demo "),
        format!("-X POST http://{address}/v1/apps/demo/channels/news/messages "),
        format!("   requests and sockets to {address}, without TLS:"),
        format!("\"http://{address}/apps/1/events?"),
        format!("http://{address}/try"),
    ] {
        assert!(printed.contains(&words), "{words} in {printed}");
    }
    let mut http = Http::to(server.master()).await;
    let page = http.get("/try").await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains(&format!("data-slave=\"{address}\"")), "{page:?}");
    assert_eq!(http.call("GET", "/", &[("Accept", "text/html")], "").await.header("location"), Some("/try"));
    server.backend().await.push("demo", "news", "e", "1").await;
    let proxied = http.call("GET", "/v1/stats", &[("X-Forwarded-For", "192.0.2.1")], "").await;
    assert_eq!(proxied.status, 403, "{proxied:?}");
    let jwt = printed.split_whitespace().find(|word| word.starts_with("eyJ")).expect("a demo JWT");
    let mut demo = Client::connect(server.slave(), "demo", jwt).await;
    assert_eq!(demo.subscribe("anything").await, "gusher.subscribe_succeeded");
}

#[tokio::test]
async fn what_may_be_reached_is_judged_by_that_address() {
    let beyond = |setup: Setup| setup.set("standalone.listen", "0.0.0.0:0");
    let failure = beyond(Setup::keyed()).fails().await;
    assert_eq!(failure.code, Some(78), "{failure:?}");
    assert!(failure.said.contains("standalone.listen: ") && failure.said.contains("keys push"), "{failure:?}");
    let failure = beyond(with_push_key(Setup::development())).fails().await;
    assert_eq!(failure.code, Some(78), "{failure:?}");
    assert!(failure.said.contains("standalone.listen: ") && failure.said.contains("development mode"), "{failure:?}");
    // what is not listened to may be anything
    let elsewhere = |setup: Setup| setup.set("master.listen", "0.0.0.0:0").set("slave.listen", "nonsense");
    let server = elsewhere(at_one(Setup::development())).start().await;
    assert!(server.master().ip().is_loopback());

    // signed requests and signed channels need nothing else
    let server = beyond(with_app(Setup::development())).start().await;
    let address = ([127, 0, 0, 1], server.master().port()).into();
    assert!(server.out.collect(|line| Some(line.to_owned())).is_empty(), "it is no development mode");
    assert_eq!(Http::to(address).await.get("/v1/stats").await.status, 401);
    let mut ann = PusherClient::connect(address, DEMO).await.subscribed("news").await;
    let target = "/apps/17/events";
    let body = json!({ "name": "e", "channel": "news", "data": "1" }).to_string();
    let query = DEMO.signed("POST", target, &[], &body, crate::support::keys::now());
    let reply = Http::to(address).await.json("POST", &format!("{target}?{query}"), &body).await;
    assert_eq!(reply.is(), (200, "{}"));
    assert_eq!(ann.next().await, PusherMessage::event("news", "e", "1"));
}

#[tokio::test]
async fn the_setting_is_standalones_alone() {
    let setup = Setup::keyed().set("standalone.listen", "nonsense");
    let failure = setup.clone().fails().await;
    assert!(failure.said.contains("standalone.listen: \"nonsense\" is not an address"), "{failure:?}");
    let master = setup.clone().role("master").start().await;
    let slave = setup.role("slave").start().await;
    slave.wants_work().await;
    let mut ann = slave.listener_on("demo", "ann", "news").await;
    master.backend().await.push("demo", "news", "e", "1").await;
    assert_eq!(ann.next_event().await, ReceivedEvent::new("news", "e", "1"));
    let hint = Http::to(slave.slave()).await.get("/api/ping").await;
    assert!(hint.text().contains("master.listen"), "{hint:?}");
    let same = at_one(Setup::keyed()).set("master.prefix", "/x").set("slave.prefix", "/x").fails().await;
    assert_eq!(same.code, Some(78), "{same:?}");
    assert!(same.said.contains("/x/ping") && same.said.contains("prefix"), "{same:?}");
}

#[tokio::test]
async fn its_connections_are_bounded_and_sockets_are_not_among_them() {
    let server = at_one(with_app(Setup::keyed())).set("limits.http_connections", "4").start().await;
    let mut sockets = Vec::new();
    for _ in 0..8 {
        sockets.push(PusherClient::connect(server.slave(), DEMO).await);
    }
    let mut idle = Vec::new();
    for _ in 0..8 {
        let mut http = Http::to(server.master()).await;
        assert_eq!(http.get("/api/ping").await.status, 200, "the one that has waited longest goes");
        idle.push(http);
    }
    assert!(server.metric("wellhead_http_connections", "role=\"standalone\"").await <= 4.0);
    for socket in &mut sockets {
        socket.is_quiet().await;
    }
}

#[tokio::test]
async fn a_successor_takes_the_one_socket_over() {
    let socket = Arc::new(TcpListener::bind("127.0.0.1:0").expect("a port is free"));
    let address = socket.local_addr().expect("bound");
    let setup = with_app(Setup::keyed()).toml(&OTHER.listed("")).hand_over("standalone", &socket);
    let mut first = setup.clone().start().await;
    assert_eq!((first.master(), first.slave()), (address, address));
    let mut ann = PusherClient::connect(address, DEMO).await;
    let jwt = signer().jwt("demo", "bob", &["*"]);
    let mut bob = WebSocket::open(address, &path("demo", &jwt), &[]).await.expect("101");
    first.signal("TERM");
    assert_eq!(ann.error().await.0, Some(4200), "a successor takes it at once");
    ann.closed().await;
    assert_eq!(bob.closed().await.code, 1001);
    assert_eq!(first.ended().await.code(), Some(0));
    let mut early = Http::to(address).await;
    let request = early.request("GET", "/api/ping", &[], "");
    early.send(request.as_bytes()).await.expect("the kernel takes it");
    let second: Server = setup.start().await;
    assert_eq!(early.reply().await.status, 200, "who came meanwhile is served");
    PusherClient::connect(second.slave(), DEMO).await.is_quiet().await;
}

#[tokio::test]
async fn at_the_end_nobody_listens_there_and_clients_are_told() {
    let mut server = at_one(with_app(Setup::keyed())).start().await;
    let address = server.master();
    let mut ann = PusherClient::connect(address, DEMO).await;
    server.signal("TERM");
    assert_eq!(ann.error().await.0, Some(4100), "nobody takes it yet");
    ann.closed().await;
    assert_eq!(server.ended().await.code(), Some(0));
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    let again = with_app(Setup::keyed()).set("standalone.listen", &address.to_string()).start().await;
    assert_eq!(again.slave(), address);
}
