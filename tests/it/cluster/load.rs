//! Publishers that go on whatever happens and note what they were told, clients that come back, and what came of it.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::support::{
    PATIENCE, encoded,
    keys::signer,
    ledger::{Mark, MarkKind},
    listener::Listener,
    within,
};

/// A push, and what became of it.
#[derive(Clone, Debug)]
pub struct SentPush {
    pub mark: Mark,
    pub began: Instant,
    pub answered: Instant,
    /// None if the connection broke.
    pub status: Option<u16>,
}

impl SentPush {
    pub fn is_accepted(&self) -> bool {
        self.status == Some(200)
    }
}

/// Pushes one after the other until it is told to stop.
pub struct Publisher {
    stop: watch::Sender<bool>,
    /// How many pushes have ended, whatever came of them.
    ended: watch::Receiver<usize>,
    task: JoinHandle<Vec<SentPush>>,
}

impl Publisher {
    /// To `targets` in turn, one every `pace`, through whichever of `masters` answers.
    pub fn start(masters: &LiveAddresses, by: u64, targets: &[(MarkKind, &str, &str)], pace: Duration) -> Self {
        let targets: Vec<_> = targets.iter().map(|&(kind, app, to)| (kind, app.to_owned(), to.to_owned())).collect();
        let (stop, stopped) = watch::channel(false);
        let (tell, ended) = watch::channel(0);
        let masters = masters.clone();
        let task = tokio::spawn(async move {
            let (mut sent, mut connection) = (Vec::new(), None);
            let mut tick = tokio::time::interval(pace);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while !*stopped.borrow() {
                tick.tick().await;
                let n = sent.len() as u64;
                let (kind, app, to) = targets[sent.len() % targets.len()].clone();
                let mark = Mark { app, kind, to, by, n };
                let master = masters.any(by as usize);
                let began = Instant::now();
                let status = push(&mut connection, master, &mark).await;
                if status.is_none() {
                    connection = None;
                    masters.turn();
                }
                sent.push(SentPush { mark, began, answered: Instant::now(), status });
                tell.send_replace(sent.len());
            }
            sent
        });
        Self { stop, ended, task }
    }

    /// Wait until so many more of its pushes have ended.
    pub async fn pushes(&self, more: usize) {
        let mut ended = self.ended.clone();
        let wanted = *ended.borrow() + more;
        within("a publisher goes on", ended.wait_for(|ended| *ended >= wanted)).await.expect("it runs");
    }

    /// Everything that it did.
    pub async fn stop(self) -> Vec<SentPush> {
        self.stop.send_replace(true);
        within("a publisher stops", self.task).await.expect("it did not panic")
    }
}

/// Where somebody listens at the moment.
#[derive(Clone, Default)]
pub struct LiveAddresses(Arc<Mutex<(Vec<SocketAddr>, usize)>>);

impl LiveAddresses {
    pub fn of(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        let all = Self::default();
        all.are(addresses);
        all
    }

    /// From now on it is these.
    pub fn are(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        self.0.lock().unwrap().0 = addresses.into_iter().collect();
    }

    /// One that stays the same for the same number, until there is a turn.
    fn any(&self, number: usize) -> SocketAddr {
        let all = self.0.lock().unwrap();
        all.0[(number + all.1) % all.0.len()]
    }

    fn turn(&self) {
        self.0.lock().unwrap().1 += 1;
    }
}

async fn push(connection: &mut Option<(SocketAddr, TcpStream)>, master: SocketAddr, mark: &Mark) -> Option<u16> {
    let path = match mark.kind {
        MarkKind::User => format!("/api/push/user/{}/{}", encoded(&mark.app), encoded(&mark.to)),
        _ => format!("/api/push/{}/{}/e", encoded(&mark.app), encoded(&mark.to)),
    };
    let body = format!("data={}", encoded(&mark.json()));
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {master}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let exchange = async {
        let mut stream = match connection.take().filter(|(to, _)| *to == master) {
            Some((_, stream)) => stream,
            None => TcpStream::connect(master).await.ok()?,
        };
        stream.write_all(request.as_bytes()).await.ok()?;
        let (status, keep) = read_reply(&mut stream).await?;
        if keep {
            *connection = Some((master, stream));
        }
        Some(status)
    };
    // longer than any master may take; one that is gone is noticed by its connection
    timeout(PATIENCE, exchange).await.unwrap_or_else(|_| panic!("{master} left a push unanswered for {PATIENCE:?}"))
}

