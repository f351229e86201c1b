//! The baseline `textbook`: WebSockets as actix's examples have them. `ws::start`, one actor for each session, one
//! registry actor for all, a message in a mailbox for every delivery, and `ctx.text`.

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message, Recipient, StreamHandler};
use actix_web::{
    App, Error, HttpRequest, HttpResponse, HttpServer,
    web::{self, Bytes, Data, Path, Payload},
};
use actix_web_actors::ws;
use anyhow::Result;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::child;

#[derive(Message)]
#[rtype(result = "()")]
struct TextbookSay(String);

#[derive(Message)]
#[rtype(result = "()")]
struct TextbookJoin {
    id: u64,
    channel: String,
    session: Recipient<TextbookSay>,
}

#[derive(Message)]
#[rtype(result = "()")]
struct TextbookLeave {
    id: u64,
    channel: String,
}

#[derive(Message)]
#[rtype(result = "()")]
struct TextbookPublish {
    channel: String,
    text: String,
}

#[derive(Default)]
struct TextbookRegistry {
    channels: FxHashMap<String, FxHashMap<u64, Recipient<TextbookSay>>>,
}

impl Actor for TextbookRegistry {
    type Context = Context<Self>;
}

impl Handler<TextbookJoin> for TextbookRegistry {
    type Result = ();

    fn handle(&mut self, join: TextbookJoin, _: &mut Self::Context) {
        self.channels.entry(join.channel).or_default().insert(join.id, join.session);
    }
}

impl Handler<TextbookLeave> for TextbookRegistry {
    type Result = ();

    fn handle(&mut self, leave: TextbookLeave, _: &mut Self::Context) {
        if let Some(sessions) = self.channels.get_mut(&leave.channel) {
            sessions.remove(&leave.id);
        }
    }
}

impl Handler<TextbookPublish> for TextbookRegistry {
    type Result = ();

    fn handle(&mut self, TextbookPublish { channel, text }: TextbookPublish, _: &mut Self::Context) {
        for session in self.channels.get(&channel).into_iter().flat_map(FxHashMap::values) {
            session.do_send(TextbookSay(text.clone()));
        }
    }
}

struct TextbookSession {
    id: u64,
    channel: Option<String>,
    registry: Addr<TextbookRegistry>,
}

impl Actor for TextbookSession {
    type Context = ws::WebsocketContext<Self>;

    fn stopped(&mut self, _: &mut Self::Context) {
        if let Some(channel) = self.channel.take() {
            self.registry.do_send(TextbookLeave { id: self.id, channel });
        }
    }
}

impl Handler<TextbookSay> for TextbookSession {
    type Result = ();

    fn handle(&mut self, TextbookSay(text): TextbookSay, ctx: &mut Self::Context) {
        ctx.text(text);
    }
}

#[derive(Deserialize)]
struct TextbookCommand {
    data: TextbookSubscription,
}

#[derive(Deserialize)]
struct TextbookSubscription {
    channel: String,
}

impl StreamHandler<Result<ws::Message, ws::ProtocolError>> for TextbookSession {
    fn handle(&mut self, message: Result<ws::Message, ws::ProtocolError>, ctx: &mut Self::Context) {
        match message {
            Ok(ws::Message::Text(text)) => {
                let Ok(command) = serde_json::from_str::<TextbookCommand>(&text) else { return ctx.stop() };
                let channel = command.data.channel;
                self.channel = Some(channel.clone());
                self.registry.do_send(TextbookJoin { id: self.id, channel, session: ctx.address().recipient() });
                ctx.text("{\"event\":\"gusher.subscribe_succeeded\"}");
            }
            Ok(ws::Message::Ping(bytes)) => ctx.pong(&bytes),
            Ok(ws::Message::Pong(_)) => {}
            _ => ctx.stop(),
        }
    }
}

async fn open(
    request: HttpRequest,
    stream: Payload,
    registry: Data<Addr<TextbookRegistry>>,
) -> Result<HttpResponse, Error> {
    // unique: an address is
    let id = request.peer_addr().map_or(0, |peer| {
        let std::net::IpAddr::V4(ip) = peer.ip() else { return u64::from(peer.port()) };
        u64::from(u32::from(ip)) << 16 | u64::from(peer.port())
    });
    ws::start(TextbookSession { id, channel: None, registry: (**registry).clone() }, &request, stream)
}

#[derive(Deserialize, Serialize)]
struct TextbookPush<'a> {
    event: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Serialize)]
struct TextbookOut<'a> {
    channel: &'a str,
    event: &'a str,
    data: &'a RawValue,
}

async fn push(path: Path<(String, String)>, body: Bytes, registry: Data<Addr<TextbookRegistry>>) -> HttpResponse {
    let (_, channel) = path.into_inner();
    let Ok(TextbookPush { event, data }) = serde_json::from_slice(&body) else {
        return HttpResponse::BadRequest().finish();
    };
    let Ok(text) = serde_json::to_string(&TextbookOut { channel: &channel, event, data }) else {
        return HttpResponse::BadRequest().finish();
    };
    registry.do_send(TextbookPublish { channel, text: text.clone() });
    HttpResponse::Ok().body(text)
}

/// Serve until the process is ended.
pub fn serve() -> Result<()> {
    actix_web::rt::System::new().block_on(async {
        let registry = Data::new(TextbookRegistry::default().start());
        let listener = child::listener()?;
        let address = listener.local_addr()?;
        let server = HttpServer::new(move || {
            App::new()
                .app_data(registry.clone())
                .route("/v1/apps/{app}/ws", web::get().to(open))
                .route("/v1/apps/{app}/channels/{channel}/messages", web::post().to(push))
        })
        .workers(1)
        .listen(listener)?
        .run();
        child::announce("textbook", address)?;
        server.await?;
        Ok(())
    })
}
