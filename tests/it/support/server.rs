//! A real server process: its own folder, every port chosen by the kernel, its log read as it is written.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use serde_json::Value;
use tokio::sync::watch;

use super::{
    backend::Backend,
    client::Client,
    http::{Http, Reply},
    keys::signer,
    until, within,
};

/// How a server is to be started. Clones share the folder, and so the local bus: the processes of one machine.
#[derive(Clone)]
pub struct Setup {
    dir: Arc<Dir>,
    public_key: bool,
    toml: String,
    env: Vec<(String, String)>,
    /// Settings that are set to nothing.
    emptied: Vec<String>,
    pub(super) arguments: Vec<String>,
    /// Said by a shell that then becomes the server.
    prelude: String,
    /// Its standard input, which is nothing else.
    input: Option<Arc<TcpListener>>,
}

impl Setup {
    /// With the public key of [`signer`], and no push keys.
    pub fn keyed() -> Self {
        let dir = Arc::new(Dir::new());
        fs::write(dir.0.join("public.pem"), &signer().public_pem).expect("the folder is ours");
        Self {
            dir,
            public_key: true,
            toml: String::new(),
            env: Vec::new(),
            emptied: Vec::new(),
            arguments: Vec::new(),
            prelude: String::new(),
            input: None,
        }
        .set("slave.listen", "127.0.0.1:0")
        .set("master.listen", "127.0.0.1:0")
        .set("master.admin", "127.0.0.1:0")
        .set("slave.admin", "127.0.0.1:0")
    }

    /// Without any key.
    pub fn development() -> Self {
        Self { public_key: false, ..Self::keyed() }
    }

    /// One setting, as in `limits.message`. By the environment, unless it is to be emptied.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        let name = format!("WELLHEAD_{}", key.to_uppercase().replace('.', "__"));
        self.env.retain(|(other, _)| *other != name);
        self.emptied.retain(|other| other != key);
        match value {
            "" => self.emptied.push(key.to_owned()),
            value => self.env.push((name, value.to_owned())),
        }
        self
    }

    /// One more variable of the environment, whatever it is for.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A variable of its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// No setting but those of the file.
    pub fn unset_all(mut self) -> Self {
        self.env.clear();
        self.emptied.clear();
        self
    }

    /// More of the configuration file.
    pub fn toml(mut self, toml: &str) -> Self {
        self.toml.push_str(toml);
        self
    }

    /// Instead of no arguments but `-c`.
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        self
    }

    /// Let a shell say this before it becomes the server.
    pub fn prelude(mut self, words: &str) -> Self {
        self.prelude = words.to_owned();
        self
    }

    /// Hand a listening socket over, as systemd does.
    pub fn hand_over(mut self, name: &str, socket: &Arc<TcpListener>) -> Self {
        for (variable, value) in [("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", name)] {
            self.env.push((variable.to_owned(), value.to_owned()));
        }
        self.input = Some(socket.clone());
        // the first of those that are handed over is the third
        self.prelude("export LISTEN_PID=$$; exec 3<&0 </dev/null;")
    }

    /// With so many file descriptors, and no way to more.
    pub fn descriptors(self, most: usize) -> Self {
        self.prelude(&format!("ulimit -n {most} &&"))
    }

    /// Where the server lives.
    pub fn folder(&self) -> &Path {
        &self.dir.0
    }

    pub(super) fn command(&self) -> Command {
        let config = self.dir.0.join("config.toml");
        let keys = if self.public_key { "[jwt]\npublic_keys = [\"public.pem\"]\n" } else { "" };
        let text = format!("{keys}{}", self.toml);
        // another process may be reading it
        if fs::read_to_string(&config).ok().as_deref() != Some(&*text) {
            fs::write(&config, text).expect("the folder is ours");
        }
        // `make hostile` attacks what is shipped
        let program = std::env::var_os("WELLHEAD_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_wellhead").into());
        let mut command = if self.prelude.is_empty() {
            Command::new(&program)
        } else {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(format!("{} exec \"$0\" \"$@\"", self.prelude)).arg(&program);
            shell
        };
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WELLHEAD_")) {
            command.env_remove(name);
        }
        command.current_dir(&self.dir.0).arg("-c").arg(&config).args(&self.arguments).envs(self.env.iter().cloned());
        for key in &self.emptied {
            command.arg("--set").arg(format!("{key}="));
        }
        let input = self.input.as_ref().map(|socket| socket.try_clone().expect("it is open"));
        command.stdin(input.map_or_else(Stdio::null, |socket| Stdio::from(OwnedFd::from(socket))));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The same as `wellhead master`, `slave` or `standalone`.
    pub fn role(self, role: &str) -> Self {
        self.arguments(&[role])
    }

    /// Start it, and wait until it is ready.
    pub async fn start(self) -> Server {
        let mut server = self.launch();
        server.ready().await;
        server
    }

    /// Start it without waiting for anything.
    pub fn launch(self) -> Server {
        let setup = self.set("log.format", "json");
        let mut child = setup.command().spawn().expect("the binary was built with this test");
        let log = ServerLog::of(child.stderr.take().expect("stderr is a pipe"));
        let out = ServerLog::of(child.stdout.take().expect("stdout is a pipe"));
        Server { child, log, out, listeners: Vec::new(), _dir: setup.dir }
    }
}

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    /// Its log.
    pub log: ServerLog,
    /// What it prints.
    pub out: ServerLog,
    listeners: Vec<(String, SocketAddr)>,
    _dir: Arc<Dir>,
}

