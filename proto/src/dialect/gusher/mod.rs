//! gusher: the v1 form API and the v3 JSON API of gusher.cluster, and their WebSocket protocol (`docs/gusher.md` says
//! what is spoken and what was fixed).

mod api;
mod auth;
mod wire;

use crate::{
    dialect::contract::{
        ApiCall, ApiReply, Conversation, Dialect, Knock, MasterRequest, Route, Shared, SlaveRequest, Variant,
    },
    event::{Event, Payload},
    frame::Frame,
    ids::{AppId, ChannelName, SocketId, SocketIdSeal},
    notice::Notice,
    refusal::Refusal,
};

/// Where the v1 rows stand; the v3 rows stand at the root.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Prefixes {
    /// Of the master's rows, `/api` unless set: begins with a slash and ends without one; may be empty.
    pub master: String,
    /// Of the slave's rows, `/gcs` unless set.
    pub slave: String,
}

impl Default for Prefixes {
    fn default() -> Self {
        Self { master: "/api".to_owned(), slave: "/gcs".to_owned() }
    }
}

/// The dialect.
pub struct Gusher {
    routes: Vec<Route>,
    seal: SocketIdSeal,
}

impl Gusher {
    /// The dialect with its v1 rows at `prefixes`; `seal` prints and reads socket ids.
    #[must_use]
    pub fn new(prefixes: &Prefixes, seal: SocketIdSeal) -> Self {
        let mut routes = api::routes(&prefixes.master);
        routes.extend(auth::routes(&prefixes.slave));
        Self { routes, seal }
    }
}

impl Dialect for Gusher {
    fn name(&self) -> &'static str {
        "gusher"
    }

    fn routes(&self) -> &[Route] {
        &self.routes
    }

    fn master_request(&self, call: ApiCall<'_>) -> Result<MasterRequest, Refusal> {
        api::call(&call, &self.seal)
    }

    fn slave_request(&self, call: ApiCall<'_>) -> Result<SlaveRequest, Refusal> {
        auth::call(&call)
    }

    fn knock(&self, call: &ApiCall<'_>) -> Result<Knock, Refusal> {
        auth::knock(call)
    }

    fn converse(&self, _: &AppId, _: Variant, socket: SocketId) -> Box<dyn Conversation> {
        Box::new(wire::Talk::new(socket, self.seal.clone()))
    }

    fn event(&self, _: Variant, channel: &ChannelName, event: &Event) -> Shared {
        wire::event(channel, event)
    }

    fn direct(&self, _: Variant, data: &Payload) -> Frame {
        Frame::text(&data.to_json())
    }

    fn notice(&self, _: Variant, notice: Notice<'_>) -> Option<Frame> {
        wire::notice(notice)
    }

    fn refuse(&self, row: usize, why: &Refusal) -> ApiReply {
        if auth::is_row(row) { auth::refuse(row, why) } else { api::refuse(row, why) }
    }
}
