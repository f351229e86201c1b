//! A tree of keys and values becomes settings: each dialect takes what is its own, what is left is everybody's.

use serde_json::Map;
use toml::{Table, Value};
use wellhead_proto::dialect::{
    self,
    mount::{Definition, Misfit, Tree, path_of},
};

use super::Settings;

/// The dialects whose settings are read.
pub type Dialects = &'static [&'static dyn Definition];

/// All settings with their defaults: what keys there are, and of which type. Those of listed apps are not among them.
pub(super) fn schema(dialects: Dialects) -> Table {
    let mut schema = common();
    schema.insert("push_keys".to_owned(), Value::Array(Vec::new()));
    for dialect in dialects {
        merge(&mut schema, dialect.defaults());
    }
    schema
}

/// Those that are no dialect's.
fn common() -> Table {
    Table::try_from(Settings::default()).expect("defaults are plain values")
}

fn merge(table: &mut Table, tree: Tree) {
    for (key, value) in tree {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(table)), serde_json::Value::Object(tree)) => merge(table, tree),
            (None, serde_json::Value::Null) => {}
            (None, value) => {
                table.insert(key, Value::try_from(value).expect("defaults are plain values"));
            }
            (Some(_), _) => unreachable!("{key} is a key of two"),
        }
    }
}

/// The settings that `table` states.
pub(super) fn read(dialects: Dialects, table: &Table) -> Result<Settings, Misfit> {
    let (mut rest, common) = (table.clone(), common());
    one_each(dialects, table, &common)?;
    let mut own = dialect::Settings::default();
    for dialect in dialects {
        dialect.read(take(&mut rest, &dialect.defaults(), &common), &mut own)?;
    }
    let of_apps = read_apps(dialects, &mut rest)?;
    let settings: Result<Settings, _> = serde_path_to_error::deserialize(rest);
    let mut settings = settings.map_err(|error| {
        let path = path_of(error.path());
        let message = with_own(error.inner().message(), &keys_beside(dialects, &path));
        Misfit { path, message }
    })?;
    settings.dialects = own;
    for (app, own) in settings.apps.listed.iter_mut().zip(of_apps) {
        app.dialects = own;
    }
    Ok(settings)
}

/// Sections stand once: serde would read a list as the values of their keys.
fn one_each(dialects: Dialects, table: &Table, common: &Table) -> Result<(), Misfit> {
    let is_list = |key: &&String| common[*key].is_table() && table.get(*key).is_some_and(Value::is_array);
    let Some(key) = common.keys().find(is_list) else { return Ok(()) };
    let of_apps = match dialects.iter().any(|dialect| dialect.app_defaults().contains_key(key)) {
        true => format!("; those of an app are [[apps.listed.{key}]]"),
        false => String::new(),
    };
    let message = format!("{key} stands once: write [{key}], not [[{key}]]{of_apps}");
    Err(Misfit { path: vec![key.clone()], message })
}

/// What dialects say of each of `apps.listed`, taken out of it.
fn read_apps(dialects: Dialects, table: &mut Table) -> Result<Vec<dialect::Settings>, Misfit> {
    let listed = table.get_mut("apps").and_then(|apps| apps.get_mut("listed"));
    let mut of_apps = Vec::new();
    for (index, app) in listed.and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
        let mut own = dialect::Settings::default();
        if let Value::Table(app) = app {
            for dialect in dialects {
                let tree = take(app, &dialect.app_defaults(), &Table::new());
                dialect.read_app(tree, &mut own).map_err(|misfit| {
                    let place = ["apps".to_owned(), "listed".to_owned(), index.to_string()];
                    Misfit { path: place.into_iter().chain(misfit.path).collect(), ..misfit }
                })?;
            }
        }
        of_apps.push(own);
    }
    Ok(of_apps)
}

/// Take what `defaults` names out of `table`. A section that is `common` keeps all else that it holds; any other is taken
/// whole, with keys that nobody knows.
fn take(table: &mut Table, defaults: &Tree, common: &Table) -> Tree {
    let mut taken = Map::new();
    for (key, default) in defaults {
        let value = match (default, common.get(key)) {
            (serde_json::Value::Object(defaults), Some(Value::Table(common))) => {
                let Some(Value::Table(section)) = table.get_mut(key) else { continue };
                let tree = take(section, defaults, common);
                (!tree.is_empty()).then_some(serde_json::Value::Object(tree))
            }
            _ => table.remove(key).map(|value| serde_json::to_value(value).unwrap_or_default()),
        };
        taken.extend(value.map(|value| (key.clone(), value)));
    }
    taken
}

/// Keys of dialects that stand beside the one at `path`.
fn keys_beside(dialects: Dialects, path: &[String]) -> Vec<String> {
    let section = path.split_last().map_or(path, |(_, section)| section);
    let keys = |dialect: &&dyn Definition| {
        let (tree, section) = match section {
            [apps, listed, _, section @ ..] if apps == "apps" && listed == "listed" => {
                (dialect.app_defaults(), section)
            }
            section => (dialect.defaults(), section),
        };
        let within = section.iter().try_fold(tree, |mut tree, key| match tree.remove(key) {
            Some(serde_json::Value::Object(tree)) => Some(tree),
            _ => None,
        });
        within.into_iter().flat_map(|tree| tree.into_iter().map(|(key, _)| key)).collect::<Vec<_>>()
    };
    dialects.iter().flat_map(keys).collect()
}

/// What serde says, with the keys of dialects among those that it would have known.
fn with_own(message: &str, own: &[String]) -> String {
    let unknown = message.strip_prefix("unknown field `").and_then(|rest| rest.rsplit_once("`, expected "));
    let Some((unknown, known)) = unknown.filter(|_| !own.is_empty()) else { return message.to_owned() };
    let mut names: Vec<_> = known.split('`').skip(1).step_by(2).collect();
    names.extend(own.iter().map(String::as_str).filter(|own| !known.contains(&format!("`{own}`"))));
    format!("unknown field `{unknown}`, expected one of `{}`", names.join("`, `"))
}
