//! A configuration file, and after a line of dashes what `--set` says, each on a line: understood, or refused in words.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wellhead::settings::load::layers;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (file, flags) = text.split_once("\n---\n").unwrap_or((text, ""));
    let flags: Vec<_> = flags.lines().map(ToOwned::to_owned).collect();
    match layers("config.toml", file, &[], &flags) {
        Ok(loaded) => drop(format!("{:?}", loaded.settings)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
