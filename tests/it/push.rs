//! What is promised of pushes: order, completeness, size, and that nobody's load is another's trouble.

use std::sync::Arc;

use tokio::{sync::Barrier, task::JoinSet};

use crate::support::{
    client::{Client, ReceivedEvent, path},
    http::Http,
    server::Server,
    websocket::WebSocket,
};

#[tokio::test]
async fn a_thousand_pushes_arrive_in_their_order() {
    let server = Server::start().await;
    let mut listeners = Vec::new();
    for user in ["ann", "bob", "eve"] {
        listeners.push(server.listener_on("demo", user, "news").await);
    }
    let mut backend = server.backend().await;
    for number in 0..1_000 {
        backend.push("demo", "news", "e", &number.to_string()).await;
    }
    for listener in &mut listeners {
        for number in 0..1_000 {
            assert_eq!(listener.next_event().await, ReceivedEvent::new("news", "e", &number.to_string()));
        }
    }
}

#[tokio::test]
async fn every_push_after_the_reply_to_subscribe_arrives() {
    let server = Server::start().await;
    let mut ann = server.client("demo", "ann", &["*"]).await;
    let mut backend = server.backend().await;
    for round in 0..200 {
        let channel = format!("c{round}");
        assert_eq!(ann.subscribe(&channel).await, "gusher.subscribe_succeeded");
        backend.push("demo", &channel, "e", "1").await;
        assert_eq!(ann.next_event().await, ReceivedEvent::new(&channel, "e", "1"));
        assert_eq!(ann.unsubscribe(&channel).await, "gusher.unsubscribe_succeeded");
        backend.push("demo", &channel, "e", "2").await;
    }
}

const CROWD: usize = 2_000;
const PUSHES: usize = 30;

