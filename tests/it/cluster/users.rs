//! Pushes to users among real processes over NATS: they go to the slaves where the user is, and to no other.

use std::{net::SocketAddr, time::Duration};

use tokio::time::timeout;

use super::field::{By, Field, SECRET};
use crate::support::{
    keys::signer,
    ledger::{Mark, MarkKind},
    listener::{Listener, ListenerEnd},
    nats::NatsServer,
    proxy::Proxy,
    pusher::{Api, DEMO, PusherClient, PusherMessage},
    server::Setup,
    until, within,
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

/// The slave reaches NATS through something that can be held up.
#[tokio::test]
async fn a_connect_and_a_sign_in_wait_until_the_bus_delivers_what_is_for_their_user_unless_it_does_already() {
    let nats = NatsServer::started("");
    let between = Proxy::to(nats.address).await;
    let setup = Setup::keyed().set("cluster.secret", SECRET).toml(&DEMO.listed(""));
    let at = |address: SocketAddr| setup.clone().set("cluster.bus", &format!("nats://{address}"));
    let (master, slave) =
        (at(nats.address).role("master").start().await, at(between.address).role("slave").start().await);
    let field = Field { nats: None, setup, masters: vec![master], slaves: vec![slave] };
    field.is_whole().await;
    let mut anns = vec![field.listener(0, "blue", "ann", &[]).await];
    let mut carl = PusherClient::connect(field.slaves[0].slave(), DEMO).await;

    between.set_cut(true);
    let (address, token) = (field.slaves[0].slave(), signer().jwt("blue", "bob", &["*"]));
    let bob = tokio::spawn(async move { Listener::connect(address, "blue", "bob", &token).await });
    let carl = tokio::spawn(async move {
        carl.sign_in_as("carl").await;
        carl
    });
    for _ in 0..5 {
        anns.push(field.listener(0, "blue", "ann", &[]).await);
    }
    assert!(!bob.is_finished() && !carl.is_finished());
    between.set_cut(false);
    let (bob, mut carl) =
        (within("a connect", bob).await.expect("it is let in"), within("it", carl).await.expect("it is"));

    let mut backend = field.masters[0].backend().await;
    assert_eq!(backend.push_to_user("blue", "bob", &mark("bob", 1).json()).await.status, 200);
    assert!(bob.hears(&mark("bob", 1)).await);
    let channel = "#server-to-user-carl";
    Api::of(&field.masters[0], DEMO).await.trigger(channel, "e", "1").await;
    assert_eq!(carl.next().await, PusherMessage::event(channel, "e", "1"));
    assert!(anns.iter().all(|ann| ann.end().is_none()));
}

#[tokio::test]
async fn a_slave_whose_server_was_away_tells_the_sockets_of_its_users_what_they_missed_and_nobody_elses() {
    let [mut near, far] = NatsServer::pair();
    let setup = Setup::keyed().set("cluster.secret", SECRET);
    let at = |address: SocketAddr| setup.clone().set("cluster.bus", &format!("nats://{address}"));
    let (master, slave) = (at(far.address).role("master").start().await, at(near.address).role("slave").start().await);
    let field = Field { nats: None, setup, masters: vec![master], slaves: vec![slave] };
    field.is_whole().await;
    let ann = field.listener(0, "blue", "ann", &[]).await;
    let push = async |user: &str, n: u64| {
        let status = field.masters[0].backend().await.push_to_user("blue", user, &mark(user, n).json()).await.status;
        assert_eq!(status, 200);
    };
    for (round, user) in [(0, "somebody-else"), (1, "ann")] {
        near.kill();
        until("it notices", 503, || async { field.slaves[0].readiness().await.0 }).await;
        push(user, round).await;
        near.start();
        if user == "ann" {
            let end = ann.ended().await;
            assert!(matches!(&end, ListenerEnd::Closed(close) if close.code == 1001), "{end:?}");
            field.slaves[0].metric_becomes("wellhead_bus_gaps_total", "", 1.0).await;
            return;
        }
        field.is_whole().await;
        // between servers of a cluster interest takes a moment to spread: the same is pushed again until it is heard
        let heard = async {
            loop {
                push("ann", 10).await;
                if let Ok(heard) = timeout(Duration::from_secs(1), ann.hears(&mark("ann", 10))).await {
                    return heard;
                }
            }
        };
        assert!(within("it is heard", heard).await, "it ended: {:?}", ann.end());
        assert_eq!(field.slaves[0].metric("wellhead_bus_gaps_total", "").await, 0.0);
    }
}
