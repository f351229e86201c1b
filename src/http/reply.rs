//! A reply as HTTP/1.1 writes it.

use std::{
    cell::RefCell,
    fmt::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use smallvec::SmallVec;
use wellhead_proto::dialect::contract::ApiReply;
use wellhead_slave::SocketAccept;

/// What happens to the connection after a reply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum After {
    /// It lives on, which HTTP/1.1 takes for granted.
    Lives,
    /// It lives on, which HTTP/1.0 must be told.
    LivesOn10,
    /// It closes.
    Closes,
}

/// Write `reply` to the end of `out`, without its body if `is_head`.
pub fn encode(reply: &ApiReply, is_head: bool, after: After, out: &mut Vec<u8>) {
    let start = out.len();
    if !try_encode(reply, is_head, after, out) {
        // a header that a dialect wrote and HTTP does not allow
        out.truncate(start);
        try_encode(&ApiReply::empty(500), is_head, after, out);
    }
}

fn try_encode(reply: &ApiReply, is_head: bool, after: After, out: &mut Vec<u8>) -> bool {
    let ApiReply { status, content_type, headers, body } = reply;
    out.reserve(192 + if is_head { 0 } else { body.len() });
    let mut digits = itoa::Buffer::new();
    status_line(*status, &mut digits, out);
    // RFC 9110 §8.6: these have no body, and say nothing of its length
    let has_length = !matches!(status, 100..=199 | 204 | 304);
    if has_length {
        out.extend_from_slice(b"\r\ncontent-length: ");
        out.extend_from_slice(digits.format(body.len()).as_bytes());
    }
    if !content_type.is_empty() {
        out.extend_from_slice(b"\r\ncontent-type: ");
        out.extend_from_slice(content_type.as_bytes());
    }
    for (name, value) in headers {
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            || !value.bytes().all(|byte| byte == b'\t' || byte >= b' ' && byte != 0x7f)
        {
            return false;
        }
        out.extend_from_slice(b"\r\n");
        out.extend(name.bytes().map(|byte| byte.to_ascii_lowercase()));
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
    }
    match after {
        After::Lives => {}
        After::LivesOn10 => out.extend_from_slice(b"\r\nconnection: keep-alive"),
        After::Closes => out.extend_from_slice(b"\r\nconnection: close"),
    }
    out.extend_from_slice(b"\r\ndate: ");
    write_date(out);
    out.extend_from_slice(b"\r\n\r\n");
    if has_length && !is_head {
        out.extend_from_slice(body);
    }
    true
}

/// The interim reply to `Expect: 100-continue`.
#[must_use]
pub fn go_on() -> Vec<u8> {
    raw(100, &[], "")
}

/// The answer that opens a WebSocket.
#[must_use]
pub fn switching_protocols(accept: &SocketAccept) -> Bytes {
    let subprotocol = accept.subprotocol().map(|chosen| ("Sec-WebSocket-Protocol", chosen));
    let headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept.as_str())];
    let headers: SmallVec<[_; 4]> = headers.into_iter().chain(subprotocol).collect();
    raw(101, &headers, "").into()
}

/// What a connection is told for which there is no room.
#[must_use]
pub fn no_room() -> Vec<u8> {
    let body = "too many connections";
    let headers = [
        ("content-type", "text/plain; charset=utf-8"),
        ("content-length", "20"),
        ("retry-after", "1"),
        ("connection", "close"),
    ];
    raw(503, &headers, body)
}

/// A reply beside the exchanges of a connection: no request was read, or none follows. It has these headers and no date.
fn raw(status: u16, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let headers_length: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    // exactly as long: what is kept until it is sent needs no record of spare room
    let mut out = Vec::with_capacity("HTTP/1.1 123 ".len() + reason(status).len() + headers_length + 4 + body.len());
    status_line(status, &mut itoa::Buffer::new(), &mut out);
    for (name, value) in headers {
        for piece in ["\r\n", name, ": ", value] {
            out.extend_from_slice(piece.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body.as_bytes());
    out
}

fn status_line(status: u16, digits: &mut itoa::Buffer, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(digits.format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
}

/// The date of now. It is written out once a second, since that costs as much as the rest of a reply.
fn write_date(out: &mut Vec<u8>) {
    thread_local! {
        static DATE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    DATE.with_borrow_mut(|(second, text)| {
        if *second != now || text.is_empty() {
            *second = now;
            text.clear();
            let date = httpdate::HttpDate::from(UNIX_EPOCH + Duration::from_secs(now));
            // a string takes whatever it is given
            let _ = write!(text, "{date}");
        }
        out.extend_from_slice(text.as_bytes());
    });
}

/// The reason phrase of a status.
fn reason(status: u16) -> &'static str {
    actix_http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(reply: &ApiReply, is_head: bool, after: After) -> String {
        let mut out = Vec::new();
        encode(reply, is_head, after, &mut out);
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let (head, date) = head.rsplit_once("\r\ndate: ").unwrap();
        httpdate::parse_http_date(date).unwrap();
        format!("{head}|{body}")
    }

    #[test]
    fn a_reply_is_written_with_its_headers_and_its_length() {
        let reply = ApiReply::new(200, "text/plain", "hello").with_header("X-Some", "a b");
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-type: text/plain\r\nx-some: a b";
        assert_eq!(written(&reply, false, After::Lives), format!("{head}|hello"));
        assert_eq!(written(&reply, true, After::Lives), format!("{head}|"));
        assert_eq!(written(&reply, false, After::Closes), format!("{head}\r\nconnection: close|hello"));
        assert_eq!(written(&reply, false, After::LivesOn10), format!("{head}\r\nconnection: keep-alive|hello"));
        assert_eq!(written(&ApiReply::empty(204), false, After::Lives), "HTTP/1.1 204 No Content|");
        let empty = "HTTP/1.1 413 Payload Too Large\r\ncontent-length: 0|";
        assert_eq!(written(&ApiReply::empty(413), false, After::Lives), empty);
    }

    #[test]
    fn replies_beside_the_exchanges_are_as_they_always_were() {
        assert_eq!(go_on(), b"HTTP/1.1 100 Continue\r\n\r\n");
        assert!([go_on(), no_room()].iter().all(|raw| raw.len() == raw.capacity()));
        let refused = String::from_utf8(no_room()).unwrap();
        let (head, body) = refused.split_once("\r\n\r\n").unwrap();
        assert_eq!(
            head,
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 20\r\n\
             retry-after: 1\r\nconnection: close"
        );
        assert_eq!((body, body.len()), ("too many connections", 20));
        // the example of RFC 6455 §1.3
        let accept = SocketAccept::of("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(
            switching_protocols(&accept),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
        let chosen = switching_protocols(&accept.with_subprotocol(Some("phoenix".to_owned())));
        assert!(chosen.ends_with(b"xOo=\r\nSec-WebSocket-Protocol: phoenix\r\n\r\n"), "{chosen:?}");
    }

    #[test]
    fn no_value_ends_its_line() {
        for (name, value) in [("X", "a\r\nSet-Cookie: b"), ("X", "a\nb"), ("X", "\0"), ("X: y", "z"), ("X\r\n", "z")] {
            let reply = ApiReply::new(200, "text/plain", "hello").with_header(name, value);
            let empty = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0|";
            assert_eq!(written(&reply, false, After::Lives), empty, "{name:?}: {value:?}");
        }
    }
}
