//! What can go wrong with a request. No text of it holds a URL or a header.

use std::{error::Error, fmt, net::IpAddr};

/// The longest text of an error, in characters: parts of it come from the other side.
const MAX_TEXT: usize = 200;

/// Why a request has no good answer.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OutboundError {
    /// The settings do not allow the address.
    #[error("{0}")]
    Refused(#[from] RefusedAddress),
    /// The name has no address.
    #[error("the name has no address: {0}")]
    Dns(String),
    /// Nobody takes the connection, or not with TLS.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// It took too long.
    #[error("no answer in time")]
    TimedOut,
    /// The answer is not 2xx.
    #[error("answered {0}")]
    Status(u16),
    /// The answer is longer than is read.
    #[error("the answer is longer than {0} bytes")]
    TooLarge(usize),
    /// The connection broke, or what came is no HTTP.
    #[error("the connection broke: {0}")]
    Broken(String),
}

impl OutboundError {
    /// Its name in metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Dns(_) => "dns",
            Self::Connect(_) => "connect",
            Self::TimedOut => "timeout",
            Self::Status(_) => "status",
            Self::TooLarge(_) => "too_large",
            Self::Broken(_) => "broken",
        }
    }
}

/// An address that is not globally routable.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0} is not globally routable, and webhooks.allow_private is false")]
pub struct RefusedAddress(pub IpAddr);

/// A name that could not be resolved.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotResolved(pub(super) String);

impl From<reqwest::Error> for OutboundError {
    fn from(error: reqwest::Error) -> Self {
        if let Some(refused) = cause::<RefusedAddress>(&error) {
            return Self::Refused(*refused);
        }
        if let Some(unresolved) = cause::<NotResolved>(&error) {
            return Self::Dns(text(unresolved));
        }
        if error.is_timeout() {
            return Self::TimedOut;
        }
        // the outermost names the URL
        let text = text(innermost(&error));
        if error.is_connect() { Self::Connect(text) } else { Self::Broken(text) }
    }
}

fn cause<E: Error + 'static>(error: &reqwest::Error) -> Option<&E> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

fn innermost(error: &reqwest::Error) -> &dyn fmt::Display {
    match causes(error).last() {
        Some(cause) => cause as &dyn fmt::Display,
        None => &"no reason given",
    }
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

fn text(error: &(impl fmt::Display + ?Sized)) -> String {
    error.to_string().chars().take(MAX_TEXT).collect()
}
