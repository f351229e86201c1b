//! The HTTP API of a role without the HTTP server around it: from a request's head to the route that serves it, and
//! from there to a reply. The binary puts a server in front; tests need none.

use std::{collections::BTreeSet, future::Future, sync::Arc};

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use smallvec::SmallVec;

use crate::{
    dialect::contract::{ApiReply, Dialect, Headers, Role, Route},
    refusal::Refusal,
    tenants::Tenants,
};

/// A version of HTTP that is served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HttpVersion {
    /// HTTP/1.0: old programs, and proxies that are not told otherwise.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// The head of a request, as it came.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The version of HTTP that it was sent in.
    pub version: HttpVersion,
    /// `GET`, `POST`, …
    pub method: &'a str,
    /// The path, percent-encoded.
    pub path: &'a str,
    /// The query string, without `?`.
    pub query: &'a str,
    /// Its headers.
    pub headers: &'a dyn Headers,
}

/// What a role serves over HTTP.
pub trait HttpApi: Clone + Send + Sync + 'static {
    /// A request whose head was let in; keeps what the head decided.
    type Admitted: 'static;

    /// Find the route and check what can be checked before the body is read.
    ///
    /// # Errors
    ///
    /// The reply that says no.
    fn admit(&self, head: Head<'_>) -> Result<Self::Admitted, ApiReply>;

    /// How the route that was found says no.
    fn refuse(&self, admitted: &Self::Admitted, why: &Refusal) -> ApiReply;

    /// Do what the request asks. `head` is the one that was admitted.
    fn serve(&self, admitted: Self::Admitted, head: Head<'_>, body: Bytes) -> impl Future<Output = ApiReply>;

    /// The largest body that is read, in bytes.
    fn body_limit(&self) -> usize;
}

/// All routes of all dialects that one role serves.
#[derive(Clone)]
pub struct Router {
    dialects: Vec<Arc<dyn Dialect>>,
    /// Routes in the order of their dialects; the first that matches wins.
    routes: Arc<[(usize, Route)]>,
    /// The shapes of their paths.
    shapes: Arc<[Shape]>,
    /// The shapes of the other role's paths, each with its dialect.
    elsewhere: Arc<[(usize, Shape)]>,
    /// What is said to those who ask for one of them here.
    not_here: &'static str,
}

/// What a path must look like.
struct Shape {
    /// Bytes before the first segment in braces: they tell most paths apart.
    literal: usize,
    /// The segments; `None` stands for any one.
    segments: Box<[Option<Box<str>>]>,
}

impl Shape {
    fn of(path: &str) -> Self {
        let segment = |segment: &str| (!segment.starts_with('{')).then(|| segment.into());
        Self {
            literal: path.find("/{").map_or(path.len(), |slash| slash + 1),
            segments: path.split('/').map(segment).collect(),
        }
    }

    fn fits(&self, given: &[&str]) -> bool {
        let fits = |(wanted, given): (&Option<Box<str>>, &&str)| wanted.as_deref().is_none_or(|text| text == *given);
        self.segments.len() == given.len() && self.segments.iter().zip(given).all(fits)
    }

    fn captured<'p>(&self, given: &[&'p str]) -> impl Iterator<Item = &'p str> {
        self.segments.iter().zip(given).filter(|(wanted, _)| wanted.is_none()).map(|(_, given)| *given)
    }
}

/// The route that serves a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Matched {
    /// Which of the router's dialects.
    pub dialect: usize,
    /// Which of the routes that the router serves: see [`Router::route`].
    pub route: usize,
    /// The segments in braces, percent-decoded.
    pub segments: Vec<String>,
}

