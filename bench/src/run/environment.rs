//! What every run finds: the installed programs, and the app that speaks Pusher. Stands below all that runs.

use std::{env, path::Path};

use crate::load::BenchApp;

/// The app that speaks Pusher here.
pub fn app() -> BenchApp {
    BenchApp { id: "1".to_owned(), key: "bench".to_owned(), secret: "the bench's secret".to_owned() }
}

/// The server token of Conveyor's side.
pub const CONVEYOR_TOKEN: &str = "the-server-token-of-the-bench";

/// Is this program installed?
pub fn has(program: &str) -> bool {
    let paths = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&paths).any(|path| Path::new(&path).join(program).exists())
}
