//! PushEx: its HTTP push API, and its push socket, which speaks Phoenix channels in the serializers V1 and V2
//! (`docs/pushex.md` says what is supported). Comments here refer to the sections of that page as "pushex.md".

mod api;
mod handshake;
mod json;
mod params;
mod protocol;
mod settings;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use crate::{
    channel::{ChannelPattern, allowed},
    dialect::{
        contract::{
            ApiCall, ApiReply, ConnectRequest, Dialect, Headers, MasterRequest, Protocol, Route, SlaveRequest, Variant,
        },
        mount::{BadSetting, Exposure, Mount, NoKeys},
    },
    frame::SharedFrame,
    ids::{AppId, ChannelName, SocketId, SocketIdSeal},
    notice::Notice,
    refusal::{CloseCause, Refusal},
    tenants::Tenants,
};

pub use self::settings::{PushExRows, Settings};

/// The dialect.
pub struct PushEx {
    routes: Vec<Route>,
    /// The app of backends and clients that name none.
    app: Option<AppId>,
    /// Channels of that app that need no token.
    public: Vec<ChannelPattern>,
    key_header: String,
    key_parameter: String,
    token_parameter: String,
    idle_timeout: Option<Duration>,
    /// Headers of the API that are looked at once the body is there.
    headers: Vec<String>,
    requests: AtomicU32,
}

impl Mount for PushEx {
    type Settings = Settings;
    type AppSettings = NoKeys;
    type App = ();

    fn check(settings: Settings) -> Result<Settings, BadSetting> {
        settings.check()
    }

    fn exposure(settings: &Settings, tenants: &Tenants, _: &Exposure) -> Result<(), BadSetting> {
        settings.pushex.check_app(tenants)
    }

    fn warnings(settings: &Settings, _: &Tenants) -> Vec<String> {
        settings.pushex.warnings()
    }

    fn new(settings: Settings, _: &SocketIdSeal) -> Self {
        let PushExRows { app, public, key_header, key_parameter, token_parameter, idle_timeout } = settings.pushex;
        let headers = ["content-type", "accept", "authorization"].map(str::to_owned).into_iter();
        Self {
            routes: api::routes().chain(handshake::routes()).collect(),
            // an app that is none was refused when the settings were checked
            app: app.parse().ok(),
            public,
            headers: headers.chain((!key_header.is_empty()).then(|| key_header.clone())).collect(),
            key_header,
            key_parameter,
            token_parameter,
            idle_timeout: (!idle_timeout.0.is_zero()).then_some(idle_timeout.0),
            requests: AtomicU32::new(0),
        }
    }
}

impl Dialect for PushEx {
    fn name(&self) -> &'static str {
        "pushex"
    }

    fn routes(&self) -> &[Route] {
        &self.routes
    }

    fn variants(&self) -> u8 {
        protocol::VARIANTS
    }

    fn push_key(&self, head: &ApiCall<'_>) -> Option<String> {
        api::key_elsewhere(self, head)
    }

    fn reply_headers(&self, head: &ApiCall<'_>) -> Vec<(&'static str, String)> {
        if handshake::is_route(head.route_id) {
            return Vec::new();
        }
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        api::reply_headers(head, number)
    }

    fn headers(&self) -> Vec<&str> {
        self.headers.iter().map(String::as_str).collect()
    }

    fn master_request(&self, call: ApiCall<'_>) -> Result<MasterRequest, Refusal> {
        api::push(self, &call)
    }

    fn slave_request(&self, _: ApiCall<'_>) -> Result<SlaveRequest, Refusal> {
        Err(Refusal::NotAHandshake("not a WebSocket handshake"))
    }

    fn connect_request(&self, call: &ApiCall<'_>) -> Result<ConnectRequest, Refusal> {
        handshake::connect_request(self, call)
    }

    fn subprotocol(&self, offered: &dyn Headers) -> Option<String> {
        handshake::subprotocol(offered).map(ToOwned::to_owned)
    }

    fn idle_timeout(&self) -> Option<Duration> {
        self.idle_timeout
    }

    fn is_public(&self, app: &AppId, channel: &ChannelName) -> bool {
        self.app.as_ref() == Some(app) && allowed(&self.public, channel)
    }

    fn open(&self, _: &AppId, variant: Variant, socket: SocketId) -> Box<dyn Protocol> {
        Box::new(protocol::PhoenixProtocol::new(variant, socket))
    }

    fn encode(&self, variant: Variant, notice: Notice<'_>) -> Option<SharedFrame> {
        protocol::frames::encode(variant, notice)
    }

    fn head(&self, _: Variant, tag: &str) -> String {
        protocol::frames::head(tag)
    }

    /// 1000 only for who is idle or is to stay away: phoenix 1.7 does not come back after it.
    fn close(&self, cause: CloseCause) -> (u16, &'static str) {
        match cause {
            CloseCause::Idle | CloseCause::Terminated { reconnect: false } => (1000, cause.reason()),
            CloseCause::InvalidMessage | CloseCause::UnsupportedData => (1011, cause.reason()),
            _ => (cause.code(), cause.reason()),
        }
    }

    fn refuse(&self, route_id: usize, why: &Refusal) -> ApiReply {
        if handshake::is_route(route_id) { handshake::refuse(why) } else { api::refuse(why) }
    }
}
