//! Bad input: a clear answer or the protocol's close, and nobody else is disturbed.

use super::{post, push};
use crate::support::{
    http::Http,
    keys::signer,
    phoenix::PhoenixClient,
    server::{Server, Setup},
    websocket::{BINARY, TEXT},
};

async fn client(server: &Server, serializer: u8) -> PhoenixClient {
    PhoenixClient::connect(server.slave(), serializer, &signer().jwt("demo", "ann", &["*"])).await
}

#[tokio::test]
async fn frames_that_are_none_close_their_own_socket_with_1011() {
    let server = Server::start().await;
    let mut other = client(&server, 2).await.joined("T").await;
    let long = format!(r#"["{}","1","T","phx_join",{{}}]"#, "x".repeat(10_000));
    for (serializer, opcode, frame) in [
        (2, TEXT, "x".as_bytes()),
        (2, TEXT, b""),
        (2, TEXT, br#"["1","1","T","phx_join"]"#),
        (2, TEXT, br#"{"topic":"T","event":"phx_join","payload":{},"ref":"1"}"#),
        (2, TEXT, br#"[{},"1","T","phx_join",{}]"#),
        (2, TEXT, long.as_bytes()),
        (2, BINARY, b"\x02\x01\x01\x01"),
        (2, BINARY, b""),
        (1, TEXT, br#"["1","1","T","phx_join",{}]"#),
        (1, TEXT, br#"{"topic":"T","event":"phx_join","ref":"1"}"#),
        (1, BINARY, b"\xff"),
    ] {
        let mut client = client(&server, serializer).await.joined("T").await;
        client.socket.send(opcode, frame).await;
        assert_eq!(client.closed().await.code, 1011, "{}", String::from_utf8_lossy(frame));
    }
    push(&server, r#"{"channel":"T","data":1,"event":"e"}"#).await;
    assert_eq!(other.next_push().await.topic, "T");
    other.beats().await;
}

#[tokio::test]
async fn large_and_deep_messages_are_bounded() {
    let server = Server::start().await;
    let mut other = client(&server, 2).await.joined("T").await;
    let deep = format!(r#"["1","1","T","phx_join",{}{}]"#, "[".repeat(30_000), "]".repeat(30_000));
    let mut deep_one = client(&server, 2).await;
    assert!(deep_one.ask(&deep).await.contains("\"ok\""));
    let mut topic = client(&server, 1).await;
    let reply = topic.join(&"x".repeat(1_025)).await;
    assert_eq!(reply, serde_json::json!({ "response": { "reason": "invalid topic" }, "status": "error" }));
    assert_eq!(topic.join("").await["status"], "error");
    topic.beats().await;
    let mut big = client(&server, 2).await;
    big.socket.send_text(&format!(r#"["1","1","T","phx_join","{}"]"#, "x".repeat(70_000))).await;
    assert_eq!(big.closed().await.code, 1009);
    other.beats().await;
}

#[tokio::test]
async fn bodies_that_are_too_deep_too_many_or_badly_escaped_are_refused() {
    let server = Setup::keyed().set("limits.body", "8MB").start().await;
    let mut listener = client(&server, 1).await.joined("T").await;
    let form = ("content-type", "application/x-www-form-urlencoded");
    let json = ("content-type", "application/json");
    let multipart = ("content-type", "multipart/form-data; boundary=\"x");
    let deep =
        |depth: usize| format!(r#"{{"channel":"T","event":"e","data":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    for (headers, body, status) in [
        (json, deep(1_000_000), 200),
        (json, format!(r#"{{"channel":{}{},"event":"e","data":1}}"#, "[".repeat(500_000), "]".repeat(500_000)), 200),
        (json, "[".repeat(1_000_000), 400),
        (json, format!(r#"{{"channel":[{}"T"],"event":"e","data":1}}"#, "\"\",".repeat(1_000_000)), 200),
        (json, "x".repeat(9_000_000), 413),
        (form, format!("channel=T&event=e&data{}=1", "[a]".repeat(100_000)), 400),
        (form, format!("channel=T&event=e{}", "&data[]=".repeat(500_000)), 413),
        (form, "channel=%&data=1&event=e".to_owned(), 400),
        (form, "channel=%ff&data=1&event=e".to_owned(), 400),
        (multipart, "--x\r\n".repeat(100_000), 400),
        (("content-type", "multipart/form-data; boundary=x"), "--x\r\n".repeat(500_000), 400),
        (("content-type", "multipart/form-data; boundary=x"), "\r\n--".repeat(500_000), 400),
    ] {
        let (got, text) = post(&server, &[headers], &body).await;
        assert_eq!(got, status, "{} … {text}", &body[..body.len().min(60)]);
    }
    let reply = Http::to(server.master()).await.call("POST", "/api/push?channel=%zz", &[json], "{}").await;
    assert_eq!(reply.status, 400, "{reply:?}");
    // the two that were accepted for it
    assert_eq!(listener.next_push().await.payload.len(), r#"{"data":,"event":"e"}"#.len() + 2_000_000);
    assert_eq!(listener.next_push().await.payload, r#"{"data":1,"event":"e"}"#);
    listener.beats().await;
}

#[tokio::test]
async fn an_id_of_a_request_adds_no_header() {
    let server = Server::start().await;
    let mut http = Http::to(server.master()).await;
    let body = r#"{"channel":"T","data":1,"event":"e"}"#;
    for id in [
        "0123456789012345678\u{7f}9",
        "01234567890123456789\u{e4}",
        "0123456789012345678\t9",
        &"x".repeat(201),
        "short",
    ] {
        let headers = [("content-type", "application/json"), ("x-request-id", id)];
        let reply = http.call("POST", "/api/push", &headers, body).await;
        if reply.status == 400 {
            // HTTP itself does not take it
            http = Http::to(server.master()).await;
            continue;
        }
        assert_eq!(reply.status, 200, "{id}: {reply:?}");
        let fresh = reply.header("x-request-id").expect("an id");
        assert!(fresh.len() == 20 && fresh != id, "{id}: {fresh}");
    }
}
