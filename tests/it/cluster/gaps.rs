//! What a slave did not hear, its sockets are told; and when nothing was pushed, they are left alone.

use std::{net::SocketAddr, time::Duration};

use tokio::time::timeout;

use super::field::{By, Field};
use crate::support::{
    backend::Backend,
    ledger::{Mark, MarkKind},
    listener::{Listener, ListenerEnd},
    nats::{NatsServer, free_address},
    proxy::Proxy,
    server::{Server, Setup},
    until, within,
};

fn mark(n: u64) -> Mark {
    Mark { app: "blue".into(), kind: MarkKind::Channel, to: "news".into(), by: 1, n }
}

fn at(setup: &Setup, address: SocketAddr) -> Setup {
    setup.clone().set("cluster.bus", &format!("nats://{address}"))
}

/// A master and a slave that reach NATS at two addresses, and a client of the slave.
async fn between(master: SocketAddr, slave: SocketAddr) -> (Field, Listener) {
    let setup = Setup::keyed().set("cluster.secret", "a secret that all nodes of this test share");
    let mut field = Field { nats: None, setup, masters: Vec::new(), slaves: Vec::new() };
    field.masters.push(at(&field.setup, master).role("master").start().await);
    field.slaves.push(at(&field.setup, slave).role("slave").start().await);
    field.is_whole().await;
    let listener = field.listener(0, "blue", "ann", &["news"]).await;
    assert!(hears(&field.masters[0], &listener, 0).await);
    (field, listener)
}

async fn push(master: &Server, n: u64) -> u16 {
    master.backend().await.push("blue", "news", "e", &mark(n).json()).await.status
}

/// Between servers of a cluster interest takes a moment to spread, which is told in the documents: the same is pushed again
/// until it is heard, or the socket has ended.
async fn hears(master: &Server, listener: &Listener, n: u64) -> bool {
    let heard = async {
        loop {
            assert_eq!(push(master, n).await, 200);
            if let Ok(heard) = timeout(Duration::from_secs(1), listener.hears(&mark(n))).await {
                return heard;
            }
        }
    };
    within("it is heard, or the socket ends", heard).await
}

async fn is_down(server: &Server) {
    until("it notices", 503, || async { server.readiness().await.0 }).await;
}

async fn is_told(slave: &Server, listener: &Listener) {
    let end = listener.ended().await;
    assert!(matches!(&end, ListenerEnd::Closed(close) if close.code == 1001), "{end:?}");
    slave.metric_becomes("wellhead_bus_gaps_total", "", 1.0).await;
}

#[tokio::test]
async fn a_slave_whose_server_of_several_was_away_tells_what_the_others_took() {
    let [mut near, far] = NatsServer::pair();
    let (field, listener) = between(far.address, near.address).await;
    near.kill();
    is_down(&field.slaves[0]).await;
    assert_eq!(push(&field.masters[0], 1).await, 200);
    near.start();
    is_told(&field.slaves[0], &listener).await;
    field.is_whole().await;
    let listener = field.listener(0, "blue", "ann", &["news"]).await;
    assert!(hears(&field.masters[0], &listener, 2).await, "who comes afterwards stays");
}

#[tokio::test]
async fn a_master_whose_server_of_several_was_away_accounts_for_what_it_took() {
    let route = free_address();
    let mut near = NatsServer::clustered(route, None);
    let between_servers = Proxy::to(route).await;
    let far = NatsServer::clustered(free_address(), Some(between_servers.address));
    far.has_route();
    let (field, listener) = between(near.address, far.address).await;
    // what the server of the master takes now dies with it
    between_servers.set_cut(true);
    assert_eq!(push(&field.masters[0], 1).await, 200);
    near.kill();
    between_servers.leads_to(route);
    between_servers.set_cut(false);
    near.start();
    is_told(&field.slaves[0], &listener).await;
    assert_eq!(
        field.slaves[0].metric("wellhead_bus_reconnects_total", "").await,
        0.0,
        "it had its server all the time"
    );
}

#[tokio::test]
async fn an_address_that_leads_to_another_server_hides_nothing() {
    let [one, two] = NatsServer::pair();
    let balancer = Proxy::to(one.address).await;
    let (field, listener) = between(one.address, balancer.address).await;

    // nothing is pushed: nobody notices
    balancer.leads_to(two.address);
    field.slaves[0].metric_becomes("wellhead_bus_reconnects_total", "", 1.0).await;
    field.is_whole().await;
    assert!(hears(&field.masters[0], &listener, 1).await);
    assert_eq!(field.slaves[0].metric("wellhead_bus_gaps_total", "").await, 0.0);

    balancer.set_cut(true);
    balancer.leads_to(one.address);
    is_down(&field.slaves[0]).await;
    assert_eq!(push(&field.masters[0], 2).await, 200);
    balancer.set_cut(false);
    is_told(&field.slaves[0], &listener).await;
}

