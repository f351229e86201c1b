//! Socket Conveyor: its native HTTP endpoints and its native WebSocket protocol (`docs/conveyor.md` says what is supported).
//! Its Pusher mode is the dialect of Pusher.

mod api;
mod handshake;
mod protocol;
mod settings;
#[cfg(test)]
mod tests;

use crate::{
    dialect::{
        contract::{
            ApiCall, ApiReply, ConnectRequest, Dialect, Headers, MasterRequest, Protocol, Role, Route, RouteAuth,
            Variant,
        },
        mount::{BadSetting, Exposure, Mount, NoKeys, OwnCredentials, SecretFiles},
    },
    frame::SharedFrame,
    ids::{AppId, SocketId, SocketIdSeal},
    notice::Notice,
    refusal::Refusal,
    tenants::Tenants,
};

pub use self::settings::{ConveyorApp, ConveyorRows, Settings};

/// Its name, also in commands that are for its sockets only.
const NAME: &str = "conveyor";

/// The encoding without ids of frames, and the one with them.
const PLAIN: Variant = Variant(0);
const WITH_IDS: Variant = Variant(1);

/// The dialect. Whether it is on, and with which token, is in the directory of tenants.
pub struct Conveyor {
    routes: Vec<Route>,
}

impl Mount for Conveyor {
    type Settings = Settings;
    type AppSettings = NoKeys;
    type App = ConveyorApp;

    fn paths(settings: &mut Settings) -> Vec<(&'static str, &mut String)> {
        vec![("conveyor.token_file", &mut settings.conveyor.token_file)]
    }

    fn check(settings: Settings) -> Result<Settings, BadSetting> {
        settings.check()
    }

    fn record(settings: &Settings, files: &dyn SecretFiles) -> Result<Option<ConveyorApp>, BadSetting> {
        settings.app(files)
    }

    fn own_credentials(tenants: &Tenants) -> Option<OwnCredentials> {
        let requests = if app(tenants)?.is_open() { "" } else { "requests with Conveyor's server token" };
        Some(OwnCredentials { clients: "Conveyor's clients", requests })
    }

    fn all_alike(tenants: &Tenants) -> Option<(&'static str, Vec<Vec<u8>>)> {
        Some(("settings of [conveyor]", app(tenants)?.alike()))
    }

    fn exposure(_: &Settings, tenants: &Tenants, _: &Exposure) -> Result<(), BadSetting> {
        app(tenants).map_or(Ok(()), |app| app.check_served(tenants))
    }

    fn warnings(_: &Settings, tenants: &Tenants) -> Vec<String> {
        app(tenants).and_then(ConveyorApp::short_token).into_iter().collect()
    }

    fn exposure_warnings(tenants: &Tenants, exposure: &Exposure) -> Vec<String> {
        let open = app(tenants).filter(|app| app.is_open()).zip(exposure.slave);
        let beyond = open.filter(|(_, slave)| !slave.ip().is_loopback());
        let words = |(app, slave): (&ConveyorApp, _)| {
            format!(
                "conveyor.open is true: whoever reaches {slave} may read every channel of the app {}, and publish there",
                app.key
            )
        };
        beyond.map(words).into_iter().collect()
    }

    fn new(_: Settings, _: &SocketIdSeal) -> Self {
        Self { routes: api::routes().chain([handshake::route()]).collect() }
    }
}

/// The one app that is served, while the dialect is on.
fn app(tenants: &Tenants) -> Option<&ConveyorApp> {
    tenants.all_of().next()
}

impl Dialect for Conveyor {
    fn name(&self) -> &'static str {
        NAME
    }

    fn routes(&self) -> &[Route] {
        &self.routes
    }

    fn is_open(&self, tenants: &Tenants) -> bool {
        app(tenants).is_some()
    }

    fn variants(&self) -> u8 {
        2
    }

    /// Without a server token, push keys guard what backends call.
    fn guard(&self, route: &Route, tenants: &Tenants) -> RouteAuth {
        match app(tenants) {
            Some(app) if app.is_open() && route.role == Role::Master => RouteAuth::PushKey(api::right(route.route_id)),
            _ => route.guard,
        }
    }

    fn authenticate(&self, head: &ApiCall<'_>) -> Result<(), Refusal> {
        api::authenticate(app(head.tenants).ok_or(Refusal::NotFound)?, head)
    }

    fn master_request(&self, call: ApiCall<'_>) -> Result<MasterRequest, Refusal> {
        api::call(app(call.tenants).ok_or(Refusal::NotFound)?, &call)
    }

    fn connect_request(&self, call: &ApiCall<'_>) -> Result<ConnectRequest, Refusal> {
        handshake::connect_request(app(call.tenants).ok_or(Refusal::NotFound)?, call)
    }

    fn subprotocol(&self, offered: &dyn Headers) -> Option<String> {
        handshake::subprotocol(offered)
    }

    fn open(&self, _: &AppId, variant: Variant, socket: SocketId) -> Box<dyn Protocol> {
        Box::new(protocol::ConveyorProtocol::new(variant, socket))
    }

    fn encode(&self, variant: Variant, notice: Notice<'_>) -> Option<SharedFrame> {
        protocol::frames::encode(variant, notice)
    }

    fn refuse(&self, _: usize, why: &Refusal) -> ApiReply {
        api::refuse(why)
    }
}
