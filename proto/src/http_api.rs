//! The HTTP API of a role without the HTTP server around it: from a request's head to the route that serves it, and
//! from there to a reply. The binary puts a server in front; tests need none.

use std::{collections::BTreeSet, future::Future, sync::Arc};

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use smallvec::SmallVec;

pub use crate::dialect::contract::text;
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
    /// The path is none of its own, or the reply that says no.
    fn admit(&self, head: Head<'_>) -> Result<Self::Admitted, NotAdmitted>;

    /// What is said to those who ask for a path that nobody here has.
    fn not_found(&self, _: Head<'_>) -> ApiReply {
        nothing_there()
    }

    /// How the route that was found says no.
    fn refuse(&self, admitted: &Self::Admitted, why: &Refusal) -> ApiReply;

    /// Do what the request asks. `head` is the one that was admitted.
    fn serve(&self, admitted: Self::Admitted, head: Head<'_>, body: Bytes) -> impl Future<Output = ApiReply>;

    /// The largest body that is read of a request that was admitted, in bytes.
    fn body_limit(&self, admitted: &Self::Admitted) -> usize;
}

/// Why a request is not admitted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NotAdmitted {
    /// None of the routes has such a path: where two roles share a listener, the other one is asked.
    NotMine,
    /// There is a route, and this says no.
    Refused(ApiReply),
}

impl From<ApiReply> for NotAdmitted {
    fn from(reply: ApiReply) -> Self {
        Self::Refused(reply)
    }
}

impl NotAdmitted {
    /// The reply, where `not_found` is said if nobody has such a path.
    pub fn into_reply(self, not_found: impl FnOnce() -> ApiReply) -> ApiReply {
        match self {
            Self::NotMine => not_found(),
            Self::Refused(reply) => reply,
        }
    }
}

/// All routes of all dialects that one role serves.
#[derive(Clone)]
pub struct Router {
    dialects: Vec<Arc<dyn Dialect>>,
    /// Routes in the order of their dialects, those without braces first; the first that matches wins.
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

    /// Does a path exist that fits both?
    fn meets(&self, other: &Self) -> bool {
        let meet = |(a, b): (&Option<Box<str>>, &Option<Box<str>>)| a.is_none() || b.is_none() || a == b;
        self.segments.len() == other.segments.len() && self.segments.iter().zip(&other.segments).all(meet)
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
        let mut routes: Vec<(usize, Route)> = own.map(|(index, route)| (index, route.clone())).collect();
        // what names a path whole means it: `/api/push/` is no `/api/push/{app}` without an app
        routes.sort_by_key(|(_, route)| route.path.contains('{'));
        let routes: Arc<[(usize, Route)]> = routes.into();
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
        self.find_own(method, path, tenants).map_err(|no| no.into_reply(|| self.not_found(path, tenants)))
    }

    /// What is said to those who ask for a path that has no route here: 404, which says so if the other role serves it.
    #[must_use]
    pub fn not_found(&self, path: &str, tenants: &Tenants) -> ApiReply {
        let given: SmallVec<[&str; 16]> = path.split('/').collect();
        let is_open = |dialect: usize| self.dialects[dialect].is_open(tenants);
        let is_elsewhere = self.elsewhere.iter().any(|(dialect, shape)| shape.fits(&given) && is_open(*dialect));
        if is_elsewhere { text(404, self.not_here) } else { nothing_there() }
    }

    /// The same as [`Router::find`] for who asks another router next.
    ///
    /// # Errors
    ///
    /// The path is none of this router's, or the reply for a method that it has no route for (405), or a bad escape (400).
    pub fn find_own(&self, method: &str, path: &str, tenants: &Tenants) -> Result<Matched, NotAdmitted> {
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
        let Some((dialect, route_id)) = first else { return Err(NotAdmitted::NotMine) };
        let allow = methods.into_iter().collect::<Vec<_>>().join(", ");
        let reply = self.dialects[dialect].refuse(route_id, &Refusal::MethodNotAllowed);
        // a dialect may say something else than 405, and then names no methods
        Err(if reply.status == 405 { reply.with_header("Allow", allow) } else { reply }.into())
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

/// Two paths, one of each role, that one request may mean where both roles share a listener. Paths of sockets are left out:
/// only handshakes are for them, which go to the slave first.
#[must_use]
pub fn ambiguous_paths(dialects: &[Arc<dyn Dialect>]) -> Option<(String, String)> {
    let routes = || dialects.iter().flat_map(|dialect| dialect.routes());
    let of = |role| routes().filter(move |route| route.role == role);
    let opens_socket = |path: &str| routes().any(|route| route.method == Route::SOCKET && route.path == path);
    of(Role::Slave).filter(|route| !opens_socket(&route.path)).find_map(|slave| {
        let shape = Shape::of(&slave.path);
        let master = of(Role::Master).find(|master| Shape::of(&master.path).meets(&shape))?;
        Some((master.path.clone(), slave.path.clone()))
    })
}

/// Nobody has such a path.
fn nothing_there() -> ApiReply {
    text(404, "404 page not found\n")
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
        dialect::{Settings, all, gusher},
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
    fn a_path_without_a_row_is_not_mine_and_a_method_without_one_is() {
        let (master, slave) = (router(Role::Master), router(Role::Slave));
        let own = |router: &Router, method, path| router.find_own(method, path, &Tenants::default());
        for (router, other, method, path) in [
            (&master, &slave, "POST", "/v1/apps/a/channels/b/messages"),
            (&slave, &master, "POST", "/v1/auth"),
            (&slave, &master, Route::SOCKET, "/gcs/ws/a"),
        ] {
            assert!(own(router, method, path).is_ok(), "{path}");
            assert_eq!(own(other, method, path), Err(NotAdmitted::NotMine), "{path}");
        }
        for (router, path) in [(&master, "/api/ping"), (&slave, "/gcs/auth")] {
            let no = own(router, "DELETE", path).unwrap_err();
            assert!(matches!(&no, NotAdmitted::Refused(reply) if reply.status == 405), "{path}: {no:?}");
        }
        assert_eq!(own(&master, "GET", "/"), Err(NotAdmitted::NotMine));
    }

    #[test]
    fn one_listener_tells_the_paths_of_both_roles_apart_unless_their_prefixes_meet() {
        let paths = |master: &str, slave: &str| {
            let mut rows = gusher::Settings::default();
            (rows.master.prefix, rows.slave.prefix) = (master.to_owned(), slave.to_owned());
            ambiguous_paths(&all(&Settings::default().with(rows), &SocketIdSeal::new(b"seal")))
        };
        assert_eq!(paths("/api", "/gcs"), None);
        assert_eq!(paths("", "/gcs"), None);
        assert_eq!(paths("/x", "/x"), Some(("/x/ping".to_owned(), "/x/ping".to_owned())));
        assert_eq!(paths("", "/push"), Some(("/push/{app}".to_owned(), "/push/auth".to_owned())));
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
