//! The push socket: who may open one, what it may join, and how it ends.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;

use super::push;
use crate::support::{
    http::Http,
    keys::{signer, stranger},
    phoenix::{PATH, PhoenixClient, PhoenixPush},
    server::{Server, Setup},
    websocket::{HANDSHAKE, WebSocket},
};

const PUBLIC: &str = "[pushex]\npublic = [\"news\", \"score-*\"]\n";

fn jwt(channels: &[&str]) -> String {
    signer().jwt("demo", "ann", channels)
}

#[tokio::test]
async fn a_push_reaches_each_joined_topic_in_either_serializer() {
    let server = Server::start().await;
    for serializer in [1, 2] {
        let client = PhoenixClient::connect(server.slave(), serializer, &jwt(&["*"])).await;
        let mut client = client.joined("a").await.joined("b").await;
        push(&server, r#"{"channel":["b","a","c","b"],"data":{"n":1.0},"event":"E"}"#).await;
        for (topic, join) in [("b", json!("2")), ("a", json!("1"))] {
            let join_reference = if serializer == 1 { json!(null) } else { join };
            let payload = r#"{"data":{"n":1.0},"event":"E"}"#.to_owned();
            assert_eq!(client.next_push().await, PhoenixPush { join_reference, topic: topic.to_owned(), payload });
        }
        client.beats().await;
    }
}

#[tokio::test]
async fn joins_follow_the_token_and_public_channels_need_none() {
    let server = Setup::keyed().toml(PUBLIC).start().await;
    let unauthorized = json!({ "response": { "reason": "unauthorized" }, "status": "error" });
    let token = server.token("demo", "ann", &["room-*"]).await;
    for (token, may) in [(token, true), (jwt(&["room-*"]), true), (String::new(), false)] {
        let mut client = PhoenixClient::connect(server.slave(), 2, &token).await;
        for topic in ["news", "score-1"] {
            assert_eq!(client.join(topic).await["status"], "ok", "{topic}");
        }
        assert_eq!(client.join("secret").await, unauthorized);
        let reply = client.join("room-1").await;
        assert_eq!(reply["status"] == "ok", may, "{reply}");
    }
    // of another app nothing is public
    let other = signer().jwt("other", "ann", &["room-1"]);
    let mut other = PhoenixClient::connect(server.slave(), 1, &other).await;
    assert_eq!(other.join("news").await, unauthorized);
    assert_eq!(other.join("room-1").await["status"], "ok");
}

#[tokio::test]
async fn permissions_that_are_taken_away_leave_what_is_public() {
    let server = Setup::keyed().toml(PUBLIC).start().await;
    let client = PhoenixClient::connect(server.slave(), 2, &jwt(&["room-*"])).await;
    let mut client = client.joined("news").await.joined("room-1").await;
    let mut backend = server.backend().await;
    let reply = backend.form("/api/reload/channel/user/demo/ann", &[("data", "[\"hall\"]")]).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    push(&server, r#"{"channel":["room-1","news"],"data":1,"event":"e"}"#).await;
    assert_eq!(client.next_push().await.topic, "news");
    assert_eq!(client.join("hall").await["status"], "ok");
    // what is left without the client's doing is left once more without harm
    let leave = client.ask(r#"["2","9","room-1","phx_leave",{}]"#).await;
    assert_eq!(leave, r#"["2","9","room-1","phx_reply",{"response":{},"status":"ok"}]"#);
    assert_eq!(client.socket.text().await, r#"["2","2","room-1","phx_close",{}]"#);
}

#[tokio::test]
async fn who_may_not_come_hears_403_and_nothing_else() {
    let server = Setup::keyed().set("slave.allowed_origins", "https://ours.example").start().await;
    let forged = stranger().jwt("demo", "ann", &["*"]);
    for token in ["", "rubbish", &forged] {
        let reply = PhoenixClient::try_connect(server.slave(), 2, token).await.err().expect(token);
        assert_eq!(reply.is(), (403, ""), "{token}");
    }
    let token = jwt(&["*"]);
    for vsn in ["3.0.0", "x", "1.1.0"] {
        let path = format!("{PATH}?token={token}&vsn={vsn}");
        assert_eq!(WebSocket::open(server.slave(), &path, &[]).await.err().expect(vsn).is(), (403, ""), "{vsn}");
    }
    let path = format!("{PATH}?token={token}&vsn=2.0.0");
    let theirs = [("Origin", "https://theirs.example")];
    assert_eq!(WebSocket::open(server.slave(), &path, &theirs).await.err().expect("refused").is(), (403, ""));
    let ours = [("Origin", "https://ours.example")];
    assert!(WebSocket::open(server.slave(), &path, &ours).await.is_ok());

    let mut http = Http::to(server.slave()).await;
    assert_eq!(http.get(&path).await.is(), (400, "Bad Request"));
    assert_eq!(http.call("POST", &path, &[], "").await.is(), (400, ""));
    assert_eq!(http.get("/push_socket/longpoll?vsn=2.0.0").await.status, 404);
}

#[tokio::test]
async fn a_token_may_be_a_subprotocol_and_phoenix_is_chosen() {
    let server = Server::start().await;
    let offered = format!("phoenix, base64url.bearer.phx.{}", URL_SAFE_NO_PAD.encode(jwt(&["*"])));
    let headers = [&HANDSHAKE[..], &[("Sec-WebSocket-Protocol", &offered)]].concat();
    let mut http = Http::to(server.slave()).await;
    let reply = http.call("GET", &format!("{PATH}?vsn=2.0.0"), &headers, "").await;
    assert_eq!((reply.status, reply.header("sec-websocket-protocol")), (101, Some("phoenix")), "{reply:?}");
    let mut socket = WebSocket::of(http);
    socket.send_text(r#"["1","1","T","phx_join",{}]"#).await;
    assert_eq!(socket.text().await, r#"["1","1","T","phx_reply",{"response":{},"status":"ok"}]"#);
}

#[tokio::test]
async fn who_is_silent_is_closed_with_1000_and_who_beats_is_not() {
    let setup = Setup::keyed().set("pushex.idle_timeout", "2s").set("slave.ping_interval", "1s");
    let server = setup.start().await;
    let silent = PhoenixClient::connect(server.slave(), 2, &jwt(&["*"])).await;
    let mut silent = silent.joined("T").await;
    let mut lively = PhoenixClient::connect(server.slave(), 1, &jwt(&["*"])).await;
    let beating = tokio::spawn(async move {
        loop {
            lively.beats().await;
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    });
    assert_eq!(silent.closed().await.code, 1000);
    assert_eq!(silent.socket.pings, 0, "it is not pinged");
    server.metric_becomes("wellhead_connections_closed_total", "cause=\"idle\"", 1.0).await;
    assert!(!beating.is_finished());
    beating.abort();
}

#[tokio::test]
async fn a_drain_tells_clients_to_come_back() {
    let server = Server::start().await;
    let client = PhoenixClient::connect(server.slave(), 2, &jwt(&["*"])).await;
    let mut client = client.joined("T").await;
    server.signal("TERM");
    assert_eq!(client.closed().await.code, 1001);
}

#[tokio::test]
async fn a_socket_has_as_many_topics_as_the_limit_says() {
    let server = Setup::keyed().set("limits.subscriptions", "2").start().await;
    let client = PhoenixClient::connect(server.slave(), 1, &jwt(&["*"])).await;
    let mut client = client.joined("a").await.joined("b").await;
    let refused = json!({ "response": { "reason": "too many channels joined" }, "status": "error" });
    assert_eq!(client.join("c").await, refused);
    push(&server, r#"{"channel":["c","a"],"data":1,"event":"e"}"#).await;
    assert_eq!(client.next_push().await.topic, "a");
}
