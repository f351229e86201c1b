//! The command line: what can be asked for, and how it ends.

mod health;
mod keys;
mod net;
mod push;
mod pusher;
mod serve;
mod sub;
#[cfg(test)]
mod tests;
mod token;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow};
use clap::{Args, CommandFactory, Parser, Subcommand, error::ErrorKind};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{
    app,
    files::read_text,
    health::VERSION,
    settings::{
        load::{self, Loaded},
        place::SettingsError,
        plan::Roles,
    },
    webhooks,
};

/// The settings cannot be used: `EX_CONFIG` of sysexits.h.
const BAD_CONFIGURATION: u8 = 78;
/// What was asked for failed.
const FAILURE: u8 = 1;

#[derive(Parser)]
#[command(
    name = "wellhead",
    version,
    about = "A self-hosted push server: POST once, reach every subscriber",
    long_about = "A self-hosted push server: POST once, reach every subscriber.\n\n\
        Clients hold WebSockets to the slave; backends POST to the master. Without a subcommand both run in this \
        process; on one machine or on many they may be processes of their own. Without any configuration that is development mode: it prints lines to paste, and you see a \
        message arrive.",
    after_help = "Exit codes: 0 clean, 1 failure, 2 wrong usage, 78 bad configuration."
)]
struct CliArgs {
    // of those that have a subcommand behind them only some read settings, so it is no global argument
    #[command(flatten)]
    source: SettingsSource,
    #[command(subcommand)]
    command: Option<CliCommand>,
}

/// Where the settings are.
#[derive(Args, Clone, Default)]
struct SettingsSource {
    /// The configuration file [default: $WELLHEAD_CONFIG, ./config.toml or /etc/wellhead/config.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Change one setting, for example --set log.level=debug; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

/// A command that reads settings: where they are may be said before it and behind it.
#[derive(Args)]
struct Reading<C: Args> {
    #[command(flatten)]
    source: SettingsSource,
    #[command(flatten)]
    command: C,
}

#[derive(Subcommand)]
enum CliCommand {
    /// Run master and slave in one process; the same as no subcommand
    Standalone(SettingsSource),
    /// Run a master, where backends push; slaves find it over the bus (cluster.bus)
    Master(SettingsSource),
    /// Run a slave, where clients connect
    Slave(SettingsSource),
    /// Read the configuration as a start would, and say what is wrong with it. Opens nothing: whether ports are free and
    /// the bus answers is not tried
    CheckConfig(Reading<CheckConfig>),
    /// Make or check the JWTs that clients connect with
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Make key pairs for clients' tokens, and keys for backends
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Push one event to a channel, a pattern of channels, a user or a socket, through a master
    Push(push::PushArgs),
    /// Subscribe to channels at a slave and print what arrives, one line each
    Sub(sub::SubArgs),
    /// Ask a running process whether it is ready: exit code 0 if so, else 1
    Health(Reading<health::HealthArgs>),
    /// Print the version
    Version,
}

#[derive(Args)]
struct CheckConfig {
    /// As a start of what
    #[arg(long, value_enum, default_value_t)]
    role: Roles,
}

impl SettingsSource {
    fn load(&self) -> Result<Loaded, SettingsError> {
        load::load(self.config.as_deref(), &self.set)
    }

    /// What is said before a subcommand, and behind it.
    fn and(&self, behind: &Self) -> Self {
        let config = behind.config.as_ref().or(self.config.as_ref()).cloned();
        Self { config, set: [&self.set[..], &behind.set].concat() }
    }

