//! The HTTP API of the master: from the head to a refusal, or with the body to the reply of the route.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use log::{debug, error};
use wellhead_proto::{
    dialect::contract::{ApiCall, ApiReply, Headers, MasterRequest, RouteAuth},
    http_api::{Head, HttpApi, Matched, NotAdmitted},
    ids::NodeId,
    refusal::Refusal,
    tenants::Tenants,
};

use crate::{
    dispatch::MasterAnswer,
    error::MasterError,
    keys::{self, Caller},
    master::Master,
};

/// The largest body that is read on the thread that took it, in bytes: a millisecond or two. Sockets of the same thread
/// would wait for a batch of ten megabytes some hundred times as long.
const SMALL: usize = 128 << 10;

/// A request whose caller is authorized.
#[derive(Clone, Debug)]
pub struct AdmittedRequest {
    route: Matched,
    caller: Caller,
    /// Those that are in force for it, from its head to its reply.
    tenants: Arc<Tenants>,
    /// When it came: time since 1970.
    at: Duration,
    /// What each reply to it has.
    headers: Vec<(&'static str, String)>,
}

impl HttpApi for Master {
    type Admitted = AdmittedRequest;

    fn admit(&self, head: Head<'_>) -> Result<AdmittedRequest, NotAdmitted> {
        let tenants = self.0.tenants.load_full();
        let mut route = self.0.router.find_own(head.method, head.path, &tenants)?;
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let segments = std::mem::take(&mut route.segments);
        let call = call(self.0.router.route(&route).route_id, segments, head, Bytes::new(), at, &tenants);
        let dialect = self.0.router.dialect(&route);
        let headers = dialect.reply_headers(&call);
        let judged = match dialect.guard(self.0.router.route(&route), &tenants) {
            RouteAuth::Open => Ok(Caller::Anyone),
            // a caller that the dialect authorizes is limited by the dialect, too
            RouteAuth::Own => dialect.authenticate(&call).map(|()| Caller::Anyone).inspect_err(|why| {
                self.note_refused(&Caller::Anyone, &route, head, why);
            }),
            RouteAuth::PushKey(right) => {
                let judged = keys::admit(&tenants, self.0.keyless, head, right, || dialect.push_key(&call));
                judged.inspect_err(|why| {
                    self.0.metrics.not_admitted(why);
                    debug!(method = head.method, path = head.path, reason = why.reason(); "caller refused: {why}");
                })
            }
        };
        let caller = match judged {
            Ok(caller) => caller,
            Err(why) => return Err(with_headers(self.0.router.refuse(&route, &why), headers).into()),
        };
        route.segments = call.segments;
        Ok(AdmittedRequest { route, caller, tenants, at, headers })
    }

    fn not_found(&self, head: Head<'_>) -> ApiReply {
        self.0.router.not_found(head.path, &self.0.tenants.load())
    }

    fn refuse(&self, admitted: &AdmittedRequest, why: &Refusal) -> ApiReply {
        with_headers(self.0.router.refuse(&admitted.route, why), admitted.headers.clone())
    }

    async fn serve(&self, mut admitted: AdmittedRequest, head: Head<'_>, body: Bytes) -> ApiReply {
        let segments = std::mem::take(&mut admitted.route.segments);
        let headers = std::mem::take(&mut admitted.headers);
        let read = if body.len() <= SMALL {
            self.read(&admitted, segments, head, body)
        } else {
            self.read_elsewhere(&admitted, segments, head, body).await
        };
        let done = match read {
            Ok((request, checked)) => {
                let now = admitted.at.as_secs_f64();
                let AdmittedRequest { caller, tenants, .. } = &admitted;
                let done = self.0.dispatcher.carry_out(caller, tenants, request, checked, now).await;
                done.map(|MasterAnswer { reply, missing }| name_missing(reply, &missing))
            }
            Err(refusal) => Err(MasterError::Refused(refusal)),
        };
        let reply = done.unwrap_or_else(|error| {
            if let MasterError::Refused(why) = &error {
                self.note_refused(&admitted.caller, &admitted.route, head, why);
            }
            self.0.router.refuse(&admitted.route, &error.into_refusal())
        });
        with_headers(reply, headers)
    }

