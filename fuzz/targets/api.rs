//! Any request to any route, as text (see `FuzzRequest`): it is understood or refused, and whatever is accepted can be sent on.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use wellhead_fuzz::{FuzzRequest, dialects};
use wellhead_proto::dialect::contract::{Dialect, Role};

static DIALECTS: LazyLock<Vec<Arc<dyn Dialect>>> = LazyLock::new(dialects);

fuzz_target!(|data: &[u8]| {
    if let Some(request) = FuzzRequest::read(data) {
        request.serve(&DIALECTS, Role::Master);
        request.serve(&DIALECTS, Role::Slave);
    }
});
