//! Where a setting came from, so that an error can name its file and line.

use std::{collections::BTreeMap, fmt};

use toml::{
    Table, Value,
    de::{DeTable, DeValue},
};
use wellhead_proto::dialect::mount::BadSetting;

/// Where one value was set.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SettingPlace {
    /// A line of a file.
    Line {
        /// The file, as it was named.
        file: String,
        /// Counted from 1.
        line: usize,
    },
    /// A variable of the environment.
    Variable(String),
    /// `--set` on the command line.
    Flag(String),
}

impl fmt::Display for SettingPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { file, line } => write!(f, "{file}:{line}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(key) if key.is_empty() => f.write_str("--set"),
            Self::Flag(key) => write!(f, "--set {key}"),
        }
    }
}

impl SettingPlace {
    /// This place and what is wrong there. A flag is named by its key, so that `message` need not name it again.
    fn say(&self, message: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // it may be about a part of what was set, as in `apps.listed.0`
            Self::Flag(key) if !key.is_empty() && is_about(message, key) => write!(f, "--set {message}"),
            _ => write!(f, "{self}: {message}"),
        }
    }
}

/// Does `message` begin with `key`, or with what stands in it?
fn is_about(message: &str, key: &str) -> bool {
    message.strip_prefix(key).is_some_and(|rest| rest.starts_with([':', '.']))
}

/// The place of every value that is not a default, by its dotted key; items of arrays by their number.
#[derive(Clone, Debug, Default)]
pub struct Places(BTreeMap<String, SettingPlace>);

impl Places {
    /// The places of everything in a file.
    #[must_use]
    pub fn of_file(file: &str, text: &str) -> Self {
        let mut places = Self::default();
        if let Ok(table) = DeTable::parse(text) {
            places.walk_table("", table.get_ref(), &|offset| SettingPlace::Line {
                file: file.to_owned(),
                line: line_of(text, offset),
            });
        }
        places
    }

    /// `key` was set again, somewhere else.
    pub fn overridden(&mut self, key: &str, place: SettingPlace) {
        let inside = format!("{key}.");
        self.0.retain(|known, _| !known.starts_with(&inside));
        self.0.insert(key.to_owned(), place);
    }

    /// Where `key` was set, or else what it stands in.
    #[must_use]
    pub fn of(&self, key: &str) -> Option<&SettingPlace> {
        let mut key = key;
        loop {
            if let Some(place) = self.0.get(key) {
                return Some(place);
            }
            key = &key[..key.rfind('.')?];
        }
    }

    fn walk_table(&mut self, prefix: &str, table: &DeTable<'_>, place: &dyn Fn(usize) -> SettingPlace) {
        for (key, value) in table {
            let path =
                if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
            self.0.insert(path.clone(), place(key.span().start));
            self.walk_value(&path, value.get_ref(), place);
        }
    }

    fn walk_value(&mut self, path: &str, value: &DeValue<'_>, place: &dyn Fn(usize) -> SettingPlace) {
        match value {
            DeValue::Table(table) => self.walk_table(path, table, place),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}.{index}");
                    self.0.insert(path.clone(), place(item.span().start));
                    self.walk_value(&path, item.get_ref(), place);
                }
            }
            _ => {}
        }
    }
}

/// The line, counted from 1, that byte `offset` of `text` stands on.
#[must_use]
pub fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count() + 1
}

/// An error in the settings: where it is, what is wrong, and what to do about it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SettingsError {
    /// Where it stands, if it is written anywhere.
    pub place: Option<SettingPlace>,
    /// What is wrong; begins with the key if one is to blame.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
}

impl SettingsError {
    /// Something wrong without a place.
    pub fn new(message: impl Into<String>) -> Self {
        Self { place: None, message: message.into(), hint: None }
    }

    /// What somebody found who knows no places.
    #[must_use]
    pub fn of(BadSetting { key, message, hint }: BadSetting, places: &Places) -> Self {
        Self { place: places.of(&key).cloned(), message: format!("{key}: {message}"), hint }
    }

    /// The same at a place.
    #[must_use]
    pub fn at(self, place: Option<SettingPlace>) -> Self {
        Self { place, ..self }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The same with a did-you-mean, if the message is serde's about an unknown word and one of those it knows is near.
    #[must_use]
    pub fn did_you_mean(self) -> Self {
        let mut quoted = self.message.split('`').skip(1).step_by(2);
        let unknown = self.message.contains("unknown field") || self.message.contains("unknown variant");
        let hint = match quoted.next() {
            Some(word) if unknown => nearest(word, quoted).map(|near| format!("did you mean `{near}`?")),
            _ => None,
        };
        Self { hint: self.hint.clone().or(hint), ..self }
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => place.say(&self.message, f)?,
            None => f.write_str(&self.message)?,
        }
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for SettingsError {}

/// The candidate that `word` was probably meant to be.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let scored = candidates.into_iter().map(|candidate| (strsim::jaro_winkler(word, candidate), candidate));
    scored.filter(|(score, _)| *score > 0.75).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, candidate)| candidate)
}

/// The dotted keys of everything in `table` that is not a table.
pub(super) fn flatten(prefix: &str, table: &Table, keys: &mut Vec<String>) {
    for (key, value) in table {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(table) => flatten(&key, table, keys),
            _ => keys.push(key),
        }
    }
}
