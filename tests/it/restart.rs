//! A process that is replaced: nobody is refused or kept waiting who need not be.

use std::{net::TcpListener, sync::Arc, time::Instant};

use crate::{
    cluster::field::{By, Field},
    support::{
        client::path,
        http::Http,
        keys::signer,
        pusher::{DEMO, PusherClient, setup},
        server::Setup,
        websocket::WebSocket,
        within,
    },
};

/// A request that is made while nobody serves, and what comes of it.
async fn waits(address: std::net::SocketAddr) -> Http {
    let mut http = Http::to(address).await;
    let request = http.request("GET", "/healthz", &[], "");
    http.send(request.as_bytes()).await.expect("the kernel takes it");
    http
}

#[tokio::test]
async fn a_successor_takes_over_the_listening_socket_and_nobody_is_refused() {
    for role in ["slave", "master", "admin"] {
        let socket = Arc::new(TcpListener::bind("127.0.0.1:0").expect("a port is free"));
        let address = socket.local_addr().expect("bound");
        let setup = setup().hand_over(role, &socket);
        let mut first = setup.clone().start().await;
        let serves = match role {
            "slave" => first.slave(),
            "master" => first.master(),
            _ => first.admin(),
        };
        assert_eq!(serves, address, "{role}");
        assert_eq!(Http::to(address).await.get("/healthz").await.status, 200, "{role}");
        let mut ann = PusherClient::connect(first.slave(), DEMO).await;
        let mut bob = WebSocket::open(first.slave(), &path("demo", &signer().jwt("demo", "bob", &["*"])), &[])
            .await
            .expect("101");
        first.signal("TERM");
        let (code, _) = ann.error().await;
        // at once only where somebody listens, or will
        assert_eq!(code, Some(if role == "slave" { 4200 } else { 4100 }), "{role}");
        ann.closed().await;
        assert_eq!(bob.closed().await.code, 1001, "{role}");
        assert_eq!(first.ended().await.code(), Some(0), "{role}");
        let mut early = waits(address).await;
        let second = setup.start().await;
        assert_eq!(early.reply().await.status, 200, "{role}: who came meanwhile is served");
        assert_eq!(Http::to(address).await.get("/healthz").await.status, 200, "{role}");
        drop(second);
    }
}

#[tokio::test]
async fn a_socket_that_nobody_serves_is_refused_at_start() {
    let socket = Arc::new(TcpListener::bind("127.0.0.1:0").expect("a port is free"));
    let failure = Setup::keyed().hand_over("unknown", &socket).fails_only_when_started().await;
    assert_eq!(failure.code, Some(78), "{failure:?}");
    assert!(failure.said.contains("FileDescriptorName="), "{failure:?}");
}

#[tokio::test]
async fn without_a_socket_that_stays_the_port_is_free_at_once() {
    let mut first = Setup::keyed().start().await;
    let address = first.slave();
    // holds the end up for a while: it neither reads nor goes
    let deaf = first.listener_on("demo", "deaf", "news").await;
    first.backend().await.push("demo", "news", "e", &"x".repeat(8 << 20)).await;
    let began = Instant::now();
    first.signal("TERM");
    within("nobody listens any more", async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let second = Setup::keyed().set("slave.listen", &address.to_string()).start().await;
    assert_eq!(second.slave(), address);
    eprintln!("a successor served {:?} after SIGTERM", began.elapsed());
    first.ended().await;
    drop(deaf);
}

#[tokio::test]
async fn clients_come_back_at_once_only_if_another_slave_is_there() {
    let mut field = Field::start_with(By::Local, 1, 2, |setup| setup.toml(&DEMO.listed(""))).await;
    for (slave, wanted) in [(0, 4200), (1, 4100)] {
        let mut ann = PusherClient::connect(field.slaves[slave].slave(), DEMO).await;
        field.slaves[slave].signal("TERM");
        let (code, _) = ann.error().await;
        assert_eq!(code, Some(wanted), "slave {slave}");
        assert_eq!(ann.closed().await.code, u16::try_from(wanted).expect("a code"));
        assert_eq!(field.slaves[slave].ended().await.code(), Some(0));
    }
}
