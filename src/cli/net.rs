//! The network as a client sees it: servers as a person names them, TLS, one HTTP request, one WebSocket.

use std::{fmt, sync::Arc, time::Duration};

use actix_codec::Framed;
use actix_http::{
    ConnectionType, Method, RequestHead, RequestHeadType, StatusCode, Uri,
    body::BodySize,
    h1::{ClientCodec, Message, MessageType},
    header::{
        AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_VERSION, UPGRADE,
    },
    ws,
};
use anyhow::{Context, Result, anyhow, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName},
};

use super::one_line;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer that is read.
const MAX_ANSWER: usize = 64 << 20;
/// The largest message of a WebSocket.
pub(super) const MAX_MESSAGE: usize = 64 << 20;

/// A connection, with or without TLS.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// A WebSocket.
pub(super) type ClientSocket = Framed<Box<dyn Io>, ws::Codec>;

/// Where a server is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ServerAddress {
    tls: bool,
    host: String,
    port: u16,
    /// What its paths begin with, if a proxy in front asks for that.
    pub(super) prefix: String,
}

/// The reply of a server.
#[derive(Debug)]
pub(super) struct HttpAnswer {
    pub(super) status: StatusCode,
    /// On one line.
    pub(super) text: String,
    pub(super) body: Bytes,
}

/// A server would not open a WebSocket.
#[derive(Debug)]
pub(super) struct NotOpened(pub(super) HttpAnswer);

impl fmt::Display for NotOpened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it says {}: {}", self.0.status, self.0.text)
    }
}

impl std::error::Error for NotOpened {}

impl ServerAddress {
    /// The server at `url`.
    pub(super) fn parse(url: &str) -> Result<Self> {
        let wrong = || {
            anyhow!(
                "{url:?} is not the URL of a server; write it as in \"http://127.0.0.1:7777\" or \
                 \"https://push.example.com\" (ws:// and wss:// mean the same)"
            )
        };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("http" | "ws") => false,
            Some("https" | "wss") => true,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        // neither a user nor a port that is none
        let is_plain = authority == host || authority == format!("{host}:{port}");
        if host.is_empty() || uri.query().is_some() || !is_plain {
            return Err(wrong());
        }
        Ok(Self { tls, host: host.to_owned(), port, prefix: uri.path().trim_end_matches('/').to_owned() })
    }

    /// Send a request and read the answer. `key` is a push key.
    pub(super) async fn request(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        json: Option<String>,
    ) -> Result<HttpAnswer> {
        let mut head = self.head(method, path)?;
        head.set_connection_type(ConnectionType::Close);
        if let Some(key) = key {
            let bearer = HeaderValue::from_str(&format!("Bearer {key}"));
            head.headers_mut()
                .insert(AUTHORIZATION, bearer.context("the push key has characters that no header can have")?);
        }
        let size = json.as_ref().map_or(BodySize::None, |json| BodySize::Sized(json.len() as u64));
        if json.is_some() {
            head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        self.in_time(async {
            let mut http = Framed::new(self.connect().await?, ClientCodec::default());
            http.send((RequestHeadType::Owned(head), size).into()).await.context("the connection broke off")?;
            if let Some(json) = json {
                http.send(Message::Chunk(Some(json.into()))).await.context("the connection broke off")?;
            }
            answer(http).await
        })
        .await
    }

    /// Open a WebSocket.
    ///
    /// # Errors
    ///
    /// [`NotOpened`] if the server answers something else.
    pub(super) async fn open(&self, path: &str) -> Result<ClientSocket> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|error| anyhow!("this machine has no randomness to give: {error}"))?;
        let key = STANDARD.encode(nonce);
        let mut head = self.head(Method::GET, path)?;
        head.set_connection_type(ConnectionType::Upgrade);
        for (name, value) in [(UPGRADE, "websocket"), (SEC_WEBSOCKET_VERSION, "13"), (SEC_WEBSOCKET_KEY, &key)] {
            head.headers_mut().insert(name, HeaderValue::from_str(value)?);
        }
        self.in_time(async {
            let mut http = Framed::new(self.connect().await?, ClientCodec::default());
            http.send((RequestHeadType::Owned(head), BodySize::None).into())
                .await
                .context("the connection broke off")?;
            let head = http.next().await.context("it hung up without an answer")??;
            if head.status != StatusCode::SWITCHING_PROTOCOLS {
                return Err(NotOpened(body(head.status, http).await?).into());
            }
            let accept = head.headers().get(SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
            if accept != Some(&ws::hash_key(key.as_bytes())[..]) {
                bail!("its answer to the WebSocket handshake is not one");
            }
            Ok(http.into_map_codec(|_| ws::Codec::new().max_size(MAX_MESSAGE).client_mode()))
        })
        .await
    }

