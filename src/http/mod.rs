//! HTTP in front of the roles: one actix-web app per listener, whose only service is the door.

mod body;
pub mod door;
pub mod metrics;
pub mod stream;
#[cfg(test)]
mod tests;
pub mod try_page;

use std::{convert::Infallible, io, net::TcpListener, rc::Rc, sync::Arc, time::Duration};

use actix_codec::Framed;
use actix_http::{HttpMessage, HttpService, Request, h1};
use actix_server::{GracefulShutdownSignal, ServerBuilder};
use actix_service::{ServiceFactoryExt, fn_service, map_config};
use actix_web::{App, HttpRequest, dev::AppConfig, web};
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::Semaphore};
use wellhead_proto::{dialect::contract::ApiReply, surface::Surface};
use wellhead_slave::Slave;

use self::{door::Door, stream::Client};

/// How long a connection may be idle between two requests.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long the head of the first request may take; with it a WebSocket handshake.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// How long a client may go on sending a body that was refused.
const DISCONNECT_TIME: Duration = Duration::from_secs(2);

/// How each connection is served; a macro, since the type of the app has no name.
macro_rules! http {
    ($door:expr, $ending:expr) => {{
        let (door, ending) = ($door.clone(), $ending.clone());
        let expecting = door.clone();
        HttpService::build()
            .keep_alive(KEEP_ALIVE)
            .client_request_timeout(HEAD_TIME)
            .client_disconnect_timeout(DISCONNECT_TIME)
            .tcp_nodelay(true)
            .graceful_shutdown_signal(move || {
                let ending: GracefulShutdownSignal = ending.clone();
                async move { ending.notified().await }
            })
            .expect(fn_service(move |request: Request| {
                let admitted = expecting.expect(request.head());
                async move { admitted.map(|()| request) }
            }))
    }};
}

/// The app behind `door`.
macro_rules! app {
    ($door:expr) => {{
        // one for the worker: its requests share no counter of references with those of other threads
        let door = Rc::new($door.clone());
        let app = App::new().default_service(web::to(move |request: HttpRequest, payload: web::Payload| {
            let door = door.clone();
            async move { door.answer(request, payload).await }
        }));
        // the address in it serves to make absolute URLs, and we make none
        map_config(app, |()| AppConfig::default())
    }};
}

/// Serve `door` on `listener`.
///
/// # Errors
///
/// The listener cannot be used.
pub fn listen<S: Surface>(builder: ServerBuilder, listener: TcpListener, door: Door<S>) -> io::Result<ServerBuilder> {
    let ending = builder.graceful_shutdown_signal();
    builder.listen(door.requests.role(), listener, move || {
        let service = http!(door, ending).h1(app!(door));
        fn_service(accept).and_then(service)
    })
}

/// Serve `door` on `listener`; upgrades go to the slave behind it. Every worker adds to `started` when it has begun.
///
/// # Errors
///
/// The listener cannot be used.
pub fn listen_with_sockets(
    builder: ServerBuilder,
    listener: TcpListener,
    door: Door<Slave>,
    started: Arc<Semaphore>,
) -> io::Result<ServerBuilder> {
    let ending = builder.graceful_shutdown_signal();
    builder.listen(door.requests.role(), listener, move || {
        // this runs on every worker's own thread
        door.surface.start_worker();
        started.add_permits(1);
        let upgrading = door.clone();
        let service = http!(door, ending)
            .upgrade(fn_service(move |(request, framed): (Request, Framed<Client, h1::Codec>)| {
                let door = upgrading.clone();
                async move {
                    upgrade(door, request, framed).await;
                    Ok::<_, Infallible>(())
                }
            }))
            .h1(app!(door));
        fn_service(accept).and_then(service)
    })
}

async fn accept(tcp: TcpStream) -> Result<(Client, Option<std::net::SocketAddr>), actix_http::error::DispatchError> {
    // without it the second of two small frames waits for an acknowledgement
    let _ = tcp.set_nodelay(true);
    let peer = tcp.peer_addr().ok();
    Ok((Client::new(tcp), peer))
}

async fn upgrade(door: Door<Slave>, request: Request, framed: Framed<Client, h1::Codec>) {
    let mut parts = framed.into_parts();
    match door.check_head(request.uri(), request.headers()) {
        Ok(()) => door.surface.upgrade(request, parts.io.into_inner(), parts.read_buf).await,
        Err(ApiReply { status, content_type, body, .. }) => {
            let reason = actix_http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
            let head = format!(
                "HTTP/1.1 {status} {}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\
                 connection: close\r\n\r\n",
                reason.unwrap_or_default(),
                body.len(),
            );
            // a client that is gone needs no answer
            let _ = parts.io.write_all(&[head.as_bytes(), &body].concat()).await;
        }
    }
}
