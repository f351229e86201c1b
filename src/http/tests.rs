//! The door, seen by clients that speak raw TCP, well and badly.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_server::{Server, ServerHandle};
use bytes::Bytes;
use prometheus_client::registry::Registry;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};
use wellhead_proto::{
    bus::Bus,
    dialect::contract::ApiReply,
    refusal::Refusal,
    surface::{Head, Surface, text},
    testkit::RecordingBus,
};

use super::{door::Door, metrics::AllRequests};
use crate::health::Health;

/// Enough for anything that a test waits for.
const PATIENCE: Duration = Duration::from_secs(10);
const BODY_LIMIT: usize = 1 << 20;

/// Echoes what it is sent, except at `/secret` and `/big`.
#[derive(Clone)]
struct Echo;

impl Surface for Echo {
    type Admitted = ();

    fn admit(&self, head: Head<'_>) -> Result<(), ApiReply> {
        if head.path == "/secret" { Err(text(401, "no")) } else { Ok(()) }
    }

    fn refuse(&self, (): &(), why: &Refusal) -> ApiReply {
        ApiReply::new(why.status(), "text/plain", why.to_string())
    }

    async fn serve(&self, (): (), head: Head<'_>, body: Bytes) -> ApiReply {
        if head.path == "/big" {
            return ApiReply::new(200, "text/plain", vec![b'x'; 32 << 20]);
        }
        let answer = format!("{} {} {:?} {}", head.method, head.path, head.query, body.len());
        ApiReply::new(200, "text/plain", answer).with_header("X-Host", head.headers.header("host").unwrap_or(""))
    }

    fn body_limit(&self) -> usize {
        BODY_LIMIT
    }
}

struct Site {
    address: SocketAddr,
    server: ServerHandle,
    health: Health,
    registry: Registry,
}

impl Site {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut registry = Registry::with_prefix("wellhead");
        let requests = AllRequests::new(&mut registry).of("master");
        let bus: Arc<dyn Bus> = Arc::new(RecordingBus::default());
        let health = Health::new(bus);
        let mut door = Door::new(Echo, health.clone(), requests);
        door.body_time = Duration::from_millis(300);
        let builder = Server::build().workers(1).disable_signals().shutdown_timeout(1);
        let server = super::listen(builder, listener, door).unwrap().run();
        let handle = server.handle();
        actix_rt::spawn(server);
        Self { address, server: handle, health, registry }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Everything the server says to `request` before it closes; all of `request` is sent before anything is read.
    async fn told(&self, request: &[u8]) -> String {
        let mut client = self.connect().await;
        client.write_all(request).await.expect("the server reads until it has answered");
        rest(&mut client).await
    }
}

/// What comes until the server closes, which must be an orderly end.
async fn rest(client: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, client.read_to_end(&mut answer)).await.expect("the server closes in time");
    read.unwrap_or_else(|error| panic!("{error} after {:?}", String::from_utf8_lossy(&answer)));
    String::from_utf8(answer).unwrap()
}