impl Router {
    /// The routes that `role` serves.
    #[must_use]
    pub fn new(role: Role, dialects: Vec<Arc<dyn Dialect>>) -> Self {
        let all = || {
            let numbered = dialects.iter().enumerate();
            numbered.flat_map(|(index, dialect)| dialect.routes().iter().map(move |route| (index, route)))
        };
        let own = all().filter(|(_, route)| route.role == role);
        let routes: Arc<[(usize, Route)]> = own.map(|(index, route)| (index, route.clone())).collect();
        let others = all().filter(|(_, route)| route.role != role);
        Self {
            shapes: routes.iter().map(|(_, route)| Shape::of(&route.path)).collect(),
            elsewhere: others.map(|(index, route)| (index, Shape::of(&route.path))).collect(),
            not_here: match role {
                Role::Master => {
                    "404: this is the master's port, where backends push; clients use the slave's (slave.listen)\n"
                }
                Role::Slave => {
                    "404: this is the slave's port, where clients connect; backends use the master's (master.listen)\n"
                }
            },
            routes,
            dialects,
        }
    }

    /// The route for a request, among those that are open for `tenants`. A HEAD is served by the route for GET.
    ///
    /// # Errors
    ///
    /// The reply for a path that nobody serves here (404, which says so if the other role does), a method that it has no route for (405), or a bad escape in it
    /// (400).
    pub fn find(&self, method: &str, path: &str, tenants: &Tenants) -> Result<Matched, ApiReply> {
        let method = if method == "HEAD" { "GET" } else { method };
        let mut first = None;
        let mut methods = BTreeSet::new();
        let given: SmallVec<[&str; 16]> = path.split('/').collect();
        for (index, ((dialect, route), shape)) in self.routes.iter().zip(&*self.shapes).enumerate() {
            let may = given.len() == shape.segments.len() && path.starts_with(&route.path[..shape.literal]);
            if !may || !shape.fits(&given) || !self.dialects[*dialect].is_open(tenants) {
                continue;
            }
            if route.method == method {
                let segments = shape.captured(&given).map(decode).collect::<Option<_>>();
                let segments = segments.ok_or_else(|| text(400, "400 Bad Request"))?;
                return Ok(Matched { dialect: *dialect, route: index, segments });
            }
            first.get_or_insert((*dialect, route.route_id));
            methods.insert(if route.method == Route::SOCKET { "GET" } else { route.method });
        }
        let Some((dialect, route_id)) = first else {
            let is_elsewhere = self
                .elsewhere
                .iter()
                .any(|(dialect, shape)| shape.fits(&given) && self.dialects[*dialect].is_open(tenants));
            return Err(text(404, if is_elsewhere { self.not_here } else { "404 page not found\n" }));
        };
        let allow = methods.into_iter().collect::<Vec<_>>().join(", ");
        Err(self.dialects[dialect].refuse(route_id, &Refusal::MethodNotAllowed).with_header("Allow", allow))
    }

    /// The dialect of a route.
    #[must_use]
    pub fn dialect(&self, matched: &Matched) -> &Arc<dyn Dialect> {
        &self.dialects[matched.dialect]
    }

    /// The route itself.
    #[must_use]
    pub fn route(&self, matched: &Matched) -> &Route {
        &self.routes[matched.route].1
    }

    /// How the route says no.
    #[must_use]
    pub fn refuse(&self, matched: &Matched, why: &Refusal) -> ApiReply {
        self.dialect(matched).refuse(self.route(matched).route_id, why)
    }
}

/// A reply in plain text.
#[must_use]
pub fn text(status: u16, body: &'static str) -> ApiReply {
    ApiReply::new(status, "text/plain; charset=utf-8", body)
}

