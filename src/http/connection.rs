//! One HTTP connection: its requests one after the other. Whatever a client does, its connection takes bounded memory for a
//! bounded time, and while the client does not read its replies, nothing more is read from it.
//!
//! ```text
//! wait ──▶ head ──▶ body ──▶ serve ──▶ write ──▶ wait           each step has its time;
//!            └──▶ a WebSocket                └─▶ linger          who waits longest goes when others need room
//! ```

use std::{rc::Rc, time::Duration};

use bytes::{Buf, BytesMut};
use log::debug;
use tokio::time::Instant;
use wellhead_proto::{
    dialect::contract::ApiReply,
    http_api::{HttpVersion, text},
};
use wellhead_slave::{Rejected, Transport};

use super::{
    UpgradeApi,
    client_stream::{Broken, ClientStream},
    connections::ConnectionPlace,
    head::RequestHead,
    metrics::Ended,
    receive::{Incomplete, NoBody, Used, unread},
    reply::{After, encode, switching_protocols},
    service::HttpService,
};

/// What comes after an exchange.
enum Next<Socket> {
    /// Another request.
    Request,
    /// Nothing.
    Close,
    /// Nothing, but the client must be able to read the last reply although it may still be sending.
    Linger,
    /// What the handshake opens.
    Open(Socket),
}

/// Serve the client of `transport` until it goes, or has to.
pub async fn serve<S: UpgradeApi>(service: Rc<HttpService<S>>, transport: Transport, place: ConnectionPlace) {
    transport.set_nodelay();
    let mut client = ClientStream::new(transport, place, service.budget.reserve_nothing(), service.times);
    let mut input = BytesMut::new();
    let mut is_first = true;
    loop {
        let next = match client.read_head(&mut input, is_first).await {
            Ok(Some(length)) => exchange(&service, &mut client, &mut input, length).await,
            Ok(None) | Err(Incomplete::Silent) => Next::Close,
            Err(Incomplete::Broken(cause)) => {
                service.requests.ended(cause);
                Next::Close
            }
            Err(Incomplete::Refused(reply, cause)) => {
                if let Some(cause) = cause {
                    service.requests.ended(cause);
                }
                service.requests.count("", reply.status, Duration::ZERO);
                client.last_word(&reply).await
            }
        };
        is_first = false;
        match next {
            // who sends many at once lets others have their turn in between
            Next::Request if !input.is_empty() => tokio::task::yield_now().await,
            Next::Request => {}
            Next::Close => return,
            Next::Linger => return client.linger().await,
            Next::Open(socket) => {
                let ClientStream { transport, place, held, .. } = client;
                drop((place, held));
                return service.http_api.open(socket, transport, input);
            }
        }
    }
}

/// One request, whose head is the first `length` bytes of `input`, and the reply to it.
async fn exchange<S: UpgradeApi>(
    service: &HttpService<S>,
    client: &mut ClientStream,
    input: &mut BytesMut,
    length: usize,
) -> Next<S::Socket> {
    let started = Instant::now();
    client.place.set_waiting(None);
    let (head_bytes, behind) = input.split_at(length);
    let request = match RequestHead::parse(head_bytes) {
        Ok(request) => request,
        Err(bad) => {
            let reply = bad.reply();
            service.requests.count("", reply.status, started.elapsed());
            return client.last_word(&reply).await;
        }
    };
    let head = request.head();
    let is_head = head.method == "HEAD";
    if request.asks_for_websocket && head.method == "GET" && service.http_api.opens_socket(head) {
        let judged = service.http_api.handshake(head, client.peer()).await;
        drop(request);
        return match judged {
            Ok(socket) => {
                input.advance(length);
                Next::Open(socket)
            }
            Err(Rejected::Reply(reply)) => client.last_word(&reply).await,
            Err(Rejected::RejectedSocket { accept, frames }) => {
                client.last_bytes(&[switching_protocols(&accept, None), frames].concat()).await
            }
        };
    }

    let (reply, used) = match service.admit(head) {
        Err(reply) => (reply, unread(&request, behind)),
        Ok(admitted) => match client.read_body(&request, behind, service.http_api.body_limit(&admitted)).await {
            Ok((body, used)) => {
                client.place.set_waiting(None);
                (service.http_api.serve(admitted, head, body).await, used)
            }
            Err(NoBody::Refused(why)) => (service.http_api.refuse(&admitted, &why), Used::NotYetAll),
            Err(NoBody::BrokeOff) => (text(400, "the request body broke off"), Used::NotYetAll),
            Err(NoBody::Gone) => return Next::Close,
            Err(NoBody::Dismissed) => {
                service.requests.ended(Ended::Crowded);
                return Next::Close;
            }
        },
    };

    let now = Instant::now();
    let took = now - started;
    service.requests.count(head.method, reply.status, took);
    debug!(
        role = service.requests.role(), method = head.method, path = head.path, status = reply.status,
        peer = client.peer().map(|peer| peer.to_string()).unwrap_or_default(), duration_us = took.as_micros() as u64;
        "{} {}: {}", head.method, head.path, reply.status
    );
    let lives = request.keep_alive && !matches!(used, Used::NotYetAll) && !client.place.is_ending();
    let after = match request.version {
        _ if !lives => After::Closes,
        HttpVersion::Http10 => After::LivesOn10,
        HttpVersion::Http11 => After::Lives,
    };
    drop(request);
    let mut out = Vec::new();
    encode(&reply, is_head, after, &mut out);
    drop(reply);
    if let Err(broken) = client.write(&out).await {
        match broken {
            Broken::Late => service.requests.ended(Ended::Stalled),
            Broken::NoMemory => service.requests.ended(Ended::NoMemory),
            Broken::Dismissed => service.requests.ended(Ended::Crowded),
            Broken::Gone => {}
        }
        return Next::Close;
    }
    if !lives {
        return Next::Linger;
    }
    match used {
        Used::Bytes(bytes) => input.advance(length + bytes),
        Used::AllBut(rest) => *input = rest,
        Used::NotYetAll => return Next::Linger,
    }
    // holding nothing never fails
    let _ = client.held.hold(0);
    client.set_deadline(now + client.times.idle);
    client.place.set_waiting(Some(now));
    Next::Request
}

impl ClientStream {
    /// The last reply on this connection.
    async fn last_word<Socket>(&mut self, reply: &ApiReply) -> Next<Socket> {
        let mut out = Vec::new();
        encode(reply, false, After::Closes, &mut out);
        self.last_bytes(&out).await
    }

    /// The last bytes on this connection.
    async fn last_bytes<Socket>(&mut self, bytes: &[u8]) -> Next<Socket> {
        if self.write(bytes).await.is_ok() { Next::Linger } else { Next::Close }
    }
}
