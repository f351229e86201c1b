//! What stands between a node and its server: a transport that can be cut, an address that leads elsewhere.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Forwards to a server.
pub struct Proxy {
    pub address: SocketAddr,
    way: watch::Sender<ProxyDirection>,
}

#[derive(Clone, Copy)]
struct ProxyDirection {
    to: SocketAddr,
    /// Nothing is closed, nothing comes through.
    cut: bool,
    /// Grows when everything that is open is closed.
    breaks: u32,
}

impl Proxy {
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.2:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let (way, watched) = watch::channel(ProxyDirection { to: server, cut: false, breaks: 0 });
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let way = watched.clone();
                tokio::spawn(async move {
                    // who comes while it is cut hears nothing until it is healed
                    let began = way.borrow().breaks;
                    tokio::select! {
                        // nothing that waited comes through when both are told at once
                        biased;
                        () = broken(way.clone(), began) => {}
                        () = carry(near, way) => {}
                    }
                });
            }
        });
        Self { address, way }
    }

    pub fn set_cut(&self, cut: bool) {
        self.way.send_modify(|way| way.cut = cut);
    }

    /// Close what is open; who comes from now on gets to `server`.
    pub fn leads_to(&self, server: SocketAddr) {
        self.way.send_modify(|way| (way.to, way.breaks) = (server, way.breaks + 1));
    }
}

async fn carry(near: TcpStream, way: watch::Receiver<ProxyDirection>) {
    connected(way.clone()).await;
    let to = way.borrow().to;
    let Ok(far) = TcpStream::connect(to).await else { return };
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::select! {
        () = forward(near_in, far_out, way.clone()) => {}
        () = forward(far_in, near_out, way) => {}
    }
}

async fn connected(mut way: watch::Receiver<ProxyDirection>) {
    let _ = way.wait_for(|way| !way.cut).await;
}

async fn broken(mut way: watch::Receiver<ProxyDirection>, began: u32) {
    let _ = way.wait_for(|way| way.breaks != began).await;
}

async fn forward(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    way: watch::Receiver<ProxyDirection>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        connected(way.clone()).await;
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        connected(way.clone()).await;
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
