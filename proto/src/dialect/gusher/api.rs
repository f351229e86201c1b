//! The master's rows (gusher.md §6 and §8).
use crate::{
    dialect::contract::{ApiCall, ApiReply, ApiTask, Route},
    ids::SocketIdSeal,
    refusal::Refusal,
};

pub fn routes(_prefix: &str) -> Vec<Route> {
    Vec::new()
}
pub fn call(_call: &ApiCall<'_>, _seal: &SocketIdSeal) -> Result<ApiTask, Refusal> {
    Err(Refusal::NotFound)
}
pub fn refuse(_row: usize, _why: &Refusal) -> ApiReply {
    ApiReply::empty(404)
}
