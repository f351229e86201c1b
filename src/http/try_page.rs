//! The page of development mode on which pushes are seen to arrive.

use std::{net::SocketAddr, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use wellhead_proto::{
    dialect::contract::ApiReply,
    http_api::{Head, text},
    local::{is_loopback, passed_on},
};

use crate::development::{Development, PusherDemo};

/// The page, ready but for its nonce.
#[derive(Clone)]
pub struct TryPage {
    html: Arc<str>,
    slave: SocketAddr,
}

impl TryPage {
    /// The page that connects to `slave`.
    #[must_use]
    pub fn new(development: Development, slave: SocketAddr) -> Self {
        let Development { app, token, push_key_needed, pusher, conveyor, .. } = development;
        let hidden = |hidden: bool| if hidden { "hidden" } else { "" };
        let (secret, sockets, requests) = match &pusher {
            Some(PusherDemo { secret, sockets, requests, .. }) => {
                (secret.as_str(), sockets.as_str(), requests.as_str())
            }
            None => ("", "", ""),
        };
        let all = pusher.is_some() && conveyor.is_some();
        let html = include_str!("try.html")
            .replace("{{all}}", include_str!("try_all.js"))
            .replace("{{conveyor}}", conveyor.as_deref().unwrap_or_default())
            .replace("{{all_hidden}}", hidden(!all))
            .replace("{{slave}}", &slave.to_string())
            .replace("{{app}}", &escaped(&app))
            .replace("{{token}}", &escaped(&token))
            .replace("{{secret}}", secret)
            .replace("{{sockets}}", &escaped(sockets))
            .replace("{{requests}}", &escaped(requests))
            .replace("{{pusher_hidden}}", hidden(pusher.is_none()))
            .replace("{{key_hidden}}", hidden(!push_key_needed));
        Self { html: html.into(), slave }
    }

    /// The answer, if the page is asked for.
    #[must_use]
    pub fn answer(&self, head: Head<'_>) -> Option<ApiReply> {
        if head.path != "/try" {
            return None;
        }
        if !matches!(head.method, "GET" | "HEAD") {
            return Some(text(405, "Method Not Allowed\n").with_header("Allow", "GET, HEAD"));
        }
        // a name that somebody else made point here must not read the token
        if !head.headers.header("host").is_some_and(is_loopback) {
            return Some(for_this_machine_only("the Host is not loopback"));
        }
        if let Some(why) = passed_on(head) {
            return Some(for_this_machine_only(why));
        }
        let mut nonce = [0; 16];
        if getrandom::fill(&mut nonce).is_err() {
            return Some(text(500, "no randomness\n"));
        }
        let nonce = STANDARD.encode(nonce);
        let policy = format!(
            "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self' ws://{}; \
             img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            self.slave
        );
        let html = self.html.replace("{{nonce}}", &nonce);
        let reply = ApiReply::new(200, "text/html; charset=utf-8", html)
            .with_header("Content-Security-Policy", policy)
            .with_header("Cache-Control", "no-store")
            .with_header("Referrer-Policy", "no-referrer")
            .with_header("X-Content-Type-Options", "nosniff");
        Some(reply)
    }
}

fn for_this_machine_only(why: &str) -> ApiReply {
    let words = format!(
        "{why}; this page is for this machine only: open it without a proxy, and configure [[push_keys]] and \
         jwt.public_keys before others reach this master\n"
    );
    ApiReply::new(403, "text/plain; charset=utf-8", words)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use wellhead_proto::{dialect::contract::Headers, http_api::HttpVersion};

    use super::*;

    struct PageHeaders(&'static [(&'static str, &'static str)]);

    impl Headers for PageHeaders {
        fn header(&self, name: &str) -> Option<&str> {
            self.0.iter().find(|(sent, _)| *sent == name).map(|(_, value)| *value)
        }
    }

    fn page() -> TryPage {
        let app = "a\"><script>".to_owned();
        let (token, public_key) = ("x.y.z".to_owned(), String::new());
        let (pusher, conveyor) = (None, None);
        let development = Development { app, token, public_key, push_key_needed: false, pusher, conveyor };
        TryPage::new(development, "127.0.0.1:8888".parse().unwrap())
    }

    fn ask(path: &str, version: HttpVersion, headers: &'static [(&'static str, &'static str)]) -> Option<ApiReply> {
        page().answer(Head { version, method: "GET", path, query: "", headers: &PageHeaders(headers) })
    }

    fn here() -> Option<ApiReply> {
        ask("/try", HttpVersion::Http11, &[("host", "localhost")])
    }

    #[test]
    fn the_page_is_for_this_machine_only() {
        let status = |headers| ask("/try", HttpVersion::Http11, headers).unwrap().status;
        for headers in [
            &[("host", "127.0.0.1:7777")],
            &[("host", "localhost:7777")],
            &[("host", "LOCALHOST")],
            &[("host", "[::1]:7777")],
            &[("host", "127.0.0.1")],
        ] {
            assert_eq!(status(headers), 200, "{headers:?}");
        }
        for headers in [
            &[][..],
            &[("host", "evil.example")],
            &[("host", "evil.example:7777")],
            &[("host", "localhost.evil.example")],
            &[("host", "127.0.0.1.evil.example")],
            &[("host", "")],
            &[("host", ":1")],
            &[("host", "[[::1]]")],
            &[("host", "localhost"), ("via", "1.1 proxy")],
            &[("host", "localhost"), ("forwarded", "for=192.0.2.1")],
            &[("host", "localhost"), ("x-forwarded-for", "192.0.2.1")],
            &[("host", "localhost"), ("x-real-ip", "192.0.2.1")],
        ] {
            assert_eq!(status(headers), 403, "{headers:?}");
        }
        let old = ask("/try", HttpVersion::Http10, &[("host", "localhost")]).unwrap();
        assert_eq!(old.status, 403);
        let words = std::str::from_utf8(&old.body).unwrap();
        assert!(words.contains("HTTP/1.0") && words.contains("[[push_keys]]"), "{words}");
        assert!(ask("/", HttpVersion::Http11, &[("host", "localhost")]).is_none());
    }

    #[test]
    fn nothing_of_the_template_is_left_and_every_nonce_is_fresh() {
        let reply = here().unwrap();
        let html = std::str::from_utf8(&reply.body).unwrap();
        assert!(!html.contains("{{") && !html.contains("a\"><script>"), "{html}");
        let policy = |reply: &ApiReply| reply.headers[0].1.clone();
        let nonce = policy(&reply).split("'nonce-").nth(1).unwrap().split('\'').next().unwrap().to_owned();
        assert_eq!(html.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
        assert_ne!(policy(&reply), policy(&here().unwrap()));
    }
}
