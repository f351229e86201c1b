//! Nodes whose clocks differ, by libfaketime: what a token is worth goes by the clock of its issuer.

use std::path::PathBuf;

use super::field::{By, Field};
use crate::support::{client::path, server::Server, until, websocket::WebSocket};

/// Where Debian's package `faketime` puts it.
fn libfaketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").expect("it is there").filter_map(Result::ok);
    let libraries = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    libraries.into_iter().find(|library| library.exists()).expect("faketime is installed (make tools)")
}

async fn slave_with_clock(field: &Field, shift: &str) -> Server {
    let setup = field.setup.clone().env("LD_PRELOAD", libfaketime().to_str().expect("a plain path"));
    setup.env("FAKETIME", shift).env("FAKETIME_DONT_FAKE_MONOTONIC", "1").role("slave").start().await
}

async fn opens(server: &Server, token: &str) -> bool {
    WebSocket::open(server.slave(), &path("blue", token), &[]).await.is_ok()
}

/// A slave whose clock is shifted takes fresh tokens of others and they take its own, as long as the tokens live and no longer.
async fn tokens_live_by_their_issuer(shift: &str, side: &str) {
    let mut field = Field::start_with(By::Nats, 1, 1, |setup| setup.set("jwt.token_ttl", "4s")).await;
    let shifted = slave_with_clock(&field, shift).await;
    field.slaves.push(shifted);
    field.is_whole().await;
    let (right, shifted) = (&field.slaves[0], &field.slaves[1]);
    // both have heard enough of each other when both say so, once each
    let words = |side: &str| format!("s {side} this one's");
    let (here, there) = (side, if side == "behind" { "ahead of" } else { "behind" });
    until("it is said", 1, || async { right.said(&words(here)) }).await;
    until("it is said", 2, || async { shifted.said(&words(there)) }).await;
    for (issuer, other) in [(right, shifted), (shifted, right)] {
        let token = issuer.token("blue", "ann", &["news"]).await;
        assert!(opens(other, &token).await, "a fresh token, {shift}");
        assert!(opens(issuer, &token).await);
        // a minute longer, if it went by the other's clock
        until("it ends", false, || opens(other, &token)).await;
        until("it ends at its issuer", false, || opens(issuer, &token)).await;
    }
    assert_eq!((right.said(&words(here)), shifted.said(&words(there))), (1, 2));
    assert_eq!(right.metric("wellhead_node_differences_total", "about=\"clock\"").await, 1.0);
}

#[tokio::test]
async fn a_slave_a_minute_ahead_takes_fresh_tokens() {
    tokens_live_by_their_issuer("+60s", "ahead of").await;
}

#[tokio::test]
async fn a_slave_a_minute_behind_lengthens_none() {
    tokens_live_by_their_issuer("-60s", "behind").await;
}
