//! The head of a request, from the bytes of its connection: bounded while it arrives, then parsed and judged by
//! RFC 9112 §2 to §6. Pure: no sockets, no clock.

use std::str;

use memchr::{memchr, memchr_iter};
use smallvec::SmallVec;
use wellhead_proto::{
    dialect::contract::{ApiReply, Headers},
    http_api::{Head, HttpVersion, text},
};

/// The largest request head, in bytes, with the ends of its lines.
pub const HEAD_LIMIT: usize = 16 << 10;
/// How many header lines a head may have.
const MAX_HEADERS: usize = 96;

/// Why a request head is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BadHead {
    /// The request line does not fit, because of its target.
    TargetTooLong,
    /// It does not fit.
    TooLarge,
    /// It breaks HTTP's rules.
    Malformed(&'static str),
    /// It asks for a transfer coding that we do not know.
    UnknownCoding,
}

impl BadHead {
    /// The reply to its sender.
    #[must_use]
    pub fn reply(self) -> ApiReply {
        match self {
            Self::TargetTooLong => text(414, "the address is too long"),
            Self::TooLarge => text(431, "the request head is too large"),
            Self::Malformed(why) => text(400, why),
            Self::UnknownCoding => text(501, "the only transfer coding here is chunked"),
        }
    }
}

/// Looks for the end of one head while its bytes arrive.
#[derive(Debug, Default)]
pub struct HeadScanner {
    /// No end of a head begins before this place.
    seen: usize,
}

impl HeadScanner {
    /// Has it seen nothing that matters?
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.seen == 0
    }

    /// The length of the head at the beginning of `bytes`, once all of it is there. Called again with more bytes, it
    /// looks at the new ones only.
    ///
    /// # Errors
    ///
    /// It does not fit into [`HEAD_LIMIT`], or is no head from its first byte on.
    pub fn find_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, BadHead> {
        // whoever speaks TLS, or anything else, need not wait for the time of a head to be over
        if bytes.first().is_some_and(|first| !first.is_ascii_graphic()) {
            return Err(BadHead::Malformed("this is no HTTP request"));
        }
        let window = &bytes[..bytes.len().min(HEAD_LIMIT)];
        for at in memchr_iter(b'\n', &window[self.seen..]) {
            let line = self.seen + at + 1;
            match window[line..] {
                [b'\n', ..] => return Ok(Some(line + 1)),
                [b'\r', b'\n', ..] => return Ok(Some(line + 2)),
                _ => {}
            }
        }
        if bytes.len() >= HEAD_LIMIT {
            return Err(too_large(window));
        }
        // the last three bytes may be the beginning of an end
        self.seen = window.len().saturating_sub(3);
        Ok(None)
    }
}

/// What of a head does not fit.
fn too_large(head: &[u8]) -> BadHead {
    let line = &head[..memchr(b'\n', head).unwrap_or(head.len())];
    let is_whole = line.len() < head.len();
    match memchr(b' ', line) {
        Some(_) if !is_whole => BadHead::TargetTooLong,
        _ => BadHead::TooLarge,
    }
}

/// What follows a head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    /// A body of so many bytes; 0 is none.
    Length(u64),
    /// A body in chunks.
    Chunked,
}

/// A request head that HTTP allows.
#[derive(Debug)]
pub struct RequestHead<'b> {
    /// `GET`, `POST`, …
    pub method: &'b str,
    /// The path, percent-encoded.
    pub path: &'b str,
    /// The query string, without `?`.
    pub query: &'b str,
    /// The version of HTTP.
    pub version: HttpVersion,
    /// The body behind it.
    pub framing: Framing,
    /// May the connection serve another request?
    pub keep_alive: bool,
    /// The client sends its body only when it is told to.
    pub expects_continue: bool,
    /// It asks for a WebSocket, or would take one (RFC 9110 §7.8): what serves no sockets serves the request instead.
    pub asks_for_websocket: bool,
    headers: HeaderLines<'b>,
}

