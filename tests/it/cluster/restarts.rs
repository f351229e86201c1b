//! Rolling restarts under load: every process is replaced by another, in order, and clients come back.

use std::time::{Duration, Instant};

use super::{
    field::{By, Field, all_push, all_sent, followers, lost_in_stays},
    load::count,
};
use crate::support::server::Server;

/// What is answered so shortly before a socket is told to come back may miss it.
const WINDOW: Duration = Duration::from_millis(500);

async fn end(server: &mut Server) {
    server.signal("TERM");
    assert_eq!(server.ended().await.code(), Some(0));
}

async fn rolling_restart(by: By) {
    let nodes = if by == By::Nats { 2 } else { 1 };
    let mut field = Field::start(by, nodes, 2).await;
    let slaves = field.slave_addresses();
    let mut followers = followers(&slaves);
    for follower in &mut followers {
        follower.is_there().await;
    }
    let masters = field.master_addresses();
    let publishers: Vec<_> = (0..2)
        .map(|by| super::load::Publisher::start(&masters, by, &super::field::TARGETS, super::field::PACE))
        .collect();
    let began = Instant::now();
    let all = |servers: &[Server], of: fn(&Server) -> std::net::SocketAddr, but: usize| {
        let others = servers.iter().enumerate().filter(|(no, _)| *no != but).map(|(_, server)| of(server));
        others.collect::<Vec<_>>()
    };
    for no in 0..field.slaves.len() {
        all_push(&publishers, 30).await;
        // as a load balancer does: no more clients for it, then the signal
        slaves.are(all(&field.slaves, Server::slave, no));
        end(&mut field.slaves[no]).await;
        field.slaves[no] = field.new_slave().await;
        field.is_whole().await;
        slaves.are(field.slaves.iter().map(Server::slave));
        for follower in &mut followers {
            follower.is_there().await;
        }
    }
    for no in 0..field.masters.len() {
        all_push(&publishers, 30).await;
        if by == By::Nats {
            masters.are(all(&field.masters, Server::master, no));
            // the push under way may be to it; the one behind that is not
            all_push(&publishers, 2).await;
        }
        end(&mut field.masters[no]).await;
        field.masters[no] = field.new_master().await;
        field.is_whole().await;
        masters.are(field.masters.iter().map(Server::master));
    }
    all_push(&publishers, 50).await;
    let sent = all_sent(publishers).await;
    for follower in &mut followers {
        follower.is_there().await;
    }
    // both slaves have had everything once they have had this; what they put out is read when the clients stop
    let listeners = field.listeners(0..field.slaves.len()).await;
    field.settle(&listeners.iter().collect::<Vec<_>>()).await;
    let (accepted, refused, broken) = count(&sent);
    let (mut stays, mut late) = (0, 0);
    let mut early = Vec::new();
    for follower in followers {
        let its = follower.stop().await;
        stays += its.len();
        let (lost, in_window) = lost_in_stays(&sent, &its, WINDOW);
        early.extend(lost.into_iter().cloned());
        late += in_window;
    }
    eprintln!(
        "rolling restart ({by:?}, {:?}): {accepted} accepted, {refused} refused, {broken} without an answer; {stays} stays \
         of 4 clients; lost: {late} within {WINDOW:?} of a socket's end, {} else",
        began.elapsed(),
        early.len(),
    );
    assert!(early.is_empty(), "lost while its socket was open: {early:?}");
    assert!(stays >= 6, "both slaves sent their clients away: {stays}");
    if by == By::Nats {
        assert_eq!((refused, broken), (0, 0), "there was always a master that took pushes");
    }
    assert!(accepted > 300, "{accepted}");
}

#[tokio::test]
async fn a_rolling_restart_on_nats_loses_only_what_the_documents_name() {
    rolling_restart(By::Nats).await;
}

#[tokio::test]
async fn a_rolling_restart_on_one_machine_loses_only_what_the_documents_name() {
    rolling_restart(By::Local).await;
}