/// A path segment without its escapes (`+` is itself), if they are well formed and give UTF-8.
fn decode(segment: &str) -> Option<String> {
    let bytes = segment.as_bytes();
    if !bytes.contains(&b'%') {
        return Some(segment.to_owned());
    }
    let escaped = |at: usize| bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    if bytes.iter().enumerate().any(|(at, &byte)| byte == b'%' && !escaped(at)) {
        return None;
    }
    percent_decode_str(segment).decode_utf8().ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dialect::{Settings, all},
        ids::SocketIdSeal,
    };

    fn router(role: Role) -> Router {
        Router::new(role, all(&Settings::default(), &SocketIdSeal::new(b"seal")))
    }

    #[test]
    fn a_row_is_found_by_its_segments_which_decode_once() {
        let master = router(Role::Master);
        let found = master.find("POST", "/api/push/a%2Fb/%25/+", &Tenants::default()).unwrap();
        assert_eq!(master.route(&found).path, "/api/push/{app}/{channel}/{event}");
        assert_eq!(found.segments, ["a/b", "%", "+"]);
        let head = master.find("HEAD", "/api/a/online", &Tenants::default()).unwrap();
        assert_eq!(head, master.find("GET", "/api/a/online", &Tenants::default()).unwrap());
        // an escaped slash makes no segment, an escaped message no path of ours
        assert_eq!(master.find("POST", "/api%2Fpush/a/b/c", &Tenants::default()).unwrap_err().status, 404);
        assert_eq!(master.find("GET", "/%61pi/ping", &Tenants::default()).unwrap_err().status, 404);
    }

    #[test]
    fn a_path_without_a_row_is_404_and_a_method_without_one_405() {
        let (master, slave) = (router(Role::Master), router(Role::Slave));
        for path in ["", "/", "*", "api/ping", "//", "/api", "/api/ping/", "/API/ping", "/api/ping?x"] {
            assert_eq!(master.find("GET", path, &Tenants::default()), Err(text(404, "404 page not found\n")), "{path}");
        }
        for (router, method, path, port) in [
            (&slave, "POST", "/api/push/a/b/c", "master.listen"),
            (&slave, "GET", "/api/ping", "master.listen"),
            (&master, Route::SOCKET, "/gcs/ws/a", "slave.listen"),
            (&master, "GET", "/gcs/ws/a", "slave.listen"),
            (&master, "POST", "/v1/auth", "slave.listen"),
        ] {
            let reply = router.find(method, path, &Tenants::default()).unwrap_err();
            assert_eq!(reply.status, 404);
            assert!(String::from_utf8_lossy(&reply.body).contains(port), "{path}: {reply:?}");
        }
        for (router, method, path, allow) in [
            (&master, "GET", "/api/push/a/b/c", "POST"),
            (&master, "POST", "/api/ping", "GET"),
            (&master, "BREW", "/v1/apps/a/users/u/channels", "POST, PUT"),
            (&slave, "GET", "/gcs/auth", "OPTIONS, POST"),
            (&slave, "POST", "/gcs/ws/a", "GET"),
            (&slave, Route::SOCKET, "/gcs/ping", "GET"),
        ] {
            let reply = router.find(method, path, &Tenants::default()).unwrap_err();
            assert_eq!(reply.status, 405, "{method} {path}");
            assert!(reply.headers.contains(&("Allow", allow.to_owned())), "{method} {path}: {:?}", reply.headers);
        }
        assert_eq!(master.find("POST", "/api/push/a/%zz/c", &Tenants::default()), Err(text(400, "400 Bad Request")));
    }

    #[test]
    fn a_socket_row_is_for_upgrades_only() {
        let slave = router(Role::Slave);
        let (upgrade, plain) = (
            slave.find(Route::SOCKET, "/gcs/ws/a", &Tenants::default()).unwrap(),
            slave.find("GET", "/gcs/ws/a", &Tenants::default()).unwrap(),
        );
        assert_eq!(slave.route(&upgrade).method, Route::SOCKET);
        assert_eq!(slave.route(&plain).method, "GET");
    }

    #[test]
    fn escapes_decode_once_and_must_be_whole() {
        for (segment, decoded) in [
            ("a%2Fb", Some("a/b")),
            ("%252F", Some("%2F")),
            ("a+b", Some("a+b")),
            ("%E4%B8%AD", Some("中")),
            ("", Some("")),
            ("%", None),
            ("%2", None),
            ("%zz", None),
            ("%ff", None),
        ] {
            assert_eq!(decode(segment).as_deref(), decoded, "{segment}");
        }
    }
}
