//! The HTTP client: reqwest, told what it may do, and a resolver that looks at each address before it is connected to.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use reqwest::{
    Client, Response,
    dns::{Addrs, Name, Resolve, Resolving},
    header::CONTENT_TYPE,
    redirect, retry,
};
use tokio::{net::lookup_host, time::timeout};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use wellhead_proto::http_target::HttpTarget;

use super::{
    address::is_global,
    error::{NotResolved, OutboundError, RefusedAddress},
};

/// How long connecting may take, with the name and TLS.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a whole request may take.
const MOST: Duration = Duration::from_secs(10);
/// What is read of an answer that nobody wants, so that its connection can be used again; and for how long.
const UNWANTED: usize = 4 * 1_024;
const UNWANTED_WITHIN: Duration = Duration::from_secs(1);
/// Connections to one host that are kept while nothing is under way, and for how long.
const IDLE: usize = 2;
const IDLE_FOR: Duration = Duration::from_secs(30);

/// Sends requests, over connections that it keeps for a while. Shared by its clones.
#[derive(Clone, Debug)]
pub struct OutboundClient {
    client: Client,
    allow_private: bool,
}

/// A JSON body and where it is posted.
#[derive(Clone, Debug)]
pub struct OutboundRequest<'a> {
    /// Where to.
    pub target: &'a HttpTarget,
    /// Headers beside the target's own and the content type.
    pub headers: &'a [(&'static str, &'a str)],
    /// The body, which is JSON.
    pub body: Bytes,
    /// How long it may take; more than ten seconds count as ten.
    pub within: Duration,
}

impl OutboundClient {
    /// A client. `allow_private`: it connects to addresses that are not globally routable, too.
    ///
    /// # Errors
    ///
    /// TLS cannot be set up.
    pub fn new(allow_private: bool) -> anyhow::Result<Self> {
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            .http1_only()
            .connect_timeout(CONNECT)
            .timeout(MOST)
            .pool_max_idle_per_host(IDLE)
            .pool_idle_timeout(IDLE_FOR)
            .user_agent(concat!("wellhead/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(CheckedResolver { allow_private })
            .tls_backend_preconfigured(trust()?)
            .build()?;
        Ok(Self { client, allow_private })
    }

    /// Post `request`; the answer counts as good if it is 2xx, whatever stands in it.
    ///
    /// # Errors
    ///
    /// See [`OutboundError`].
    pub async fn post(&self, request: OutboundRequest<'_>) -> Result<(), OutboundError> {
        let answer = self.send(request).await?;
        // the answer is good already: only the connection depends on the rest of it
        let _ = timeout(UNWANTED_WITHIN, read(answer, UNWANTED)).await;
        Ok(())
    }

    /// Post `request`; the body of the answer, if that is 2xx.
    ///
    /// # Errors
    ///
    /// See [`OutboundError`]; and if it is longer than `most`.
    pub async fn ask(&self, request: OutboundRequest<'_>, most: usize) -> Result<Bytes, OutboundError> {
        read(self.send(request).await?, most).await
    }

    async fn send(&self, request: OutboundRequest<'_>) -> Result<Response, OutboundError> {
        let OutboundRequest { target, headers, body, within } = request;
        // an address in the URL is connected to without asking the resolver
        if let Some(address) = target.literal_address()
            && !self.allow_private
            && !is_global(address)
        {
            return Err(RefusedAddress(address).into());
        }
        let request = self.client.post(target.url().clone()).header(CONTENT_TYPE, "application/json");
        let request = headers
            .iter()
            .chain(target.header().as_ref())
            .fold(request, |request, (name, value)| request.header(*name, *value));
        let answer = request.timeout(within.min(MOST)).body(body).send().await?;
        match answer.status() {
            status if status.is_success() => Ok(answer),
            status => Err(OutboundError::Status(status.as_u16())),
        }
    }
}

async fn read(mut answer: Response, most: usize) -> Result<Bytes, OutboundError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > most {
            return Err(OutboundError::TooLarge(most));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

/// TLS as this machine trusts in it. Without any authority, every https:// target fails.
fn trust() -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    Ok(config.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth())
}

/// Resolves names as the system does, and drops addresses that may not be connected to: what is left is connected to.
struct CheckedResolver {
    allow_private: bool,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = lookup_host((name.as_str(), 0)).await;
            let found: Vec<_> = found.map_err(|error| NotResolved(error.to_string()))?.collect();
            Ok(Box::new(allowed(found, allow_private)?.into_iter()) as Addrs)
        })
    }
}

fn allowed(
    found: Vec<SocketAddr>,
    allow_private: bool,
) -> Result<Vec<SocketAddr>, Box<dyn std::error::Error + Send + Sync>> {
    let fits = |address: &SocketAddr| allow_private || is_global(address.ip());
    let (fit, refused): (Vec<_>, Vec<_>) = found.into_iter().partition(fits);
    match (fit.is_empty(), refused.first()) {
        (false, _) => Ok(fit),
        (true, Some(refused)) => Err(RefusedAddress(refused.ip()).into()),
        (true, None) => Err(NotResolved("none".to_owned()).into()),
    }
}

#[cfg(test)]
mod tests;
