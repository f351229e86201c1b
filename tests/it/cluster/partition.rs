//! A slave that cannot reach its bus, which goes on without it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};

use super::{
    field::{By, Field, all_sent, lost_by_all},
    load::count,
};
use crate::support::{
    keys::signer,
    listener::{End, Listener},
    until,
};

/// Forwards to a server, and stops when it is told so: nothing is closed, nothing comes through.
struct Proxy {
    address: SocketAddr,
    cut: watch::Sender<bool>,
}

impl Proxy {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.2:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let (cut, is_cut) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let is_cut = is_cut.clone();
                tokio::spawn(async move {
                    // who comes while it is cut hears nothing until it is healed
                    connected(is_cut.clone()).await;
                    let Ok(far) = TcpStream::connect(server).await else { return };
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    tokio::select! {
                        () = forward(near_in, far_out, is_cut.clone()) => {}
                        () = forward(far_in, near_out, is_cut) => {}
                    }
                });
            }
        });
        Self { address, cut }
    }

    fn set_cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }
}

async fn connected(mut is_cut: watch::Receiver<bool>) {
    let _ = is_cut.wait_for(|cut| !*cut).await;
}

async fn forward(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    is_cut: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        connected(is_cut.clone()).await;
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        connected(is_cut.clone()).await;
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

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
    sleep(Duration::from_millis(300)).await;

    // for a moment only: nothing happens to anybody
    proxy.set_cut(true);
    sleep(Duration::from_millis(500)).await;
    proxy.set_cut(false);
    sleep(Duration::from_millis(500)).await;
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
    assert!(matches!(&end, End::Closed(close) if close.code == 1001), "{end:?}");
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
    sleep(Duration::from_millis(500)).await;
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