impl<'b> RequestHead<'b> {
    /// Read a whole head, as [`HeadScanner`] found it.
    ///
    /// # Errors
    ///
    /// HTTP does not allow it.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, BadHead> {
        let mut room = [const { std::mem::MaybeUninit::uninit() }; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(bytes, &mut room) {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Ok(_) => return Err(BadHead::Malformed("the request head is malformed")),
            Err(httparse::Error::TooManyHeaders) => return Err(BadHead::TooLarge),
            Err(httparse::Error::Version) => return Err(BadHead::Malformed("the version is not HTTP/1.0 or HTTP/1.1")),
            Err(_) => return Err(BadHead::Malformed("the request head is malformed")),
        }
        let version = if request.version == Some(0) { HttpVersion::Http10 } else { HttpVersion::Http11 };
        let method = request.method.unwrap_or_default();
        let headers = HeaderLines(request.headers.iter().map(|line| (line.name, line.value)).collect());
        let facts = HeadFacts::of(&headers, version)?;
        let (path, query) = target(method, request.path.unwrap_or_default(), facts.host)?;
        Ok(Self {
            method,
            path,
            query,
            version,
            framing: facts.framing()?,
            keep_alive: facts.keep_alive,
            expects_continue: facts.expects_continue,
            asks_for_websocket: facts.asks_for_websocket,
            headers,
        })
    }

    /// The same for those who answer it.
    #[must_use]
    pub fn head(&self) -> Head<'_> {
        let Self { version, method, path, query, ref headers, .. } = *self;
        Head { version, method, path, query, headers }
    }
}

/// The header lines of a request, in their order.
#[derive(Debug)]
struct HeaderLines<'b>(SmallVec<[(&'b str, &'b [u8]); 12]>);

impl HeaderLines<'_> {
    fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let is = move |given: &str| given.len() == name.len() && given.eq_ignore_ascii_case(name);
        self.0.iter().filter(move |(given, _)| is(given)).map(|(_, value)| *value)
    }
}

impl Headers for HeaderLines<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        let value = self.all(name).next()?;
        let is_text = value.iter().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e));
        if is_text { str::from_utf8(value).ok() } else { None }
    }

    fn values(&self, name: &str, visit: &mut dyn FnMut(&[u8])) {
        self.all(name).for_each(visit);
    }
}

/// What the lines say that HTTP itself has to know.
struct HeadFacts<'b> {
    host: Option<&'b [u8]>,
    length: Option<u64>,
    chunked: bool,
    keep_alive: bool,
    expects_continue: bool,
    asks_for_websocket: bool,
}

impl<'b> HeadFacts<'b> {
    fn of(headers: &HeaderLines<'b>, version: HttpVersion) -> Result<Self, BadHead> {
        let mut facts = Self {
            host: None,
            length: None,
            chunked: false,
            keep_alive: version == HttpVersion::Http11,
            expects_continue: false,
            asks_for_websocket: false,
        };
        for (name, value) in &headers.0 {
            // most names are told apart by their length
            match name.len() {
                4 if name.eq_ignore_ascii_case("host") => facts.host(value)?,
                6 if name.eq_ignore_ascii_case("expect") => {
                    // RFC 9110 §10.1.1: one of an HTTP/1.0 client is ignored
                    facts.expects_continue =
                        version == HttpVersion::Http11 && value.eq_ignore_ascii_case(b"100-continue");
                }
                7 if name.eq_ignore_ascii_case("upgrade") => {
                    facts.asks_for_websocket |= tokens(value).any(|token| token.eq_ignore_ascii_case(b"websocket"));
                }
                10 if name.eq_ignore_ascii_case("connection") => {
                    for token in tokens(value) {
                        if token.eq_ignore_ascii_case(b"close") {
                            facts.keep_alive = false;
                        } else if version == HttpVersion::Http10 && token.eq_ignore_ascii_case(b"keep-alive") {
                            facts.keep_alive = true;
                        }
                    }
                }
                14 if name.eq_ignore_ascii_case("content-length") => facts.length(value)?,
                17 if name.eq_ignore_ascii_case("transfer-encoding") => facts.coding(value, version)?,
                _ => {}
            }
        }
        if facts.host.is_none() && version == HttpVersion::Http11 {
            return Err(BadHead::Malformed("one Host header is needed"));
        }
        Ok(facts)
    }

