//! A slave that cannot reach its bus, which goes on without it.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{
    field::{By, Field, all_push, all_sent, lost_by_all},
    load::count,
};
use crate::support::{
    keys::signer,
    listener::{Listener, ListenerEnd},
    proxy::Proxy,
    until,
};

#[tokio::test]
async fn a_slave_cut_off_from_nats_sends_its_clients_away_and_comes_back_by_itself() {
    let mut field = Field::start(By::Nats, 1, 1).await;
    let proxy = Proxy::to(field.nats.as_ref().expect("NATS").address).await;
    let bus = format!("nats://{}", proxy.address);
    field.slaves.push(field.setup.clone().set("cluster.bus", &bus).role("slave").start().await);
    field.is_whole().await;
    let others = field.listeners([0]).await;
    let far = field.listener(1, "blue", "far", &["news"]).await;
    let (publishers, began) = (field.publishers(2), Instant::now());
    all_push(&publishers, 30).await;

    // for a moment only: nothing happens to anybody. The moment is what is tried, so it is a time
    proxy.set_cut(true);
    sleep(Duration::from_millis(500)).await;
    proxy.set_cut(false);
    field.is_whole().await;
    all_push(&publishers, 50).await;
    assert_eq!(far.end(), None);

    proxy.set_cut(true);
    let cut = Instant::now();
    until("the slave notices", 503, || async { field.slaves[1].readiness().await.0 }).await;
    let noticed = cut.elapsed();
    let token = signer().jwt("blue", "late", &["*"]);
    let refused = Listener::open(field.slaves[1].slave(), "blue", "late", &token).await;
    assert_eq!(refused.err().map(|reply| reply.status), Some(503));
    let end = far.ended().await;
    let closed = cut.elapsed();
    assert!(matches!(&end, ListenerEnd::Closed(close) if close.code == 1001), "{end:?}");
    until("the others miss it", false, || async {
        field.masters[0].backend().await.names("/api/blue/online").await.contains(&"far".to_owned())
    })
    .await;
    field.masters[0].metric_becomes("wellhead_roster_nodes", "", 2.0).await;

    proxy.set_cut(false);
    let healed = Instant::now();
    field.is_whole().await;
    let back = healed.elapsed();
    let mut all = others;
    let far = field.listener(1, "blue", "far", &["news"]).await;
    assert!(field.masters[0].backend().await.names("/api/blue/online").await.contains(&"far".to_owned()));
    let since = Instant::now();
    all_push(&publishers, 50).await;
    let sent = all_sent(publishers).await;
    field.settle(&all.iter().collect::<Vec<_>>()).await;
    let far_lost =
        super::load::lost(&sent, &far, &["news".to_owned()], since, Some(Instant::now() - Duration::from_millis(200)));
    assert!(far_lost.is_empty(), "{far_lost:?}");
    assert!(!far.heard().is_empty());
    let lost = lost_by_all(&sent, &all, began);
    all.push(far);
    let (accepted, refused, broken) = count(&sent);
    eprintln!(
        "a partition: noticed after {noticed:?}, sockets closed after {closed:?}, whole {back:?} after it was healed; \
         {accepted} accepted, {refused} refused, {} lost by the others",
        lost.len()
    );
    assert_eq!((refused, broken, lost.len()), (0, 0, 0), "{lost:?}");
    assert!(noticed < Duration::from_secs(5), "{noticed:?}");
    assert!(closed < Duration::from_secs(11), "{closed:?}");
}