    fn body_limit(&self, _: &AdmittedRequest) -> usize {
        self.0.body_limit
    }
}

/// A parsed request, and whether its caller is allowed to make it.
type Read = Result<(MasterRequest, Result<(), Refusal>), Refusal>;

impl Master {
    /// Count a request that was refused, and let who debugs see why.
    fn note_refused(&self, caller: &Caller, route: &Matched, head: Head<'_>, why: &Refusal) {
        let key_name = caller.name();
        let (dialect, reason) = (self.0.router.dialect(route).name(), why.reason());
        self.0.metrics.rejected(dialect, why);
        let why = why.in_short();
        debug!(
            key_name, dialect, method = head.method, path = head.path, reason;
            "request of {key_name} refused: {why}"
        );
    }

    fn read(&self, admitted: &AdmittedRequest, segments: Vec<String>, head: Head<'_>, body: Bytes) -> Read {
        let call =
            call(self.0.router.route(&admitted.route).route_id, segments, head, body, admitted.at, &admitted.tenants);
        let mut request = self.0.router.dialect(&admitted.route).master_request(call)?;
        let checked = self.0.dispatcher.check(&admitted.caller, &admitted.tenants, &mut request);
        Ok((request, checked))
    }

    /// The same on a thread that serves no sockets.
    async fn read_elsewhere(
        &self,
        admitted: &AdmittedRequest,
        segments: Vec<String>,
        head: Head<'_>,
        body: Bytes,
    ) -> Read {
        let (master, admitted) = (self.clone(), admitted.clone());
        let (method, path, query) = (head.method.to_owned(), head.path.to_owned(), head.query.to_owned());
        let headers = KeptHeaders::of(head.headers, &self.0.router.dialect(&admitted.route).headers());
        let version = head.version;
        let read = tokio::task::spawn_blocking(move || {
            let head = Head { method: &method, path: &path, query: &query, headers: &headers, version };
            master.read(&admitted, segments, head, body)
        });
        read.await.unwrap_or_else(|error| {
            error!("a request could not be read: {error}");
            Err(Refusal::unavailable("the request could not be read"))
        })
    }
}

/// The headers of a request with a large body that its route looks at.
struct KeptHeaders(Vec<(String, String)>);

impl KeptHeaders {
    fn of(headers: &dyn Headers, names: &[&str]) -> Self {
        let kept = |name: &&str| Some(((*name).to_owned(), headers.header(name)?.to_owned()));
        Self(names.iter().filter_map(kept).collect())
    }
}

impl Headers for KeptHeaders {
    fn header(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|(kept, value)| (kept == name).then_some(value.as_str()))
    }
}

fn with_headers(mut reply: ApiReply, headers: Vec<(&'static str, String)>) -> ApiReply {
    reply.headers.extend(headers);
    reply
}

/// A request as the dialect gets it.
fn call<'a>(
    route_id: usize,
    segments: Vec<String>,
    head: Head<'a>,
    body: Bytes,
    now: Duration,
    tenants: &'a Tenants,
) -> ApiCall<'a> {
    let Head { method, path, query, headers, .. } = head;
    ApiCall { route_id, method, path, segments, query, headers, body, now, tenants }
}

/// Name the slaves that are missing in a partial answer.
fn name_missing(reply: ApiReply, missing: &[NodeId]) -> ApiReply {
    if missing.is_empty() {
        return reply;
    }
    let nodes: Vec<_> = missing.iter().map(NodeId::to_string).collect();
    reply.with_header("X-Wellhead-Partial", nodes.join(","))
}
