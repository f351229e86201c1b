//! Pusher Channels: the HTTP API with its signed requests, and protocol 7 (`docs/pusher.md` says what is spoken).
//! Comments here refer to the sections of that page as "pusher.md".

mod api;
mod apps;
mod door;
mod json;
mod names;
mod settings;
mod sign;
mod wire;

use crate::{
    dialect::contract::{
        ApiCall, ApiReply, Conversation, Dialect, Knock, MasterRequest, Route, Shared, SlaveRequest, TurnedAway,
        Variant,
    },
    event::{Event, Payload},
    frame::Frame,
    ids::{AppId, ChannelName, SocketId},
    notice::Notice,
    refusal::{CloseCause, Refusal},
};

use self::apps::Apps;
pub use self::settings::{App, Limits, Settings};

/// The dialect.
pub struct Pusher {
    routes: Vec<Route>,
    master_prefix: String,
    apps: Apps,
}

impl Pusher {
    /// The dialect for the apps of `settings`; without any, it has no rows.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let mut routes = Vec::new();
        if !settings.apps.is_empty() {
            routes.extend(api::routes(&settings.master_prefix));
            routes.extend(door::routes(&settings.slave_prefix));
        }
        Self { routes, master_prefix: settings.master_prefix.clone(), apps: Apps::new(&settings.apps) }
    }
}

impl Dialect for Pusher {
    fn name(&self) -> &'static str {
        "pusher"
    }

    fn routes(&self) -> &[Route] {
        &self.routes
    }

    fn authenticate(&self, head: &ApiCall<'_>) -> Result<(), Refusal> {
        if door::is_row(head.row) { Ok(()) } else { api::authenticate(&self.apps, &self.master_prefix, head) }
    }

    fn master_request(&self, call: ApiCall<'_>) -> Result<MasterRequest, Refusal> {
        api::call(&self.apps, &call)
    }

    fn slave_request(&self, call: ApiCall<'_>) -> Result<SlaveRequest, Refusal> {
        Err(door::no_upgrade(&call))
    }

    fn knock(&self, call: &ApiCall<'_>) -> Result<Knock, Refusal> {
        door::knock(&self.apps, call)
    }

    fn converse(&self, app: &AppId, _: Variant, socket: SocketId) -> Box<dyn Conversation> {
        let served = self.apps.by_key(app.as_str()).expect("only apps that knocked are let in");
        Box::new(wire::Talk::new(served.clone(), socket))
    }

    fn event(&self, _: Variant, channel: &ChannelName, event: &Event) -> Shared {
        wire::frames::event(channel, event)
    }

    fn direct(&self, _: Variant, data: &Payload) -> Frame {
        wire::frames::direct(data)
    }

    fn notice(&self, _: Variant, notice: Notice<'_>) -> Option<Frame> {
        wire::frames::notice(notice)
    }

    fn close(&self, cause: CloseCause) -> (u16, &'static str) {
        wire::close::close(cause)
    }

    fn farewell(&self, cause: CloseCause) -> Option<Frame> {
        wire::close::farewell(cause)
    }

    fn refuse(&self, row: usize, why: &Refusal) -> ApiReply {
        if door::is_row(row) { door::refuse(why) } else { api::refuse(why) }
    }

    fn turn_away(&self, row: usize, why: &Refusal) -> Option<TurnedAway> {
        if door::is_row(row) { door::turn_away(why) } else { None }
    }
}
