//! Posts remote commands of clients to the backends of their apps, on a thread of its own: TLS and slow backends cost the
//! threads of the sockets nothing. It begins with the first command.

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
    thread,
};

use bytes::Bytes;
use log::{debug, error, info, warn};
use tokio::{
    runtime::Builder,
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use wellhead_proto::{
    bus::BoxFuture,
    dialect::mount::BadSetting,
    ids::AppId,
    remote::{REMOTE_WITHIN, RemoteTarget},
    tenants::Tenants,
};
use wellhead_slave::RemoteCaller;

use crate::{
    outbound::{OutboundClient, OutboundError, OutboundRequest, check_address},
    settings::ListedApp,
};

/// Names the app, as its key.
const KEY: &str = "x-wellhead-key";
/// The signature of the body.
const SIGNATURE: &str = "x-wellhead-signature";

/// Can the targets of these apps be asked at all?
///
/// # Errors
///
/// One could never be.
pub fn check(apps: &[ListedApp], tenants: &Tenants, allow_private: bool) -> Result<(), BadSetting> {
    for (index, app) in apps.iter().enumerate() {
        let Some(target) = tenants.named(&app.key).remote() else { continue };
        check_address(format!("apps.listed.{index}.remote.url"), target.http(), allow_private)?;
    }
    Ok(())
}

/// Posts them.
pub struct RemoteSender {
    allow_private: bool,
    /// To its thread. Slaves bound what is under way, and so what waits here.
    thread: OnceLock<mpsc::UnboundedSender<Posting>>,
}

/// One command to be posted.
struct Posting {
    app: AppId,
    target: Arc<RemoteTarget>,
    body: Bytes,
    answer: oneshot::Sender<Result<(), &'static str>>,
}

impl RemoteSender {
    /// It connects to addresses that are not globally routable only if `allow_private`.
    #[must_use]
    pub fn new(allow_private: bool) -> Self {
        Self { allow_private, thread: OnceLock::new() }
    }

    fn thread(&self) -> &mpsc::UnboundedSender<Posting> {
        self.thread.get_or_init(|| {
            let (postings, posted) = mpsc::unbounded_channel();
            let allow_private = self.allow_private;
            let begun = thread::Builder::new().name("remote".to_owned()).spawn(move || run(allow_private, posted));
            if let Err(why) = begun {
                error!("remote commands cannot be sent: {why}");
            }
            postings
        })
    }
}

impl RemoteCaller for RemoteSender {
    fn call(&self, app: AppId, target: Arc<RemoteTarget>, body: Bytes) -> BoxFuture<Result<(), &'static str>> {
        let (answer, answered) = oneshot::channel();
        // fails if the thread has ended, which is said by the answer that does not come
        let _ = self.thread().send(Posting { app, target, body, answer });
        Box::pin(async { answered.await.unwrap_or(Err("internal")) })
    }
}

/// Post what comes, as long as somebody may send more.
fn run(allow_private: bool, posted: mpsc::UnboundedReceiver<Posting>) {
    let runtime = Builder::new_current_thread().enable_all().build();
    match runtime.map_err(anyhow::Error::from).and_then(|runtime| Ok((runtime, OutboundClient::new(allow_private)?))) {
        Ok((runtime, client)) => runtime.block_on(post_all(&client, posted)),
        Err(why) => error!("remote commands cannot be sent: {why:#}"),
    }
}

async fn post_all(client: &OutboundClient, mut posted: mpsc::UnboundedReceiver<Posting>) {
    let (mut under_way, mut failing) = (JoinSet::new(), HashSet::new());
    loop {
        tokio::select! {
            posting = posted.recv() => match posting {
                Some(posting) => drop(under_way.spawn(post(client.clone(), posting))),
                None => return,
            },
            Some(ended) = under_way.join_next(), if !under_way.is_empty() => {
                if let Ok((app, target, result)) = ended {
                    note(&mut failing, app, &target, result);
                }
            }
        }
    }
}

async fn post(
    client: OutboundClient,
    Posting { app, target, body, mut answer }: Posting,
) -> (AppId, Arc<RemoteTarget>, Result<(), OutboundError>) {
    let signature = target.sign(&body);
    let request = OutboundRequest {
        target: target.http(),
        headers: &[(KEY, app.as_str()), (SIGNATURE, &signature)],
        body,
        within: REMOTE_WITHIN,
    };
    let result = tokio::select! {
        result = client.post(request) => result,
        () = answer.closed() => Err(OutboundError::TimedOut),
    };
    // fails only if nobody waits any more
    let _ = answer.send(result.as_ref().copied().map_err(OutboundError::label));
    (app, target, result)
}

/// Say once that the backend of an app fails, and once that it no longer does.
fn note(failing: &mut HashSet<AppId>, app: AppId, target: &RemoteTarget, result: Result<(), OutboundError>) {
    let to = target.http();
    match result {
        Ok(()) if failing.remove(&app) => info!(app_id = app.as_str(); "{to} takes remote commands of {app} again"),
        Ok(()) => {}
        Err(why) if failing.contains(&app) => {
            debug!(app_id = app.as_str(), reason = why.label(); "{to} does not take a remote command of {app}: {why}");
        }
        Err(why) => {
            warn!(
                app_id = app.as_str(), reason = why.label();
                "{to} does not take a remote command of {app}: {why}. More is logged at debug level until it does"
            );
            failing.insert(app);
        }
    }
}
