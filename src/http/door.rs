//! The door: every HTTP request to any role comes through here. Too large or too slow, it is turned away; otherwise the
//! role's surface sees its head, then its body, and what it replies goes out.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use actix_http::{
    BoxedPayloadStream, RequestHead, Response, StatusCode, Version,
    body::BoxBody,
    header::{HeaderMap, HeaderName},
};
use actix_web::{HttpRequest, HttpResponse, http::header, web};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, future::poll_immediate};
use log::debug;
use wellhead_proto::{
    dialect::contract::{ApiReply, Headers},
    refusal::Refusal,
    surface::{Head, HttpVersion, Surface, text},
};

use super::{body::HoldingBody, metrics::Requests, try_page::TryPage};
use crate::health::Health;

/// The largest request head, in bytes.
pub const HEAD_LIMIT: usize = 16 << 10;
/// How long a body may take.
pub const BODY_TIME: Duration = Duration::from_secs(30);

/// The door of one listener.
#[derive(Clone)]
pub struct Door<S> {
    /// What stands behind it.
    pub surface: S,
    /// Answers for the process.
    pub health: Health,
    /// Counts what goes through.
    pub requests: Requests,
    /// The page of development mode.
    pub page: Option<TryPage>,
    /// How long a body may take.
    pub body_time: Duration,
}

impl<S: Surface> Door<S> {
    /// The door to `surface`.
    pub fn new(surface: S, health: Health, requests: Requests) -> Self {
        Self { surface, health, requests, page: None, body_time: BODY_TIME }
    }

    /// The same, and the page of development mode if there is one.
    #[must_use]
    pub fn with_page(self, page: Option<TryPage>) -> Self {
        Self { page, ..self }
    }

    /// One request, from its head to its reply.
    pub async fn answer(&self, request: HttpRequest, payload: web::Payload) -> HttpResponse {
        let started = Instant::now();
        let (reply, unread) = self.reply(&request, payload).await;
        let took = started.elapsed();
        let (method, path) = (request.method().as_str(), request.uri().path());
        self.requests.count(method, reply.status, took);
        debug!(
            role = self.requests.role(), method, path, status = reply.status, duration_us = took.as_micros() as u64;
            "{method} {path}: {}", reply.status
        );
        HttpResponse::from(response(reply, unread))
    }

    /// May the body of this request come, or is the answer known without it?
    ///
    /// # Errors
    ///
    /// The answer.
    pub fn expect(&self, request: &RequestHead) -> Result<(), Response<BoxBody>> {
        let headers = Fields(&request.headers);
        let head = head(request, &headers);
        self.check_head(&request.uri, &request.headers).map_err(|reply| response(reply, None))?;
        if self.health.answer(head).is_some() {
            return Ok(());
        }
        let refused = match self.surface.admit(head) {
            Err(reply) => reply,
            Ok(admitted) => match declared_length(&request.headers) {
                Some(length) if length > self.surface.body_limit() as u64 => {
                    self.surface.refuse(&admitted, &too_large(self.surface.body_limit()))
                }
                _ => return Ok(()),
            },
        };
        Err(response(refused, None))
    }

    /// Is the head within its bounds?
    ///
    /// # Errors
    ///
    /// The reply that says no.
    pub fn check_head(&self, uri: &actix_web::http::Uri, headers: &HeaderMap) -> Result<(), ApiReply> {
        let line = uri.path_and_query().map_or(0, |line| line.as_str().len());
        if line > HEAD_LIMIT {
            return Err(text(414, "the address is too long"));
        }
        // an absolute address overrides the Host (RFC 9112 §3.2.2): two that differ could mean two things to two
        // readers
        let host = headers.get(header::HOST).map(|host| host.as_bytes());
        if uri.authority().is_some_and(|authority| host.is_some_and(|host| host != authority.as_str().as_bytes())) {
            return Err(text(400, "the address and the Host header differ"));
        }
        // a name, a colon, a blank, a value and the end of the line
        let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if line + fields > HEAD_LIMIT {
            return Err(text(431, "the request head is too large"));
        }
        Ok(())
    }

