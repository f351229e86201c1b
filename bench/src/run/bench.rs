//! What all runs share: programs, keys, cores, and how a contender is started and loaded.

use std::{
    env, fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::{
    contender::Contender,
    environment::{CONVEYOR_TOKEN, app},
    nats::BenchNats,
    nchan,
    running::RunningContender,
    uws,
};
use crate::{
    child::ServerProcess,
    load::{BenchApp, Job, LoadWork, ServerProtocol, TokenSource},
    proc,
};

/// Signs connection tokens where nodes are to share it.
const SECRET: &str = "a secret of the bench that is long enough";

/// Programs, keys, cores, and where to write.
pub struct Bench {
    wellhead: PathBuf,
    own: PathBuf,
    /// Where results go.
    pub folder: PathBuf,
    signer: EncodingKey,
    server_cores: Vec<usize>,
    generator_cores: Vec<usize>,
}

impl Bench {
    /// A bench for `wellhead`, or for the program beside this one.
    pub fn new(wellhead: Option<PathBuf>) -> Result<Self> {
        let own = env::current_exe()?;
        let programs = own.parent().context("a program is in a folder")?;
        let wellhead = wellhead.unwrap_or_else(|| programs.join("wellhead"));
        ensure!(wellhead.exists(), "{} is missing: cargo build --release", wellhead.display());
        let folder = programs.parent().context("that folder is in another")?.join("bench");
        fs::create_dir_all(&folder)?;
        let keys = folder.join("keys");
        if !keys.join("private.pem").exists() {
            let made = Command::new(&wellhead).args(["keys", "generate", "--out"]).arg(&keys).output()?;
            ensure!(made.status.success(), "no keys: {}", String::from_utf8_lossy(&made.stderr));
        }
        let plain = "[jwt]\npublic_keys = [\"keys/public.pem\"]\n";
        fs::write(folder.join("config.toml"), plain)?;
        let BenchApp { id, key, secret } = app();
        let listed = format!("{plain}[[apps.listed]]\nkey = \"{key}\"\nid = \"{id}\"\nsecret = \"{secret}\"\n");
        fs::write(folder.join("pusher.toml"), listed)?;
        let conveyor = format!("{plain}[conveyor]\ntoken = \"{CONVEYOR_TOKEN}\"\n");
        fs::write(folder.join("conveyor.toml"), conveyor)?;
        let signer = EncodingKey::from_rsa_pem(&fs::read(keys.join("private.pem"))?)?;
        let cores = proc::cores()?;
        let (server_cores, generator_cores) = match cores.as_slice() {
            [] | [_] => (cores.clone(), cores),
            [first, .., last] => (vec![*first], vec![*last]),
        };
        Ok(Self { wellhead, own, folder, signer, server_cores, generator_cores })
    }

    /// Cores of the servers, and of the generator.
    pub fn cores(&self) -> (&[usize], &[usize]) {
        (&self.server_cores, &self.generator_cores)
    }

    /// A JWT for user `no`, who may do everything.
    pub fn jwt(&self, no: usize) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let claims = json!({
            "gusher": { "user_id": format!("user-{no}"), "app_key": "bench", "channels": ["*"] },
            "exp": now + 3600,
        });
        Ok(jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &self.signer)?)
    }

    /// Idle sockets on one channel: what all jobs are made from.
    pub fn job(&self) -> Result<Job> {
        Ok(Job::new(TokenSource::Shared(self.jwt(0)?)))
    }

    /// The program and arguments of one process of a contender, with `settings` of Wellhead.
    pub fn command(&self, contender: Contender, role: &str, settings: &[(&str, String)]) -> (PathBuf, Command) {
        let program = if contender.is_baseline() { &self.own } else { &self.wellhead };
        let mut command = Command::new(program);
        self.arguments(&mut command, contender, role, settings);
        (program.clone(), command)
    }

    /// The same arguments for a command that runs it in its own way.
    pub fn arguments(&self, command: &mut Command, contender: Contender, role: &str, settings: &[(&str, String)]) {
        match contender {
            Contender::Write => _ = command.arg("limit"),
            Contender::Coalesce => _ = command.args(["limit", "--coalesce"]),
            Contender::Textbook => _ = command.arg("textbook"),
            _ => {
                for (name, _) in env::vars().filter(|(name, _)| name.starts_with("WELLHEAD_")) {
                    command.env_remove(name);
                }
                let file = match contender {
                    Contender::Pusher => "pusher.toml",
                    Contender::Conveyor => "conveyor.toml",
                    _ => "config.toml",
                };
                command.arg("-c").arg(self.folder.join(file));
                for key in ["slave.listen", "slave.admin", "master.listen", "master.admin"] {
                    command.arg("--set").arg(format!("{key}=127.0.0.1:0"));
                }
                command.args(["--set", "log.format=json", "--set", "log.level=info"]);
                if let Contender::PushEx(_) = contender {
                    // the generator says nothing while it listens
                    command.args(["--set", "pushex.app=bench", "--set", "pushex.idle_timeout=0s"]);
                }
                for (key, value) in settings {
                    command.arg("--set").arg(format!("{key}={value}"));
                }
                command.arg(role);
            }
        }
    }

    /// Start a contender on the servers' cores.
    pub fn start(&self, contender: Contender, settings: &[(&str, String)]) -> Result<RunningContender> {
        if let Some(slaves) = contender.slaves() {
            return self.cluster(slaves, contender.is_on_nats(), settings);
        }
        if let Contender::Peer(peer) = contender {
            return Ok(RunningContender {
                ws: Some(peer.ws),
                http: Some(peer.http),
                pid: peer.pid,
                protocol: Some(peer.protocol.clone()),
                tokens: Some(peer.tokens()),
                ..RunningContender::default()
            });
        }
        if contender == Contender::Nchan {
            let (server, address) = nchan::start(&self.folder, &self.server_cores)?;
            let mut running = RunningContender::of(vec![server]);
            (running.ws, running.http) = (Some(address), Some(address));
            (running.protocol, running.tokens) = (Some(ServerProtocol::Nchan), Some(TokenSource::None));
            return Ok(running);
        }
        let command = if contender == Contender::Uws {
            uws::command()
        } else {
            self.command(contender, "standalone", settings).1
        };
        Ok(RunningContender::speaking(contender, ServerProcess::start(command, &self.server_cores)?))
    }

    /// A master and its slaves, on the bus of this machine or on NATS.
    pub fn cluster(&self, slaves: usize, on_nats: bool, settings: &[(&str, String)]) -> Result<RunningContender> {
        let mut settings = settings.to_vec();
        let nats = on_nats.then(|| BenchNats::start(&self.server_cores)).transpose()?;
        match &nats {
            Some(nats) => {
                settings.push(("cluster.bus", format!("nats://{}", nats.address)));
                settings.push(("cluster.secret", SECRET.to_owned()));
            }
            // short: the path of a socket has at most 107 bytes
            None => {
                let socket = env::temp_dir().join(format!("wellhead-bench-{}.sock", std::process::id()));
                settings.push(("cluster.socket", socket.display().to_string()));
            }
        }
        let mut running = RunningContender { nats, ..RunningContender::default() };
        for role in std::iter::once("master").chain(std::iter::repeat_n("slave", slaves)) {
            let (_, command) = self.command(Contender::Wellhead, role, &settings);
            running.servers.push(ServerProcess::start(command, &self.server_cores)?);
        }
        Ok(running)
    }

    /// Does this Wellhead speak as `contender` does?
    pub fn speaks(&self, contender: Contender) -> bool {
        let probe = || -> Result<Value> {
            let running = self.start(contender, &[])?;
            let work = LoadWork::Windowed { pushes: 1, window: 1, batch: 1 };
            self.load(contender, &running, &Job { sockets: 1, work, ..self.job()? })
        };
        probe().is_ok_and(|report| report["work"]["deliveries"] == 1)
    }

    /// Let the generator do a job against what runs, and wait for what came of it.
    pub fn load(&self, contender: Contender, running: &RunningContender, job: &Job) -> Result<Value> {
        let mut job = running.addressed(job)?;
        if contender == Contender::Undisturbed {
            job.stuck = 0;
        }
        let ours = proc::cores()?;
        proc::pin(&self.generator_cores)?;
        let spawned = Command::new(&self.own).arg("load").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        proc::pin(&ours)?;
        let mut child = spawned?;
        serde_json::to_writer(child.stdin.take().context("stdin is a pipe")?, &job)?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "the load generator failed with {}", contender.name());
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}
