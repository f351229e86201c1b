//! The arguments of a push: what the query string says, and what the body does, which wins.

use serde_json::value::RawValue;

use crate::{
    dialect::{
        contract::{ApiCall, Headers},
        pushex::{
            json::{self, Fields},
            params::{ParamValue, Params},
        },
    },
    refusal::Refusal,
};

use super::multipart;

/// The arguments of a push, in the order of their names.
const NAMES: [&str; 3] = ["channel", "data", "event"];

/// One of the arguments.
pub enum Argument<'a> {
    /// Of a JSON body.
    Json(&'a RawValue),
    /// Of the query string or a form.
    Form(&'a ParamValue),
}

/// The arguments of a request.
pub struct Arguments<'a> {
    json: Fields<'a, 3>,
    form: Params,
    query: Params,
}

impl<'a> Arguments<'a> {
    /// Those of `call`. A body of another type is not looked at.
    ///
    /// # Errors
    ///
    /// The query string or the body cannot be read.
    pub fn of(call: &'a ApiCall<'_>) -> Result<Self, Refusal> {
        let query = Params::of(call.query)?;
        let given = call.headers.header("content-type").unwrap_or_default();
        let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let (mut json, mut form) = ([None; 3], Params::default());
        match &*essence {
            "application/json" => json = in_json(&call.body)?,
            _ if essence.starts_with("application/") && essence.ends_with("+json") => json = in_json(&call.body)?,
            "application/x-www-form-urlencoded" => form = Params::of(utf8(&call.body)?)?,
            "multipart/form-data" => form = multipart::read(given, &call.body)?,
            _ => {}
        }
        Ok(Self { json, form, query })
    }

    /// `channel`, `data` and `event`, as far as they are there.
    pub fn get(&self) -> [Option<Argument<'_>>; 3] {
        let mut at = 0;
        NAMES.map(|name| {
            let json = self.json[at];
            at += 1;
            let form = || self.form.get(name).or_else(|| self.query.get(name)).map(Argument::Form);
            json.map(Argument::Json).or_else(form)
        })
    }
}

/// An empty body counts as an empty object; what is no object has no arguments.
fn in_json(body: &[u8]) -> Result<Fields<'_, 3>, Refusal> {
    if body.is_empty() {
        return Ok([None; 3]);
    }
    let fields = json::object(utf8(body)?, NAMES).map_err(|_| Refusal::Malformed("the body is no JSON".into()))?;
    Ok(fields.unwrap_or_default())
}

fn utf8(body: &[u8]) -> Result<&str, Refusal> {
    str::from_utf8(body).map_err(|_| Refusal::Malformed("the body is not UTF-8".into()))
}

/// Is JSON among what the caller takes? Whoever does not say takes anything.
///
/// # Errors
///
/// 406.
pub fn acceptable(headers: &dyn Headers) -> Result<(), Refusal> {
    let takes_json = |range: &str| {
        let essence = range.split(';').next().unwrap_or_default().trim();
        ["*/*", "application/*", "application/json"].iter().any(|fine| essence.eq_ignore_ascii_case(fine))
    };
    match headers.header("accept") {
        Some(accept) if !accept.split(',').any(takes_json) => {
            Err(Refusal::Coded { code: 406, reason: "not_acceptable", text: "the reply would be JSON".into() })
        }
        _ => Ok(()),
    }
}
