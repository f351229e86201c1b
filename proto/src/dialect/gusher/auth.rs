//! The slave's rows (gusher.md §3 and §8).
use crate::{
    dialect::contract::{ApiCall, ApiReply, ApiTask, Knock, Route},
    refusal::Refusal,
};

pub fn routes(_prefix: &str) -> Vec<Route> {
    Vec::new()
}
pub fn is_row(_row: usize) -> bool {
    false
}
pub fn call(_call: &ApiCall<'_>) -> Result<ApiTask, Refusal> {
    Err(Refusal::NotFound)
}
pub fn knock(_call: &ApiCall<'_>) -> Result<Knock, Refusal> {
    Err(Refusal::NotFound)
}
pub fn refuse(_row: usize, _why: &Refusal) -> ApiReply {
    ApiReply::empty(404)
}
