//! Servers as processes of their own: how a baseline says where it listens, and how the runner starts one and waits.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use crate::proc;

/// A listener for a baseline, with room for a storm.
pub fn listener() -> Result<TcpListener> {
    set_parent_process_death_signal(Some(Signal::TERM))?;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Say where a baseline listens, as Wellhead says it.
pub fn announce(name: &str, address: SocketAddr) -> Result<()> {
    let mut out = std::io::stderr().lock();
    for role in ["master", "slave"] {
        writeln!(
            out,
            "{}",
            json!({ "message": format!("{name} listens"), "role": role, "address": address.to_string() })
        )?;
    }
    writeln!(out, "{}", json!({ "message": "ready" }))?;
    Ok(())
}

/// A server that runs; dropped, it is ended.
pub struct ServerProcess {
    child: Child,
    /// Where backends call.
    pub master: Option<SocketAddr>,
    /// Where clients connect.
    pub slave: Option<SocketAddr>,
    /// Where its metrics are.
    pub admin: Option<SocketAddr>,
    log: Option<thread::JoinHandle<Vec<String>>>,
}

impl ServerProcess {
    /// Start `command` on `cores` and wait until it is ready.
    pub fn start(mut command: Command, cores: &[usize]) -> Result<Self> {
        let mut child = spawn(command.stderr(Stdio::piped()), cores)?;
        let mut lines = BufReader::new(child.stderr.take().context("its log is a pipe")?).lines();
        let mut server = Self { child, master: None, slave: None, admin: None, log: None };
        let mut said = Vec::new();
        loop {
            let Some(line) = lines.next().transpose()? else {
                bail!("{command:?} ended before it was ready:\n{}", said.join("\n"));
            };
            if let Ok(entry) = serde_json::from_str::<Value>(&line) {
                let address = entry["address"].as_str().and_then(|address| address.parse().ok());
                match entry["role"].as_str() {
                    Some("master") => server.master = address,
                    Some("slave") => server.slave = address,
                    Some("admin") => server.admin = address,
                    _ if entry["message"] == "ready" => break,
                    _ => {}
                }
            }
            said.push(line);
        }
        server.log = Some(thread::spawn(move || lines.map_while(Result::ok).collect()));
        Ok(server)
    }

    /// Start `command`, which does not say when it is ready, and wait until it listens at `address`.
    pub fn start_silent(mut command: Command, cores: &[usize], address: SocketAddr) -> Result<Self> {
        let child = spawn(command.stderr(Stdio::null()), cores)?;
        let mut server = Self { child, master: None, slave: None, admin: None, log: None };
        let until = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            ensure!(server.child.try_wait()?.is_none(), "{command:?} ended before it listened");
            ensure!(Instant::now() < until, "{command:?} does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// End it in order; what it logged after it was ready.
    pub fn stop(mut self) -> Result<Vec<String>> {
        self.terminate();
        self.child.wait()?;
        Ok(self.log.take().map(|log| log.join().unwrap_or_default()).unwrap_or_default())
    }

    fn terminate(&self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // fails only if it has ended
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

fn spawn(command: &mut Command, cores: &[usize]) -> Result<Child> {
    let ours = proc::cores()?;
    // before it starts, so that it sees as many cores as it has
    proc::pin(cores)?;
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    proc::pin(&ours)?;
    spawned.with_context(|| format!("cannot start {command:?}"))
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            // in order first: it may have processes of its own to end
            self.terminate();
            let until = Instant::now() + Duration::from_secs(3);
            while self.child.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < until {
                thread::sleep(Duration::from_millis(20));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
