//! A target of webhooks: a backend that checks what it is sent, and answers as it is told.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::{pusher::TestApp, until};

/// How a target answers one request.
#[derive(Clone, Debug)]
pub enum HookAnswer {
    /// With this status.
    Status(u16),
    /// With a redirect.
    Moved(String),
    /// Not at all, for ever.
    Hang,
    /// By resetting the connection.
    Reset,
    /// With this, byte by byte, each once the one before is written.
    Trickle(&'static str),
}

/// One request, as it came.
#[derive(Clone, Debug)]
pub struct HookRequest {
    pub path: String,
    headers: Vec<(String, String)>,
    pub body: String,
    /// How it was answered.
    pub answer: HookAnswer,
}

impl HookRequest {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    pub fn id(&self) -> &str {
        self.header("x-wellhead-webhook-id").expect("an id")
    }

    /// Its events; the request must be signed by `app`, as its libraries verify it.
    pub fn events(&self, app: TestApp) -> Vec<Value> {
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert_eq!(self.header("x-pusher-key"), Some(app.key));
        assert_eq!(self.header("x-pusher-signature"), Some(&*app.sign(&self.body)), "{}", self.body);
        let body: Value = serde_json::from_str(&self.body).expect("JSON");
        assert!(body["time_ms"].is_u64(), "{body}");
        body["events"].as_array().expect("a list").clone()
    }

    fn is_good(&self) -> bool {
        matches!(self.answer, HookAnswer::Status(200..300) | HookAnswer::Trickle(_))
    }
}

/// The target.
pub struct HookTarget {
    pub address: SocketAddr,
    state: Arc<HookState>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct HookState {
    requests: Mutex<Vec<HookRequest>>,
    /// What the next requests get; behind them all get 200.
    script: Mutex<VecDeque<HookAnswer>>,
}

impl HookTarget {
    /// One that answers 200.
    pub async fn start() -> Self {
        Self::scripted([]).await
    }

    /// One that answers as `script` says, and then 200.
    pub async fn scripted(script: impl IntoIterator<Item = HookAnswer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let state = Arc::new(HookState { script: Mutex::new(script.into_iter().collect()), ..HookState::default() });
        let task = tokio::spawn(accept(listener, state.clone()));
        Self { address, state, task }
    }

    /// `{ url = … }` of the settings, with more of the table.
    pub fn listed(&self, more: &str) -> String {
        format!("{{ url = \"http://{}/hook?key=hush\"{more} }}", self.address)
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<HookRequest> {
        lock(&self.state.requests).clone()
    }

    /// The events of all requests that were answered 2xx, in the order of their arrival.
    pub fn all_events(&self, app: TestApp) -> Vec<Value> {
        self.requests().iter().filter(|request| request.is_good()).flat_map(|request| request.events(app)).collect()
    }

    /// The same without counts, which come in their own time.
    pub fn events(&self, app: TestApp) -> Vec<Value> {
        self.all_events(app).into_iter().filter(|event| event["name"] != "subscription_count").collect()
    }

    /// The counts of a channel, in the order of their arrival.
    pub fn counts(&self, app: TestApp, channel: &str) -> Vec<u64> {
        let events = self.all_events(app).into_iter();
        let of_channel = events.filter(|event| event["name"] == "subscription_count" && event["channel"] == channel);
        of_channel.map(|event| event["subscription_count"].as_u64().expect("a number")).collect()
    }

    /// Wait until it has been told exactly these, in this order.
    pub async fn is_told(&self, app: TestApp, wanted: &[Value]) {
        until("the target is told", wanted.to_vec(), || async { self.events(app) }).await;
    }

    /// Wait until so many requests have come.
    pub async fn is_asked(&self, requests: usize) {
        until("the target is asked", true, || async { self.requests().len() >= requests }).await;
    }
}

impl Drop for HookTarget {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with it")
}

async fn accept(listener: TcpListener, state: Arc<HookState>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, state.clone()));
    }
}

async fn serve(mut stream: TcpStream, state: Arc<HookState>) {
    let mut read = Vec::new();
    while let Some(request) = request(&mut stream, &mut read).await {
        let answer = lock(&state.script).pop_front().unwrap_or(HookAnswer::Status(200));
        lock(&state.requests).push(HookRequest { answer: answer.clone(), ..request });
        let text = match answer {
            HookAnswer::Status(status) => format!("HTTP/1.1 {status} It\r\ncontent-length: 2\r\n\r\nok"),
            HookAnswer::Moved(to) => format!("HTTP/1.1 301 Moved\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"),
            HookAnswer::Hang => {
                // until the other side gives up
                while !matches!(stream.read(&mut [0; 64]).await, Ok(0) | Err(_)) {}
                return;
            }
            HookAnswer::Reset => {
                let _ = socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));
                return;
            }
            HookAnswer::Trickle(text) => {
                for byte in text.bytes() {
                    if stream.write_all(&[byte]).await.is_err() {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
                continue;
            }
        };
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn request(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<HookRequest> {
    let end = loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(read).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(read[..end].to_vec()).expect("a head is text");
    let (first, rest) = head.split_once("\r\n").expect("headers");
    let headers: Vec<_> = rest
        .lines()
        .map(|line| line.split_once(": ").expect("a header"))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").expect("a length");
    let whole = end + 4 + length.1.parse::<usize>().expect("a number");
    while read.len() < whole {
        if stream.read_buf(read).await.ok()? == 0 {
            return None;
        }
    }
    let body = String::from_utf8(read[end + 4..whole].to_vec()).expect("a body is text");
    read.drain(..whole);
    let mut words = first.split(' ');
    assert_eq!(words.next(), Some("POST"), "{first}");
    let path = words.next().expect("a path").to_owned();
    Some(HookRequest { path, headers, body, answer: HookAnswer::Hang })
}
