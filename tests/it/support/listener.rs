//! A client that reads all the time: pushes are noted as they come, replies are kept for who asked.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use tokio::sync::{mpsc, watch};

use super::{
    client::{command, path},
    http::Reply,
    ledger::{HeardMark, Mark, check},
    quoted,
    websocket::{CLOSE, Close, PING, PONG, TEXT, WebSocket},
    within,
};

/// One client.
pub struct Listener {
    pub app: String,
    pub user: String,
    say: mpsc::UnboundedSender<ListenerCommand>,
    replies: mpsc::UnboundedReceiver<(String, Value)>,
    heard: Arc<Mutex<Vec<HeardMark>>>,
    state: watch::Receiver<ListenerState>,
}

enum ListenerCommand {
    Text(String),
    Leave,
}

#[derive(Clone, Debug, Default)]
struct ListenerState {
    heard: usize,
    end: Option<ListenerEnd>,
}

/// How a socket ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ListenerEnd {
    /// With a close frame of the server's.
    Closed(Close),
    /// Because this client said so.
    Left,
    /// Without a word.
    Broken,
}

impl Listener {
    /// Connect, or hear why not.
    pub async fn open(slave: SocketAddr, app: &str, user: &str, token: &str) -> Result<Self, Reply> {
        let socket = WebSocket::open(slave, &path(app, token), &[]).await?;
        let (say, said) = mpsc::unbounded_channel();
        let (reply, replies) = mpsc::unbounded_channel();
        let (tell, state) = watch::channel(ListenerState::default());
        let heard = Arc::<Mutex<Vec<HeardMark>>>::default();
        tokio::spawn(run(socket, said, reply, heard.clone(), tell));
        Ok(Self { app: app.to_owned(), user: user.to_owned(), say, replies, heard, state })
    }

    /// Connect, which must be possible.
    pub async fn connect(slave: SocketAddr, app: &str, user: &str, token: &str) -> Self {
        let opened = Self::open(slave, app, user, token).await;
        opened.unwrap_or_else(|reply| panic!("{user} of {app} is refused: {reply:?}"))
    }

    /// Send a command; what kind of reply comes, and its data. None if the socket ends first.
    pub async fn ask(&mut self, event: &str, data: &str) -> Option<(String, Value)> {
        self.say.send(ListenerCommand::Text(command(event, data))).ok()?;
        within("a reply", self.replies.recv()).await
    }

