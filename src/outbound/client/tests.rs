use std::net::IpAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;

/// What a request reads as, and `answer` to it.
async fn once(listener: TcpListener, answer: &str) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let request = read_request(&mut stream).await;
    stream.write_all(answer.as_bytes()).await.unwrap();
    request
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"{}") {
        assert!(stream.read_buf(&mut read).await.unwrap() > 0, "{}", String::from_utf8_lossy(&read));
    }
    String::from_utf8(read).unwrap()
}

async fn listen() -> (TcpListener, HttpTarget) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook?key=hush", listener.local_addr().unwrap());
    (listener, HttpTarget::new(&url).unwrap().with_header("X-Token: hush").unwrap())
}

fn request<'a>(target: &'a HttpTarget, headers: &'a [(&'static str, &'a str)]) -> OutboundRequest<'a> {
    OutboundRequest { target, headers, body: "{}".into(), within: MOST }
}

async fn answered(answer: &str) -> Result<Bytes, OutboundError> {
    let (listener, target) = listen().await;
    let client = OutboundClient::new(true).unwrap();
    tokio::join!(client.ask(request(&target, &[]), 10), once(listener, answer)).0
}

#[tokio::test]
async fn what_is_posted_is_json_with_the_headers_and_the_answer_is_read() {
    let (listener, target) = listen().await;
    let client = OutboundClient::new(true).unwrap();
    let headers = [("x-pusher-key", "demo")];
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let (body, sent) = tokio::join!(client.ask(request(&target, &headers), 2), once(listener, answer));
    assert_eq!(body, Ok(Bytes::from("ok")));
    assert!(sent.starts_with("POST /hook?key=hush HTTP/1.1\r\n"), "{sent}");
    for header in ["content-type: application/json", "x-pusher-key: demo", "x-token: hush", "content-length: 2"] {
        assert!(sent.contains(&format!("\r\n{header}\r\n")), "{sent}");
    }
}

#[tokio::test]
async fn an_answer_that_is_bad_or_too_long_is_an_error_of_its_kind() {
    assert_eq!(answered("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n").await, Err(OutboundError::Status(500)));
    // nobody listens where it leads, so that following it would be another error
    let moved = "HTTP/1.1 301 Moved\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(answered(moved).await, Err(OutboundError::Status(301)));
    let long = "HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nhello world";
    assert_eq!(answered(long).await, Err(OutboundError::TooLarge(10)));
    for broken in ["", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhal", "SSH-2.0-OpenSSH\r\n"] {
        assert!(matches!(answered(broken).await, Err(OutboundError::Broken(_))), "{broken}");
    }
}

#[tokio::test]
async fn an_unwanted_answer_is_good_however_long_it_is() {
    let (listener, target) = listen().await;
    let client = OutboundClient::new(true).unwrap();
    let long = format!("HTTP/1.1 201 Created\r\ncontent-length: 9999\r\n\r\n{}", "a".repeat(9_999));
    assert_eq!(tokio::join!(client.post(request(&target, &[])), once(listener, &long)).0, Ok(()));
}

#[tokio::test]
async fn who_does_not_answer_or_listen_is_an_error_of_its_kind() {
    let (listener, target) = listen().await;
    let client = OutboundClient::new(true).unwrap();
    let hurried = OutboundRequest { within: Duration::from_millis(50), ..request(&target, &[]) };
    assert_eq!(client.post(hurried).await, Err(OutboundError::TimedOut));
    drop(listener);
    let Err(OutboundError::Connect(why)) = client.post(request(&target, &[])).await else { panic!("nobody listens") };
    assert!(why.contains("refused") && !why.contains("hush"), "{why}");
    let nowhere = HttpTarget::new("http://nowhere.invalid/").unwrap();
    assert!(matches!(client.post(request(&nowhere, &[])).await, Err(OutboundError::Dns(_))));
}

#[tokio::test]
async fn an_address_that_is_not_global_is_refused_by_any_name_before_it_is_connected_to() {
    let (listener, target) = listen().await;
    let port = target.url().port().unwrap();
    let client = OutboundClient::new(false).unwrap();
    for host in ["127.0.0.1", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]", "localhost"] {
        let target = HttpTarget::new(&format!("http://{host}:{port}/")).unwrap();
        let refused = client.post(request(&target, &[])).await;
        assert!(matches!(refused, Err(OutboundError::Refused(_))), "{host}: {refused:?}");
    }
    let allowing = OutboundClient::new(true).unwrap();
    let good = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let target = HttpTarget::new(&format!("http://localhost:{port}/")).unwrap();
    let (first, sent) = tokio::join!(allowing.post(request(&target, &[])), once(listener, good));
    assert_eq!(first, Ok(()));
    assert!(sent.contains(&format!("\r\nhost: localhost:{port}\r\n")), "{sent}");
}

#[test]
fn of_the_addresses_of_a_name_those_that_are_allowed_are_left() {
    let socket = |address: &str| SocketAddr::new(address.parse().unwrap(), 0);
    let (public, private) = (socket("1.1.1.1"), socket("10.0.0.1"));
    assert_eq!(allowed(vec![private, public], false).unwrap(), [public]);
    assert_eq!(allowed(vec![private, public], true).unwrap(), [private, public]);
    let refused = allowed(vec![private], false).unwrap_err();
    assert_eq!(refused.downcast_ref(), Some(&RefusedAddress(IpAddr::from([10, 0, 0, 1]))));
    assert!(allowed(Vec::new(), true).unwrap_err().is::<NotResolved>());
}
