//! What nodes send each other, from whoever reaches the bus.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use wellhead_fuzz::{dialects, tell};
use wellhead_proto::{dialect::contract::Dialect, mail::Letter};

static DIALECTS: LazyLock<Vec<Arc<dyn Dialect>>> = LazyLock::new(dialects);

fuzz_target!(|data: &[u8]| {
    // as it stands, and as this release would have begun it
    let _ = Letter::decode(data);
    if let Ok(letter) = Letter::decode(&[&[Letter::VERSION], data].concat()) {
        let written = letter.encode();
        assert_eq!(Letter::decode(&written).as_ref(), Ok(&letter), "what is written is what is read");
        assert!(letter.encode_within(Some(100)).iter().all(|piece| piece.len() <= 100));
        // nobody checks that its payloads are JSON: whoever writes to the bus may say anything anyway
        tell(&DIALECTS, letter, drop);
    }
});
