//! The two endpoints, row by row of the document, and temporary tokens.

use futures_util::future::join_all;
use serde_json::{Value, json};
use wellhead_proto::push_key::KeyHash;

use crate::support::{
    conveyor::{ConveyorBackend, ConveyorClient, TOKEN, setup},
    http::Http,
    websocket::WebSocket,
};

const UNAUTHORIZED: (u16, &str) = (401, r#"{"error":"Unauthorized!"}"#);

#[tokio::test]
async fn a_message_reaches_whoever_is_on_the_channel() {
    let server = setup().start().await;
    let mut backend = ConveyorBackend::of(server.master()).await;
    let not_found = (404, r#"{"error":"Channel not found!"}"#.to_owned());
    assert_eq!(backend.message("orders.1", &json!("order updated")).await, not_found);
    let mut ann = ConveyorClient::on(server.slave(), "orders.1").await;
    let mut bob = ConveyorClient::on(server.slave(), "orders.1").await;
    let mut eve = ConveyorClient::on(server.slave(), "orders.2").await;
    for (message, said) in [
        (json!("order updated"), r#"{"action":"broadcast-action","data":"order updated"}"#),
        (json!(5), r#"{"action":"broadcast-action","data":"5"}"#),
        (json!("{\"id\":1}"), r#"{"action":"broadcast-action","data":"{\"id\":1}"}"#),
        (json!("é/"), r#"{"action":"broadcast-action","data":"é/"}"#),
    ] {
        assert_eq!(backend.message("orders.1", &message).await.0, 200, "{message}");
        for client in [&mut ann, &mut bob] {
            assert_eq!(client.socket.text().await, said);
        }
    }
    eve.is_quiet().await;
    for empty in [Value::Null, json!(""), json!("0"), json!(0), json!(false), json!([]), json!({ "a": 1 })] {
        let invalid = (400, r#"{"error":"Invalid message!"}"#.to_owned());
        assert_eq!(backend.message("orders.1", &empty).await, invalid, "{empty}");
        assert_eq!(backend.message("nowhere", &empty).await, not_found, "the channel comes first: {empty}");
    }
    ann.is_quiet().await;
    drop((ann, bob));
    crate::support::until("nobody is there any more", not_found, async || {
        ConveyorBackend::of(server.master()).await.message("orders.1", &json!("x")).await
    })
    .await;
}

#[tokio::test]
async fn only_the_server_token_opens_the_endpoints() {
    let server = setup().start().await;
    let mut backend = ConveyorBackend::of(server.master()).await;
    let temporary = backend.mint(Some("orders")).await;
    for endpoint in ["auth", "message"] {
        for token in ["", "wrong", &temporary, &TOKEN[1..], "the server token of these tests "] {
            let reply = backend.post(endpoint, token, r#"{"channel":"a","message":"m"}"#).await;
            assert_eq!(
                (reply.is(), reply.header("content-type")),
                (UNAUTHORIZED, Some("application/json")),
                "{token:?}"
            );
        }
        let path = format!("/conveyor/{endpoint}");
        assert_eq!(backend.0.json("POST", &path, "{}").await.is(), UNAUTHORIZED);
        for method in ["GET", "PUT", "DELETE", "PATCH", "BREW"] {
            let with = format!("{path}?token={}", crate::support::encoded(TOKEN));
            assert_eq!(backend.0.call(method, &with, &[], "").await.is(), (404, "[]"), "{method}");
        }
        assert_eq!(backend.0.get(&path).await.is(), UNAUTHORIZED);
    }
    // nothing of it was spent
    assert!(ConveyorClient::open(server.slave(), &temporary).await.is_ok());
}

#[tokio::test]
async fn the_token_is_judged_before_the_body_is_read() {
    let server = setup().start().await;
    let mut http = Http::to(server.master()).await;
    let head = "POST /conveyor/message?token=wrong HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
    assert_eq!(http.exchange(head.as_bytes()).await.is(), UNAUTHORIZED);
    let mut backend = ConveyorBackend::of(server.master()).await;
    let large = format!(r#"{{"channel":"a","message":"{}"}}"#, "x".repeat(11 << 20));
    let reply = backend.post("message", TOKEN, &large).await;
    assert_eq!(reply.status, 413);
    assert!(reply.json()["error"].is_string());
}

#[tokio::test]
async fn a_temporary_token_opens_handshakes_and_one_join_of_its_channel() {
    let server = setup().start().await;
    let mut backend = ConveyorBackend::of(server.master()).await;
    let token = backend.mint(Some("orders")).await;
    assert_ne!(token, backend.mint(Some("orders")).await);
    // a handshake does not spend it
    let mut first = ConveyorClient::open(server.slave(), &token).await.expect("it is valid");
    let mut second = ConveyorClient::open(server.slave(), &token).await.expect("still");
    // nor does another channel
    first.wish("others", &token).await;
    assert_eq!(first.error("channel-connect").await, "Failed to connect to channel");
    first.join("orders", &token).await;
    backend.send("orders", "hello").await;
    assert_eq!(first.next().await, json!({ "action": "broadcast-action", "data": "hello" }));
    // the one join did
    second.wish("orders", &token).await;
    assert_eq!(second.error("channel-connect").await, "Failed to connect to channel");
    assert_eq!(ConveyorClient::open(server.slave(), &token).await.err().expect("it is used up").is(), UNAUTHORIZED);
    second.is_quiet().await;
    // and sockets stay as they are
    first.is_quiet().await;
}

#[tokio::test]
async fn of_many_who_join_with_it_at_once_one_does() {
    let server = setup().start().await;
    let mut backend = ConveyorBackend::of(server.master()).await;
    let token = backend.mint(Some("orders")).await;
    let clients = join_all((0..10).map(|_| ConveyorClient::connect(server.slave()))).await;
    let joined = join_all(clients.into_iter().map(async |mut client| {
        client.wish("orders", &token).await;
        client.say(&json!({ "action": "base-action", "data": "done" })).await;
        let joined = client.next().await["action"] == "base-action";
        (joined, client)
    }))
    .await;
    assert_eq!(joined.iter().filter(|(joined, _)| *joined).count(), 1);
}

#[tokio::test]
async fn a_temporary_token_without_a_channel_opens_handshakes_only() {
    let server = setup().start().await;
    let mut backend = ConveyorBackend::of(server.master()).await;
    let token = backend.mint(None).await;
    for _ in 0..2 {
        let mut client = ConveyorClient::open(server.slave(), &token).await.expect("it is valid");
        client.wish("orders", &token).await;
        assert_eq!(client.error("channel-connect").await, "Failed to connect to channel");
        client.wish("orders", TOKEN).await;
        client.is_quiet().await;
    }
}

#[tokio::test]
async fn a_temporary_token_is_valid_for_its_time() {
    let server = setup().set("conveyor.temporary_ttl", "1s").start().await;
    let mut backend = ConveyorBackend::of(server.master()).await;
    let token = backend.mint(Some("orders")).await;
    let mut client = ConveyorClient::connect(server.slave()).await;
    crate::support::until("its time is over", true, || async {
        ConveyorClient::open(server.slave(), &token).await.is_err()
    })
    .await;
    client.wish("orders", &token).await;
    assert_eq!(client.error("channel-connect").await, "Failed to connect to channel");
}

#[tokio::test]
async fn without_a_server_token_the_endpoints_ask_for_push_keys() {
    let key = "the push key of this test";
    let hash = KeyHash::of(key);
    let keyed = format!(
        "\n[[push_keys]]\nname = \"some\"\nsha256 = \"{hash}\"\napps = [\"demo\"]\nchannels = [\"orders*\"]\nrights = [\"push\"]\n"
    );
    let open = || crate::support::server::Setup::keyed().set("conveyor.open", "true");
    let server = open().toml(&keyed).start().await;
    let mut http = Http::to(server.master()).await;
    let mut client = ConveyorClient::open_at(server.slave(), "/").await.expect("nobody needs a token");
    client.say(&json!({ "action": "channel-connect", "channel": "orders.1" })).await;
    client.is_quiet().await;
    let bearer = format!("Bearer {key}");
    let mut post = async |path: &str, key: bool, body: &str| {
        let headers: &[(&str, &str)] = if key { &[("Authorization", &bearer)] } else { &[] };
        http.call("POST", path, headers, body).await
    };
    let body = r#"{"channel":"orders.1","message":"m"}"#;
    assert_eq!(post("/conveyor/message", false, body).await.is(), UNAUTHORIZED);
    assert_eq!(post("/conveyor/message", true, body).await.status, 200);
    assert_eq!(client.next().await["data"], "m");
    assert_eq!(post("/conveyor/message", true, r#"{"channel":"others","message":"m"}"#).await.status, 403);
    assert_eq!(post("/conveyor/auth", true, "{}").await.status, 403, "that is another right");

    // without keys, programs of this machine, and nothing that a browser or a proxy passes on
    let server = open().start().await;
    let mut http = Http::to(server.master()).await;
    assert_eq!(http.json("POST", "/conveyor/auth", "{}").await.status, 200);
    let forwarded = http.call("POST", "/conveyor/message", &[("Origin", "https://evil.example")], body).await;
    assert_eq!(forwarded.status, 403);
}

#[tokio::test]
async fn one_address_serves_both_and_the_path_before_the_query_may_be_empty() {
    let server = setup().set("standalone.listen", "127.0.0.1:0").start().await;
    let mut backend = ConveyorBackend::of(server.master()).await;
    assert_eq!(server.master(), server.slave());
    let mut ann = ConveyorClient::on(server.slave(), "orders").await;
    backend.send("orders", "hello").await;
    assert_eq!(ann.next().await["data"], "hello");
    // what asks for no socket at / is answered as ever
    assert_eq!(backend.0.get("/").await.status, 200);
}

#[tokio::test]
async fn while_it_is_off_nothing_of_it_is_there() {
    let server = crate::support::server::Setup::keyed().start().await;
    let refused = WebSocket::open(server.slave(), "/", &[]).await.err().expect("no socket");
    // an ordinary request to those who know no such socket
    assert_eq!(refused.status, 200);
    assert!(refused.text().contains("a slave"), "{refused:?}");
    let mut http = Http::to(server.master()).await;
    for endpoint in ["auth", "message"] {
        let reply = http.json("POST", &format!("/conveyor/{endpoint}?token=x"), "{}").await;
        assert_eq!(reply.is(), (404, "404 page not found\n"));
    }
}