    fn head(&self, method: Method, path: &str) -> Result<RequestHead> {
        let mut head = RequestHead::default();
        head.method = method;
        head.uri = format!("{}{path}", self.prefix).parse().context("the path cannot be requested")?;
        let default_port = if self.tls { 443 } else { 80 };
        let host = if self.port == default_port { self.host.clone() } else { format!("{}:{}", self.host, self.port) };
        head.headers_mut().insert(HOST, HeaderValue::from_str(&host)?);
        head.headers_mut().insert(
            HeaderName::from_static("user-agent"),
            HeaderValue::from_static(concat!("wellhead/", env!("CARGO_PKG_VERSION"))),
        );
        Ok(head)
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let in_time = timeout(PATIENCE, work).await;
        in_time.map_err(|_| anyhow!("no answer within {} seconds", PATIENCE.as_secs()))?
    }

    async fn connect(&self) -> Result<Box<dyn Io>> {
        // an IPv6 address stands in brackets in a URL, and nowhere else
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, self.port)).await.context("cannot connect")?;
        if !self.tls {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(host.to_owned()).context("no certificate can be for that name")?;
        let stream = TlsConnector::from(Arc::new(trust()?)).connect(name, stream).await;
        Ok(Box::new(stream.context("TLS failed")?))
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}{}", if self.tls { "https" } else { "http" }, self.host, self.port, self.prefix)
    }
}

/// TLS as this machine trusts in it.
fn trust() -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        bail!(
            "this machine trusts in no certificate authority: install its package of them (ca-certificates), or name a \
             file in SSL_CERT_FILE"
        );
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().context("TLS cannot be set up")?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

async fn answer(mut http: Framed<Box<dyn Io>, ClientCodec>) -> Result<HttpAnswer> {
    let head = http.next().await.context("it hung up without an answer")??;
    body(head.status, http).await
}

async fn body(status: StatusCode, http: Framed<Box<dyn Io>, ClientCodec>) -> Result<HttpAnswer> {
    let mut body = Vec::new();
    if !matches!(http.codec_ref().message_type(), MessageType::None) {
        let mut chunks = http.into_map_codec(ClientCodec::into_payload_codec);
        while let Some(Some(chunk)) = chunks.next().await.transpose().context("its answer broke off")? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER {
                bail!("its answer is longer than {MAX_ANSWER} bytes");
            }
        }
    }
    let text = one_line(&String::from_utf8_lossy(&body));
    Ok(HttpAnswer { status, text, body: body.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_with_or_without_tls_a_port_and_a_path() {
        for (url, shown) in [
            ("http://h:1/", "http://h:1"),
            ("ws://h:1", "http://h:1"),
            ("http://h", "http://h:80"),
            ("https://h", "https://h:443"),
            ("wss://push.example.com/wellhead/", "https://push.example.com:443/wellhead"),
            ("http://[::1]:7777", "http://[::1]:7777"),
        ] {
            assert_eq!(ServerAddress::parse(url).unwrap().to_string(), shown);
        }
        for bad in ["h:1", "", "http://", "ftp://h", "http://u:p@h", "http://h?x=1", "http://h:99999", "/x"] {
            let error = ServerAddress::parse(bad).unwrap_err().to_string();
            assert!(error.contains("http://127.0.0.1:7777"), "{bad:?}: {error}");
        }
    }
}
