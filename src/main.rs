//! `wellhead`: see `wellhead help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    wellhead::cli::run()
}