/// Whoever stays gets everything in order; whoever joins gets everything from then on; whoever leaves, nothing more.
#[tokio::test]
async fn a_crowd_hears_everything_while_others_come_and_go() {
    rlimit::increase_nofile_limit(u64::MAX).expect("the soft limit may rise to the hard one");
    let server = Server::start().await;
    let token = server.token("demo", "ann", &["*"]).await;
    let ready = Arc::new(Barrier::new(CROWD + 1));
    let mut crowd = JoinSet::new();
    let slave = server.slave();
    for _ in 0..CROWD {
        let (token, ready) = (token.clone(), Arc::clone(&ready));
        let mut client = Client::connect(slave, "demo", &token).await.subscribed("news").await;
        crowd.spawn(async move {
            ready.wait().await;
            for number in 0..PUSHES {
                assert_eq!(client.next_event().await, ReceivedEvent::new("news", "e", &number.to_string()));
            }
        });
    }
    ready.wait().await;
    let mut passers_by = JoinSet::new();
    for _ in 0..20 {
        let token = token.clone();
        passers_by.spawn(async move {
            for _ in 0..10 {
                let mut client = Client::connect(slave, "demo", &token).await.subscribed("news").await;
                client.say("gusher.ping", "0").await;
                client.say("gusher.unsubscribe", r#"{"channel":"news"}"#).await;
                client.say("gusher.ping", "1").await;
                let mut numbers = Vec::new();
                loop {
                    let text = client.socket.text().await;
                    if text.contains("unsubscribe_succeeded") {
                        break;
                    }
                    if text.contains(r#""channel":"news","event":"e""#) {
                        let event: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                        numbers.push(event["data"].as_u64().expect("a number"));
                    }
                }
                assert!(numbers.windows(2).all(|two| two[1] == two[0] + 1), "no gap, no repeat: {numbers:?}");
                assert!(client.socket.text().await.contains("pong_succeeded"), "nothing after it left");
                client.socket.leave().await;
            }
        });
    }
    let mut backend = server.backend().await;
    for number in 0..PUSHES {
        backend.push("demo", "news", "e", &number.to_string()).await;
    }
    while let Some(done) = crowd.join_next().await {
        done.expect("one of the crowd heard all");
    }
    while let Some(done) = passers_by.join_next().await {
        done.expect("one who passed by heard no nonsense");
    }
}

#[tokio::test]
async fn a_big_push_arrives_whole_and_one_over_the_limit_is_refused() {
    let server = Server::start().await;
    let mut ann = server.listener_on("demo", "ann", "news").await;
    let mut backend = server.backend().await;
    for size in [1 << 20, 10 << 20] {
        let (start, end) = (r#"{"event":"e","data":""#, r#""}"#);
        let text = "x".repeat(size - start.len() - end.len());
        let body = format!("{start}{text}{end}");
        assert_eq!(body.len(), size);
        let reply = backend.json("POST", "/v1/apps/demo/channels/news/messages", &body).await;
        assert_eq!(reply.status, 200);
        let event = ann.next_event().await;
        assert_eq!(event.data.len(), text.len() + 2);
        assert!(event.data == format!("\"{text}\""));
        if size == 10 << 20 {
            let reply = backend.json("POST", "/v1/apps/demo/channels/news/messages", &format!("{body} ")).await;
            assert_eq!(reply.status, 413);
        }
    }
    let mut backend = server.backend().await;
    backend.push("demo", "news", "e", "1").await;
    assert_eq!(ann.next_event().await.data, "1", "it is still there, and no slow consumer");
}

/// More than `limits.queue` as fast as the master takes it: what the kernel has taken is no debt any more.
#[tokio::test]
async fn a_burst_does_not_make_a_reader_slow() {
    let server = Server::start().await;
    let mut readers = JoinSet::new();
    let text = "x".repeat(24 << 10);
    for _ in 0..8 {
        let mut reader = server.listener_on("demo", "ann", "news").await;
        let text = text.clone();
        readers.spawn(async move {
            for number in 0..48 {
                assert!(reader.next_event().await.data == format!("\"{number}{text}\""), "{number}");
            }
        });
    }
    let mut backend = server.backend().await;
    for number in 0..48 {
        backend.push("demo", "news", "e", &format!("{number}{text}")).await;
    }
    while let Some(done) = readers.join_next().await {
        done.expect("each reader heard all");
    }
    assert_eq!(server.metric("wellhead_connections_closed_total", "slow_consumer").await, 0.0);
}

/// What a batch owes one socket at once stays below `limits.queue`; more of it would be a slow consumer's debt.
#[tokio::test]
async fn a_big_batch_arrives_whole() {
    let server = Server::start().await;
    let mut ann = server.listener_on("demo", "ann", "news").await;
    let item = format!(r#"{{"channel":"news","event":"e","data":"{}"}}"#, "x".repeat(50));
    let items = format!("[{}]", vec![item; 10_000].join(","));
    let mut backend = server.backend().await;
    let reply = backend.json("POST", "/v1/apps/demo/messages/batch", &items).await;
    assert_eq!(reply.is(), (200, r#"{"total":10000}"#));
    for _ in 0..10_000 {
        assert_eq!(ann.next_event().await.data.len(), 52);
    }
}

#[tokio::test]
async fn a_form_of_ten_mebibytes_arrives_whole() {
    let server = Server::start().await;
    let mut ann = server.listener_on("demo", "ann", "news").await;
    let mut http = Http::to(server.master()).await;
    let text = "y".repeat((10 << 20) - "data=".len());
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let reply = http.call("POST", "/api/push/demo/news/e", &form, &format!("data={text}")).await;
    assert_eq!(reply.status, 200);
    assert!(ann.next_event().await.data == format!("\"{text}\""));
}

#[tokio::test]
async fn costly_patterns_cost_nothing() {
    let server = Server::start().await;
    let mut ann = server.client("demo", "ann", &["*"]).await.subscribed(&"a".repeat(1_000)).await;
    let mut backend = server.backend().await;
    for pattern in [
        r"\pL{200}",
        r"(?:\w{50}){50}",
        "((((((((((a{9}){9}){9}){9}){9}){9}){9}){9}){9}){9})",
        r"(a)\1",
        "a(?=b)",
        "(?<!a)b",
        "[",
        "*",
        &"(".repeat(200),
        &"x".repeat(257),
    ] {
        let form = [("channel_pattern", pattern), ("event", "e"), ("data", "1")];
        let started = std::time::Instant::now();
        let reply = backend.form("/api/push/demo", &form).await;
        assert_eq!(reply.is(), (400, "channel_pattern cant regex"), "{pattern}");
        assert!(started.elapsed().as_secs() < 2, "{pattern} took {:?}", started.elapsed());
    }
    for (pattern, matched) in [("(a+)+$", 1), ("(a|aa)+b", 0), ("(.*)*x", 0), (&"a".repeat(256) as &str, 1)] {
        assert_eq!(backend.push_matching("demo", pattern, "e", "1").await, matched, "{pattern}");
        if matched == 1 {
            ann.next_event().await;
        }
    }
}

#[tokio::test]
async fn pushes_in_one_write_are_answered_and_delivered_in_their_order() {
    let server = Server::start().await;
    let mut ann = server.listener_on("demo", "ann", "news").await;
    let mut http = Http::to(server.master()).await;
    let mut requests = String::new();
    for number in 0..50 {
        let form = [("Content-Type", "application/x-www-form-urlencoded")];
        requests += &http.request("POST", "/api/push/demo/news/e", &form, &format!("data={number}"));
    }
    http.send(requests.as_bytes()).await.expect("it listens");
    for number in 0..50 {
        assert_eq!(http.reply().await.json()["data"], number);
        assert_eq!(ann.next_event().await.data, number.to_string());
    }
}

#[tokio::test]
async fn a_body_may_come_in_chunks_or_wait_to_be_asked_for() {
    let server = Server::start().await;
    let mut ann = server.listener_on("demo", "ann", "news").await;
    let path = "/v1/apps/demo/channels/news/messages";
    let head = format!("POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n");
    let chunks = "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"eve\r\nC;x=y\r\nnt\":\"chunk\"}\r\n0\r\n\r\n";
    let reply = Http::to(server.master()).await.exchange(format!("{head}{chunks}").as_bytes()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(ann.next_event().await, ReceivedEvent::new("news", "chunk", "null"));

    let body = r#"{"event":"asked","data":1}"#;
    let mut http = Http::to(server.master()).await;
    let expect = format!("{head}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", body.len());
    http.send(expect.as_bytes()).await.expect("it listens");
    assert_eq!(http.continues().await, "HTTP/1.1 100 Continue");
    assert_eq!(http.exchange(body.as_bytes()).await.status, 200);
    assert_eq!(ann.next_event().await, ReceivedEvent::new("news", "asked", "1"));

    let too_much = format!("{head}Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n");
    let reply = Http::to(server.master()).await.exchange(too_much.as_bytes()).await;
    assert_eq!(reply.status, 413, "refused before a byte of it is sent");
}

#[tokio::test]
async fn bytes_that_follow_the_handshake_at_once_are_not_lost() {
    let server = Server::start().await;
    let token = server.token("demo", "ann", &["*"]).await;
    let mut http = Http::to(server.slave()).await;
    let mut bytes = http.request("GET", &path("demo", &token), &crate::support::websocket::HANDSHAKE, "").into_bytes();
    for number in 0..3 {
        let command = crate::support::client::command("gusher.ping", &number.to_string());
        bytes.extend(crate::support::websocket::frame(1, command.as_bytes()));
    }
    let reply = http.exchange(&bytes).await;
    assert_eq!(reply.status, 101);
    let mut socket = WebSocket::of(http);
    for number in 0..3 {
        assert!(socket.text().await.contains(&format!(r#""data":{number},"#)));
    }
}
