//! gusher: the v1 form API and the v3 JSON API of gusher.cluster, and their WebSocket protocol (`docs/gusher.md` says
//! what is supported and what was fixed).

mod api;
mod auth;
mod protocol;
mod remote;
mod settings;

use crate::{
    dialect::{
        contract::{ApiCall, ApiReply, ConnectRequest, Dialect, MasterRequest, Protocol, Route, SlaveRequest, Variant},
        mount::{BadSetting, Mount, NoKeys},
    },
    frame::SharedFrame,
    ids::{AppId, SocketId, SocketIdSeal},
    notice::Notice,
    refusal::Refusal,
};

pub use self::settings::{Settings, V1Rows};

/// The dialect.
pub struct Gusher {
    routes: Vec<Route>,
    seal: SocketIdSeal,
}

impl Mount for Gusher {
    type Settings = Settings;
    type AppSettings = NoKeys;
    type App = ();

    fn check(settings: Settings) -> Result<Settings, BadSetting> {
        settings.check()
    }

    fn new(settings: Settings, seal: &SocketIdSeal) -> Self {
        let mut routes = api::routes(&settings.master.prefix);
        routes.extend(auth::routes(&settings.slave.prefix));
        Self { routes, seal: seal.clone() }
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

    fn connect_request(&self, call: &ApiCall<'_>) -> Result<ConnectRequest, Refusal> {
        auth::connect_request(call)
    }

    fn open(&self, _: &AppId, _: Variant, socket: SocketId) -> Box<dyn Protocol> {
        Box::new(protocol::GusherProtocol::new(socket, self.seal.clone()))
    }

    fn encode(&self, _: Variant, notice: Notice<'_>) -> Option<SharedFrame> {
        protocol::encode(notice)
    }

    fn refuse(&self, route_id: usize, why: &Refusal) -> ApiReply {
        if auth::is_route(route_id) { auth::refuse(route_id, why) } else { api::refuse(route_id, why) }
    }
}
