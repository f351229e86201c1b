//! Nodes whose settings do not fit: another secret, other apps.

use super::field::{By, Field};
use crate::support::{
    client::path,
    pusher::{DEMO, OTHER, TestApp},
    server::{Server, Setup},
    until,
    websocket::WebSocket,
};

const ANOTHER: &str = "a secret that only some nodes of this test know";

/// A setup of its own, on the same servers.
fn beside(field: &Field) -> Setup {
    let nats = field.nats.as_ref().expect("it is by NATS");
    Setup::keyed().set("cluster.bus", &format!("nats://{}", nats.address))
}

async fn says(server: &Server, words: &str, times: usize) {
    until(words, times, || async { server.said(words) }).await;
}

#[tokio::test]
async fn a_node_with_another_secret_is_refused_and_both_sides_say_so_once() {
    const WORDS: &str = "has another cluster.secret than this one";
    let field = Field::start(By::Nats, 1, 1).await;
    let mut ann = field.slaves[0].listener_on("blue", "ann", "news").await;
    let wrong = beside(&field).set("cluster.secret", ANOTHER).start().await;
    until("it serves nobody", (503, "the other nodes have another cluster.secret".to_owned()), || wrong.readiness())
        .await;
    says(&wrong, WORDS, 2).await;
    says(&wrong, "this node came last: it serves nobody", 1).await;
    for server in field.masters.iter().chain(&field.slaves) {
        says(server, WORDS, 1).await;
        // so many heartbeats later it was still said once
        until("more of them come", true, || async {
            server.metric("wellhead_roster_refused_total", "cause=\"secret\"").await >= 4.0
        })
        .await;
        assert_eq!(server.said(WORDS), 1);
        assert_eq!(server.readiness().await, (200, "ready".to_owned()));
        assert_eq!(server.metric("wellhead_roster_nodes", "").await, 2.0);
    }
    assert_eq!(wrong.said(WORDS), 2);
    // nothing comes in by it
    let token = field.slaves[0].token("blue", "bob", &["*"]).await;
    let refused = WebSocket::open(wrong.slave(), &path("blue", &token), &[]).await.err().expect("it serves nobody");
    assert_eq!(refused.status, 503);
    let mut backend = wrong.backend().await;
    let reply = backend.form("/api/push/blue/news/e", &[("data", "1")]).await;
    assert_eq!(reply.status, 503, "{reply:?}");
    field.masters[0].backend().await.push("blue", "news", "e", "2").await;
    assert!(ann.socket.text().await.contains('2'));
    // when another one with its secret comes, it is no longer alone
    let second = beside(&field).set("cluster.secret", ANOTHER).start().await;
    second.wants_work().await;
    wrong.wants_work().await;
    for server in field.masters.iter().chain(&field.slaves) {
        assert_eq!(server.readiness().await, (200, "ready".to_owned()));
    }
}

#[tokio::test]
async fn apps_that_differ_are_named_once_on_both_sides() {
    const WORDS: &str = "has other settings than this one";
    let listed = DEMO.listed("");
    let field = Field::start_with(By::Nats, 1, 1, |setup| setup.toml(&listed)).await;
    let other = TestApp { secret: "another secret of demo", ..DEMO }.listed("") + &OTHER.listed("");
    let odd = beside(&field).set("cluster.secret", super::field::SECRET).toml(&other).role("slave").start().await;
    for server in field.masters.iter().chain(&field.slaves) {
        says(server, WORDS, 1).await;
        says(server, r#"only there: "app other"; different: "app demo"; give every node the same"#, 1).await;
    }
    says(&odd, WORDS, 2).await;
    says(&odd, r#"only here: "app other"; different: "app demo"; give every node the same"#, 2).await;
    // it belongs to them nevertheless
    odd.wants_work().await;
    for server in field.masters.iter().chain(&field.slaves).chain([&odd]) {
        server.metric_becomes("wellhead_roster_nodes", "", 3.0).await;
        let all = server.log.collect(|line| line.contains("secret of demo").then_some(()));
        assert!(all.is_empty(), "no secret is logged");
    }
    assert_eq!(field.masters[0].said(WORDS), 1);
}

#[tokio::test]
async fn a_slave_with_a_secret_of_its_own_uses_the_one_of_its_master() {
    let mut field = Field::start(By::Local, 1, 1).await;
    let odd = field.setup.clone().set("cluster.secret", ANOTHER).role("slave").start().await;
    says(&odd, "cluster.secret is not that of the master at this socket", 1).await;
    field.slaves.push(odd);
    field.is_whole().await;
    for (issuer, other) in [(0, 1), (1, 0)] {
        let token = field.slaves[issuer].token("blue", "ann", &["*"]).await;
        assert!(WebSocket::open(field.slaves[other].slave(), &path("blue", &token), &[]).await.is_ok());
    }
    for server in field.masters.iter().chain(&field.slaves) {
        assert_eq!(server.metric("wellhead_roster_refused_total", "cause=\"secret\"").await, 0.0);
        assert_eq!(server.said("has other settings"), 0);
    }
}
