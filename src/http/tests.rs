//! The service, seen by clients that speak raw TCP, well and badly.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_server::{Server, ServerHandle};
use bytes::Bytes;
use futures_util::FutureExt;
use prometheus_client::registry::Registry;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    time::{Instant, timeout},
};
use wellhead_proto::{
    bus::Bus,
    dialect::contract::ApiReply,
    http_api::{Head, HttpApi, NotAdmitted, text},
    refusal::Refusal,
    testkit::RecordingBus,
};

use super::{
    UpgradeApi, budget::Budget, client_stream::Times, connections::Bounds, metrics::AllRequests, service::HttpService,
};
use crate::health::Health;

/// Enough for anything that a test waits for.
const PATIENCE: Duration = Duration::from_secs(10);
const BODY_LIMIT: usize = 1 << 20;
/// Connections at once.
const MOST: usize = 100;
const TIMES: Times = Times {
    head: Duration::from_millis(600),
    idle: Duration::from_millis(1_200),
    body: Duration::from_millis(300),
    stall: Duration::from_millis(300),
    linger: Duration::from_secs(2),
};

/// Somebody is being served at `/never`.
static NEVER_BEGUN: Notify = Notify::const_new();

/// Echoes what it is sent, except at `/secret`, `/big` and `/never`.
#[derive(Clone)]
struct EchoApi;

impl HttpApi for EchoApi {
    type Admitted = ();

    fn admit(&self, head: Head<'_>) -> Result<(), NotAdmitted> {
        if head.path == "/secret" { Err(text(401, "no").into()) } else { Ok(()) }
    }

    fn refuse(&self, (): &(), why: &Refusal) -> ApiReply {
        ApiReply::new(why.status(), "text/plain", why.to_string())
    }

    async fn serve(&self, (): (), head: Head<'_>, body: Bytes) -> ApiReply {
        if head.path == "/big" {
            return ApiReply::new(200, "text/plain", vec![b'x'; 32 << 20]);
        }
        if head.path == "/never" {
            NEVER_BEGUN.notify_one();
            return std::future::pending().await;
        }
        let answer = format!("{} {} {:?} {}", head.method, head.path, head.query, body.len());
        ApiReply::new(200, "text/plain", answer).with_header("X-Host", head.headers.header("host").unwrap_or(""))
    }

    fn body_limit(&self, (): &()) -> usize {
        BODY_LIMIT
    }
}

super::without_sockets!(EchoApi);

struct TestServer {
    address: SocketAddr,
    server: ServerHandle,
    health: Health,
    registry: Registry,
    budget: Budget,
}

impl TestServer {
    async fn open() -> Self {
        Self::bounded(MOST, 64 << 20).await
    }

    /// With room for `most` connections, and for `memory` bytes of unfinished requests.
    async fn bounded(most: usize, memory: usize) -> Self {
        Self::served_by(1, most, memory, TIMES).await
    }

    async fn served_by(threads: usize, most: usize, memory: usize, times: Times) -> Self {
        let budget = Budget::new(memory);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut registry = Registry::with_prefix("wellhead");
        let requests = AllRequests::new(&mut registry).of("master");
        let bus: Arc<dyn Bus> = Arc::new(RecordingBus::default());
        let health = Health::new(bus);
        let mut service = HttpService::new(EchoApi, health.clone(), requests, budget.clone());
        service.times = times;
        let builder = Server::build().workers(threads).disable_signals().shutdown_timeout(1);
        let server = super::listen(builder, listener, service, Bounds::of_its_own(most), || ()).unwrap().run();
        let handle = server.handle();
        actix_rt::spawn(server);
        Self { address, server: handle, health, registry, budget }
    }