impl Server {
    /// With [`Setup::keyed`].
    pub async fn start() -> Self {
        Setup::keyed().start().await
    }

    /// Wait until it says that it is ready, and learn where it listens.
    pub async fn ready(&mut self) {
        let ready = self.log.find(|line| message(line)?.eq("ready").then_some(()));
        within("the server says that it is ready", ready).await;
        self.listeners = self.log.collect(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            Some((line["role"].as_str()?.to_owned(), line["address"].as_str()?.parse().ok()?))
        });
    }

    /// What /readyz says.
    pub async fn readiness(&self) -> (u16, String) {
        let reply = Http::to(self.admin()).await.get("/readyz").await;
        (reply.status, reply.text().to_owned())
    }

    /// Wait until it wants work: its bus is up, and it knows who is there.
    pub async fn wants_work(&self) {
        until("it wants work", (200, "ready".to_owned()), || self.readiness()).await;
    }

    /// How many lines of its log say `words`.
    pub fn said(&self, words: &str) -> usize {
        self.log.collect(|line| message(line)?.contains(words).then_some(())).len()
    }

    /// Its number in the cluster, once the bus is up.
    pub async fn node_id(&self) -> u32 {
        let id = |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == "the bus is up").then(|| line["node_id"].as_str()?.parse().ok()).flatten()
        };
        within("the bus is up", self.log.find(id)).await
    }

    fn listener(&self, role: &str) -> SocketAddr {
        // one address may be that of both roles
        let is_of = |of: &str| of == role || (of == "standalone" && role != "admin");
        let found = self.listeners.iter().find(|(of, _)| is_of(of));
        found.unwrap_or_else(|| panic!("no listener {role} among {:?}", self.listeners)).1
    }

    /// Where backends call.
    pub fn master(&self) -> SocketAddr {
        self.listener("master")
    }

    /// Where clients connect.
    pub fn slave(&self) -> SocketAddr {
        self.listener("slave")
    }

    /// Where metrics are.
    pub fn admin(&self) -> SocketAddr {
        self.listener("admin")
    }

    /// A backend on a connection of its own.
    pub async fn backend(&self) -> Backend {
        Backend::of(self.master()).await
    }

    /// A client with a token from `auth`, connected.
    pub async fn client(&self, app: &str, user: &str, channels: &[&str]) -> Client {
        let token = self.token(app, user, channels).await;
        Client::connect(self.slave(), app, &token).await
    }

    /// A client that may go everywhere and is on one channel.
    pub async fn listener_on(&self, app: &str, user: &str, channel: &str) -> Client {
        self.client(app, user, &["*"]).await.subscribed(channel).await
    }

    /// A connection token, exchanged for a JWT.
    pub async fn token(&self, app: &str, user: &str, channels: &[&str]) -> String {
        let reply = self.auth(&signer().jwt(app, user, channels)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()["token"].as_str().expect("a token").to_owned()
    }

    /// What the slave says to a JWT.
    pub async fn auth(&self, jwt: &str) -> Reply {
        Http::to(self.slave()).await.form("/gcs/auth", &[("jwt", jwt)]).await
    }

    /// How many sockets the cluster counts.
    pub async fn connections(&self) -> u64 {
        self.backend().await.ask("/v1/stats").await["connections"].as_u64().expect("a number")
    }

    /// The value of a metric: the sum of all its series whose labels contain `label`.
    pub async fn metric(&self, name: &str, label: &str) -> f64 {
        let reply = Http::to(self.admin()).await.get("/metrics").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let text = reply.text();
        let series = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            ((labels.is_empty() || labels.starts_with('{')) && labels.contains(label))
                .then(|| value.parse::<f64>().ok())?
        });
        series.sum()
    }

    /// Wait until a metric has a value.
    pub async fn metric_becomes(&self, name: &str, label: &str, wanted: f64) {
        until(&format!("{name}{{{label}}}"), wanted, || self.metric(name, label)).await;
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its resident memory, in bytes.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says so");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// Send it a signal, by name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id();
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).status().expect("sh is there");
        assert!(sent.success(), "{pid} takes SIG{name}");
    }

    /// How it ended.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        within("the server ends", async {
            loop {
                if let Some(status) = child.try_wait().expect("our child") {
                    return status;
                }
                // std has no event for the end of a child
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // whatever a test is about: nothing that it did may have made the server panic
        let panicked = self.log.collect(|line| line.contains("panicked").then(|| line.to_owned()));
        if thread::panicking() {
            for line in self.log.collect(|line| Some(line.to_owned())) {
                eprintln!("server: {line}");
            }
        } else {
            assert!(panicked.is_empty(), "{panicked:?}");
        }
    }
}

