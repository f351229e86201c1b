//! A slave's end of the socket: a queue of frames out, and one connection after the other to whatever master is there.

use std::{future::pending, path::PathBuf, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::{
    io::AsyncWriteExt,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::{timeout, timeout_at},
};
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};
use wellhead_proto::{bus::BusError, ids::NodeId};

use super::{
    frame::{ToBroker, ToClient, VERSION, codec},
    outbound::{NotTaken, Outbound},
    socket::{self, SocketError},
    unix_broker::LocalLimits,
};
use crate::bus::{
    client::{BusTransport, ClientOutlet, ConnectionSession, ReconnectingClient},
    flush::PATIENCE,
    metrics::PubSubMetrics,
    pubsub::{MessageHandler, PubSub, Subject},
};

/// How long the master may take to welcome us.
const HANDSHAKE: Duration = Duration::from_secs(2);

/// Who we are.
#[derive(Clone, Debug)]
pub struct Hello {
    /// Our node.
    pub node: NodeId,
    /// What the master is to know of it.
    pub heartbeat: Bytes,
}

/// A slave's end of the socket.
pub struct UnixClient {
    /// The way to the other nodes.
    pub pubsub: Arc<dyn PubSub>,
    /// What the latest owner of the socket gives to everybody who comes.
    pub welcome: watch::Receiver<Option<Bytes>>,
}

impl UnixClient {
    /// Connect to the master that owns the socket at `path`, now and whenever the connection is lost, for ever.
    ///
    /// # Errors
    ///
    /// `path` cannot be a socket, or the system gives us no thread.
    pub fn connect(
        path: PathBuf,
        hello: Hello,
        limits: LocalLimits,
        handler: Arc<dyn MessageHandler>,
        metrics: PubSubMetrics,
    ) -> Result<Self, SocketError> {
        socket::check(&path)?;
        let (sender, welcome) = watch::channel(None);
        let transport = UnixTransport { path: path.clone(), hello, limits, handler, welcome: sender };
        let pubsub = ReconnectingClient::start(transport, metrics).map_err(|error| SocketError::Io { path, error })?;
        Ok(Self { pubsub, welcome })
    }
}

/// The socket of a machine.
struct UnixTransport {
    path: PathBuf,
    hello: Hello,
    limits: LocalLimits,
    handler: Arc<dyn MessageHandler>,
    welcome: watch::Sender<Option<Bytes>>,
}

/// A connection that was welcomed.
struct UnixConnection {
    frames: FramedRead<OwnedReadHalf, LengthDelimitedCodec>,
    write: OwnedWriteHalf,
    out: Arc<Outbound>,
}

/// What is handed to one connection.
struct UnixOutlet(Arc<Outbound>);

impl ClientOutlet for UnixOutlet {
    async fn send(&self, subject: Subject, message: Bytes) -> Result<(), BusError> {
        let frame = ToBroker::Send(subject, message).frame();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let mut emptied = pin!(self.0.emptied());
            emptied.as_mut().enable();
            match self.0.push(frame.clone()) {
                Ok(()) => return Ok(()),
                Err(NotTaken::Ended) => return Err(BusError::Down),
                Err(NotTaken::Full) => timeout_at(deadline, emptied).await.map_err(|_| BusError::Full)?,
            }
        }
    }

    fn listen(&self, subject: Subject) {
        self.0.push_urgent(ToBroker::Listen(subject).frame());
    }

    fn unlisten(&self, subject: Subject) {
        self.0.push_urgent(ToBroker::Unlisten(subject).frame());
    }

    fn ping(&self, number: u64) -> bool {
        self.0.push_urgent(ToBroker::Ping(number).frame());
        true
    }

    fn farewell(&self) -> bool {
        self.0.push_last(ToBroker::Goodbye.frame())
    }

    fn abandon(&self) {
        self.0.cut_off(ToBroker::Goodbye.frame());
        self.0.wake();
    }
}

impl BusTransport for UnixTransport {
    type Outlet = UnixOutlet;
    type Connection = UnixConnection;

    const LAST_PAUSE: Duration = Duration::from_secs(1);
    const PROBES: bool = true;
    /// A master of the previous release hangs up on who listens to a subject that it does not know.
    const HAS_USER_SLOTS: bool = false;
    const SILENT: &'static str = "the master answers no more";