    /// Join a channel. False if the socket ends first.
    pub async fn subscribe(&mut self, channel: &str) -> bool {
        match self.ask("gusher.subscribe", &format!(r#"{{"channel":{}}}"#, quoted(channel))).await {
            Some((event, _)) => assert_eq!(event, "gusher.subscribe_succeeded"),
            None => return false,
        }
        true
    }

    /// Leave a channel. False if the socket ends first.
    pub async fn unsubscribe(&mut self, channel: &str) -> bool {
        match self.ask("gusher.unsubscribe", &format!(r#"{{"channel":{}}}"#, quoted(channel))).await {
            Some((event, _)) => assert_eq!(event, "gusher.unsubscribe_succeeded"),
            None => return false,
        }
        true
    }

    /// A round trip: what the server put out before it has been read after it.
    pub async fn ping(&mut self) -> bool {
        self.ask("gusher.ping", "0").await.is_some()
    }

    /// Everything that came so far; it is held to the promises.
    pub fn heard(&self) -> Vec<HeardMark> {
        let heard = self.heard.lock().expect("nobody panics with it").clone();
        check(&self.app, &self.user, &heard);
        heard
    }

    /// Wait until `mark` has come, or the socket has ended: did it come?
    pub async fn hears(&self, mark: &Mark) -> bool {
        within("a push, or the end of the socket", self.heard_or_ended(mark)).await
    }

    async fn heard_or_ended(&self, mark: &Mark) -> bool {
        let mut state = self.state.clone();
        let mut seen = 0;
        loop {
            let ended = state.borrow_and_update().end.is_some();
            {
                let heard = self.heard.lock().expect("nobody panics with it");
                if heard[seen..].iter().any(|heard| heard.mark == *mark) {
                    return true;
                }
                seen = heard.len();
            }
            if ended || state.changed().await.is_err() {
                return false;
            }
        }
    }

    /// Has it ended, and how?
    pub fn end(&self) -> Option<ListenerEnd> {
        self.state.borrow().end.clone()
    }

    /// Wait for its end, however long it takes.
    pub async fn end_of_it(&self) {
        let mut state = self.state.clone();
        // an error says that it is over, too
        let _ = state.wait_for(|state| state.end.is_some()).await;
    }

    /// Wait for its end.
    pub async fn ended(&self) -> ListenerEnd {
        let mut state = self.state.clone();
        let end = within("a socket ends", state.wait_for(|state| state.end.is_some())).await;
        end.map_or(ListenerEnd::Broken, |state| state.end.clone().expect("it was waited for"))
    }

    /// Say goodbye; back when the connection has ended.
    pub async fn leave(&self) -> ListenerEnd {
        let _ = self.say.send(ListenerCommand::Leave);
        self.ended().await
    }
}

async fn run(
    mut socket: WebSocket,
    mut said: mpsc::UnboundedReceiver<ListenerCommand>,
    reply: mpsc::UnboundedSender<(String, Value)>,
    heard: Arc<Mutex<Vec<HeardMark>>>,
    tell: watch::Sender<ListenerState>,
) {
    let (mut leaving, mut closed) = (false, None);
    let end = loop {
        tokio::select! {
            say = said.recv() => {
                let sent = match say {
                    Some(ListenerCommand::Text(text)) => socket.try_send(TEXT, text.as_bytes()).await,
                    Some(ListenerCommand::Leave) => {
                        leaving = true;
                        socket.try_send(CLOSE, &1000_u16.to_be_bytes()).await
                    }
                    // nobody holds it any more
                    None => break ListenerEnd::Left,
                };
                if sent.is_err() {
                    break ListenerEnd::Broken;
                }
            }
            frame = socket.try_frame() => match frame {
                Ok(Some(frame)) => match frame.opcode {
                    TEXT => {
                        let text = std::str::from_utf8(&frame.payload).expect("text frames are UTF-8");
                        match understand(text) {
                            Understood::Reply(event, data) => drop(reply.send((event, data))),
                            Understood::Push(push) => {
                                let mut heard = heard.lock().expect("nobody panics with it");
                                heard.push(push);
                                let count = heard.len();
                                drop(heard);
                                tell.send_modify(|state| state.heard = count);
                            }
                        }
                    }
                    PING => drop(socket.try_send(PONG, &frame.payload).await),
                    CLOSE => {
                        let close = Close::from(frame.payload.as_slice());
                        let _ = socket.try_send(CLOSE, &close.code.to_be_bytes()).await;
                        closed = Some(close);
                    }
                    _ => {}
                },
                Ok(None) => break match closed {
                    _ if leaving => ListenerEnd::Left,
                    Some(close) => ListenerEnd::Closed(close),
                    None => ListenerEnd::Broken,
                },
                Err(_) => break closed.map_or(ListenerEnd::Broken, ListenerEnd::Closed),
            },
        }
    };
    tell.send_modify(|state| state.end = Some(end));
}

enum Understood {
    Reply(String, Value),
    Push(HeardMark),
}

fn understand(text: &str) -> Understood {
    #[derive(Deserialize)]
    struct ListenerMessage<'a> {
        event: Option<String>,
        channel: Option<String>,
        #[serde(borrow)]
        data: Option<&'a RawValue>,
    }
    let message: ListenerMessage<'_> = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let mark = |json: &str| serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {text}"));
    match message {
        ListenerMessage { event: Some(event), data: Some(data), .. } if event.starts_with("gusher.") => {
            Understood::Reply(event, serde_json::from_str(data.get()).expect("JSON"))
        }
        ListenerMessage { event: Some(_), channel: Some(channel), data: Some(data) } => {
            Understood::Push(HeardMark { channel: Some(channel), mark: mark(data.get()) })
        }
        // the bare payload
        _ => Understood::Push(HeardMark { channel: None, mark: mark(text) }),
    }
}
