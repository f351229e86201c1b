//! The HTTP routes of the slave: a JWT for a token, ping. What clients ask before and beside their sockets.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use log::debug;
use wellhead_proto::{
    dialect::contract::{ApiCall, ApiReply, RouteAuth, SlaveRequest},
    http_api::{Head, HttpApi, Matched, NotAdmitted},
    jwt::{BadToken, MAX_JWT_BYTES},
    refusal::Refusal,
};

use crate::{slave::Slave, token::NotIssued};

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl HttpApi for Slave {
    type Admitted = Matched;

    fn admit(&self, head: Head<'_>) -> Result<Matched, NotAdmitted> {
        let tenants = self.0.tenants.load();
        let matched = self.0.router.find_own(head.method, head.path, &tenants)?;
        let route = self.0.router.route(&matched);
        if route.guard == RouteAuth::Own {
            let Head { method, path, query, headers, .. } = head;
            let (route_id, segments, now) = (route.route_id, matched.segments.clone(), now());
            let body = Bytes::new();
            let call = ApiCall { route_id, method, path, segments, query, headers, body, now, tenants: &tenants };
            let judged = self.0.router.dialect(&matched).authenticate(&call);
            judged.map_err(|why| self.0.router.refuse(&matched, &why))?;
        }
        Ok(matched)
    }

    fn not_found(&self, head: Head<'_>) -> ApiReply {
        self.0.router.not_found(head.path, &self.0.tenants.load())
    }

    fn refuse(&self, admitted: &Matched, why: &Refusal) -> ApiReply {
        self.0.router.refuse(admitted, why)
    }

    async fn serve(&self, admitted: Matched, head: Head<'_>, body: Bytes) -> ApiReply {
        let shared = &self.0;
        let now = now();
        let dialect = shared.router.dialect(&admitted);
        let route_id = shared.router.route(&admitted).route_id;
        let segments = admitted.segments.clone();
        let Head { method, path, query, headers, .. } = head;
        let tenants = shared.tenants.load();
        let call = ApiCall { route_id, method, path, segments, query, headers, body, now, tenants: &tenants };
        match dialect.slave_request(call) {
            Err(why) => dialect.refuse(route_id, &why),
            Ok(SlaveRequest::Answer(reply)) => reply,
            Ok(SlaveRequest::Exchange { jwt, reply }) => match shared.tokens.issue(&jwt, &tenants, now) {
                Ok(token) => reply(Ok(token)),
                Err(NotIssued::Refused(why)) => {
                    let why = if jwt.is_empty() { BadToken::Missing } else { why };
                    shared.metrics.auth_failed(why);
                    debug!(reason = why.label(); "a JWT is refused: {}", why.label());
                    reply(Err(why))
                }
                Err(NotIssued::Full) => {
                    let why = Refusal::unavailable("too many connection tokens are waiting to be used");
                    dialect.refuse(route_id, &why)
                }
            },
        }
    }

    /// Anybody may ask a slave, so that it reads no more than the largest JWT needs when every byte of it is escaped.
    fn body_limit(&self, _: &Matched) -> usize {
        self.0.limits.body.bytes().min(4 * MAX_JWT_BYTES)
    }
}