    fn is_empty(&self) -> bool {
        self.config.is_none() && self.set.is_empty()
    }
}

impl CliCommand {
    /// Where the settings are, as it is said behind the subcommand; none if it reads none.
    fn source(&self) -> Option<&SettingsSource> {
        match self {
            Self::Standalone(source) | Self::Master(source) | Self::Slave(source) => Some(source),
            Self::CheckConfig(reading) => Some(&reading.source),
            Self::Token(command) => Some(command.source()),
            Self::Health(reading) => Some(&reading.source),
            Self::Keys(_) | Self::Push(_) | Self::Sub(_) | Self::Version => None,
        }
    }
}

impl CliArgs {
    /// The command, and where the settings are that it reads.
    fn parts(self) -> Result<(CliCommand, SettingsSource), clap::Error> {
        let Some(command) = self.command else {
            return Ok((CliCommand::Standalone(SettingsSource::default()), self.source));
        };
        match command.source() {
            Some(behind) => {
                let source = self.source.and(behind);
                Ok((command, source))
            }
            None if self.source.is_empty() => Ok((command, SettingsSource::default())),
            None => {
                let words = "this command reads no settings: leave out --config and --set";
                Err(Self::command().error(ErrorKind::ArgumentConflict, words))
            }
        }
    }
}

/// Do what the command line asks for.
#[must_use]
pub fn run() -> ExitCode {
    let (command, source) = CliArgs::parse().parts().unwrap_or_else(|error| error.exit());
    let done = match command {
        CliCommand::Standalone(_) => serve::run(&source, Roles::Standalone),
        CliCommand::Master(_) => serve::run(&source, Roles::Master),
        CliCommand::Slave(_) => serve::run(&source, Roles::Slave),
        CliCommand::CheckConfig(check) => check_config(&source, check.command.role).and_then(|text| say(&text)),
        CliCommand::Token(command) => token::run(command, &source).and_then(|text| say(&text)),
        CliCommand::Keys(command) => keys::run(command).and_then(|text| say(&text)),
        CliCommand::Push(push) => push::push(&push),
        CliCommand::Sub(sub) => sub::sub(&sub),
        CliCommand::Health(health) => health::health(&health.command, &source),
        CliCommand::Version => say(&format!("wellhead {VERSION}\n")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // nobody reads standard error: only the exit code is left
            let _ = writeln!(io::stderr(), "wellhead: {error:#}");
            ExitCode::from(if error.is::<SettingsError>() { BAD_CONFIGURATION } else { FAILURE })
        }
    }
}

fn check_config(source: &SettingsSource, roles: Roles) -> Result<String> {
    let loaded = source.load()?;
    let (plan, _) = app::check(&loaded, roles)?;
    let mut said = String::new();
    if plan.development {
        said.push_str("note: no key is configured (jwt.public_keys): development mode, on this machine only\n");
    }
    for warning in &plan.warnings {
        said.push_str(&format!("warning: {warning}\n"));
    }
    if roles.slave() {
        said.extend(webhooks::described(&plan.tenants).into_iter().map(|target| format!("note: {target}\n")));
    }
    let file = loaded.file.map_or_else(|| "no file, defaults".to_owned(), |file| file.display().to_string());
    Ok(format!("{said}ok ({file})\n"))
}

/// Put `text` on standard output at once.
fn say(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // the reader of the pipe has gone
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.map_err(|error| anyhow!(error).context("cannot write to standard output")),
    }
}

/// What is named on the command line or, better, stands in a file.
fn secret_of(named: Option<&String>, file: Option<&PathBuf>) -> Result<Option<String>> {
    match (named, file) {
        (Some(secret), _) => Ok(Some(secret.clone())),
        (None, Some(file)) => {
            let secret = read_text(file).with_context(|| format!("cannot read {}", file.display()))?;
            Ok(Some(secret.trim().to_owned()))
        }
        (None, None) => Ok(None),
    }
}

/// One segment of a path, or a value in a query.
fn encoded(segment: &str) -> String {
    utf8_percent_encode(segment, NON_ALPHANUMERIC).to_string()
}

/// JSON on one line. Outside of strings line ends are blanks, and inside there are none; whatever else would steer the
/// terminal is escaped.
fn one_line(text: &str) -> String {
    let escape = |c: char| match c {
        '\n' | '\r' | '\t' => " ".to_owned(),
        c if c.is_control() => format!("\\u{:04x}", c as u32),
        c => c.to_string(),
    };
    text.trim_end().chars().map(escape).collect()
}
