//! Nodes on a real NATS server.

use prometheus_client::registry::Registry;
use serde_json::Value;
use wellhead::bus::{ClusterBuilder, cluster::Common};
use wellhead_proto::{fingerprint::Fingerprint, ids::NodeId, membership::Heartbeat, node_message::MessageKey};

use super::{SECRET, arrives};
use crate::support::{
    backend::Backend,
    client::Client,
    nats::NatsServer,
    server::{Server, Setup},
    until, within,
};

/// Nodes on `nats`.
fn on(nats: &NatsServer) -> Setup {
    Setup::keyed().set("cluster.bus", &format!("nats://{}", nats.address)).set("cluster.secret", SECRET)
}

#[tokio::test]
async fn nodes_meet_over_nats_whoever_starts_first() {
    let mut nats = NatsServer::prepared("");
    let setup = on(&nats);
    let mut slave = setup.clone().role("slave").start().await;
    let mut master = setup.clone().role("master").start().await;
    for server in [&slave, &master] {
        assert_eq!(server.readiness().await, (503, "the bus is down".to_owned()));
    }
    let refused = Backend::of(master.master()).await.form("/api/push/demo/news/e", &[("data", "1")]).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    let refused = slave.auth("anything").await;
    assert!(refused.status == 503 || refused.status == 401, "{refused:?}");

    nats.start();
    slave.wants_work().await;
    master.wants_work().await;
    assert_eq!(slave.said("no bus: NATS"), 1, "each cause is said once");
    let token = slave.token("demo", "ann", &["*"]).await;
    let mut ann = Client::connect(slave.slave(), "demo", &token).await.subscribed("news").await;
    arrives(&master, &mut ann).await;

    // a standalone node on NATS is a master and a slave of the same cluster
    let both = setup.clone().role("standalone").start().await;
    both.wants_work().await;
    let mut bob = both.listener_on("demo", "bob", "news").await;
    both.backend().await.push("demo", "news", "e", "2").await;
    assert_eq!((ann.next_event().await.data, bob.next_event().await.data), ("2".to_owned(), "2".to_owned()));
    assert_eq!(master.backend().await.names("/api/demo/online").await, ["ann", "bob"]);
    let eve = Client::connect(both.slave(), "demo", &slave.token("demo", "eve", &["*"]).await).await;
    assert_eq!(both.backend().await.names("/api/demo/online").await, ["ann", "bob", "eve"]);

    master.signal("TERM");
    assert_eq!(master.ended().await.code(), Some(0));
    slave.signal("TERM");
    assert_eq!(ann.closed().await.code, 1001);
    assert_eq!(slave.ended().await.code(), Some(0));
    let reply = both.backend().await.get("/api/demo/online").await;
    assert_eq!(reply.header("X-Wellhead-Partial"), None, "they said goodbye: {reply:?}");
    drop(eve);
}

#[tokio::test]
async fn a_slave_on_its_way_out_delivers_what_still_comes() {
    let nats = NatsServer::started("");
    let setup = on(&nats).set("slave.drain", "5s");
    let master = setup.clone().role("master").start().await;
    let mut slave = setup.clone().role("slave").start().await;
    master.wants_work().await;
    slave.wants_work().await;
    // the first does not answer the close frame, so that the slave is on its way out for a while
    let mut stubborn = slave.listener_on("demo", "stubborn", "news").await;
    let mut backend = master.backend().await;
    for number in 0..50 {
        backend.push("demo", "news", "e", &number.to_string()).await;
    }
    slave.signal("TERM");
    for number in 0..50 {
        assert_eq!(stubborn.next_event().await.data, number.to_string());
    }
    assert_eq!(stubborn.closed().await.code, 1001);
    assert_eq!(slave.ended().await.code(), Some(0));
    let reply = backend.push("demo", "news", "e", "late").await;
    assert_eq!(reply.status, 200, "nobody is there, which is nobody's fault");
}

#[tokio::test]
async fn credentials_are_asked_for_and_given() {
    let nats = NatsServer::started("authorization { user: ann, password: \"a b\" }\n");
    let setup = on(&nats);
    let nobody = setup.clone().role("master").start().await;
    let says = nobody.log.find(|line| line.to_lowercase().contains("authorization violation").then_some(()));
    within("the log says why", says).await;
    assert_eq!(nobody.readiness().await, (503, "the bus is down".to_owned()));
    let ann = setup.clone().set("nats.user", "ann").set("nats.password", "a b").role("master").start().await;
    ann.wants_work().await;
    assert!(!ann.log.collect(|line| line.contains("a b").then_some(())).contains(&()));
    assert_eq!(nobody.readiness().await.0, 503, "still not let in");
}

/// The numbers that a node has had, one after the other.
fn numbers(server: &Server) -> Vec<NodeId> {
    server.log.collect(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let number = line["node_id"].as_str().filter(|_| line["message"] == "the bus is up")?;
        NodeId::try_from(number.parse::<u32>().ok()?).ok()
    })
}

#[actix_rt::test]
async fn a_node_whose_number_is_taken_draws_another() {
    let nats = NatsServer::started("");
    let setup = on(&nats);
    let master = setup.clone().role("master").start().await;
    let mut slave = setup.clone().role("slave").start().await;
    until("it has a number", 1, || async { numbers(&slave).len() }).await;
    let address = slave.slave();
    let taken = numbers(&slave)[0];
    // another node of that number, in this process; the slave is as young as it, so that it yields
    let rival =
        ClusterBuilder::new(Heartbeat::new(taken, false, 1), &actix_rt::Arbiter::current(), &mut Registry::default());
    let (secret, key) = (Fingerprint::of_secret(SECRET.as_bytes()), MessageKey::new(SECRET.as_bytes()));
    rival.share(Common { secret, key, ..Common::default() });
    rival.over_nats(nats.settings(), "wellhead").expect("a thread");
    until("it comes back", 2, || async { slave.said("ready") }).await;
    until("with another number", 2, || async { numbers(&slave).len() }).await;
    assert_ne!(numbers(&slave)[1], taken);
    slave.ready().await;
    assert_eq!(slave.slave(), address, "at the same address");
    slave.wants_work().await;
    let mut ann = slave.listener_on("demo", "ann", "news").await;
    master.wants_work().await;
    arrives(&master, &mut ann).await;
    rival.bus().stop().await;
}

/// Every line of a server's log that is not from `ours`, and how often it says that there is no bus.
async fn what_it_says_of_its_bus(bus: &str, tries: impl Fn() -> usize) -> (usize, Vec<String>) {
    let mut master = Setup::keyed().set("cluster.secret", SECRET).set("cluster.bus", bus).role("master").launch();
    master.ready().await;
    until("it has tried often enough", true, || async { tries() >= 4 }).await;
    let foreign = master.log.collect(|line| line.contains("async_nats").then(|| line.to_owned()));
    (master.said("no bus"), foreign)
}

#[tokio::test]
async fn who_is_refused_by_nats_says_so_once_and_not_per_try() {
    let nats = NatsServer::started("authorization { user: \"ann\", password: \"hush\" }");
    let wrong = format!("nats://ann:wrong@{}", nats.address);
    let tries = || nats.log().matches("authentication error").count();
    assert_eq!(what_it_says_of_its_bus(&wrong, tries).await, (1, vec![]));

    // an address that accepts and closes
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let bus = format!("nats://{}", listener.local_addr().expect("it listens"));
    let accepted = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counts = accepted.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream);
            counts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    });
    let tries = || accepted.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(what_it_says_of_its_bus(&bus, tries).await, (1, vec![]));
}
