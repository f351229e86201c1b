//! Is a block that no shell runs written correctly? Settings are read as a start reads them; other languages are put to
//! their own programs, where they are installed.

use std::{fs, path::PathBuf, process::Command};

use wellhead::settings::load::load;

use super::blocks::Block;
use crate::support::nats::TestFolder;

/// What is wrong with it, if something is.
pub fn check(block: &Block) -> Result<(), String> {
    let folder = TestFolder::new();
    let file = |name: &str, text: &str| {
        let path = folder.0.join(name);
        fs::write(&path, text).map(|()| path).map_err(|error| error.to_string())
    };
    match &*block.language {
        // those are pasted
        "sh" | "text" => Ok(()),
        "toml" => load(Some(&file("config.toml", &block.text)?), &[]).map(drop).map_err(|error| error.to_string()),
        "json" => serde_json::from_str::<serde_json::Value>(&block.text).map(drop).map_err(|error| error.to_string()),
        "js" => run("node", &["--check"], file("block.mjs", &block.text)?),
        "php" => run("php", &["-l"], file("block.php", &format!("<?php\n{}", block.text))?),
        "ruby" => run("ruby", &["-c"], file("block.rb", &block.text)?),
        "python" => run("python3", &["-c", "import ast, sys; ast.parse(open(sys.argv[1]).read())"], {
            file("block.py", &block.text)?
        }),
        // an environment file
        "ini" => run("sh", &["-euc", ". \"$0\""], file("env", &block.text)?),
        // part of a server
        "nginx" => {
            let here = folder.0.display();
            let text = format!(
                "pid {here}/pid;\nerror_log {here}/log;\nevents {{}}\nhttp {{\naccess_log off;\n\
                 server {{\nlisten unix:{here}/socket;\n{}}}\n}}\n",
                block.text
            );
            run("nginx", &["-q", "-t", "-c"], file("nginx.conf", &text)?)
        }
        other => Err(format!(
            "nothing here checks the language {other:?}: mark it `sh` (it is run) or `text` (it is what the blocks before it \
             show), say `<!-- not run: WHY -->` above it, or teach tests/it/docs/checks.rs the language"
        )),
    }
}

/// What a program says of a file, if it is not content.
fn run(program: &str, arguments: &[&str], file: PathBuf) -> Result<(), String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    // Debian keeps servers there
    folders.push("/usr/sbin".into());
    let Some(program) = folders.iter().map(|folder| folder.join(program)).find(|program| program.is_file()) else {
        eprintln!("skipped: {program} is not installed");
        return Ok(());
    };
    let output = Command::new(program).args(arguments).arg(file).output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
