//! Heartbeats of nodes that do not exist: whoever is known stays known, and queries are answered.

use std::{ops::Range, time::Instant};

use prometheus_client::registry::Registry;
use wellhead::bus::{
    metrics::PubSubMetrics,
    nats,
    pubsub::{PubSub, Subject},
};
use wellhead_proto::{
    bus::BoxFuture,
    fingerprint::Fingerprint,
    ids::NodeId,
    membership::Heartbeat,
    node_message::{Body, MessageFormat, MessageKey, NodeMessage},
};

use super::field::{By, Field, SECRET};
use crate::support::{PATIENCE, within};

/// Hears nothing.
struct Deaf;

impl wellhead::bus::pubsub::MessageHandler for Deaf {
    fn hear(&self, _: Subject, _: bytes::Bytes) {}

    fn has_room(&self) -> bool {
        true
    }

    fn room(&self) -> BoxFuture<()> {
        Box::pin(std::future::ready(()))
    }

    fn gap(&self) {}

    fn interrupted(&self) {}
}

/// The nodes that are forged.
const FORGED: u32 = 100_000;

/// Numbers of nodes that none of the field has.
async fn nobodys(field: &Field) -> Range<u32> {
    let mut real = Vec::new();
    for server in field.masters.iter().chain(&field.slaves) {
        real.push(server.node_id().await);
    }
    let mut ranges = (0..).map(|number| number * FORGED..(number + 1) * FORGED);
    ranges.find(|range| !real.iter().any(|node| range.contains(node))).expect("there are more ranges than nodes")
}

/// Beats of slaves that do not exist, with this fingerprint of a secret.
async fn forge(wire: &dyn PubSub, nodes: Range<u32>, secret: Fingerprint) {
    for no in nodes {
        let beat = Heartbeat { secret, ..Heartbeat::new(NodeId::from_random(no), true, 1) };
        let body = if no % 2 == 0 { Body::Heartbeat(beat) } else { Body::Hello(beat) };
        let message =
            NodeMessage { id: u64::from(no), session: 0, body }.encode(MessageFormat::V3, &MessageKey::new(b""));
        within("NATS takes it", wire.send(Subject::Everyone, message)).await.expect("it is up");
    }
    within("NATS has it", wire.confirm()).await.expect("it is up");
}

/// A push and a query are answered as ever, and the real slave is waited for.
async fn serves(field: &Field, rivals: bool) {
    let began = Instant::now();
    let mut backend = field.masters[0].backend().await;
    backend.push("blue", "news", "e", "1").await;
    let reply = backend.get("/v1/stats").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.json()["connections"], 1, "{reply:?}");
    assert!(rivals || reply.header("X-Wellhead-Partial").is_none(), "{reply:?}");
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_hundred_thousand_forged_heartbeats_change_nothing() {
    let field = Field::start(By::Nats, 1, 1).await;
    let nats = field.nats.as_ref().expect("it is by NATS");
    let mut ann = field.slaves[0].listener_on("blue", "ann", "news").await;
    let metrics = PubSubMetrics::new(&mut Registry::default());
    let wire = nats::connect(nats.settings(), "wellhead", std::sync::Arc::new(Deaf), metrics).expect("a thread");
    drop(within("it is up", wire.state().wait_for(|up| *up)).await.expect("it lives"));

    // of another cluster's secret: none of them is let in
    let nodes = nobodys(&field).await;
    forge(&*wire, nodes.clone(), Fingerprint::default()).await;
    for server in field.masters.iter().chain(&field.slaves) {
        server.metric_becomes("wellhead_roster_refused_total", "cause=\"secret\"", f64::from(FORGED)).await;
        server.metric_becomes("wellhead_roster_nodes", "", 2.0).await;
        let said = server.said("has another cluster.secret");
        assert!((1..=64).contains(&said), "{said}");
    }
    serves(&field, false).await;
    ann.next_event().await;

    // as if they had it: some are, and no more than there may be
    forge(&*wire, nodes, Fingerprint::of_secret(SECRET.as_bytes())).await;
    serves(&field, true).await;
    ann.next_event().await;
    for server in field.masters.iter().chain(&field.slaves) {
        let nodes = server.metric("wellhead_roster_nodes", "").await;
        assert!((2.0..=1_024.0).contains(&nodes), "{nodes}");
        let refused = server.metric("wellhead_roster_refused_total", "cause=\"crowded\"").await;
        assert!(refused > 50_000.0, "{refused}");
        assert_eq!(server.said("nodes are not let into the cluster"), 1);
    }
    // and they go as they came
    field.is_whole().await;
    serves(&field, false).await;
    ann.next_event().await;
}
