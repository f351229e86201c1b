//! A real nats-server on a port of its own, with a folder of its own; killed with the test.

use std::{
    fs,
    io::Read,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use wellhead::bus::nats::NatsSettings;

use super::PATIENCE;

/// A folder of one test, removed at its end.
pub struct TestFolder(pub PathBuf);

impl TestFolder {
    pub fn new() -> Self {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("wellhead-wire-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    /// Write `text` to the file `name` here; its path.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("a file of the test");
        path
    }
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server that can be stopped and started again at the same address.
pub struct NatsServer {
    pub folder: TestFolder,
    pub address: SocketAddr,
    config: PathBuf,
    process: Option<Child>,
}

impl NatsServer {
    /// A place for a server with `config`, which does not run yet.
    pub fn prepared(config: &str) -> Self {
        Self::prepared_in(TestFolder::new(), config)
    }

    /// The same, in a folder that holds what `config` names.
    pub fn prepared_in(folder: TestFolder, config: &str) -> Self {
        let address = free_address();
        let config = folder.write("nats.conf", &format!("listen: \"{address}\"\nmax_payload: 1MB\n{config}"));
        Self { folder, address, config, process: None }
    }

    /// A server with `config` that runs.
    pub fn started(config: &str) -> Self {
        let mut server = Self::prepared(config);
        server.start();
        server
    }

    /// A server of a NATS cluster that others find at `own`; it looks for one of them at `other`.
    pub fn clustered(own: SocketAddr, other: Option<SocketAddr>) -> Self {
        let routes = other.map_or_else(String::new, |other| format!("\"nats://{other}\""));
        Self::started(&format!("cluster {{ name: some, listen: \"{own}\", routes: [{routes}] }}\n"))
    }

    /// Two servers of one NATS cluster that know each other.
    pub fn pair() -> [Self; 2] {
        let routes = [free_address(), free_address()];
        let servers = [0, 1].map(|own| Self::clustered(routes[own], Some(routes[1 - own])));
        servers[0].has_route();
        servers
    }

    /// Wait until it knows another server of its cluster.
    pub fn has_route(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains("Route connection created") {
            assert!(Instant::now() < deadline, "no route: {}", self.log());
            // it says so in its log only
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Run, and be back once it listens: it tells nobody, so it is asked.
    pub fn start(&mut self) {
        let log = fs::File::create(self.folder.0.join("nats.log")).expect("a log file");
        // Debian's place is not on everybody's path
        let debian = Path::new("/usr/sbin/nats-server");
        let program = if debian.exists() { debian } else { Path::new("nats-server") };
        let process = Command::new(program)
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("nats-server is installed (make tools)");
        let process = self.process.insert(process);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if greets(self.address) {
                return;
            }
            let ended = process.try_wait().expect("our child");
            assert!(ended.is_none() && Instant::now() < deadline, "nats-server does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kill it, as a machine that burns.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("our child");
            process.wait().expect("our child");
        }
    }

    /// Send it `signal`, a name that kill(1) knows.
    pub fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("it runs").id().to_string();
        let status = Command::new("kill").args(["-s", signal, &process]).status().expect("kill(1)");
        assert!(status.success(), "kill -s {signal}");
        if signal == "STOP" {
            // the signal is only sent by now: until it stops it may still answer
            let deadline = Instant::now() + PATIENCE;
            while !is_stopped(&process) {
                assert!(Instant::now() < deadline, "it goes on");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Settings that find it.
    pub fn settings(&self) -> NatsSettings {
        NatsSettings { urls: vec![format!("nats://{}", self.address)], ..NatsSettings::default() }
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.0.join("nats.log")).unwrap_or_default()
    }

    pub fn path(&self) -> &Path {
        &self.folder.0
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where nobody listens.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port")
}

/// Does a server say who it is?
fn greets(address: SocketAddr) -> bool {
    let greeting = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut info = [0; 5];
        stream.read_exact(&mut info)?;
        Ok::<_, std::io::Error>(info)
    };
    greeting().is_ok_and(|info| &info == b"INFO ")
}

/// Does every thread of `process` stand still?
fn is_stopped(process: &str) -> bool {
    let threads = fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    let mut states = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    // the state follows the name, which stands in brackets
    states.all(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
}
