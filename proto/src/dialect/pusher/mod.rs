//! Pusher Channels: the HTTP API with its signed requests, and protocol 7 (`docs/pusher.md` says what is supported).
//! Comments here refer to the sections of that page as "pusher.md".

mod api;
mod apps;
mod handshake;
mod json;
mod limits;
mod names;
mod protocol;
mod settings;
mod sign;
pub mod webhook;

use crate::{
    dialect::{
        contract::{
            ApiCall, ApiReply, ConnectRequest, Dialect, MasterRequest, Protocol, RejectedSocket, Route, SlaveRequest,
            Variant,
        },
        mount::{AppEntry, BadSetting, Mount, OwnCredentials, SecretFiles},
    },
    frame::{Frame, SharedFrame},
    ids::{AppId, SocketId, SocketIdSeal},
    notice::Notice,
    refusal::{CloseCause, Refusal},
    tenants::{AppWants, Tenants},
};

pub use self::{
    apps::PusherApp,
    limits::AppLimits,
    protocol::Allowance,
    settings::{PusherAppSettings, PusherRows, Settings},
};

/// The dialect. Its apps are those in the directory of tenants that it has a record of.
pub struct Pusher {
    routes: Vec<Route>,
    master_prefix: String,
}

impl Mount for Pusher {
    type Settings = Settings;
    type AppSettings = PusherAppSettings;
    type App = PusherApp;

    const APP_VARIABLES: &'static [&'static [&'static str]] = &[&["id"], &["secret", "secret_file"]];
    const OWN_CREDENTIALS: Option<OwnCredentials> =
        Some(OwnCredentials { clients: "Pusher's clients", requests: "signed requests of Pusher's libraries" });

    fn app_paths(settings: &mut PusherAppSettings) -> Vec<(&'static str, &mut String)> {
        let own = ("secret_file", &mut settings.secret_file);
        webhook::paths(&mut settings.webhooks).chain([own]).collect()
    }

    fn check(settings: Settings) -> Result<Settings, BadSetting> {
        settings.check()
    }

    fn apps(
        apps: &[AppEntry<'_, PusherAppSettings>],
        files: &dyn SecretFiles,
    ) -> Result<Vec<Option<PusherApp>>, BadSetting> {
        settings::apps(apps, files)
    }

    fn app_id(app: &PusherApp) -> Option<String> {
        Some(app.id.clone())
    }

    fn wants(app: &PusherApp) -> AppWants {
        app.wants()
    }

    fn app_secret(app: &PusherApp) -> Option<&[u8]> {
        Some(&app.secret)
    }

    fn alike(settings: &PusherAppSettings, app: Option<&PusherApp>, origins: &str) -> Vec<Vec<u8>> {
        settings::alike(settings, app, origins)
    }

    fn warnings(_: &Settings, tenants: &Tenants) -> Vec<String> {
        settings::warnings(tenants.all_of())
    }

    fn new(settings: Settings, _: &SocketIdSeal) -> Self {
        let PusherRows { master_prefix, slave_prefix } = settings.pusher;
        let routes = api::routes(&master_prefix).chain(handshake::routes(&slave_prefix)).collect();
        Self { routes, master_prefix }
    }
}

impl Dialect for Pusher {
    fn name(&self) -> &'static str {
        "pusher"
    }

    fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Whoever has no app of Pusher's has none of its routes.
    fn is_open(&self, tenants: &Tenants) -> bool {
        tenants.has::<PusherApp>()
    }

    fn authenticate(&self, head: &ApiCall<'_>) -> Result<(), Refusal> {
        if handshake::is_route(head.route_id) { Ok(()) } else { api::authenticate(&self.master_prefix, head) }
    }

    fn master_request(&self, call: ApiCall<'_>) -> Result<MasterRequest, Refusal> {
        api::call(&call)
    }

    fn slave_request(&self, call: ApiCall<'_>) -> Result<SlaveRequest, Refusal> {
        Err(handshake::no_upgrade(&call))
    }

    fn connect_request(&self, call: &ApiCall<'_>) -> Result<ConnectRequest, Refusal> {
        handshake::connect_request(call)
    }

    fn open(&self, app: &AppId, _: Variant, socket: SocketId) -> Box<dyn Protocol> {
        Box::new(protocol::PusherProtocol::new(app.clone(), socket))
    }

    fn encode(&self, _: Variant, notice: Notice<'_>) -> Option<SharedFrame> {
        protocol::frames::encode(notice).map(SharedFrame::from)
    }

    fn close(&self, cause: CloseCause) -> (u16, &'static str) {
        protocol::close::close(cause)
    }

    fn closing(&self, cause: CloseCause) -> Option<Frame> {
        protocol::close::closing(cause)
    }

    fn refuse(&self, route_id: usize, why: &Refusal) -> ApiReply {
        if handshake::is_route(route_id) { handshake::refuse(why) } else { api::refuse(why) }
    }

    fn reject_socket(&self, route_id: usize, why: &Refusal) -> Option<RejectedSocket> {
        if handshake::is_route(route_id) { handshake::reject_socket(why) } else { None }
    }
}
