//! A connection that is kept alive, with one request under way.

use std::{
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
};

use anyhow::{Context, Result, ensure};
use mio::net::TcpStream;
use serde_json::Value;

use crate::wire;

/// The connection.
pub struct LoadHttp {
    /// The stream below.
    pub stream: TcpStream,
    host: SocketAddr,
    unread: Vec<u8>,
    request: Vec<u8>,
}

impl LoadHttp {
    /// A connection to `host`.
    pub fn connect(host: SocketAddr) -> Result<Self> {
        let stream = std::net::TcpStream::connect(host)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream: TcpStream::from_std(stream), host, unread: Vec::new(), request: Vec::new() })
    }

    /// Send a request.
    pub fn ask(&mut self, method: &str, target: &str, body: &[u8]) -> Result<()> {
        self.request.clear();
        write!(
            self.request,
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.host,
            body.len()
        )?;
        self.request.extend_from_slice(body);
        let sent = self.stream.write(&self.request)?;
        ensure!(sent == self.request.len(), "a request did not fit into the kernel's buffer");
        Ok(())
    }

    /// The status and body of the reply, once it is there.
    pub fn reply(&mut self) -> Result<Option<(u16, Vec<u8>)>> {
        let mut scratch = [0; 16 << 10];
        loop {
            match self.stream.read(&mut scratch) {
                Ok(0) => anyhow::bail!("the server hung up on a publisher"),
                Ok(read) => {
                    self.unread.extend_from_slice(&scratch[..read]);
                    if read < scratch.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        let Some(reply) = wire::reply(&self.unread) else { return Ok(None) };
        let (answer, length) = ((reply.status, reply.body.to_vec()), reply.length);
        self.unread.drain(..length);
        Ok(Some(answer))
    }
}

/// The token in the body of a reply to `/v1/auth`.
pub fn token_of(body: &[u8]) -> Result<String> {
    let body: Value = serde_json::from_slice(body)?;
    Ok(body["token"].as_str().context("a token is a string")?.to_owned())
}
