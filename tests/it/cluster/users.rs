//! Pushes to users among real processes over NATS: they go to the slaves where the user is, and to no other.

use crate::{
    cluster::field::{By, Field},
    support::{
        ledger::{Mark, MarkKind},
        pusher::{Api, DEMO, PusherClient, PusherMessage},
        until,
    },
};

const INTERESTS: &str = "wellhead_bus_user_interests";

fn mark(user: &str, n: u64) -> Mark {
    Mark { app: "blue".into(), kind: MarkKind::User, to: user.into(), by: 1, n }
}

async fn interests(field: &Field, wanted: &[f64]) {
    for (slave, &wanted) in field.slaves.iter().zip(wanted) {
        slave.metric_becomes(INTERESTS, "", wanted).await;
    }
}

async fn received(field: &Field, slave: usize) -> f64 {
    field.slaves[slave].metric("wellhead_bus_messages_total", "direction=\"in\"").await
}

#[tokio::test]
async fn a_push_at_once_after_a_connect_is_never_missed() {
    let field = Field::start(By::Nats, 1, 2).await;
    let mut backend = field.masters[0].backend().await;
    let mut connected = Vec::new();
    for n in 0..300 {
        let user = format!("user-{n}");
        let listener = field.listener(n as usize % 2, "blue", &user, &[]).await;
        assert_eq!(backend.push_to_user("blue", &user, &mark(&user, n).json()).await.status, 200);
        connected.push((listener, user));
    }
    for (n, (listener, user)) in connected.iter().enumerate() {
        assert!(listener.hears(&mark(user, n as u64)).await, "{user} ended: {:?}", listener.end());
    }
}

#[tokio::test]
async fn a_push_at_once_after_a_sign_in_is_never_missed_and_who_does_not_sign_in_listens_to_nothing() {
    let field = Field::start_with(By::Nats, 1, 2, |setup| setup.toml(&DEMO.listed(""))).await;
    let mut api = Api::of(&field.masters[0], DEMO).await;
    let mut clients = Vec::new();
    for n in 0..200 {
        clients.push(PusherClient::connect(field.slaves[n % 2].slave(), DEMO).await);
    }
    // a second passes between two looks at the slots
    let channel = clients[0].subscribe("news");
    channel.await;
    field.slaves[0].metric_becomes("wellhead_bus_interests", "", 1.0).await;
    interests(&field, &[0.0, 0.0]).await;
    for (n, client) in clients.iter_mut().enumerate() {
        let user = format!("user-{n}");
        client.sign_in_as(&user).await;
        let channel = format!("#server-to-user-{user}");
        api.trigger(&channel, "e", &n.to_string()).await;
        assert_eq!(client.next().await, PusherMessage::event(&channel, "e", n.to_string()));
    }
}

#[tokio::test]
async fn the_other_slaves_receive_nothing_and_a_slot_ends_with_the_last_socket_of_its_user() {
    let field = Field::start(By::Nats, 1, 3).await;
    let mut backend = field.masters[0].backend().await;
    let (one, other) = (field.listener(0, "blue", "ann", &[]).await, field.listener(0, "blue", "ann", &[]).await);
    let bob = field.listener(1, "blue", "bob", &[]).await;
    interests(&field, &[1.0, 1.0, 0.0]).await;
    let before = [received(&field, 0).await, received(&field, 1).await, received(&field, 2).await];
    for n in 0..1_000 {
        assert_eq!(backend.push_to_user("blue", "ann", &mark("ann", n).json()).await.status, 200);
    }
    for listener in [&one, &other] {
        assert!(listener.hears(&mark("ann", 999)).await);
        assert_eq!(listener.heard().len(), 1_000);
    }
    let more = |slave: usize, after: f64| after - before[slave];
    assert!(more(0, received(&field, 0).await) >= 1_000.0);
    for slave in [1, 2] {
        // heartbeats of four nodes
        let more = more(slave, received(&field, slave).await);
        assert!(more < 500.0, "slave {slave} received {more}");
    }
    assert_eq!(bob.heard().len(), 0);
    one.leave().await;
    assert_eq!(backend.push_to_user("blue", "ann", &mark("ann", 1_000).json()).await.status, 200);
    assert!(other.hears(&mark("ann", 1_000)).await);
    other.leave().await;
    until("its slot ends", 0.0, || field.slaves[0].metric(INTERESTS, "")).await;
    interests(&field, &[0.0, 1.0, 0.0]).await;
}
