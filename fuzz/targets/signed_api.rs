//! Requests that carry the signature of the app's backend, whatever else they carry: past the signature everything is
//! as hostile as before it.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use wellhead_fuzz::{FuzzRequest, dialects};
use wellhead_proto::dialect::contract::{Dialect, Role};

static DIALECTS: LazyLock<Vec<Arc<dyn Dialect>>> = LazyLock::new(dialects);

fuzz_target!(|data: &[u8]| {
    if let Some(request) = FuzzRequest::read(data) {
        request.signed().serve(&DIALECTS, Role::Master);
    }
});