    /// The reply, and what of the body was not read.
    async fn reply(&self, request: &HttpRequest, payload: web::Payload) -> (ApiReply, Option<BoxedPayloadStream>) {
        let mut payload: BoxedPayloadStream = Box::pin(payload.into_inner());
        let headers = Fields(request.headers());
        let head = head(request.head(), &headers);
        if let Err(reply) = self.check_head(request.uri(), request.headers()) {
            return (reply, Some(payload));
        }
        let page = || self.page.as_ref().and_then(|page| page.answer(head));
        if let Some(reply) = self.health.answer(head).or_else(page) {
            return (reply, Some(payload));
        }
        let admitted = match self.surface.admit(head) {
            Ok(admitted) => admitted,
            Err(reply) => return (reply, Some(payload)),
        };
        // what follows the head of an upgrade that nobody takes is no body: it would never end
        let body = if is_endless(request) {
            Ok(Bytes::new())
        } else {
            self.body(&mut payload, declared_length(request.headers())).await
        };
        match body {
            Ok(body) => (self.surface.serve(admitted, head, body).await, None),
            Err(Some(why)) => (self.surface.refuse(&admitted, &why), Some(payload)),
            // nobody is there to read it
            Err(None) => (text(400, "the request body broke off"), Some(payload)),
        }
    }

    /// The whole body; without a reason if it broke off.
    async fn body(&self, payload: &mut BoxedPayloadStream, declared: Option<u64>) -> Result<Bytes, Option<Refusal>> {
        let limit = self.surface.body_limit();
        if declared.is_some_and(|length| length > limit as u64) {
            return Err(Some(too_large(limit)));
        }
        let read = async {
            let mut first = Bytes::new();
            let mut all = BytesMut::new();
            while let Some(chunk) = payload.next().await {
                let chunk = chunk.map_err(|_| None)?;
                if first.len().max(all.len()) + chunk.len() > limit {
                    return Err(Some(too_large(limit)));
                }
                if first.is_empty() {
                    first = chunk;
                    continue;
                }
                if all.is_empty() {
                    all.extend_from_slice(&first);
                }
                all.extend_from_slice(&chunk);
            }
            Ok(if all.is_empty() { first } else { all.freeze() })
        };
        let mut read = pin!(read);
        // most bodies have come with their head: they need no clock
        match poll_immediate(read.as_mut()).await {
            Some(done) => done,
            None => tokio::time::timeout(self.body_time, read).await.unwrap_or(Err(Some(Refusal::TooSlow))),
        }
    }
}

fn too_large(limit: usize) -> Refusal {
    Refusal::TooLarge { what: "a request body", limit: limit as u64 }
}

fn head<'a>(request: &'a RequestHead, headers: &'a dyn Headers) -> Head<'a> {
    let uri = &request.uri;
    Head {
        version: if request.version < Version::HTTP_11 { HttpVersion::Http10 } else { HttpVersion::Http11 },
        method: request.method.as_str(),
        path: uri.path(),
        query: uri.query().unwrap_or_default(),
        headers,
    }
}

/// Does actix-http take everything that follows the head for its body?
fn is_endless(request: &HttpRequest) -> bool {
    let is = |name, value: &str| {
        request.headers().get(name).is_some_and(|given| given.as_bytes().eq_ignore_ascii_case(value.as_bytes()))
    };
    let websocket = is(header::UPGRADE, "websocket") && !is(header::TRANSFER_ENCODING, "chunked");
    websocket || request.method() == actix_web::http::Method::CONNECT
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// The headers of a request, as dialects ask for them.
struct Fields<'a>(&'a HeaderMap);

impl Headers for Fields<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
        static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
        static REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
        static FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
        // a name that is written out costs some 350 instructions to look up; these are asked for with every push
        let value = match name {
            "authorization" => self.0.get(header::AUTHORIZATION),
            "content-type" => self.0.get(header::CONTENT_TYPE),
            "host" => self.0.get(header::HOST),
            "origin" => self.0.get(header::ORIGIN),
            "sec-fetch-site" => self.0.get(&FETCH_SITE),
            "forwarded" => self.0.get(header::FORWARDED),
            "x-forwarded-for" => self.0.get(&FORWARDED_FOR),
            "x-forwarded-host" => self.0.get(&FORWARDED_HOST),
            "x-real-ip" => self.0.get(&REAL_IP),
            _ => self.0.get(name),
        };
        value?.to_str().ok()
    }
}

/// A reply as actix-http sends it. What is left of the request's body lives on until the reply is out: only then does
/// actix-http close the connection instead of reading a body without end.
fn response(reply: ApiReply, unread: Option<BoxedPayloadStream>) -> Response<BoxBody> {
    let ApiReply { status, content_type, headers, body } = reply;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = Response::build(status);
    if !content_type.is_empty() {
        response.insert_header((header::CONTENT_TYPE, content_type));
    }
    for (name, value) in headers {
        response.append_header((name, value));
    }
    match unread {
        Some(unread) => response.message_body(BoxBody::new(HoldingBody::new(body, unread))),
        None => response.message_body(BoxBody::new(body)),
    }
    // a header that a dialect wrote and HTTP does not allow
    .unwrap_or_else(|_| Response::internal_server_error())
}
