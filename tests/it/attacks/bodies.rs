//! Bodies that do not end: who has no credentials is told so before, and those who have some share one budget.

use std::net::SocketAddr;

use futures_util::future::join_all;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{Bystander, figure, pour, sized};
use crate::support::{
    http::{Http, Reply},
    keys::now,
    pusher::{DEMO, TestApp, setup},
    server::Server,
    until,
};

/// The head of a request whose body has `length` bytes.
fn head(target: &str, kind: &str, length: usize) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n")
}

/// What is said to a head whose body never comes.
async fn refusal(address: SocketAddr, target: &str) -> Reply {
    let mut http = Http::to(address).await;
    http.send(head(target, "application/json", 9_900_010).as_bytes()).await.expect("it listens");
    http.reply().await
}

#[tokio::test]
async fn credentials_are_judged_before_the_body() {
    let server = setup().start().await;
    let path = format!("/apps/{}/events", DEMO.id);
    let signed = |app: TestApp, at: u64| format!("{path}?{}", app.signed("POST", &path, &[], "not what comes", at));
    let forged = TestApp { secret: "a guess", ..DEMO };
    for target in [
        "/apps/nobody/events".to_owned(),
        path.clone(),
        signed(forged, now()),
        signed(DEMO, now() - 3_600),
        signed(DEMO, now()).replace("auth_key=demo", "auth_key=other"),
        signed(DEMO, now()).replace("auth_version=1%2E0", "auth_version=2%2E0"),
    ] {
        let reply = refusal(server.master(), &target).await;
        assert!([401, 403, 404].contains(&reply.status), "{target}: {reply:?}");
    }
}

/// All but the last ten bytes of a body.
async fn half_sent(address: SocketAddr, target: &str, kind: &str, length: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    // it may be told before the end that there is no room
    let _ = stream.write_all(head(target, kind, length).as_bytes()).await;
    let piece = [b'x'; 10_000];
    pour(&mut stream, &piece, length - 10 - piece.len()).await;
    stream
}

#[tokio::test]
async fn unfinished_bodies_share_one_budget() {
    const FORM: &str = "application/x-www-form-urlencoded";
    const MIB: usize = 1 << 20;

    let server: Server = setup().set("limits.http_memory", "16MiB").start().await;
    let mut bystander = Bystander::of(&server).await;
    bystander.is_served(&server).await;
    let path = format!("/apps/{}/events", DEMO.id);
    let signed = format!("{path}?{}", DEMO.signed("POST", &path, &[], "another body", now()));
    for (address, target, kind, length) in [
        (server.slave(), "/gcs/auth", FORM, 60_000),
        (server.slave(), "/v1/auth", "application/json", 60_000),
        (server.master(), "/api/push/demo/news/e", FORM, 9 * MIB),
        (server.master(), signed.as_str(), "application/json", 9 * MIB),
    ] {
        let refused = async || server.metric("wellhead_http_requests_total", "status=\"503\"").await;
        let (before, refused_before) = (server.resident(), refused().await);
        let count = sized(128, 1_000) * MIB / length;
        let attackers = join_all((0..count).map(|_| half_sent(address, target, kind, length))).await;
        let grown = server.grown(before);
        figure(&format!("{count} bodies of {length} bytes without an end: {grown} MiB"));
        assert!(grown < 64, "{count} of {target} cost {grown} MiB");
        assert!(refused().await > refused_before, "who finds no room is told so");
        drop(attackers);
        until("there is room again", 200, || async {
            Http::to(server.master()).await.form("/api/push/demo/news/e", &[("data", "1")]).await.status
        })
        .await;
        assert_eq!(bystander.ann.next_event().await.data, "1");
        bystander.is_served(&server).await;
    }
}
