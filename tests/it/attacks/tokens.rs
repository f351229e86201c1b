//! Tokens: many of them, forged ones, and those that a refused handshake must not spend.

use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::{Bystander, figure, sized};
use crate::support::{
    client::path,
    http::Http,
    keys::signer,
    server::{Server, Setup},
    websocket::{HANDSHAKE, WebSocket},
};

/// A JWT of about 32 KB.
fn large_jwt(user: &str) -> String {
    let channels: Vec<_> = (0..1_300).map(|number| format!("a-channel-{number:04}")).collect();
    let channels: Vec<_> = channels.iter().map(String::as_str).collect();
    signer().jwt("demo", user, &channels)
}

#[tokio::test]
async fn one_jwt_exchanged_over_and_over_is_kept_once() {
    let server = Server::start().await;
    let mut bystander = Bystander::of(&server).await;
    let jwt = large_jwt("mallory");
    let exchange = async |http: &mut Http| http.form("/gcs/auth", &[("jwt", &jwt)]).await.status;
    let mut http = Http::to(server.slave()).await;
    assert_eq!(exchange(&mut http).await, 200);
    let before = server.resident();
    let count = sized(300, 5_000);
    for _ in 0..count {
        // some number of them is enough for one user
        assert!([200, 429, 503].contains(&exchange(&mut http).await));
    }
    let (grown, most) = (server.grown(before), sized(12, 32) as u64);
    figure(&format!("one token exchanged {count} times: {grown} MiB"));
    assert!(grown < most, "{count} tokens cost {grown} MiB");
    bystander.is_served(&server).await;
}

#[tokio::test]
async fn a_refused_handshake_spends_no_token() {
    let one_time = Setup::keyed()
        .set("jwt.one_time_tokens", "true")
        .set("jwt.accept_jwt_as_token", "false")
        .set("slave.allowed_origins", "https://ours.example")
        .set("slave.max_connections", "1");
    let server = one_time.start().await;
    let open = async |app: &str, token: &str, more: &[(&'static str, &'static str)]| {
        let mut headers = HANDSHAKE.to_vec();
        headers.retain(|(name, _)| !more.iter().any(|(other, _)| name == other));
        headers.extend(more);
        let mut http = Http::to(server.slave()).await;
        let status = http.call("GET", &path(app, token), &headers, "").await.status;
        (status, http)
    };
    let token = server.token("demo", "ann", &["*"]).await;
    for (what, app, more, status) in [
        ("an old version", "demo", &[("Sec-WebSocket-Version", "12")][..], 426),
        ("a bad key", "demo", &[("Sec-WebSocket-Key", "short")], 400),
        ("a foreign origin", "demo", &[("Origin", "https://evil.example")], 403),
        ("another app", "other", &[], 401),
    ] {
        assert_eq!(open(app, &token, more).await.0, status, "{what}");
    }
    let holder = server.token("demo", "bob", &["*"]).await;
    let (status, http) = open("demo", &holder, &[]).await;
    assert_eq!(status, 101);
    assert_eq!(open("demo", &token, &[]).await.0, 503, "no room");
    WebSocket::of(http).leave().await;
    server.metric_becomes("wellhead_connections", "", 0.0).await;
    let (status, _opened) = open("demo", &token, &[("Origin", "https://ours.example")]).await;
    assert_eq!(status, 101, "what was refused before spent nothing");
}

/// `r.<node>.` of a reference.
fn issuer(reference: &str) -> &str {
    let (issuer, _) = reference.rsplit_once('.').expect("a reference");
    assert!(issuer.starts_with("r."), "{reference}");
    issuer
}

#[tokio::test]
async fn forged_references_do_not_travel_over_and_over() {
    let setup = Setup::keyed().set("cluster.secret", "a secret that all nodes of this test share");
    let master = setup.clone().role("master").start().await;
    let slaves = [setup.clone().role("slave").start().await, setup.role("slave").start().await];
    for server in [&master, &slaves[0], &slaves[1]] {
        server.wants_work().await;
        server.metric_becomes("wellhead_roster_nodes", "", 3.0).await;
    }
    let reply = slaves[1].auth(&large_jwt("ann")).await;
    let good = reply.json()["token"].as_str().expect("a token").to_owned();
    let issuer = issuer(&good);
    let travelled = async || slaves[0].metric("wellhead_bus_messages_total", "").await;
    let before = travelled().await;
    let count = sized(200, 5_000);
    let addresses = slaves[0].slave();
    let knock = async |token: String| {
        let refused = WebSocket::open(addresses, &path("demo", &token), &[]).await.err().expect("refused");
        assert!([401, 503].contains(&refused.status), "{refused:?}");
    };
    // the same one again and again
    let forged = format!("{issuer}.{:032x}", 7);
    for _ in 0..count {
        knock(forged.clone()).await;
    }
    // many at once, of a node that nobody knows; no more than have room, or some would go before they are answered
    let started = std::time::Instant::now();
    let forged = stream::iter(0..count).map(|number| knock(format!("r.77.{number:032x}")));
    forged.buffer_unordered(500).collect::<()>().await;
    let beats = 4.0 * (started.elapsed() + Duration::from_secs(5)).as_secs_f64();
    let travelled = travelled().await - before;
    figure(&format!("{count} forged references of each of two kinds: {travelled} messages, heartbeats among them"));
    assert!(travelled < count as f64 / 2.0 + beats, "{travelled} messages for {count} forged references of each kind");
    let opened = WebSocket::open(addresses, &path("demo", &good), &[]).await;
    assert!(opened.is_ok(), "{:?}", opened.err());
}
