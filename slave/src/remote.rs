//! Remote commands of clients on their way to the backends of their apps: how many may be under way, and who posts them.
//! Nothing waits for them but whoever asked, and a socket without one under way holds nothing for them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::time::timeout;
use wellhead_proto::{
    bus::BoxFuture,
    ids::{AppId, SocketId},
    remote::{REMOTE_WITHIN, RemoteTarget},
};

/// Commands of one app that this slave waits for.
const MOST_OF_AN_APP: usize = 100;

/// Posts remote commands.
pub trait RemoteCaller: Send + Sync {
    /// Post `body`, signed, to the backend of `app`.
    ///
    /// # Errors
    ///
    /// What went wrong, for metrics.
    fn call(&self, app: AppId, target: Arc<RemoteTarget>, body: Bytes) -> BoxFuture<Result<(), &'static str>>;
}

/// For a slave whose apps have no backend.
pub struct NoRemote;

impl RemoteCaller for NoRemote {
    fn call(&self, _: AppId, _: Arc<RemoteTarget>, _: Bytes) -> BoxFuture<Result<(), &'static str>> {
        Box::pin(async { Err("no_target") })
    }
}

/// What is under way.
pub struct RemoteCalls {
    caller: Arc<dyn RemoteCaller>,
    under_way: Mutex<FxHashMap<AppId, FxHashSet<SocketId>>>,
}

/// One command that is under way.
pub struct CallPermit {
    calls: Arc<RemoteCalls>,
    app: AppId,
    socket: SocketId,
}

impl RemoteCalls {
    /// Nothing yet; `caller` posts what comes.
    pub fn new(caller: Arc<dyn RemoteCaller>) -> Self {
        Self { caller, under_way: Mutex::default() }
    }

    /// A command of `socket` may be sent.
    ///
    /// # Errors
    ///
    /// Why not, for metrics: one of the socket is under way, or as many of the app as may be.
    pub fn begin(self: &Arc<Self>, app: AppId, socket: SocketId) -> Result<CallPermit, &'static str> {
        let mut under_way = self.under_way();
        let of_app = under_way.entry(app.clone()).or_default();
        if of_app.contains(&socket) {
            return Err("under_way");
        }
        if of_app.len() >= MOST_OF_AN_APP {
            return Err("too_many");
        }
        of_app.insert(socket);
        Ok(CallPermit { calls: self.clone(), app, socket })
    }

    fn under_way(&self) -> MutexGuard<'_, FxHashMap<AppId, FxHashSet<SocketId>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CallPermit {
    /// Post the command, and wait for its end.
    ///
    /// # Errors
    ///
    /// What went wrong, for metrics.
    pub async fn call(self, target: Arc<RemoteTarget>, body: Bytes) -> Result<(), &'static str> {
        let answer = self.calls.caller.call(self.app.clone(), target, body);
        timeout(REMOTE_WITHIN, answer).await.unwrap_or(Err("timeout"))
    }
}

/// It is over, or nobody waits for it any more.
impl Drop for CallPermit {
    fn drop(&mut self) {
        let mut under_way = self.calls.under_way();
        if let Some(of_app) = under_way.get_mut(&self.app) {
            of_app.remove(&self.socket);
            if of_app.is_empty() {
                under_way.remove(&self.app);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use wellhead_proto::{http_target::HttpTarget, ids::NodeId};

    use super::*;

    fn socket(counter: u32) -> SocketId {
        SocketId::new(NodeId::from_random(1), counter)
    }

    #[test]
    fn a_socket_has_one_under_way_and_an_app_a_hundred() {
        let calls = Arc::new(RemoteCalls::new(Arc::new(NoRemote)));
        let begin = |app: &str, counter| calls.begin(app.parse().unwrap(), socket(counter));
        let mut permits: Vec<_> = (0..100).map(|counter| begin("app", counter).ok().unwrap()).collect();
        assert_eq!(begin("app", 7).err(), Some("under_way"));
        assert_eq!(begin("app", 100).err(), Some("too_many"));
        assert!(begin("other", 7).is_ok());
        permits.remove(7);
        assert!(begin("app", 7).is_ok());
        permits.clear();
        assert!(calls.under_way().is_empty(), "what is over holds nothing");
    }

    struct Silent;

    impl RemoteCaller for Silent {
        fn call(&self, _: AppId, _: Arc<RemoteTarget>, _: Bytes) -> BoxFuture<Result<(), &'static str>> {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_answers_is_given_up() {
        let calls = Arc::new(RemoteCalls::new(Arc::new(Silent)));
        let target = RemoteTarget::new(HttpTarget::new("http://example.com/").unwrap(), b"secret");
        let permit = calls.begin("app".parse().unwrap(), socket(1)).ok().unwrap();
        assert_eq!(permit.call(Arc::new(target), Bytes::new()).await, Err("timeout"));
        assert!(calls.under_way().is_empty());
    }
}
