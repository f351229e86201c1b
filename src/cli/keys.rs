//! `wellhead keys`: key pairs for clients' tokens, and keys for backends.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::{Args, Subcommand};
use wellhead_master::keys::KeyHash;

use crate::signing::{KeyKind, KeyPair};

#[derive(Subcommand)]
pub(super) enum KeysCommand {
    /// Make the key pair that signs and verifies clients' tokens
    Generate(Generate),
    /// Make a key with which a backend may push
    Push(PushKeyArgs),
}

#[derive(Args)]
pub(super) struct Generate {
    /// What kind of key
    #[arg(long, value_enum, default_value = "RS256")]
    algorithm: KeyKind,
    /// The folder that private.pem and public.pem are written to
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    out: PathBuf,
}

#[derive(Args)]
pub(super) struct PushKeyArgs {
    /// What the key is called in logs
    #[arg(long)]
    name: String,
}

pub(super) fn run(command: KeysCommand) -> Result<String> {
    match command {
        KeysCommand::Generate(Generate { algorithm, out }) => {
            let (private, public) = (out.join("private.pem"), out.join("public.pem"));
            if let Some(there) = [&private, &public].into_iter().find(|file| file.exists()) {
                bail!("{} exists and is not overwritten; choose another folder with --out", there.display());
            }
            fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
            let pair = KeyPair::generate(algorithm)?;
            write_new(&private, &pair.private, 0o600)?;
            write_new(&public, &pair.public, 0o644)?;
            let (private, public) = (private.display(), public.display());
            Ok(format!(
                "{private}  signs tokens: give it to the backend that makes them, and to nobody else\n\
                 {public}  verifies them: set jwt.public_keys = [\"{public}\"]\n"
            ))
        }
        KeysCommand::Push(PushKeyArgs { name }) => {
            let mut random = [0; 24];
            getrandom::fill(&mut random).map_err(|error| anyhow!("the system has no randomness: {error}"))?;
            let key = format!("wh_{}", URL_SAFE_NO_PAD.encode(random));
            let hash = KeyHash::of(&key);
            // as a word between commas it can hold no comma
            let word = !name.is_empty() && !name.contains([',', '[', '\'']) && name.trim() == name;
            let variable = match word {
                true => format!("In the environment of a container:\n\nWELLHEAD_PUSH_KEYS='{name}:{hash}'\n\n"),
                false => String::new(),
            };
            let name = toml::Value::String(name);
            Ok(format!(
                "The key, shown this once. The backend sends it as \"Authorization: Bearer KEY\":\n\n{key}\n\n\
                 The server is given its hash, and never holds the key itself. {variable}\
                 In config.toml:\n\n[[push_keys]]\nname = {name}\nsha256 = \"{hash}\"\n"
            ))
        }
    }
}

fn write_new(file: &Path, text: &str, mode: u32) -> Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(file)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", file.display()))
}
