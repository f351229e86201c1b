//! The environment. It is full of names that others chose: Kubernetes writes `WELLHEAD_PORT` for a service called
//! `wellhead`, and a program beside us may keep its token in `WELLHEAD_JWT`. So a setting is known by its `__`, a few
//! names are ours by themselves, and whatever else begins with `WELLHEAD_` is left alone. A variable that is empty counts
//! as not set, as container tools leave it behind.

use toml::Table;

use super::{
    ListedApp, Secret,
    load::flatten,
    place::{Place, Places, SettingsError},
};

/// Variables that may mean us begin so.
pub(super) const PREFIX: &str = "WELLHEAD_";
/// Names the file.
pub(super) const FILE: &str = "WELLHEAD_CONFIG";
/// The one setting that stands in no section.
const PUSH_KEYS: &str = "WELLHEAD_PUSH_KEYS";
const APP_KEY: &str = "WELLHEAD_APP_KEY";
const APP_ID: &str = "WELLHEAD_APP_ID";
const APP_SECRET: &str = "WELLHEAD_APP_SECRET";
const APP_SECRET_FILE: &str = "WELLHEAD_APP_SECRET_FILE";

/// Is a variable of this name read at all?
pub(super) fn is_ours(name: &str) -> bool {
    [FILE, APP_KEY, APP_ID, APP_SECRET, APP_SECRET_FILE].contains(&name) || key(name).is_some()
}

/// The value that a variable is given. A line end behind it is what `echo` and files of secrets leave there, and is never
/// meant; blanks alone are no value.
pub(super) fn value(given: String) -> String {
    let value = given.trim_end_matches(['\r', '\n']);
    if value.trim().is_empty() { String::new() } else { value.to_owned() }
}

/// The key of the setting that a variable changes.
pub(super) fn key(name: &str) -> Option<String> {
    if name == PUSH_KEYS {
        return Some("push_keys".to_owned());
    }
    let written = name.strip_prefix(PREFIX)?;
    let in_section = written.find("__").is_some_and(|section| section > 0);
    in_section.then(|| written.to_lowercase().replace("__", "."))
}

/// What the operator should know of a variable that is left alone: that it would be a setting if it were written as one.
pub(super) fn overlooked(name: &str, schema: &Table) -> Option<String> {
    let written = name.strip_prefix(PREFIX).filter(|_| !is_ours(name))?.to_lowercase();
    let mut keys = Vec::new();
    flatten("", schema, &mut keys);
    let meant = keys.iter().find(|key| key.replace('.', "_") == written)?;
    let right = meant.to_uppercase().replace('.', "__");
    Some(format!("the environment variable {name} is ignored: the setting {meant} is written {PREFIX}{right}"))
}

/// The app that variables of its own make, with the places of its parts if it is number `index` of `apps.listed`.
pub(super) fn app(
    variables: &[(String, String)],
    index: usize,
    places: &mut Places,
) -> Result<Option<ListedApp>, SettingsError> {
    let value = |name: &str| variables.iter().find(|(other, value)| other == name && !value.is_empty());
    let parts = [value(APP_KEY), value(APP_ID), value(APP_SECRET), value(APP_SECRET_FILE)];
    let Some((first, _)) = parts.iter().flatten().next() else { return Ok(None) };
    let hint = format!("an app needs {APP_KEY}, {APP_ID}, and {APP_SECRET} or {APP_SECRET_FILE}");
    let missing = |name: &str| {
        let error = SettingsError::new(format!("{name} is not set, which belongs to it"));
        error.at(Some(Place::Variable(first.clone()))).hint(&hint)
    };
    let text = |part: Option<&(String, String)>| part.map_or_else(String::new, |(_, value)| value.clone());
    let app = match parts {
        [None, ..] => return Err(missing(APP_KEY)),
        [_, None, ..] => return Err(missing(APP_ID)),
        [_, _, None, None] => return Err(missing(&format!("{APP_SECRET} or {APP_SECRET_FILE}"))),
        [key, id, secret, secret_file] => ListedApp {
            key: text(key),
            id: text(id),
            secret: Secret::from(&*text(secret)),
            secret_file: text(secret_file),
            ..ListedApp::default()
        },
    };
    let names = [("key", APP_KEY), ("id", APP_ID), ("secret", APP_SECRET), ("secret_file", APP_SECRET_FILE)];
    let listed = format!("apps.listed.{index}");
    places.overridden(&listed, Place::Variable(APP_KEY.to_owned()));
    for (part, name) in names {
        places.overridden(&format!("{listed}.{part}"), Place::Variable(name.to_owned()));
    }
    Ok(Some(app))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_line_end_behind_a_value_is_no_part_of_it() {
        for (given, meant) in
            [("demo\n", "demo"), ("demo\r\n", "demo"), (" a b ", " a b "), (" ", ""), ("\n", ""), ("", "")]
        {
            assert_eq!(super::value(given.to_owned()), meant, "{given:?}");
        }
    }
}
