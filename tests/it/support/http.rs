//! A plain HTTP/1.1 client that sends what it is told, byte for byte, and reads what comes.

use std::{fmt::Write as _, net::SocketAddr};

use bytes::{Buf, BytesMut};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{encoded, within};

/// One connection.
pub struct Http {
    stream: TcpStream,
    unread: BytesMut,
    address: SocketAddr,
    /// The last reply said that it closes the connection.
    over: bool,
}

/// What came back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    /// The value of the first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body, which is text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    /// The body, which is JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Status and text, to compare with.
    pub fn is(&self) -> (u16, &str) {
        (self.status, self.text())
    }
}

impl Http {
    pub async fn to(address: SocketAddr) -> Self {
        let stream = within("the listener accepts", TcpStream::connect(address)).await.expect("it listens");
        stream.set_nodelay(true).expect("TCP");
        Self { stream, unread: BytesMut::new(), address, over: false }
    }

    pub async fn get(&mut self, path: &str) -> Reply {
        self.call("GET", path, &[], "").await
    }

    pub async fn form(&mut self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let body: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        self.call("POST", path, &[("Content-Type", "application/x-www-form-urlencoded")], &body.join("&")).await
    }

    pub async fn json(&mut self, method: &str, path: &str, body: &str) -> Reply {
        self.call(method, path, &[("Content-Type", "application/json")], body).await
    }

    /// One request; on a fresh connection if the last reply ended this one.
    pub async fn call(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        if self.over {
            *self = Self::to(self.address).await;
        }
        let request = self.request(method, path, headers, body);
        self.exchange(request.as_bytes()).await
    }

    /// The bytes of a request. A `Host` among the headers replaces the right one.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
        let mut request = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            let _ = write!(request, "Host: {}\r\n", self.address);
        }
        for (name, value) in headers {
            let _ = write!(request, "{name}: {value}\r\n");
        }
        if !body.is_empty() || method == "POST" || method == "PUT" {
            let _ = write!(request, "Content-Length: {}\r\n", body.len());
        }
        request + "\r\n" + body
    }

    /// Send bytes while reading the reply, which may come before all of them are taken.
    pub async fn exchange(&mut self, bytes: &[u8]) -> Reply {
        let (mut reader, mut writer) = self.stream.split();
        let unread = &mut self.unread;
        let reply = async {
            // a server that refuses early may stop reading: what counts is whether its reply arrives
            let (_, reply) = tokio::join!(writer.write_all(bytes), read_reply(&mut reader, unread));
            reply
        };
        let reply = within("a reply", reply).await;
        self.over = reply.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        reply
    }

    /// Send bytes without waiting for anything.
    pub async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        within("the server takes the bytes", self.stream.write_all(bytes)).await
    }

    /// The status line of an interim reply, which has no body.
    pub async fn continues(&mut self) -> String {
        let (mut reader, _) = self.stream.split();
        let head = within("an interim reply", read_head(&mut reader, &mut self.unread)).await;
        head.trim_end().to_owned()
    }

    /// The next reply.
    pub async fn reply(&mut self) -> Reply {
        let (mut reader, _) = self.stream.split();
        within("a reply", read_reply(&mut reader, &mut self.unread)).await
    }

    /// The bare connection.
    pub fn into_parts(self) -> (TcpStream, BytesMut) {
        (self.stream, self.unread)
    }
}

async fn read_head(from: &mut (impl AsyncReadExt + Unpin), unread: &mut BytesMut) -> String {
    let end = loop {
        if let Some(end) = unread.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        more(from, unread).await.expect("a whole head");
    };
    String::from_utf8(unread.split_to(end).to_vec()).expect("a head is text")
}

async fn read_reply(from: &mut (impl AsyncReadExt + Unpin), unread: &mut BytesMut) -> Reply {
    let head = read_head(from, unread).await;
    let mut lines = head.trim_end().split("\r\n");
    let status_line = lines.next().expect("a status line");
    let status = status_line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|code| code.parse().ok());
    let status: u16 = status.unwrap_or_else(|| panic!("{status_line:?}"));
    let headers: Vec<_> = lines
        .map(|line| line.split_once(':').unwrap_or_else(|| panic!("a header: {line:?}")))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let mut reply = Reply { status, headers, body: Vec::new() };
    if reply.header("transfer-encoding").is_some() {
        reply.body = read_chunks(from, unread).await;
    } else if let Some(length) = reply.header("content-length") {
        let length: usize = length.parse().expect("a length");
        while unread.len() < length {
            more(from, unread).await.expect("a whole body");
        }
        reply.body = unread.split_to(length).to_vec();
    } else if !matches!(status, 101 | 204 | 304) {
        while more(from, unread).await.is_ok() {}
        reply.body = unread.split().to_vec();
    }
    reply
}

async fn read_chunks(from: &mut (impl AsyncReadExt + Unpin), unread: &mut BytesMut) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = unread.windows(2).position(|two| two == b"\r\n") {
                break end;
            }
            more(from, unread).await.expect("the length of a chunk");
        };
        let length = usize::from_str_radix(std::str::from_utf8(&unread[..end]).expect("text"), 16).expect("a length");
        unread.advance(end + 2);
        while unread.len() < length + 2 {
            more(from, unread).await.expect("a whole chunk");
        }
        body.extend_from_slice(&unread.split_to(length));
        unread.advance(2);
        if length == 0 {
            return body;
        }
    }
}

async fn more(from: &mut (impl AsyncReadExt + Unpin), unread: &mut BytesMut) -> Result<(), String> {
    match from.read_buf(unread).await {
        Ok(0) => Err(format!("the connection ended after {unread:?}")),
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{error} after {} bytes", unread.len())),
    }
}
