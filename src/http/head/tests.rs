use super::*;

/// What a connection makes of `bytes` that arrive one by one.
fn scan(bytes: &[u8]) -> Result<Option<usize>, BadHead> {
    let mut scanner = HeadScanner::default();
    for end in 1..=bytes.len() {
        let found = scanner.find_end(&bytes[..end]);
        if found != Ok(None) {
            return found;
        }
    }
    Ok(None)
}

fn parse(head: &str) -> Result<RequestHead<'_>, BadHead> {
    RequestHead::parse(head.as_bytes())
}

/// The error for a GET with these lines.
fn refused(lines: &str) -> Option<BadHead> {
    parse(&format!("POST / HTTP/1.1\r\n{lines}\r\n")).err()
}

fn is_malformed(error: Option<BadHead>) -> bool {
    matches!(error, Some(BadHead::Malformed(_)))
}

#[test]
fn the_end_is_found_whatever_the_pieces() {
    for head in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\nHost: x\n\n", "GET / HTTP/1.1\r\nHost: x\n\r\n"]
    {
        let length = Ok(Some(head.len()));
        assert_eq!(scan(head.as_bytes()), length, "{head:?}");
        let followed = format!("{head}GET /next HTTP/1.1\r\n\r\n");
        assert_eq!(HeadScanner::default().find_end(followed.as_bytes()), length, "{head:?}");
        assert!(parse(head).is_ok(), "{head:?}");
    }
    assert_eq!(scan(b"GET / HTTP/1.1\r\nHost: x\r\n\r"), Ok(None));
}

#[test]
fn a_head_is_bounded_while_it_arrives() {
    let fill = |length: usize| "a".repeat(length);
    for (what, bytes, error) in [
        ("a target", format!("GET /{}", fill(HEAD_LIMIT)), BadHead::TargetTooLong),
        ("a query", format!("GET /?{} HTTP/1.1\r\n\r\n", fill(HEAD_LIMIT)), BadHead::TargetTooLong),
        ("a method", fill(100_000), BadHead::TooLarge),
        ("a header", format!("GET / HTTP/1.1\r\nX: {}", fill(HEAD_LIMIT)), BadHead::TooLarge),
        ("a header's name", format!("GET / HTTP/1.1\r\n{}: x", fill(65_536)), BadHead::TooLarge),
        ("headers", format!("GET / HTTP/1.1\r\n{}", "X: y\r\n".repeat(10_000)), BadHead::TooLarge),
    ] {
        assert_eq!(scan(bytes.as_bytes()), Err(error), "{what}");
        assert_eq!(HeadScanner::default().find_end(bytes.as_bytes()), Err(error), "{what}, at once");
        let short = &bytes.as_bytes()[..HEAD_LIMIT - 1];
        assert_eq!(HeadScanner::default().find_end(short), Ok(None), "{what}, as far as it may come");
    }
    let exact = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", fill(HEAD_LIMIT - 32));
    assert_eq!((exact.len(), scan(exact.as_bytes())), (HEAD_LIMIT, Ok(Some(HEAD_LIMIT))));
    assert!(parse(&exact).is_ok());
}

#[test]
fn a_head_says_what_is_asked_and_how_its_body_comes() {
    let head =
        parse("POST /a/b?c=d?e HTTP/1.1\r\nHost: h:1\r\nContent-Length: 12\r\nX-A: one\r\nx-a: two\r\n\r\n").unwrap();
    let seen = head.head();
    assert_eq!((seen.method, seen.path, seen.query, seen.version), ("POST", "/a/b", "c=d?e", HttpVersion::Http11));
    assert_eq!(seen.headers.header("x-a"), Some("one"));
    let mut both = Vec::new();
    seen.headers.values("x-a", &mut |value| both.push(value.to_vec()));
    assert_eq!(both, [b"one", b"two"]);
    assert_eq!((seen.headers.header("x-b"), head.framing), (None, Framing::Length(12)));
    assert!(head.keep_alive && !head.expects_continue && !head.asks_for_websocket);

    let head =
        parse("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\nExpect: 100-continue\r\n\r\n").unwrap();
    assert_eq!((head.framing, head.expects_continue), (Framing::Chunked, true));
    let head = parse("GET / HTTP/1.1\r\nHost: h\r\nUpgrade: h2c, WebSocket\r\nConnection: close\r\n\r\n").unwrap();
    assert!(head.asks_for_websocket && !head.keep_alive);
}

