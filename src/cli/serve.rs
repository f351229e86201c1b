//! `wellhead standalone`, `master` and `slave`: roles in this process, until a signal ends it.

use std::{
    fs,
    future::pending,
    process,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use log::{info, warn};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{FAILURE, SettingsSource, say};
use crate::{
    app::{Handed, NodeProcess, RunningNode, Then},
    settings::plan::Roles,
    telemetry,
};

pub(super) fn run(source: &SettingsSource, roles: Roles) -> Result<()> {
    // before there are threads: it takes variables out of the environment
    let handed = Handed::from_env()?;
    let loaded = source.load()?;
    telemetry::start(&loaded.settings.log);
    actix_rt::System::new().block_on(async {
        let mut signals = Signals::new()?;
        let mut app = NodeProcess::on_sockets(loaded, roles, handed)?;
        let mut first = true;
        loop {
            let bound = tokio::select! {
                bound = app.bind() => bound?,
                () = signals.next() => {
                    info!("ended");
                    return Ok(());
                }
            };
            if std::mem::take(&mut first) && app.is_development() {
                match app.notice() {
                    Some(notice) => {
                        say(&notice)?;
                        warn!("development mode: no key is configured (jwt.public_keys), a throw-away key was made");
                    }
                    None => warn!("development mode: no key is configured (jwt.public_keys), the master gave its own"),
                }
            }
            let mut running = bound.serve().await?;
            tokio::select! {
                () = signals.next() => return end(running, &mut signals, true).await.map(drop),
                again = running.over() => {
                    let again = again?;
                    warn!("{again}: this node ends and comes back as a new one");
                    if end(running, &mut signals, false).await? {
                        return Ok(());
                    }
                }
            }
        }
    })
}

/// Signals so close to each other are one.
const TOGETHER: Duration = Duration::from_millis(200);

/// Let the node end in order. A signal while it ends for another reason, and `asked` is false, ends the process, too: then
/// it is true that the process is to end. A second one ends it at once.
async fn end(running: RunningNode, signals: &mut Signals, asked: bool) -> Result<bool> {
    let mut since = asked.then(Instant::now);
    let stop = running.stop(if asked { Then::End } else { Then::Again });
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return Ok(since.is_some()),
            () = signals.next() => match since {
                // what sends two at a time, as systemd and `timeout` do, means one
                Some(first) if first.elapsed() < TOGETHER => {}
                Some(_) => {
                    warn!("a second signal: ending at once");
                    process::exit(FAILURE.into());
                }
                None => since = Some(Instant::now()),
            },
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Settings cannot be read anew yet, so it ends the process as the others do. `nohup` has it ignored.
    hang_up: Option<Signal>,
}

impl Signals {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen to signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: if ignores_hang_up() { None } else { Some(listen(SignalKind::hangup())?) },
        })
    }

    async fn next(&mut self) {
        let hang_up = async {
            match &mut self.hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = hang_up => {}
        }
    }
}

/// Was this process started so that SIGHUP does not reach it?
fn ignores_hang_up() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        // SIGHUP is the first of the signals
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
    })
}
