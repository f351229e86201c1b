//! Settings from the environment. Others choose names there, too: Kubernetes writes `WELLHEAD_PORT` for a service called
//! `wellhead`, and another program may keep its token in `WELLHEAD_JWT`. So a setting is known by its `__`, a few
//! names are ours by themselves, and whatever else begins with `WELLHEAD_` is left alone. A variable that is empty counts
//! as not set, as container tools leave it behind.

use toml::{Table, Value};

use super::{
    Dialects,
    place::{Places, SettingPlace, SettingsError, flatten},
};

/// Variables that may mean us begin so.
pub(super) const PREFIX: &str = "WELLHEAD_";
/// Names the file.
pub(super) const FILE: &str = "WELLHEAD_CONFIG";
/// The one setting that stands in no section.
const PUSH_KEYS: &str = "WELLHEAD_PUSH_KEYS";
/// Names the app that variables of its own make.
const APP_KEY: &str = "WELLHEAD_APP_KEY";

/// The variable of another key of that app.
fn app_variable(key: &str) -> String {
    format!("WELLHEAD_APP_{}", key.to_uppercase())
}

/// Is a variable of this name read at all?
pub(super) fn is_ours(name: &str, dialects: Dialects) -> bool {
    [FILE, APP_KEY].contains(&name)
        || key(name).is_some()
        || app_keys(dialects).flatten().any(|key| app_variable(key) == name)
}

/// Keys of the app that variables make, besides its name: of each group one.
fn app_keys(dialects: Dialects) -> impl Iterator<Item = &'static [&'static str]> {
    dialects.iter().flat_map(|dialect| dialect.app_variables()).copied()
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
pub(super) fn overlooked(name: &str, dialects: Dialects, schema: &Table) -> Option<String> {
    let written = name.strip_prefix(PREFIX).filter(|_| !is_ours(name, dialects))?.to_lowercase();
    let mut keys = Vec::new();
    flatten("", schema, &mut keys);
    let meant = keys.iter().find(|key| key.replace('.', "_") == written)?;
    let right = meant.to_uppercase().replace('.', "__");
    Some(format!("the environment variable {name} is ignored: the setting {meant} is written {PREFIX}{right}"))
}

/// The app that variables of its own make, as one of `apps.listed`, with the places of its parts if it is number `index`.
pub(super) fn app(
    variables: &[(String, String)],
    dialects: Dialects,
    index: usize,
    places: &mut Places,
) -> Result<Option<Table>, SettingsError> {
    let value = |name: &str| variables.iter().find(|(other, value)| other == name && !value.is_empty());
    let groups: Vec<Vec<_>> = std::iter::once(&["key"][..])
        .chain(app_keys(dialects))
        .map(|group| group.iter().map(|key| (*key, app_variable(key))).collect())
        .collect();
    let Some((first, _)) = groups.iter().flatten().find_map(|(_, name)| value(name)) else { return Ok(None) };
    let mut app = Table::new();
    for group in &groups {
        let set = group.iter().filter_map(|(key, name)| Some((*key, value(name)?)));
        let before = app.len();
        app.extend(set.map(|(key, (_, value))| (key.to_owned(), Value::String(value.clone()))));
        if app.len() == before {
            let error = SettingsError::new(format!("{} is not set, which belongs to it", one_of(group)));
            return Err(error
                .at(Some(SettingPlace::Variable(first.clone())))
                .hint(format!("an app needs {}", all_of(&groups))));
        }
    }
    let listed = format!("apps.listed.{index}");
    places.overridden(&listed, SettingPlace::Variable(APP_KEY.to_owned()));
    for (key, name) in groups.into_iter().flatten() {
        places.overridden(&format!("{listed}.{key}"), SettingPlace::Variable(name));
    }
    Ok(Some(app))
}

fn one_of(group: &[(&str, String)]) -> String {
    group.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>().join(" or ")
}

fn all_of(groups: &[Vec<(&str, String)>]) -> String {
    let mut names: Vec<_> = groups.iter().map(|group| one_of(group)).collect();
    match names.pop() {
        Some(last) if !names.is_empty() => format!("{}, and {last}", names.join(", ")),
        last => last.unwrap_or_default(),
    }
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
