//! Whole-process tests: the real binary, real sockets, every byte as a client or a backend would send and see it.

mod added_dialect;
mod attacks;
mod bus_contract;
mod cli;
mod cli_client;
mod cluster;
mod cluster_start;
mod deploy;
mod dialects;
mod docs;
mod gusher;
mod hostile;
mod lifecycle;
mod logs;
mod metrics;
mod model;
mod names;
mod presence;
mod pubsub_contract;
mod push;
mod pusher;
mod restart;
mod stood_still;
mod structure;
mod support;
mod tenants;
