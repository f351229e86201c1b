//! A server that somebody else runs, as a text says: `name=soketi,protocol=pusher,ws=127.0.0.1:6001,http=127.0.0.1:6001,
//! pid=1234,id=1,key=app-key,secret=app-secret`.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    str::FromStr,
};

use anyhow::{Context, Error, Result, bail};

use crate::load::{BenchApp, ServerProtocol, TokenSource};

/// A server that runs already.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerServer {
    /// What its column is called.
    pub name: String,
    /// What it speaks.
    pub protocol: ServerProtocol,
    /// Where sockets are opened.
    pub ws: SocketAddr,
    /// Where backends push.
    pub http: SocketAddr,
    /// Its process; without it there is nothing to say about processor time and memory.
    pub pid: Option<u32>,
    /// With gusher's protocol: what stands in `?token=`.
    pub token: Option<String>,
}

impl PeerServer {
    /// How its sockets prove who they are.
    pub fn tokens(&self) -> TokenSource {
        self.token.clone().map_or(TokenSource::None, TokenSource::Given)
    }
}

impl FromStr for PeerServer {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        const KNOWN: [&str; 9] = ["name", "protocol", "ws", "http", "pid", "id", "key", "secret", "token"];
        let mut fields = Vec::new();
        for field in text.split(',') {
            let (name, value) = field.trim().split_once('=').context("a peer is a list of name=value")?;
            if !KNOWN.contains(&name) {
                bail!("a peer has no \"{name}\", only {}", KNOWN.join(", "));
            }
            fields.push((name, value));
        }
        let find = |name: &str| fields.iter().find(|(one, _)| *one == name).map(|(_, value)| (*value).to_owned());
        let need = |name: &str| find(name).with_context(|| format!("a peer needs {name}=…"));
        let address = |name: &str| -> Result<SocketAddr> {
            let text = need(name)?;
            text.to_socket_addrs()?.find(SocketAddr::is_ipv4).with_context(|| format!("{text} is no IPv4 address"))
        };
        let protocol = match need("protocol")?.as_str() {
            "gusher" => ServerProtocol::Gusher,
            "raw" => ServerProtocol::Raw,
            "nchan" => ServerProtocol::Nchan,
            "pusher" => {
                ServerProtocol::Pusher(BenchApp { id: need("id")?, key: need("key")?, secret: need("secret")? })
            }
            other => bail!("\"{other}\" is none of the protocols gusher, raw, nchan, pusher"),
        };
        Ok(Self {
            name: need("name")?,
            protocol,
            ws: address("ws")?,
            http: address("http")?,
            pid: find("pid").map(|pid| pid.parse()).transpose()?,
            token: find("token"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_what_its_text_says() {
        let peer: PeerServer =
            "name=soketi,protocol=pusher,ws=127.0.0.1:6001,http=127.0.0.1:6002,pid=7,id=1,key=k,secret=s"
                .parse()
                .unwrap();
        let app = BenchApp { id: "1".into(), key: "k".into(), secret: "s".into() };
        assert_eq!((peer.protocol, peer.http.port(), peer.pid), (ServerProtocol::Pusher(app), 6002, Some(7)));
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        for (text, word) in [
            ("name=x,protocol=raw,ws=127.0.0.1:1", "http"),
            ("name=x,protocol=pusher,ws=127.0.0.1:1,http=127.0.0.1:1,id=1,key=k", "secret"),
            ("name=x,protocol=smoke", "smoke"),
            ("name=x,colour=red", "colour"),
        ] {
            let error = text.parse::<PeerServer>().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
