//! A WebSocket echo server for conformance tests: a dialect that answers each message with itself, mounted on the real
//! slave behind the real door. It prints its address and serves until it is killed.

use std::{error::Error, io::Write as _, net::TcpListener, sync::Arc};

use jsonwebtoken::{EncodingKey, Header};
use prometheus_client::registry::Registry;
use serde_json::json;
use wellhead::{
    bus::local::InProcessBus,
    health::Health,
    http::{self, budget::Budget, connections::Bounds, metrics::AllRequests, service::HttpService},
};
use wellhead_proto::{
    action::Action,
    dialect::contract::{
        ApiCall, ApiReply, ClientMessage, ConnectRequest, Credentials, Dialect, Protocol, Role, Route, RouteAuth,
        Variant,
    },
    frame::{Frame, Opcode, SharedFrame},
    ids::{AppId, NodeId, SocketId},
    jwt::{Key, Keyring},
    notice::{ActionOutcome, Notice},
    origin::Origins,
    refusal::{CloseCause, Refusal},
    tenants::{TenantDirectory, Tenants},
    units::Size,
};
use wellhead_slave::{
    NoWebhooks, Slave, SlaveSetup,
    settings::{Limits, Settings, TokenSettings},
};

const SECRET: &[u8] = b"known to nobody but this process";
const LIMIT: Size = Size::mib(20);

/// The fifth dialect: whatever is said is said back.
struct EchoDialect {
    routes: [Route; 1],
    /// Everybody is let in with it.
    token: String,
}

impl Dialect for EchoDialect {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn routes(&self) -> &[Route] {
        &self.routes
    }

    fn connect_request(&self, _: &ApiCall<'_>) -> Result<ConnectRequest, Refusal> {
        let app = "echo".parse().expect("a short name");
        Ok(ConnectRequest { app, credentials: Credentials::Token(self.token.clone()), variant: Variant::default() })
    }

    fn open(&self, _: &AppId, _: Variant, _: SocketId) -> Box<dyn Protocol> {
        Box::new(Parrot)
    }

    fn encode(&self, _: Variant, _: Notice<'_>) -> Option<SharedFrame> {
        // nobody subscribes to anything, and nobody is pushed to
        None
    }

    fn refuse(&self, _: usize, why: &Refusal) -> ApiReply {
        ApiReply::new(why.status(), "text/plain", why.to_string())
    }
}

struct Parrot;

impl Protocol for Parrot {
    fn socket_id(&self) -> String {
        "echo".to_owned()
    }

    fn receive(&mut self, message: ClientMessage, _: &Tenants, _: std::time::Duration) -> Result<Action, CloseCause> {
        Ok(Action::Answer(match message {
            ClientMessage::Text(text) => Frame::text(&text),
            ClientMessage::Binary(bytes) => Frame::of(Opcode::Binary, &bytes),
        }))
    }

    fn reply(&mut self, _: ActionOutcome<'_>) -> Option<Frame> {
        None
    }
}

#[actix_rt::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let claims = json!({ "gusher": { "user_id": "", "channels": [], "app_key": "echo" } });
    let token = jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET))?;
    let path = "/".to_owned();
    let route = Route { role: Role::Slave, method: Route::SOCKET, path, guard: RouteAuth::Own, route_id: 0 };
    let keys = Keyring::new(vec![Key::from_secret(SECRET)?], false);
    let node = NodeId::from_random(1);
    let hub = Arc::new(InProcessBus::new(node));
    let setup = SlaveSetup {
        node,
        settings: Settings::default(),
        limits: Limits { message: LIMIT, queue: Size::mib(64), ..Limits::default() },
        tokens: TokenSettings::default(),
        cluster: "echo".to_owned(),
        secret: SECRET.to_vec(),
        tenants: Arc::new(TenantDirectory::new(Tenants::new(keys, [], true, Origins::any()))),
        dialects: vec![Arc::new(EchoDialect { routes: [route], token })],
        bus: hub.clone(),
        remote: Arc::new(wellhead_slave::NoRemote),
        webhooks: Arc::new(NoWebhooks),
    };
    let mut registry = Registry::default();
    let slave = Slave::new(setup, &mut registry);
    wellhead_proto::bus::Bus::attach(&*hub, slave.bus_handler());
    let requests = AllRequests::new(&mut registry).of("slave");
    let service = HttpService::new(slave, Health::new(hub), requests, Budget::new(LIMIT.bytes()));
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let builder = actix_server::Server::build().workers(2);
    let server = http::listen(builder, listener, service, Bounds::of_its_own(1_000), || ())?.run();
    let mut out = std::io::stdout();
    writeln!(out, "{address}")?;
    out.flush()?;
    Ok(server.await?)
}