/// The lines that a process writes, as they come.
pub struct ServerLog {
    lines: Arc<Mutex<Vec<String>>>,
    grown: watch::Receiver<usize>,
}

impl ServerLog {
    pub fn of(from: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (tell, grown) = watch::channel(0);
        let written = Arc::clone(&lines);
        thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let mut lines = written.lock().expect("nobody panics with it");
                lines.push(line);
                tell.send_replace(lines.len());
            }
        });
        Self { lines, grown }
    }

    /// What `pick` makes of every line so far.
    pub fn collect<T>(&self, pick: impl FnMut(&str) -> Option<T>) -> Vec<T> {
        let mut pick = pick;
        self.lines.lock().expect("nobody panics with it").iter().filter_map(|line| pick(line)).collect()
    }

    /// The first thing that `pick` finds, now or later.
    pub async fn find<T>(&self, mut pick: impl FnMut(&str) -> Option<T>) -> T {
        let mut grown = self.grown.clone();
        let mut seen = 0;
        loop {
            {
                let lines = self.lines.lock().expect("nobody panics with it");
                if let Some(found) = lines[seen..].iter().find_map(|line| pick(line)) {
                    return found;
                }
                seen = lines.len();
            }
            if grown.changed().await.is_err() {
                let said = self.lines.lock().expect("nobody panics with it").join("\n");
                panic!("it ended without the line that was waited for:\n{said}");
            }
        }
    }
}

fn message(line: &str) -> Option<String> {
    serde_json::from_str::<Value>(line).ok()?["message"].as_str().map(ToOwned::to_owned)
}

/// A folder that goes when the test does.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("wellhead-it-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).expect("the temporary folder can be written");
        Self(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
