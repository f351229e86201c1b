//! Origins: which pages may open sockets. Entries of the settings are understood once; a page's `Origin` header is
//! compared with them without a copy of it.

use std::net::Ipv6Addr;

/// Origins that may open sockets.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Origins(Vec<Pattern>);

/// One entry.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Pattern {
    /// `*`: every page.
    Any,
    /// `null`: pages without an origin of their own, as in a sandbox.
    Null,
    /// Pages of these hosts.
    Of {
        /// In lower case; `None` is any.
        scheme: Option<String>,
        /// In lower case; with `below`, the domain that the hosts stand under.
        host: String,
        /// `*.` stood before it.
        below: bool,
        /// `None`: any, if there is no scheme, else the one that the scheme has by default.
        port: Option<u16>,
    },
}

impl Origins {
    /// Every origin.
    #[must_use]
    pub fn any() -> Self {
        Self(vec![Pattern::Any])
    }

    /// The origins that entries of the settings name.
    ///
    /// # Errors
    ///
    /// The first entry that no page can have, by its number, and why.
    pub fn read<'t>(entries: impl IntoIterator<Item = &'t String>) -> Result<Self, (usize, BadOrigin)> {
        let read = |(index, entry): (usize, &'t String)| Pattern::read(entry).map_err(|why| (index, why));
        entries.into_iter().enumerate().map(read).collect::<Result<Vec<_>, _>>().map(Self)
    }

    /// Is a page with this `Origin` header among them?
    #[must_use]
    pub fn allow(&self, origin: &str) -> bool {
        let page = PageOrigin::read(origin);
        self.0.iter().any(|pattern| match pattern {
            Pattern::Any => true,
            Pattern::Null => origin == "null",
            Pattern::Of { .. } => page.as_ref().is_some_and(|page| pattern.covers(page)),
        })
    }
}

/// Why no page can have the origin that an entry names, and what would be right.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{why}")]
pub struct BadOrigin {
    why: &'static str,
    /// What to write instead.
    pub hint: String,
}

/// How an entry is written.
const FORMS: &str = "write \"https://app.example.com\", \"https://*.example.com\" for every host below it, \
                     \"app.example.com\" or \"*.example.com\" for any scheme and port, or \"*\"";

impl Pattern {
    fn read(entry: &str) -> Result<Self, BadOrigin> {
        let bad = |why| BadOrigin { why, hint: FORMS.to_owned() };
        match entry {
            "*" => return Ok(Self::Any),
            "null" => return Ok(Self::Null),
            "" => return Err(bad("is empty, and no page has an empty origin")),
            _ => {}
        }
        if entry.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(bad("holds a blank"));
        }
        let (scheme, rest) = match entry.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, entry),
        };
        if let Some(end) = rest.find(['/', '?', '#']) {
            let hint = format!("write {:?}", &entry[..entry.len() - rest.len() + end]);
            return Err(BadOrigin {
                why: "an origin ends with its host or its port: it has no slash and no path",
                hint,
            });
        }
        if rest.contains('@') {
            return Err(bad("an origin names no user"));
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        if let Some(scheme) = &scheme {
            match scheme.as_str() {
                "ws" | "wss" => {
                    let hint = format!("write \"http{}://{rest}\"", &scheme[2..]);
                    return Err(BadOrigin { why: "an origin is that of the page, not that of the socket", hint });
                }
                scheme if scheme.is_empty() || !scheme.chars().all(fits) => return Err(bad("its scheme is none")),
                _ => {}
            }
        }
        let (host, port) = split_port(rest).ok_or_else(|| bad("its port is no number from 1 to 65535"))?;
        let (host, below) = host.strip_prefix("*.").map_or((host, false), |domain| (domain, true));
        if host.contains('*') {
            return Err(bad("a * stands for whole labels, and only before the rest of a host"));
        }
        if !host.is_ascii() {
            return Err(BadOrigin {
                why: "its host is not ASCII, as browsers write hosts",
                hint: "write the host in Punycode, as in \"https://xn--bcher-kva.example\"".to_owned(),
            });
        }
        // Android's pages from a file have a scheme only
        let nameless = host.is_empty() && scheme.as_deref() == Some("file") && !below && port.is_none();
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => match address.parse::<Ipv6Addr>() {
                Ok(address) if !below => format!("[{address}]"),
                _ => return Err(bad("its host is no address")),
            },
            None => host.to_ascii_lowercase(),
        };
        let letters = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let labels =
            host.starts_with('[') || (host.chars().all(letters) && !host.starts_with('.') && !host.contains(".."));
        if !labels || (host.is_empty() && !nameless) {
            return Err(bad("its host is none"));
        }
        let port = port.or_else(|| scheme.as_deref().and_then(default_port));
        Ok(Self::Of { scheme, host, below, port })
    }

    fn covers(&self, page: &PageOrigin<'_>) -> bool {
        let Self::Of { scheme, host, below, port } = self else { return false };
        let of_scheme = scheme.as_ref().is_none_or(|scheme| scheme.eq_ignore_ascii_case(page.scheme));
        let of_port = (scheme.is_none() && port.is_none()) || *port == page.port;
        let of_host = match below {
            false => host.eq_ignore_ascii_case(page.host),
            true => page.host.len().checked_sub(host.len() + 1).is_some_and(|dot| {
                let (head, tail) = page.host.as_bytes().split_at(dot);
                !head.is_empty() && tail[0] == b'.' && tail[1..].eq_ignore_ascii_case(host.as_bytes())
            }),
        };
        of_scheme && of_port && of_host
    }
}

