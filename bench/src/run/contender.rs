//! Who is measured, and how they are started.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::{
    child::Server,
    load::{Job, Tokens},
    proc,
};

/// A server that is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Contender {
    /// Wellhead, standalone.
    Wellhead,
    /// Wellhead without the sockets that never read.
    Undisturbed,
    /// Wellhead as a master and a slave with NATS between them.
    Nats,
    /// Bare epoll, one write for each socket and message.
    Write,
    /// Bare epoll, one write for each socket and round.
    Coalesce,
    /// actix-web-actors by the book.
    Textbook,
}

impl Contender {
    /// What tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wellhead => "wellhead",
            Self::Undisturbed => "wellhead without them",
            Self::Nats => "wellhead over NATS",
            Self::Write => "limit/write",
            Self::Coalesce => "limit/coalesce",
            Self::Textbook => "textbook",
        }
    }

    /// It needs no tokens.
    pub fn is_baseline(self) -> bool {
        matches!(self, Self::Write | Self::Coalesce | Self::Textbook)
    }

    /// It sends on what is pushed as it is.
    pub fn is_raw(self) -> bool {
        matches!(self, Self::Write | Self::Coalesce)
    }
}

/// What all runs share: programs, keys, cores, and where to write.
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
        fs::write(folder.join("config.toml"), "[jwt]\npublic_keys = [\"keys/public.pem\"]\n")?;
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

    /// The program and arguments of a contender, with `settings` of Wellhead.
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
            Contender::Wellhead | Contender::Undisturbed | Contender::Nats => {
                for (name, _) in env::vars().filter(|(name, _)| name.starts_with("WELLHEAD_")) {
                    command.env_remove(name);
                }
                command.arg("-c").arg(self.folder.join("config.toml"));
                let here = "127.0.0.1:0".to_owned();
                for key in ["slave.listen", "slave.admin", "master.listen", "master.admin"] {
                    command.arg("--set").arg(format!("{key}={here}"));
                }
                command.args(["--set", "log.format=json", "--set", "log.level=info"]);
                for (key, value) in settings {
                    command.arg("--set").arg(format!("{key}={value}"));
                }
                command.arg(role);
            }
        }
    }

    /// Start a contender on the servers' cores.
    pub fn start(&self, contender: Contender, settings: &[(&str, String)]) -> Result<Vec<Server>> {
        let roles: &[_] = if contender == Contender::Nats { &["master", "slave"] } else { &["standalone"] };
        roles.iter().map(|role| Server::start(self.command(contender, role, settings).1, &self.server_cores)).collect()
    }

    /// Let the generator do a job against `servers`, and wait for what came of it.
    pub fn load(&self, contender: Contender, servers: &[Server], job: &Job) -> Result<Value> {
        let mut job = job.clone();
        job.slave = servers.iter().find_map(|server| server.slave).context("somebody takes clients")?;
        job.master = servers.iter().find_map(|server| server.master).context("somebody takes pushes")?;
        job.pids = servers.iter().map(Server::pid).collect();
        job.raw = contender.is_raw();
        if contender == Contender::Undisturbed {
            job.stuck = 0;
        }
        if contender.is_baseline() {
            job.tokens = Tokens::None;
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

/// Is this program installed?
pub fn has(program: &str) -> bool {
    let paths = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&paths).any(|path| Path::new(&path).join(program).exists())
}
