//! Webhooks of an app: the state of each target, and sending again what was given up.

use serde_json::{Value, json};

use crate::{
    dialect::contract::{ApiCall, ApiReply, MasterRequest, QueryRequest},
    event::quote,
    ids::SocketIdSeal,
    query::{KeptWebhook, ResendWebhookQuery, WebhookState, WebhookStates, WebhooksQuery},
    refusal::Refusal,
};

use super::{bad, bad_name, json, names, not_found};

/// No id is longer.
const LONGEST_ID: usize = 64;

/// `GET /v1/apps/{app}/webhooks`.
pub fn states(call: &ApiCall<'_>, _: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    let [app] = names(call)?;
    let query = WebhooksQuery { app: app.parse().map_err(bad_name)? };
    Ok(MasterRequest::Query(QueryRequest::Webhooks(query, Box::new(shown))))
}

/// `POST /v1/apps/{app}/webhooks/{id}/resend`.
pub fn resend(call: &ApiCall<'_>, _: &SocketIdSeal) -> Result<MasterRequest, Refusal> {
    let [app, id] = names(call)?;
    if id.len() > LONGEST_ID {
        return Err(bad("this is no id of a webhook"));
    }
    let query = ResendWebhookQuery { app: app.parse().map_err(bad_name)?, id: id.to_owned() };
    let id = quote(id);
    Ok(MasterRequest::Query(QueryRequest::ResendWebhook(
        query,
        Box::new(move |found| match found.is_empty() {
            true => not_found("no webhook with this id is kept"),
            false => json(format!(r#"{{"id":{id}}}"#)),
        }),
    )))
}

fn shown(states: WebhookStates) -> ApiReply {
    let targets: Vec<_> = states.into_values().map(target).collect();
    json(json!({ "webhooks": targets }).to_string())
}

fn target(state: WebhookState) -> Value {
    let WebhookState { target, queued_events, queued_requests, last_success, last_error, kept } = state;
    let mut kept: Vec<_> = kept.into_iter().collect();
    kept.sort_by_key(|(_, kept)| kept.given_up);
    let kept: Vec<_> = kept
        .into_iter()
        .map(|(id, KeptWebhook { events, given_up, reason })| {
            json!({ "id": id, "events": events, "given_up_ms": given_up, "reason": reason })
        })
        .collect();
    json!({
        "target": target,
        "queued": { "events": queued_events, "requests": queued_requests },
        "last_success_ms": last_success,
        "last_error": last_error.map(|(at, error)| json!({ "ms": at, "error": error })),
        "given_up": kept,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_up_is_shown_oldest_first() {
        let kept = |given_up| KeptWebhook { events: 1, given_up, reason: "answered 500".to_owned() };
        let state = WebhookState {
            target: "https://example.com:443".to_owned(),
            queued_events: 0,
            queued_requests: 0,
            last_success: None,
            last_error: None,
            kept: [("1-10".to_owned(), kept(8)), ("1-9".to_owned(), kept(7)), ("1-11".to_owned(), kept(8))].into(),
        };
        let shown = target(state);
        let ids: Vec<_> = shown["given_up"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["1-9", "1-10", "1-11"]);
    }
}