#[test]
fn a_connection_lives_as_its_version_says() {
    for (line, lives) in [
        ("HTTP/1.0\r\n", false),
        ("HTTP/1.0\r\nConnection: Keep-Alive\r\n", true),
        ("HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\n", true),
        ("HTTP/1.1\r\nHost: h\r\nConnection: x, Close\r\n", false),
    ] {
        assert_eq!(parse(&format!("GET / {line}\r\n")).unwrap().keep_alive, lives, "{line:?}");
    }
}

#[test]
fn bodies_that_two_readers_could_take_for_two_are_refused() {
    for lines in [
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x1\r\n",
        "Content-Length:\r\n",
        "Content-Length: 1 2\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length : 5\r\n",
        "X: a\r\n b\r\n",
    ] {
        assert!(is_malformed(refused(&format!("Host: h\r\n{lines}"))), "{lines:?}");
    }
    for coding in ["gzip", "chunked, chunked", "gzip, chunked", "identity", "", "xchunked"] {
        let error = refused(&format!("Host: h\r\nTransfer-Encoding: {coding}\r\n"));
        assert_eq!(error, Some(BadHead::UnknownCoding), "{coding:?}");
    }
    assert!(is_malformed(parse("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").err()));
}

#[test]
fn a_host_is_one_host() {
    for host in ["", "h", "h:80", "h:", "127.0.0.1:7777", "[::1]", "[::1]:80", "a-b.example", "x_y", "%41", "a.b."] {
        assert_eq!(refused(&format!("Host: {host}\r\n")), None, "{host:?}");
    }
    for host in [
        "user@h", "h/x", "a b", "<x>", "a,b", "h:80:90", "h:x", ":80", "[::1", "[::1]x", "[x]", "h\\x", "h?x", "h#x",
        "\"h\"", "h\u{e9}",
    ] {
        assert!(is_malformed(refused(&format!("Host: {host}\r\n"))), "{host:?}");
    }
    assert!(is_malformed(refused("Host: a\r\nHost: a\r\n")));
    assert!(is_malformed(refused("X: a\r\n")), "HTTP/1.1 needs one");
    assert!(parse("GET / HTTP/1.0\r\n\r\n").is_ok(), "HTTP/1.0 has none");
}

#[test]
fn targets_have_the_forms_that_http_gives_them() {
    let both = |line: &str| {
        let head = format!("{line} HTTP/1.1\r\nHost: h:1\r\n\r\n");
        parse(&head).map(|head| (head.path.to_owned(), head.query.to_owned()))
    };
    let is = |path: &str, query: &str| Ok((path.to_owned(), query.to_owned()));
    assert_eq!(both("GET http://h:1/a?b"), is("/a", "b"));
    assert_eq!(both("GET http://H:1/a"), is("/a", ""));
    assert_eq!(both("GET HTTP://h:1?b"), is("/", "b"));
    assert_eq!(both("GET https://h:1"), is("/", ""));
    assert_eq!(both("OPTIONS *"), is("*", ""));
    assert_eq!(both("GET //a/b"), is("//a/b", ""));
    for line in [
        "GET *",
        "GET a",
        "GET http://other/a",
        "GET http://h/a",
        "GET http:///a",
        "CONNECT h:1",
        "GET /a#b",
        "GET ftp://h:1/",
    ] {
        assert!(is_malformed(both(line).err()), "{line}");
    }
    assert!(is_malformed(both("GET /\u{e4}").err()));
}

#[test]
fn what_is_no_http_is_refused() {
    assert!(is_malformed(scan(b"\x16\x03\x01\x02").err()), "TLS hears so at once");
    for head in [
        "GET\r\n\r\n",
        "GET / HTTP/3.0\r\nHost: h\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
        "\x16\x03\x01\r\n\r\n",
    ] {
        assert!(is_malformed(parse(head).err()), "{head:?}");
    }
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(97));
    assert_eq!(parse(&many).err(), Some(BadHead::TooLarge));
}