/// What comes until `end` has come.
async fn until(client: &mut TcpStream, end: &str) -> String {
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains(end) {
        let read = timeout(PATIENCE, client.read_buf(&mut answer)).await.expect("an answer in time").unwrap();
        assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8(answer).unwrap()
}

fn assert_begins(answer: &str, begin: &str) {
    assert!(answer.starts_with(begin), "{:?}", &answer[..answer.len().min(300)]);
}

#[actix_rt::test]
async fn requests_are_answered_one_after_the_other_also_when_they_come_together() {
    let site = Site::open().await;
    let mut client = site.connect().await;
    let three = "GET /a?x=1 HTTP/1.1\r\nHost: h\r\n\r\n\
                 POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc\
                 POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n";
    client.write_all(three.as_bytes()).await.unwrap();
    let answer = until(&mut client, "POST /c \"\" 5").await;
    let (a, b) = (answer.find("GET /a \"x=1\" 0").unwrap(), answer.find("POST /b \"\" 3").unwrap());
    assert!(a < b, "{answer}");
    assert!(answer.to_lowercase().contains("\r\nx-host: h\r\n"), "{answer}");
}

#[actix_rt::test]
async fn a_head_answer_has_no_body() {
    let answer = Site::open().await.told(b"HEAD /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    assert_begins(&answer, "HTTP/1.1 200 OK\r\n");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[actix_rt::test]
async fn health_is_told_at_every_door() {
    let site = Site::open().await;
    let ask = |path| format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").into_bytes();
    assert!(site.told(&ask("/healthz")).await.ends_with("\r\n\r\nok"));
    let starting = site.told(&ask("/readyz")).await;
    assert_begins(&starting, "HTTP/1.1 503 ");
    site.health.serving();
    assert!(site.told(&ask("/readyz")).await.ends_with("\r\n\r\nready"));
    site.health.ending();
    assert!(site.told(&ask("/readyz")).await.ends_with("\r\n\r\nshutting down"));
    assert!(site.told(&ask("/version")).await.contains(env!("CARGO_PKG_VERSION")));
    assert_begins(&site.told(b"POST /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await, "HTTP/1.1 405 ");
}

#[actix_rt::test]
async fn heads_that_are_too_large_are_told_so_and_the_client_can_read_it() {
    let site = Site::open().await;
    let address = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "a".repeat(bytes));
    let header =
        |bytes: usize| format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX: {}\r\n\r\n", "a".repeat(bytes));
    for kib in [17, 60, 127, 256] {
        assert_begins(&site.told(address(kib << 10).as_bytes()).await, "HTTP/1.1 414 ");
        assert_begins(&site.told(header(kib << 10).as_bytes()).await, "HTTP/1.1 431 ");
    }
    for count in [97, 1_000, 10_000] {
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X-Header: value\r\n".repeat(count));
        assert_begins(&site.told(many.as_bytes()).await, "HTTP/1.1 431 ");
    }
    assert_begins(&site.told(header(15 << 10).as_bytes()).await, "HTTP/1.1 200 ");
    // a head without an end, whose client waits for an answer
    let mut client = site.connect().await;
    client.write_all(&header(256 << 10).into_bytes()[..200 << 10]).await.unwrap();
    assert_begins(&rest(&mut client).await, "HTTP/1.1 431 ");
}

#[actix_rt::test]
async fn rubbish_is_told_that_it_is_bad() {
    let site = Site::open().await;
    for rubbish in [
        "\x16\x03\x01\x02\0\x01\0\x01\u{fc}",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
    ] {
        assert_begins(&site.told(rubbish.as_bytes()).await, "HTTP/1.1 400 ");
    }
}

#[actix_rt::test]
async fn a_body_over_the_limit_is_told_so_whether_its_length_is_declared_or_not() {
    let site = Site::open().await;
    let size = 12 * BODY_LIMIT;
    let declared =
        [format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n\r\n").into_bytes(), vec![b'x'; size]];
    assert_begins(&site.told(&declared.concat()).await, "HTTP/1.1 413 ");

    let mut chunked = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..size >> 16 {
        chunked.extend_from_slice(b"10000\r\n");
        chunked.resize(chunked.len() + (1 << 16), b'x');
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    assert_begins(&site.told(&chunked).await, "HTTP/1.1 413 ");

    let exact = [
        format!("POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {BODY_LIMIT}\r\n\r\n").into_bytes(),
        vec![b'x'; BODY_LIMIT],
    ];
    assert_begins(&site.told(&exact.concat()).await, "HTTP/1.1 200 ");
}

#[actix_rt::test]
async fn a_body_without_end_is_not_read_for_ever() {
    let site = Site::open().await;
    let mut client = site.connect().await;
    client.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    let started = Instant::now();
    let chunk = [b"10000\r\n".to_vec(), vec![b'x'; 1 << 16], b"\r\n".to_vec()].concat();
    // until the server has had enough and the connection is reset
    timeout(PATIENCE, async { while client.write_all(&chunk).await.is_ok() {} }).await.expect("the server ends it");
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

#[actix_rt::test]
async fn whoever_waits_for_100_is_told_at_once_if_the_body_is_not_wanted() {
    let site = Site::open().await;
    let ask = |path, length| {
        format!("POST {path} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n")
            .into_bytes()
    };
    assert_begins(&site.told(&ask("/", BODY_LIMIT + 1)).await, "HTTP/1.1 413 ");
    assert_begins(&site.told(&ask("/secret", 3)).await, "HTTP/1.1 401 ");
    let mut client = site.connect().await;
    client.write_all(&ask("/", 3)).await.unwrap();
    assert_begins(&until(&mut client, "\r\n\r\n").await, "HTTP/1.1 100 ");
    client.write_all(b"abc").await.unwrap();
    assert_begins(&until(&mut client, "POST / \"\" 3").await, "HTTP/1.1 200 ");
}

#[actix_rt::test]
async fn a_body_that_does_not_come_in_time_is_told_so() {
    let site = Site::open().await;
    let answer = site.told(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc").await;
    assert_begins(&answer, "HTTP/1.1 408 ");
    let answer = site.told(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab").await;
    assert_begins(&answer, "HTTP/1.1 408 ");
}

#[actix_rt::test]
async fn a_head_that_does_not_come_in_time_is_told_so() {
    let site = Site::open().await;
    let started = Instant::now();
    assert_begins(&site.told(b"GET / HTTP/1.1\r\nHost:").await, "HTTP/1.1 408 ");
    assert!(started.elapsed() >= super::HEAD_TIME, "{:?}", started.elapsed());
}

#[actix_rt::test]
async fn a_client_that_does_not_take_its_answer_is_let_go() {
    let site = Site::open().await;
    let mut client = site.connect().await;
    client.write_all(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let mut first = [0; 9];
    client.read_exact(&mut first).await.unwrap();
    // it reads nothing, and notices the end by what it cannot send any more
    let sending = async {
        while client.write_all(b"x").await.is_ok() {
            tokio::task::yield_now().await
        }
    };
    timeout(PATIENCE, sending).await.expect("the server ends it");
}

#[actix_rt::test]
async fn an_upgrade_that_nobody_takes_is_an_ordinary_request() {
    let site = Site::open().await;
    let mut client = site.connect().await;
    client.write_all(b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await.unwrap();
    assert_begins(&until(&mut client, "GET /a \"\" 0").await, "HTTP/1.1 200 ");
    // curl --http2 offers h2c and means its body all the same
    let mut client = site.connect().await;
    let offer = "POST /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
                 Content-Length: 3\r\n\r\n";
    client.write_all(offer.as_bytes()).await.unwrap();
    client.write_all(b"abc").await.unwrap();
    assert_begins(&until(&mut client, "POST /a \"\" 3").await, "HTTP/1.1 200 ");
    let connect = b"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\nContent-Length: 3\r\n\r\n";
    let mut client = site.connect().await;
    client.write_all(connect).await.unwrap();
    assert_begins(&until(&mut client, "\r\n\r\n").await, "HTTP/1.1 200 ");
}

#[actix_rt::test]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let site = Site::open().await;
    let mut client = site.connect().await;
    client.write_all(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    until(&mut client, "GET /a").await;
    let stopping = actix_rt::spawn(site.server.stop(true));
    assert_eq!(rest(&mut client).await, "");
    timeout(PATIENCE, stopping).await.expect("the server ends in time").unwrap();
}

#[actix_rt::test]
async fn what_goes_through_is_counted_by_what_is_known_of_it() {
    let site = Site::open().await;
    site.told(b"GET /secret HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    site.told(b"BREW /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    let mut metrics = String::new();
    prometheus_client::encoding::text::encode(&mut metrics, &site.registry).unwrap();
    for line in [
        "wellhead_http_requests_total{role=\"master\",method=\"GET\",status=\"401\"} 1",
        "wellhead_http_requests_total{role=\"master\",method=\"other\",status=\"200\"} 1",
        "wellhead_http_request_duration_seconds_count{role=\"master\"} 2",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
}
