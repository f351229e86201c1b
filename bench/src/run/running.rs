//! Servers that run, whoever they are: where they listen, and which processes they are.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::{
    contender::Contender,
    environment::{CONVEYOR_TOKEN, app},
    nats::BenchNats,
};
use crate::{
    child::ServerProcess,
    load::{Job, ServerProtocol, TokenSource},
    proc,
};

/// What was started for a measurement; dropped, it is ended.
#[derive(Default)]
pub struct RunningContender {
    /// In the order in which they were started: a master before its slaves.
    pub servers: Vec<ServerProcess>,
    /// What stands between them.
    pub nats: Option<BenchNats>,
    /// Where sockets are opened, if the servers did not say.
    pub ws: Option<SocketAddr>,
    /// Where pushes go, if the servers did not say.
    pub http: Option<SocketAddr>,
    /// A process that somebody else started.
    pub pid: Option<u32>,
    /// What they speak.
    pub protocol: Option<ServerProtocol>,
    /// How sockets prove who they are, if not as the job has it.
    pub tokens: Option<TokenSource>,
}

impl RunningContender {
    /// These, which say themselves where they listen.
    pub fn of(servers: Vec<ServerProcess>) -> Self {
        Self { servers, ..Self::default() }
    }

    /// One, and what such a contender speaks.
    pub fn speaking(contender: Contender, server: ServerProcess) -> Self {
        let protocol = match contender {
            Contender::Write | Contender::Coalesce | Contender::Uws => ServerProtocol::Raw,
            Contender::Textbook => ServerProtocol::Gusher,
            Contender::Pusher => ServerProtocol::Pusher(app()),
            Contender::PushEx(serializer) => {
                return Self { protocol: Some(ServerProtocol::Phoenix(serializer)), ..Self::of(vec![server]) };
            }
            Contender::Conveyor => ServerProtocol::Conveyor(CONVEYOR_TOKEN.to_owned()),
            // as the job has it
            _ => return Self::of(vec![server]),
        };
        Self { protocol: Some(protocol), tokens: Some(TokenSource::None), ..Self::of(vec![server]) }
    }

    /// The job, for them.
    pub fn addressed(&self, job: &Job) -> Result<Job> {
        let mut job = job.clone();
        job.slaves = self.servers.iter().filter_map(|server| server.slave).chain(self.ws).collect();
        let masters = self.servers.iter().filter_map(|server| server.master);
        job.master = masters.chain(self.http).next().context("somebody takes pushes")?;
        job.admins = self.servers.iter().filter_map(|server| server.admin).collect();
        job.pids = self.pids();
        job.protocol = self.protocol.clone().unwrap_or(ServerProtocol::Gusher);
        if let Some(tokens) = &self.tokens {
            job.tokens = tokens.clone();
        }
        Ok(job)
    }

    /// Their processes: servers in order, each with what it has started, NATS last.
    pub fn pids(&self) -> Vec<u32> {
        let nats = self.nats.as_ref().map(BenchNats::pid);
        self.servers.iter().map(ServerProcess::pid).chain(self.pid).flat_map(proc::family).chain(nats).collect()
    }

    /// End them in order.
    pub fn stop(self) -> Result<()> {
        // slaves before their master, which may own the bus
        for server in self.servers.into_iter().rev() {
            server.stop()?;
        }
        Ok(())
    }
}
