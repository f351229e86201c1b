//! The HTTP service of a listener: every request passes here. Health, the page of development mode and the API of the role
//! see its head, in this order; the one that admits it gets its body.

use wellhead_proto::{
    dialect::contract::ApiReply,
    http_api::{Head, HttpApi},
};

use super::{budget::Budget, client_stream::Times, metrics::Requests, try_page::TryPage};
use crate::health::{Health, VERSION};

/// The HTTP service of one listener.
#[derive(Clone)]
pub struct HttpService<S> {
    /// The API of the role.
    pub http_api: S,
    /// Answers requests about the health of the process.
    pub health: Health,
    /// Counts the requests.
    pub requests: Requests,
    /// The page of development mode.
    pub page: Option<TryPage>,
    /// What unfinished requests and unsent replies may hold.
    pub budget: Budget,
    /// How long a connection may take for what.
    pub times: Times,
}

impl<S: HttpApi> HttpService<S> {
    /// The service of `http_api`.
    pub fn new(http_api: S, health: Health, requests: Requests, budget: Budget) -> Self {
        Self { http_api, health, requests, page: None, budget, times: Times::default() }
    }

    /// The same, and the page of development mode if there is one.
    #[must_use]
    pub fn with_page(self, page: Option<TryPage>) -> Self {
        Self { page, ..self }
    }

    /// Admit a request whose body is wanted.
    ///
    /// # Errors
    ///
    /// The reply, where that is known without the body.
    pub fn admit(&self, head: Head<'_>) -> Result<S::Admitted, ApiReply> {
        let page = || self.page.as_ref().and_then(|page| page.answer(head));
        match self.health.answer(head).or_else(page).or_else(|| self.index(head)) {
            Some(reply) => Err(reply),
            None => self.http_api.admit(head).map_err(|no| no.into_reply(|| self.http_api.not_found(head))),
        }
    }

    /// What this port is, for whoever opens it in a browser.
    fn index(&self, head: Head<'_>) -> Option<ApiReply> {
        if head.path != "/" || !matches!(head.method, "GET" | "HEAD") {
            return None;
        }
        let accepts_html = head.headers.header("accept").is_some_and(|accept| accept.contains("text/html"));
        if self.page.is_some() && accepts_html {
            return Some(ApiReply::empty(303).with_header("Location", "/try"));
        }
        let what = match self.requests.role() {
            "master" => "the master: backends push here",
            "slave" => "a slave: clients connect here",
            "standalone" => "master and slave at one address: backends push here, and clients connect here",
            _ => "health and metrics: /healthz, /readyz, /version, /metrics",
        };
        let page = if self.page.is_some() { "The page /try shows pushes arriving in your browser.\n" } else { "" };
        Some(ApiReply::new(200, "text/plain; charset=utf-8", format!("Wellhead {VERSION}, {what}.\n{page}")))
    }
}