/// Its status, and whether the connection stays. None if it broke.
async fn read_reply(stream: &mut TcpStream) -> Option<(u16, bool)> {
    let mut read = BytesMut::new();
    loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = std::str::from_utf8(&read[..end]).expect("a head is text").to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            if read.len() >= end + 4 + length.unwrap_or(0) {
                let status = head.get(9..12)?.parse().ok()?;
                return Some((status, !head.contains("connection: close")));
            }
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
}

/// The time of a client on one socket.
pub struct Stay {
    pub listener: Listener,
    /// From here on it was on all its channels.
    pub since: Instant,
    /// It had ended by then.
    pub until: Option<Instant>,
}

/// A client that comes back whenever it is sent away.
pub struct Follower {
    stop: watch::Sender<bool>,
    there: watch::Receiver<bool>,
    task: JoinHandle<Vec<Stay>>,
}

impl Follower {
    pub fn start(slaves: &LiveAddresses, number: usize, app: &str, channels: &[&str]) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let (tell, there) = watch::channel(false);
        let (slaves, app) = (slaves.clone(), app.to_owned());
        let channels: Vec<_> = channels.iter().map(|&channel| channel.to_owned()).collect();
        let user = format!("user-{number}");
        let task = tokio::spawn(async move {
            let token = signer().jwt(&app, &user, &["*"]);
            let (mut stays, mut tries) = (Vec::new(), number);
            while !*stopped.borrow() {
                let address = slaves.any(tries);
                tries += 1;
                let Some(mut listener) = come(address, &app, &user, &token).await else {
                    // nothing tells when somebody listens again
                    sleep(Duration::from_millis(20)).await;
                    continue;
                };
                let mut joined = true;
                for channel in &channels {
                    joined = joined && listener.subscribe(channel).await;
                }
                if !joined {
                    continue;
                }
                let since = Instant::now();
                tell.send_replace(true);
                let mut ended = tokio::select! {
                    _ = listener.end_of_it() => true,
                    _ = stopped.wait_for(|stop| *stop) => false,
                };
                // what its slave has put out before is read after a round trip
                ended = ended || !listener.ping().await;
                tell.send_replace(!ended);
                stays.push(Stay { listener, since, until: ended.then(Instant::now) });
            }
            stays
        });
        Self { stop, there, task }
    }

    /// Wait until it is on its channels.
    pub async fn is_there(&mut self) {
        within("a client is there", self.there.wait_for(|there| *there)).await.expect("it does not stop");
    }

    /// All its stays; the last goes on.
    pub async fn stop(self) -> Vec<Stay> {
        self.stop.send_replace(true);
        within("a client stops", self.task).await.expect("it did not panic")
    }
}

async fn come(slave: SocketAddr, app: &str, user: &str, token: &str) -> Option<Listener> {
    drop(TcpStream::connect(slave).await.ok()?);
    let (app, user, token) = (app.to_owned(), user.to_owned(), token.to_owned());
    // it may vanish in the middle of the handshake, too
    tokio::spawn(async move { Listener::open(slave, &app, &user, &token).await.ok() }).await.ok().flatten()
}

/// Accepted pushes to any of `channels` of `app`, begun after `from` and answered before `to`, that were not heard.
pub fn lost<'a>(
    sent: &'a [SentPush],
    listener: &Listener,
    channels: &[String],
    from: Instant,
    to: Option<Instant>,
) -> Vec<&'a SentPush> {
    let heard: HashSet<_> = listener.heard().into_iter().map(|heard| heard.mark).collect();
    let owed = |one: &&SentPush| {
        one.is_accepted()
            && one.mark.app == listener.app
            && (one.mark.kind == MarkKind::Channel && channels.contains(&one.mark.to)
                || one.mark.kind == MarkKind::User && one.mark.to == listener.user)
            && one.began > from
            && to.is_none_or(|to| one.answered < to)
    };
    sent.iter().filter(owed).filter(|one| !heard.contains(&one.mark)).collect()
}

/// How many were accepted, refused with 503, and left without an answer; nothing else may be.
pub fn count(sent: &[SentPush]) -> (usize, usize, usize) {
    let (mut accepted, mut refused, mut broken) = (0, 0, 0);
    for one in sent {
        match one.status {
            Some(200) => accepted += 1,
            Some(503) => refused += 1,
            None => broken += 1,
            other => panic!("a push is answered with {other:?}: {one:?}"),
        }
    }
    (accepted, refused, broken)
}