    /// Comes back once nothing is held any more.
    async fn budget_is_free(&self) {
        let free = async {
            while self.budget.used() > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, free).await.expect("all is given back");
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
    let site = TestServer::open().await;
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
    let answer = TestServer::open().await.told(b"HEAD /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    assert_begins(&answer, "HTTP/1.1 200 OK\r\n");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[actix_rt::test]
async fn health_is_told_at_every_door() {
    let site = TestServer::open().await;
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
async fn a_port_says_what_it_is() {
    let answer = TestServer::open().await.told(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    assert_begins(&answer, "HTTP/1.1 200 OK\r\n");
    assert!(answer.contains("the master: backends push here"), "{answer}");
}

#[actix_rt::test]
async fn heads_that_are_too_large_are_told_so_and_the_client_can_read_it() {
    let site = TestServer::open().await;
    let address = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "a".repeat(bytes));
    let header =
        |bytes: usize| format!("GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX: {}\r\n\r\n", "a".repeat(bytes));
    assert_begins(&site.told(&vec![b'M'; 100_000]).await, "HTTP/1.1 431 ");
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
    let site = TestServer::open().await;
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
    let site = TestServer::open().await;
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
    let site = TestServer::open().await;
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
    let site = TestServer::open().await;
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
    let site = TestServer::open().await;
    let answer = site.told(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc").await;
    assert_begins(&answer, "HTTP/1.1 408 ");
    let answer = site.told(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab").await;
    assert_begins(&answer, "HTTP/1.1 408 ");
}

#[actix_rt::test]
async fn a_head_that_does_not_come_in_time_is_told_so() {
    let site = TestServer::open().await;
    let started = Instant::now();
    assert_begins(&site.told(b"GET / HTTP/1.1\r\nHost:").await, "HTTP/1.1 408 ");
    assert!(started.elapsed() >= TIMES.head, "{:?}", started.elapsed());
}

#[actix_rt::test]
async fn a_client_that_does_not_take_its_answer_is_let_go() {
    let site = TestServer::open().await;
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
    let site = TestServer::open().await;
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
    // some proxies set it on whatever they pass on; its body counts all the same
    let fixed =
        "POST /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc";
    let mut client = site.connect().await;
    client.write_all(fixed.repeat(2).as_bytes()).await.unwrap();
    let answers = until(&mut client, "POST /a \"\" 3").await;
    assert_begins(&answers, "HTTP/1.1 200 ");
    let connect = b"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\nContent-Length: 3\r\n\r\n";
    assert_begins(&site.told(connect).await, "HTTP/1.1 400 ");
}

#[actix_rt::test]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let site = TestServer::open().await;
    let mut client = site.connect().await;
    client.write_all(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    until(&mut client, "GET /a").await;
    let stopping = actix_rt::spawn(site.server.stop(true));
    assert_eq!(rest(&mut client).await, "");
    timeout(PATIENCE, stopping).await.expect("the server ends in time").unwrap();
}

#[actix_rt::test]
async fn what_goes_through_is_counted_by_what_is_known_of_it() {
    let site = TestServer::open().await;
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

/// Write `bytes` again and again until the server takes no more, which it shows by leaving them where they are.
async fn flood(client: &mut TcpStream, bytes: &[u8]) -> usize {
    let mut sent = 0;
    while let Ok(written) = timeout(Duration::from_millis(100), client.write(bytes)).await {
        sent += written.expect("the connection lives");
        assert!(sent < 64 << 20, "it reads without end");
    }
    sent
}

#[actix_rt::test]
async fn nothing_is_read_of_a_client_that_does_not_take_its_answers() {
    let site = TestServer::open().await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut client = socket.connect(site.address).await.unwrap();
    let request = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1_000);
    flood(&mut client, request.as_bytes()).await;
    assert!(site.budget.used() < 64 << 10, "{}", site.budget.used());
    // what it takes nothing of for too long is closed
    timeout(PATIENCE, async { while client.write_all(request.as_bytes()).await.is_ok() {} }).await.expect("an end");
    site.budget_is_free().await;
}

#[actix_rt::test]
async fn every_head_has_its_time_and_so_has_silence_between_two() {
    let site = TestServer::open().await;
    let ok = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut half = site.connect().await;
    half.write_all(&[ok, &b"GET /gcs/pi"[..]].concat()).await.unwrap();
    let mut silent = site.connect().await;
    silent.write_all(ok).await.unwrap();
    let mut dripping = site.connect().await;
    dripping.write_all(ok).await.unwrap();
    let drip = async {
        // one byte after the other is no progress of a head
        while dripping.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let (half, silent, ()) =
        tokio::join!(rest(&mut half), rest(&mut silent), timeout(PATIENCE, drip).map(Result::unwrap));
    assert!(half.contains("HTTP/1.1 200 ") && half.contains("HTTP/1.1 408 "), "{half}");
    assert!(silent.contains("HTTP/1.1 200 ") && !silent.contains("HTTP/1.1 408 "), "{silent}");
}

#[actix_rt::test]
async fn the_connection_that_has_waited_longest_makes_room_for_a_new_one() {
    let site = TestServer::bounded(3, 64 << 20).await;
    let ask = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut client = site.connect().await;
        client.write_all(ask).await.unwrap();
        until(&mut client, "GET /a").await;
        waiting.push(client);
    }
    // the first is not the one that has waited longest any more
    waiting[0].write_all(ask).await.unwrap();
    until(&mut waiting[0], "GET /a").await;
    let mut new = site.connect().await;
    new.write_all(ask).await.unwrap();
    until(&mut new, "GET /a").await;
    assert_eq!(rest(&mut waiting[1]).await, "", "it goes");
    for client in [0, 2] {
        waiting[client].write_all(ask).await.unwrap();
        until(&mut waiting[client], "GET /a").await;
    }
}

#[actix_rt::test]
async fn nobody_is_kept_out_by_those_who_wait_on_another_thread() {
    let patient = Times { head: PATIENCE * 9, idle: PATIENCE * 9, ..TIMES };
    let site = TestServer::served_by(2, 16, 64 << 20, patient).await;
    // the threads take turns: all that stay are on one of them
    let mut staying = Vec::new();
    for number in 0..32 {
        let mut client = site.connect().await;
        client.write_all(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        until(&mut client, "GET /a").await;
        if number % 2 == 0 {
            staying.push(client);
        } else {
            client.shutdown().await.unwrap();
            rest(&mut client).await;
        }
    }
    for _ in 0..32 {
        let closed = site.told(b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
        assert_begins(&closed, "HTTP/1.1 200 ");
    }
}

#[actix_rt::test]
async fn who_is_served_makes_no_room_and_the_newcomer_hears_so() {
    let site = TestServer::bounded(1, 64 << 20).await;
    let mut busy = site.connect().await;
    busy.write_all(b"POST /never HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc").await.unwrap();
    timeout(PATIENCE, NEVER_BEGUN.notified()).await.expect("it is served");
    assert_begins(&rest(&mut site.connect().await).await, "HTTP/1.1 503 ");
}

#[actix_rt::test]
async fn who_keeps_us_waiting_makes_room_in_the_middle_of_a_request_too() {
    let patient = Times { body: PATIENCE * 9, stall: PATIENCE * 9, ..TIMES };
    let site = TestServer::served_by(1, 3, 64 << 20, patient).await;
    let mut halves = Vec::new();
    for framing in ["Content-Length: 3", "Transfer-Encoding: chunked"] {
        let mut half = site.connect().await;
        let head = format!("POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n{framing}\r\n\r\n");
        half.write_all(head.as_bytes()).await.unwrap();
        until(&mut half, "100 Continue").await;
        halves.push(half);
    }
    let mut deaf = site.connect().await;
    deaf.write_all(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let stalls = async {
        while site.budget.used() < 1 << 20 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, stalls).await.expect("the reply is not taken");
    let mut newcomers = Vec::new();
    for _ in 0..3 {
        let mut new = site.connect().await;
        new.write_all(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        until(&mut new, "GET /a").await;
        newcomers.push(new);
    }
    for half in &mut halves {
        assert_eq!(rest(half).await, "", "it goes");
    }
    assert!(rest(&mut deaf).await.len() < 32 << 20, "and so does who takes nothing");
    for new in &mut newcomers {
        new.write_all(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        until(new, "GET /a").await;
    }
}

#[actix_rt::test]
async fn unfinished_requests_share_one_budget() {
    let site = TestServer::bounded(MOST, 200 << 10).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = site.connect().await;
        client.write_all(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n").await.unwrap();
        client.write_all(&[b'x'; 70_000]).await.unwrap();
        held.push(client);
    }
    while site.budget.used() < 140_000 {
        tokio::task::yield_now().await;
    }
    let large = [&b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n"[..], &[b'x'; 100_000]].concat();
    assert_begins(&site.told(&large).await, "HTTP/1.1 503 ");
    assert_begins(&site.told(b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await, "HTTP/1.1 200 ");
    drop(held);
    site.budget_is_free().await;
}

#[actix_rt::test]
async fn hosts_and_chunks_that_mean_two_things_are_refused() {
    let site = TestServer::open().await;
    for host in ["user@h", "h/x", "a b", "<x>", "a,b"] {
        let ask = format!("GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_begins(&site.told(ask.as_bytes()).await, "HTTP/1.1 400 ");
    }
    for chunks in ["3 \r\nabc\r\n0\r\n\r\n", "3;\r\nabc\r\n0\r\n\r\n", "3\nabc\n0\n\n"] {
        let ask = format!("POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        assert_begins(&site.told(ask.as_bytes()).await, "HTTP/1.1 400 ");
    }
}

#[actix_rt::test]
async fn a_refused_request_whose_body_is_there_costs_nobody_the_connection() {
    let site = TestServer::open().await;
    let mut client = site.connect().await;
    let refused = "POST /secret HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
    client.write_all(format!("{refused}GET /b HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).await.unwrap();
    let answers = until(&mut client, "GET /b").await;
    assert!(answers.contains("HTTP/1.1 401 ") && answers.contains("HTTP/1.1 200 "), "{answers}");
    // else it is told before its body has come
    let refused = b"POST /secret HTTP/1.1\r\nHost: h\r\nContent-Length: 9900010\r\n\r\nabc";
    assert_begins(&site.told(refused).await, "HTTP/1.1 401 ");
}

#[actix_rt::test]
async fn http_1_0_keeps_its_connection_if_it_asks_for_it() {
    let site = TestServer::open().await;
    let answer = site.told(b"GET /a HTTP/1.0\r\n\r\n").await;
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    let mut client = site.connect().await;
    for _ in 0..2 {
        client.write_all(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await.unwrap();
        let answer = until(&mut client, "GET /a").await;
        assert!(answer.contains("\r\nconnection: keep-alive\r\n"), "{answer}");
    }
}
