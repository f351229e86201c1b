//! What nodes send each other, from whoever reaches the bus.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use wellhead_fuzz::{dialects, key, tell};
use wellhead_proto::{
    dialect::contract::Dialect,
    node_message::{MessageFormat, NodeMessage},
};

static DIALECTS: LazyLock<Vec<Arc<dyn Dialect>>> = LazyLock::new(dialects);

fuzz_target!(|data: &[u8]| {
    let key = key();
    // as it stands, and in each format: with its version, as if the sender had signed it
    let _ = NodeMessage::decode(data, &key);
    let _ = NodeMessage::unverified_heartbeat(data);
    for format in [MessageFormat::V3, MessageFormat::V4] {
        let whole = [&[format as u8], data].concat();
        let _ = NodeMessage::decode(&whole, &key);
        let Ok(message) = NodeMessage::defragment(&whole, format) else { continue };
        for format in [MessageFormat::V3, MessageFormat::V4] {
            let read = NodeMessage::decode(&message.encode(format, &key), &key);
            assert_eq!(read, Ok((message.clone(), format)), "what is written is what is read");
            assert!(message.encode_within(format, &key, Some(120)).iter().all(|piece| piece.len() <= 120));
        }
        // nobody checks that its payloads are JSON: a node with the secret may say anything anyway
        tell(&DIALECTS, message, drop);
    }
});
