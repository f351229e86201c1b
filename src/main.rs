//! `wellhead`: see `wellhead help`.

use std::process::ExitCode;

/// A handshake holds some 20 KiB for a moment, while what is to stay with other sockets settles in between. An allocator
/// that keeps sizes apart gives those pages back; in threads of its own, so that it does so when nothing else happens, too.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    wellhead::cli::run()
}