    fn servers(&self) -> usize {
        1
    }

    fn place(&self, _: usize) -> String {
        self.path.display().to_string()
    }

    fn max_message(&self) -> usize {
        self.limits.message
    }

    fn is_served_by_a_node(&self) -> bool {
        true
    }

    /// Connect, say who we are, and be welcome.
    async fn open(&self, _: usize) -> Result<(UnixOutlet, UnixConnection), String> {
        let greeted = timeout(HANDSHAKE, self.greet()).await;
        greeted.unwrap_or_else(|_| Err("the master does not answer".to_owned()))
    }

    async fn serve(&self, connection: &mut UnixConnection, session: &ConnectionSession<'_, Self>) -> String {
        let UnixConnection { frames, write, out } = connection;
        let write = async {
            match out.write_to(write).await {
                Ok(()) => {
                    let _ = write.shutdown().await;
                    "it was closed".to_owned()
                }
                // what is still to be read may say why: that we were cut off, above all
                Err(_) => {
                    session.not_up();
                    UnixOutlet(out.clone()).abandon();
                    pending().await
                }
            }
        };
        tokio::select! {
            why = self.hear(frames, session) => why,
            why = write => why,
        }
    }

    async fn close(&self, _: UnixConnection) {
        self.handler.interrupted();
    }
}

impl UnixTransport {
    async fn greet(&self) -> Result<(UnixOutlet, UnixConnection), String> {
        let stream = UnixStream::connect(&self.path).await.map_err(|error| format!("no master is there: {error}"))?;
        if !socket::is_one_of_us(&stream).map_err(|error| error.to_string())? {
            return Err("it belongs to another user".to_owned());
        }
        let (read, mut write) = stream.into_split();
        let Hello { node, heartbeat } = self.hello.clone();
        let hello = ToBroker::Hello { version: VERSION, node, heartbeat }.frame();
        let written = async {
            write.write_all(&hello.head).await?;
            write.write_all(&hello.body).await
        };
        written.await.map_err(|error| error.to_string())?;
        let mut frames = FramedRead::new(read, codec(self.limits.message));
        let frame = match frames.next().await {
            Some(Ok(frame)) => frame.freeze(),
            Some(Err(error)) => return Err(error.to_string()),
            None => return Err("the master hung up".to_owned()),
        };
        match ToClient::parse(frame).map_err(|error| error.to_string())? {
            ToClient::Welcome { version: VERSION, payload } => {
                self.welcome.send_replace(Some(payload));
                let out = Arc::new(Outbound::new(self.limits.queue));
                Ok((UnixOutlet(out.clone()), UnixConnection { frames, write, out }))
            }
            ToClient::Welcome { version, .. } => Err(format!(
                "the master speaks version {version} of the local bus and this slave version {VERSION}; run the same \
                 release"
            )),
            _ => Err("the master did not welcome us".to_owned()),
        }
    }

    async fn hear(
        &self,
        frames: &mut FramedRead<OwnedReadHalf, LengthDelimitedCodec>,
        session: &ConnectionSession<'_, Self>,
    ) -> String {
        loop {
            let frame = match frames.next().await {
                Some(Ok(frame)) => frame.freeze(),
                Some(Err(error)) => return error.to_string(),
                None => return "the master is gone".to_owned(),
            };
            match ToClient::parse(frame) {
                Ok(ToClient::Heard(subject, message)) => {
                    session.metrics().heard(message.len());
                    if !self.handler.has_room() {
                        session.pause(true);
                        self.handler.room().await;
                        session.pause(false);
                    }
                    if session.is_listened_to(subject) {
                        self.handler.hear(subject, message);
                    }
                }
                Ok(ToClient::Pong(number)) => session.answered(number),
                Ok(ToClient::CutOff) => {
                    session.metrics().gaps.inc();
                    self.handler.gap();
                    return "this node fell behind and was cut off".to_owned();
                }
                Ok(ToClient::Goodbye) => return "the master said goodbye".to_owned(),
                Ok(ToClient::Welcome { .. }) => return "the master said welcome twice".to_owned(),
                Err(error) => return error.to_string(),
            }
        }
    }
}
