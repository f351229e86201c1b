//! Does a request come from a program of this machine, as far as its head tells? A connection over loopback alone says
//! little: a proxy makes it for the whole world, and a browser for any page.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::http_api::{Head, HttpVersion};

/// Headers with which a proxy says for whom it asks, or that it does.
const FORWARDED: [&str; 5] = ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"];

/// Why `head` seems to be what a proxy passes on, if it does. One that says nothing of itself, speaks HTTP/1.1 and
/// rewrites the `Host` to loopback cannot be told from a program of this machine.
#[must_use]
pub fn passed_on(head: Head<'_>) -> Option<&'static str> {
    if head.version == HttpVersion::Http10 {
        return Some(
            "HTTP/1.0, as a proxy sends it that is told nothing else (programs of this machine: use HTTP/1.1)",
        );
    }
    FORWARDED.iter().any(|name| head.headers.header(name).is_some()).then_some("a proxy forwarded this")
}

/// Is this `Host` one that only this machine has: `localhost`, `127.x.y.z` or `[::1]`, with or without a port?
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let (name, rest) = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((address, rest)) => {
            return address.parse().is_ok_and(|address: Ipv6Addr| address.is_loopback()) && is_port(rest);
        }
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let loopback =
        name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback());
    loopback && is_port(rest)
}

/// Nothing, or `:` and digits.
fn is_port(rest: &str) -> bool {
    rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port.bytes().all(|digit| digit.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::contract::Headers;

    struct SentHeaders(&'static str);

    impl Headers for SentHeaders {
        fn header(&self, name: &str) -> Option<&str> {
            (name == self.0).then_some("")
        }
    }

    #[test]
    fn what_a_proxy_passes_on_is_told_by_its_version_or_its_headers() {
        let passed = |version, name| {
            passed_on(Head { version, method: "GET", path: "/", query: "", headers: &SentHeaders(name) }).is_some()
        };
        assert!(!passed(HttpVersion::Http11, "host"));
        assert!(passed(HttpVersion::Http10, "host"));
        for name in FORWARDED {
            assert!(passed(HttpVersion::Http11, name), "{name}");
        }
    }

    #[test]
    fn only_a_name_that_only_this_machine_has_is_loopback() {
        for host in ["localhost", "LOCALHOST:1", "127.0.0.1", "127.8.9.1:7777", "[::1]", "[::1]:7777"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["", ":1", "0.0.0.0", "127.1", "[::2]", "[[::1]]", "::1", "localhost:x", "127.0.0.1.evil.example"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