/// The origin of a page.
struct PageOrigin<'o> {
    scheme: &'o str,
    host: &'o str,
    /// The one that the scheme has by default, if none is written.
    port: Option<u16>,
}

impl<'o> PageOrigin<'o> {
    fn read(origin: &'o str) -> Option<Self> {
        let (scheme, rest) = origin.split_once("://")?;
        let (host, port) = split_port(rest)?;
        Some(Self { scheme, host, port: port.or_else(|| default_port(scheme)) })
    }
}

/// `host:port` or `host`, which may be an address in brackets. `None` if the port is none.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let begin = text.rfind(']').unwrap_or_default();
    match text[begin..].find(':') {
        None => Some((text, None)),
        Some(colon) => {
            let (host, port) = text.split_at(begin + colon);
            let digits = &port[1..];
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|&port| plain && port > 0).map(|port| (host, Some(port)))
        }
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme.len() {
        4 if scheme.eq_ignore_ascii_case("http") => Some(80),
        5 if scheme.eq_ignore_ascii_case("https") => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(entry: &str, origin: &str) -> bool {
        Origins::read([&entry.to_owned()]).unwrap_or_else(|why| panic!("{entry}: {why:?}")).allow(origin)
    }

    #[test]
    fn entries_and_pages_mean_the_same_in_every_spelling() {
        for entry in ["https://example.com", "HTTPS://Example.COM", "https://example.com:443"] {
            for origin in ["https://example.com", "https://EXAMPLE.com", "https://example.com:443"] {
                assert!(allow(entry, origin), "{entry} {origin}");
            }
            for other in [
                "http://example.com",
                "https://example.com:444",
                "https://www.example.com",
                "https://example.com.evil",
                "https://evil-example.com",
                "example.com",
                "null",
                "",
                "https://",
                "https://example.com/",
                "https://example.com:99999",
                "https://example.com:+443",
            ] {
                assert!(!allow(entry, other), "{entry} {other}");
            }
        }
        assert!(
            allow("http://localhost:3000", "http://localhost:3000")
                && !allow("http://localhost", "http://localhost:3000")
        );
        assert!(allow("http://[0:0::1]:3000", "http://[::1]:3000") && allow("http://[::1]", "http://[::1]:80"));
    }

    #[test]
    fn a_star_stands_for_every_host_below() {
        for entry in ["https://*.example.com", "*.example.com"] {
            assert!(allow(entry, "https://a.example.com") && allow(entry, "https://A.b.Example.com"), "{entry}");
            for other in
                ["https://example.com", "https://evilexample.com", "https://.example.com", "https://a.example.com.evil"]
            {
                assert!(!allow(entry, other), "{entry} {other}");
            }
        }
        assert!(!allow("https://*.example.com", "http://a.example.com"));
        assert!(allow("https://*.example.com:8443", "https://a.example.com:8443"));
        assert!(!allow("https://*.example.com:8443", "https://a.example.com"));
    }

    #[test]
    fn a_host_alone_is_any_scheme_and_port_as_reverb_has_it() {
        for origin in ["https://example.com", "http://example.com:8080", "capacitor://Example.com"] {
            assert!(allow("example.com", origin), "{origin}");
        }
        assert!(!allow("example.com", "https://a.example.com") && !allow("example.com", "null"));
        assert!(allow("localhost:3000", "https://localhost:3000") && !allow("localhost:3000", "http://localhost"));
    }

    #[test]
    fn pages_without_a_web_origin_can_be_named() {
        assert!(allow("*", "anything") && allow("*", "null") && allow("null", "null") && !allow("null", "https://a.b"));
        for app in ["capacitor://localhost", "chrome-extension://abcdef", "tauri://localhost", "file://"] {
            assert!(allow(app, app) && !allow(app, "https://localhost"), "{app}");
        }
        assert!(!Origins::default().allow("https://a.b") && Origins::any().allow("https://a.b"));
    }

    #[test]
    fn what_no_page_can_have_is_refused_with_the_right_spelling() {
        for (entry, hint) in [
            ("", "https://*.example.com"),
            ("https://example.com/", "\"https://example.com\""),
            ("https://example.com:8443/app", "\"https://example.com:8443\""),
            ("example.com/", "\"example.com\""),
            ("https://example.com?x", "\"https://example.com\""),
            ("wss://example.com", "\"https://example.com\""),
            ("ws://localhost:1", "\"http://localhost:1\""),
            ("https://ann@example.com", "write"),
            ("https://", "write"),
            ("://a", "write"),
            ("https://example.com:", "write"),
            ("https://example.com:0", "write"),
            ("https://example.com:99999", "write"),
            ("https://*", "write"),
            ("*example.com", "write"),
            ("https://a*.example.com", "write"),
            ("https://a.*.com", "write"),
            ("https://*.", "write"),
            ("http://localhost:*", "write"),
            ("https://a b", "write"),
            (" https://a.b", "write"),
            ("https://a..b", "write"),
            ("https://[::x]", "write"),
            ("https://bücher.example", "xn--"),
        ] {
            let (index, why) = Origins::read([&"*".to_owned(), &entry.to_owned()]).expect_err(entry);
            assert_eq!(index, 1);
            assert!(why.hint.contains(hint), "{entry}: {why} {}", why.hint);
        }
    }
}
