//! A machine of its own: a network with nothing but loopback, where every default port is free, and processes that all end
//! with the test.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::blocks::Block;
use crate::support::nats::TestFolder;

/// How long a block may take. A whole cluster starts in one, while other tests run on the same two cores.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a terminal for each number that it reads.
const DRIVER: &str = "ip link set lo up && while read -r n; do \
    (sh -e \"$n.sh\" >\"$n.out\" 2>&1; echo $? >\"$n.new\"; mv \"$n.new\" \"$n.code\") & done";

/// Terminals in one folder.
pub struct Terminals {
    folder: TestFolder,
    /// Where what they say is kept, apart from what they make.
    records: TestFolder,
    driver: Child,
    input: ChildStdin,
    opened: usize,
}

/// As root, or as somebody who may be root in a namespace.
fn machine() -> Option<&'static [&'static str]> {
    const AS_ROOT: &[&str] = &["--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
    const AS_USER: &[&str] = &["--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
    [AS_ROOT, AS_USER].into_iter().find(|arguments| {
        let tried = Command::new("unshare").args(*arguments).args(["ip", "link", "set", "lo", "up"]).output();
        tried.is_ok_and(|output| output.status.success())
    })
}

impl Terminals {
    /// Can there be such a machine here?
    pub fn there_are() -> bool {
        machine().is_some()
    }

    pub fn open() -> Self {
        let (folder, records) = (TestFolder::new(), TestFolder::new());
        let program = Path::new(env!("CARGO_BIN_EXE_wellhead")).parent().expect("it is in a folder");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("unshare");
        command.args(machine().expect("asked before")).args(["sh", "-c", DRIVER]);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WELLHEAD_")) {
            command.env_remove(name);
        }
        command.env("PATH", format!("{}:{path}:/usr/sbin:/sbin", program.display())).env("no_proxy", "*");
        command.current_dir(&records.0).stdin(Stdio::piped());
        let mut driver = command.spawn().expect("it was tried before");
        let input = driver.stdin.take().expect("a pipe");
        Self { folder, records, driver, input, opened: 0 }
    }

    /// Run a block in a terminal of its own, until it ends or serves.
    pub fn paste(&mut self, block: &Block) -> Result<(), String> {
        let number = self.opened;
        self.opened += 1;
        let mut text = block.run_as.clone().unwrap_or_else(|| block.text.clone());
        if text.contains("eyJ…") {
            // whoever reads the page takes it from the screen
            text = text.replace("eyJ…", &self.token().ok_or("no token is on the screen")?);
        }
        self.records.write(&format!("{number}.sh"), &format!("cd '{}'\n{text}", self.folder.0.display()));
        writeln!(self.input, "{number}").map_err(|error| error.to_string())?;
        let code = self.records.0.join(format!("{number}.code"));
        patiently(|| {
            let ended = fs::read_to_string(&code).ok();
            match (ended.as_deref().map(str::trim), &block.serves_from) {
                (Some("0"), None) => Ok(Some(())),
                (None, Some(words)) => Ok(self.said(number).contains(words).then_some(())),
                (None, None) => Ok(None),
                (Some(code), _) => Err(format!("it ended with exit code {code}")),
            }
        })
    }

    /// Wait until every line of `text` is on the screen, as often as it stands in it.
    pub fn shows(&self, text: &str) -> Result<(), String> {
        match patiently(|| Ok(self.shows_now(text).ok())) {
            Ok(()) => Ok(()),
            Err(_) => self.shows_now(text),
        }
    }

    /// Is it on the screen already?
    pub fn shows_now(&self, text: &str) -> Result<(), String> {
        let screen = self.screen();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let wanted = text.lines().filter(|other| other.trim() == line).count();
            if screen.lines().filter(|shown| has(shown, line)).count() < wanted {
                return Err(format!("not on the screen, or not {wanted} times: {line}"));
            }
        }
        Ok(())
    }

    /// What all of them have said.
    pub fn screen(&self) -> String {
        (0..self.opened).map(|number| self.said(number) + "\n").collect()
    }

    fn said(&self, number: usize) -> String {
        let said = fs::read(self.records.0.join(format!("{number}.out"))).unwrap_or_default();
        String::from_utf8_lossy(&said).into_owned()
    }

    /// The first JWT on the screen.
    fn token(&self) -> Option<String> {
        self.screen().split_whitespace().find(|word| word.starts_with("eyJ") && !word.contains('…')).map(str::to_owned)
    }
}

impl Drop for Terminals {
    fn drop(&mut self) {
        // everything that runs in it goes with it
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Is `wanted` part of `line`? `…` stands for anything.
fn has(line: &str, wanted: &str) -> bool {
    let mut rest = Some(line);
    for part in wanted.split('…') {
        rest = rest.and_then(|rest| rest.split_once(part)).map(|(_, rest)| rest);
    }
    rest.is_some()
}

/// Ask until there is an answer.
fn patiently<T>(mut ask: impl FnMut() -> Result<Option<T>, String>) -> Result<T, String> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        thread::sleep(Duration::from_millis(20));
    }
    Err(format!("{PATIENCE:?} were not enough"))
}