#[tokio::test]
async fn a_master_that_gave_up_waiting_accounts_for_what_it_took() {
    let mut nats = NatsServer::started("");
    let proxy = Proxy::to(nats.address).await;
    let (field, listener) = between(nats.address, proxy.address).await;
    nats.kill();
    is_down(&field.slaves[0]).await;
    is_down(&field.masters[0]).await;
    proxy.set_cut(true);
    nats.start();
    field.masters[0].wants_work().await;
    assert_eq!(push(&field.masters[0], 1).await, 200, "it does not wait for ever");
    proxy.set_cut(false);
    is_told(&field.slaves[0], &listener).await;
}

#[tokio::test]
async fn a_restart_in_which_nothing_was_taken_closes_no_socket() {
    let mut field = Field::start(By::Nats, 2, 2).await;
    let listeners =
        [field.listener(0, "blue", "ann", &["news"]).await, field.listener(1, "blue", "bob", &["news"]).await];
    for n in 0..3 {
        field.restart_bus().await;
        for server in field.masters.iter().chain(&field.slaves) {
            server.metric_becomes("wellhead_bus_reconnects_total", "", (n + 1) as f64).await;
        }
        for listener in &listeners {
            assert!(hears(&field.masters[0], listener, 10 + 2 * n).await);
            assert!(hears(&field.masters[1], listener, 11 + 2 * n).await);
        }
    }
    for slave in &field.slaves {
        assert_eq!(slave.metric("wellhead_bus_gaps_total", "").await, 0.0);
    }
}

#[tokio::test]
async fn what_the_next_master_of_a_machine_takes_before_its_slave_is_back_is_told() {
    let mut field = Field::start(By::Local, 1, 1).await;
    let listener = field.listener(0, "blue", "ann", &["news"]).await;
    field.slaves[0].signal("STOP");
    field.restart_bus().await;
    let data = mark(1).json();
    let taken = async || {
        let mut backend = field.masters[0].backend().await;
        backend.form("/api/push/blue/news/e", &[("data", &data)]).await.status
    };
    until("the next master takes a push", 200, taken).await;
    field.slaves[0].signal("CONT");
    is_told(&field.slaves[0], &listener).await;
}

#[tokio::test]
async fn a_push_to_a_pattern_is_refused_as_long_as_the_bus_does_not_confirm_it() {
    let field = Field::start(By::Nats, 1, 1).await;
    let nats = field.nats.as_ref().expect("NATS");
    nats.signal("STOP");
    let mut backend = field.masters[0].backend().await;
    let fields = [("channel_pattern", "^n"), ("event", "e"), ("data", "1")];
    // nobody has noticed yet
    assert_eq!(backend.form("/api/push/blue", &fields).await.status, 503);
    nats.signal("CONT");
    field.is_whole().await;
    assert_eq!(backend.form("/api/push/blue", &fields).await.status, 200);
}

#[tokio::test]
async fn every_kind_of_push_waits_for_slaves_that_are_not_back() {
    let mut nats = NatsServer::started("");
    let proxy = Proxy::to(nats.address).await;
    let (field, listener) = between(nats.address, proxy.address).await;
    let master = field.masters[0].master();
    for n in 1..=2 {
        nats.kill();
        is_down(&field.slaves[0]).await;
        is_down(&field.masters[0]).await;
        proxy.set_cut(true);
        nats.start();
        field.masters[0].wants_work().await;
        let (kind, to) = if n == 1 { (MarkKind::Pattern, "^n") } else { (MarkKind::User, "ann") };
        let mark = Mark { kind, to: to.into(), ..mark(n) };
        let data = mark.json();
        let pushed = tokio::spawn(async move {
            let mut backend = Backend::of(master).await;
            match kind {
                MarkKind::Pattern => drop(backend.push_matching("blue", "^n", "e", &data).await),
                _ => drop(backend.push_to_user("blue", "ann", &data).await),
            }
        });
        // it waits for the slave, or is about to: nothing shows which, and both must end well
        tokio::time::sleep(Duration::from_millis(200)).await;
        proxy.set_cut(false);
        pushed.await.expect("it was taken");
        field.is_whole().await;
        // heard, or told: never neither
        if !listener.hears(&mark).await {
            return is_told(&field.slaves[0], &listener).await;
        }
    }
}
