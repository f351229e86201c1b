//! Conveyor's HTTP endpoints and WebSocket protocol in one process, every byte as its callers and clients see it. In a
//! cluster: `tests/it/cluster/conveyor.rs`.

mod hostile;
mod http;
mod settings;
mod socket;
