//! A NATS server for the time of one measurement.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::Command,
};

use anyhow::Result;

use crate::child::ServerProcess;

/// The server; dropped, it is ended.
pub struct BenchNats {
    server: ServerProcess,
    /// Where it listens.
    pub address: SocketAddr,
}

impl BenchNats {
    /// Start one on `cores`, and wait until it listens.
    pub fn start(cores: &[usize]) -> Result<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut command = Command::new("nats-server");
        command.args(["-a", "127.0.0.1", "-p", &address.port().to_string()]);
        Ok(Self { server: ServerProcess::start_silent(command, cores, address)?, address })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }
}
