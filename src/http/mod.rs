//! HTTP/1.1 in front of the roles. actix-server accepts connections and deals them out to its worker threads; a
//! connection and the service of its listener live on one of these.

pub mod both_roles;
pub mod budget;
pub mod chunks;
pub mod client_stream;
pub mod connection;
pub mod connections;
pub mod head;
pub mod metrics;
mod receive;
pub mod reply;
pub mod service;
#[cfg(test)]
mod tests;
pub mod try_page;

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
};

use actix_server::ServerBuilder;
use actix_service::fn_service;
use bytes::BytesMut;
use tokio::net::TcpStream;
use wellhead_master::Master;
use wellhead_proto::http_api::{Head, HttpApi};
use wellhead_slave::{Accepted, Opened, Rejected, Slave, Transport};

use self::{
    connections::{Bounds, Connections},
    metrics::Ended,
    service::HttpService,
};
use crate::admin::Admin;

/// An HTTP API that may also open WebSockets.
pub trait UpgradeApi: HttpApi {
    /// A handshake that succeeded.
    type Socket: 'static;

    /// Begin to serve on the calling worker thread.
    fn start_worker(&self) {}

    /// Is its path one of those that open sockets?
    fn opens_socket(&self, head: Head<'_>) -> bool;

    /// Judge a handshake; `peer` is for the log.
    fn handshake(
        &self,
        head: Head<'_>,
        peer: Option<SocketAddr>,
    ) -> impl Future<Output = Result<Self::Socket, Rejected>>;

    /// Take the connection over; `early` came behind the handshake.
    fn open(&self, socket: Self::Socket, transport: Transport, early: BytesMut);
}

/// An HTTP API without sockets.
macro_rules! without_sockets {
    ($($site:ty),*) => {$(
        impl UpgradeApi for $site {
            type Socket = std::convert::Infallible;

            fn opens_socket(&self, _: Head<'_>) -> bool {
                false
            }

            async fn handshake(&self, _: Head<'_>, _: Option<std::net::SocketAddr>) -> Result<Self::Socket, wellhead_slave::Rejected> {
                Err(wellhead_slave::Rejected::Reply(wellhead_proto::http_api::text(404, "404 page not found\n")))
            }

            fn open(&self, socket: Self::Socket, _: wellhead_slave::Transport, _: bytes::BytesMut) {
                match socket {}
            }
        }
    )*};
}
#[cfg(test)]
use without_sockets;
without_sockets!(Master, Admin);

impl UpgradeApi for Slave {
    type Socket = Accepted;

    fn start_worker(&self) {
        self.start_worker();
    }

    fn opens_socket(&self, head: Head<'_>) -> bool {
        self.opens_socket(head)
    }

    async fn handshake(&self, head: Head<'_>, peer: Option<SocketAddr>) -> Result<Accepted, Rejected> {
        self.handshake(head, peer).await
    }

    fn open(&self, socket: Accepted, transport: Transport, early: BytesMut) {
        let answer = reply::switching_protocols(socket.accept(), socket.subprotocol());
        self.open(socket, Opened { transport, answer, early });
    }
}

/// Serve `service` on `listener`, to as many connections as `bounds` allow. `on_start` is called by each worker thread when it
/// has begun.
///
/// # Errors
///
/// The listener cannot be used.
pub fn listen<S: UpgradeApi>(
    builder: ServerBuilder,
    listener: TcpListener,
    service: HttpService<S>,
    bounds: Bounds,
    on_start: impl Fn() + Clone + Send + 'static,
) -> io::Result<ServerBuilder> {
    let ending = builder.graceful_shutdown_signal();
    builder.listen(service.requests.role(), listener, move || {
        // this runs on every worker's own thread
        service.http_api.start_worker();
        on_start();
        // its requests share no counter of references with those of other threads
        let service = Rc::new(service.clone());
        let connections = Connections::new(bounds.clone(), service.requests.connections(), ending.clone());
        fn_service(move |stream: TcpStream| {
            let service = service.clone();
            let place = connections.enter();
            // the one place where a connection gets its transport
            let transport = Transport::plain(stream);
            async move {
                match place {
                    Some(place) => connection::serve(service, transport, place).await,
                    None => {
                        service.requests.ended(Ended::Refused);
                        // it fits into the kernel's buffer, or nobody reads; past the runtime, which does not know yet
                        // that there is room
                        let _ = transport.send(&reply::no_room());
                    }
                }
                Ok::<_, Infallible>(())
            }
        })
    })
}
