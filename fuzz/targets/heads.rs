//! The bytes of a connection up to a request: where its head ends does not depend on how it is cut, and whatever it says
//! is a request that the routes can look at, or is refused in words.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use wellhead::http::head::{HeadScanner, RequestHead};
use wellhead_fuzz::{TENANTS, check_reply, dialects};
use wellhead_proto::{
    dialect::contract::{Dialect, Role},
    http_api::Router,
};

static DIALECTS: LazyLock<Vec<Arc<dyn Dialect>>> = LazyLock::new(dialects);

fuzz_target!(|data: &[u8]| {
    let Some((&step, data)) = data.split_first() else { return };
    let whole = HeadScanner::default().find_end(data);
    let (mut scanner, mut came) = (HeadScanner::default(), 0);
    let in_pieces = loop {
        came = data.len().min(came + usize::from(step).max(1));
        match scanner.find_end(&data[..came]) {
            Ok(None) if came < data.len() => {}
            found => break found,
        }
    };
    assert_eq!(in_pieces, whole, "cut in pieces of {step}");
    let length = match whole {
        Ok(Some(length)) => length,
        Ok(None) => return,
        Err(bad) => return check_reply(&bad.reply()),
    };
    match RequestHead::parse(&data[..length]) {
        Ok(head) => {
            assert!(!head.method.is_empty() && (head.path.starts_with('/') || head.path == "*"), "{head:?}");
            let visible = |text: &str| text.bytes().all(|byte| (0x21..0x7f).contains(&byte));
            assert!(visible(head.path) && visible(head.query), "{head:?}");
            for role in [Role::Master, Role::Slave] {
                if let Err(reply) = Router::new(role, DIALECTS.clone()).find(head.method, head.path, &TENANTS) {
                    check_reply(&reply);
                }
            }
        }
        Err(bad) => check_reply(&bad.reply()),
    }
});
