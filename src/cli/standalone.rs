//! `wellhead standalone`: both roles in this process, until a signal ends it.

use std::process;

use anyhow::{Context, Result};
use log::warn;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{FAILURE, Source, say};
use crate::{app, telemetry};

pub(super) fn run(source: &Source) -> Result<()> {
    let loaded = source.load()?;
    telemetry::start(&loaded.settings.log);
    actix_rt::System::new().block_on(async {
        let mut signals = Signals::new()?;
        let bound = app::bind(&loaded)?;
        if let Some(development) = &bound.development {
            let (master, slave) = bound.addresses()?;
            say(&development.notice(master, slave))?;
            warn!("development mode: no key is configured (jwt.public_keys), a throw-away key was made");
        }
        let mut running = bound.serve().await?;
        tokio::select! {
            () = signals.next() => {}
            error = running.ended() => return Err(error),
        }
        tokio::select! {
            () = running.stop() => Ok(()),
            () = signals.next() => {
                warn!("a second signal: ending at once");
                process::exit(FAILURE.into());
            }
        }
    })
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen to signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