    fn host(&mut self, value: &'b [u8]) -> Result<(), BadHead> {
        if self.host.replace(value).is_some() {
            return Err(BadHead::Malformed("one Host header is needed, not several"));
        }
        if is_host(value) { Ok(()) } else { Err(BadHead::Malformed("the Host header names no host")) }
    }

    fn length(&mut self, value: &[u8]) -> Result<(), BadHead> {
        // more than 18 digits are no length of this world, and would not fit
        let digits = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
        let length = str::from_utf8(value).ok().filter(|_| digits).and_then(|value| value.parse().ok());
        match length {
            Some(length) if self.length.is_none() => self.length = Some(length),
            _ => return Err(BadHead::Malformed("Content-Length must be one number")),
        }
        Ok(())
    }

    fn coding(&mut self, value: &[u8], version: HttpVersion) -> Result<(), BadHead> {
        if version == HttpVersion::Http10 {
            return Err(BadHead::Malformed("HTTP/1.0 has no Transfer-Encoding"));
        }
        if self.chunked {
            return Err(BadHead::Malformed("chunked must be the only Transfer-Encoding"));
        }
        self.chunked = value.eq_ignore_ascii_case(b"chunked");
        if self.chunked { Ok(()) } else { Err(BadHead::UnknownCoding) }
    }

    fn framing(&self) -> Result<Framing, BadHead> {
        match (self.chunked, self.length) {
            // two readers could take two different bodies from it
            (true, Some(_)) => Err(BadHead::Malformed("Content-Length and Transfer-Encoding exclude each other")),
            (true, None) => Ok(Framing::Chunked),
            (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }
}

/// The parts of a list between commas.
fn tokens(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

/// The path and the query of a target (RFC 9112 §3.2).
fn target<'b>(method: &str, target: &'b str, host: Option<&[u8]>) -> Result<(&'b str, &'b str), BadHead> {
    let malformed = Err(BadHead::Malformed("the address of the request is malformed"));
    if !target.bytes().all(|byte| matches!(byte, 0x21..=0x7e) && byte != b'#') {
        return malformed;
    }
    if target.starts_with('/') {
        return Ok(target.split_once('?').unwrap_or((target, "")));
    }
    if method == "OPTIONS" && target == "*" {
        return Ok((target, ""));
    }
    let scheme = |scheme: &str| {
        let begin = target.get(..scheme.len()).filter(|begin| begin.eq_ignore_ascii_case(scheme));
        begin.map(|begin| &target[begin.len()..])
    };
    let Some(rest) = scheme("http://").or_else(|| scheme("https://")) else { return malformed };
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let is_same = host.is_some_and(|host| host.eq_ignore_ascii_case(authority.as_bytes()));
    // it overrides the Host (RFC 9112 §3.2.2): two that differ could mean two things to two readers
    if authority.is_empty() || !is_host(authority.as_bytes()) || !is_same {
        return Err(BadHead::Malformed("the address and the Host header differ"));
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    Ok((if path.is_empty() { "/" } else { path }, query))
}

/// Is it a host with or without a port, as RFC 9112 §3.2 wants it, or nothing? A comma, though allowed in names, is how two
/// hosts look that somebody has joined.
fn is_host(host: &[u8]) -> bool {
    let end = match host {
        [b'[', ..] => match memchr(b']', host) {
            Some(end) if host[1..end].iter().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(byte)) => end + 1,
            _ => return false,
        },
        _ => memchr(b':', host).unwrap_or(host.len()),
    };
    let (name, port) = host.split_at(end);
    let is_literal = name.first() == Some(&b'[');
    let in_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%".contains(byte);
    (is_literal || name.iter().all(in_name))
        && match port {
            [] => true,
            [b':', digits @ ..] => !name.is_empty() && digits.iter().all(u8::is_ascii_digit),
            _ => false,
        }
}

#[cfg(test)]
mod tests;
