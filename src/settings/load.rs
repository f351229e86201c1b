//! Settings from where they are written: defaults, then a file, then the environment, then the command line. Each
//! layer is checked by itself, so that an error names the one that it stands in.

use std::{
    env, io,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use wellhead_proto::dialect::{self, mount::Misfit};

use super::{
    Dialects, PublicKey, Settings, environment,
    place::{Places, SettingPlace, SettingsError, flatten, line_of, nearest},
    read,
};
use crate::files::read_text;

/// Where a file is looked for when none is named.
const USUAL_FILES: [&str; 2] = ["config.toml", "/etc/wellhead/config.toml"];

/// Settings, and where they came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Where each was set.
    pub places: Places,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// What the operator should know of where they came from.
    pub warnings: Vec<String>,
    /// The dialects that they are for.
    pub dialects: Dialects,
}

impl From<Settings> for Loaded {
    fn from(settings: Settings) -> Self {
        let (places, warnings) = (Places::default(), Vec::new());
        Self { settings, places, file: None, warnings, dialects: dialect::ALL }
    }
}

/// The settings of this process. `file` is what `-c` names, `flags` are the `section.key=value` of `--set`.
///
/// # Errors
///
/// A file that cannot be read, a key that does not exist, a value that does not fit.
pub fn load(file: Option<&Path>, flags: &[String]) -> Result<Loaded, SettingsError> {
    load_for(dialect::ALL, file, flags)
}

/// The same where these dialects are spoken.
///
/// # Errors
///
/// See [`load`].
pub fn load_for(dialects: Dialects, file: Option<&Path>, flags: &[String]) -> Result<Loaded, SettingsError> {
    let mut variables = Vec::new();
    for (name, value) in env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with(environment::PREFIX)) else {
            continue;
        };
        let value = match value.into_string() {
            Ok(value) => value,
            Err(_) if environment::is_ours(name, dialects) => {
                return Err(SettingsError::new("is not UTF-8").at(Some(SettingPlace::Variable(name.to_owned()))));
            }
            Err(value) => value.to_string_lossy().into_owned(),
        };
        variables.push((name.to_owned(), environment::value(value)));
    }
    // the order of an error or a warning is not to depend on the shell
    variables.sort();
    let named = variables.iter().find(|(name, _)| name == environment::FILE).map(|(_, file)| PathBuf::from(file));
    let file = match file.map(Path::to_owned).or(named.filter(|file| !file.as_os_str().is_empty())) {
        Some(file) => Some(file),
        None => USUAL_FILES.iter().map(PathBuf::from).find(|file| file.exists()),
    };
    let text = match &file {
        Some(file) => read(file)?,
        None => String::new(),
    };
    let name = file.as_ref().map_or_else(String::new, |file| file.display().to_string());
    let mut loaded = layers_for(dialects, &name, &text, &variables, flags)?;
    if let Some(folder) = file.as_ref().and_then(|file| file.parent()) {
        rebase(&mut loaded, folder);
    }
    loaded.file = file;
    Ok(loaded)
}

fn read(file: &Path) -> Result<String, SettingsError> {
    read_text(file).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "name a file that exists with -c, or leave it out to run with the defaults",
            _ => "the file must be readable text in UTF-8",
        };
        SettingsError::new(format!("cannot read the configuration {}: {error}", file.display())).hint(hint)
    })
}

/// The settings in `text` (of a file called `file`), changed by variables, whose names begin with `WELLHEAD_`, and then
/// by flags.
///
/// # Errors
///
/// A key that does not exist, a value that does not fit.
pub fn layers(
    file: &str,
    text: &str,
    variables: &[(String, String)],
    flags: &[String],
) -> Result<Loaded, SettingsError> {
    layers_for(dialect::ALL, file, text, variables, flags)
}

/// The same where these dialects are spoken.
///
/// # Errors
///
/// See [`layers`].
pub fn layers_for(
    dialects: Dialects,
    file: &str,
    text: &str,
    variables: &[(String, String)],
    flags: &[String],
) -> Result<Loaded, SettingsError> {
    let table: Table = toml::from_str(text).map_err(|error| {
        let line =
            error.span().map(|span| SettingPlace::Line { file: file.to_owned(), line: line_of(text, span.start) });
        SettingsError::new(without_value(error.message())).at(line)
    })?;
    let places = Places::of_file(file, text);
    let settings = read::read(dialects, &table).map_err(|Misfit { path, message }| {
        SettingsError::new(without_value(&message)).at(places.of(&path.join(".")).cloned()).did_you_mean()
    })?;
    let mut layers = Layers { table, settings, places, schema: read::schema(dialects), dialects };
    let mut warnings = Vec::new();
    for (name, value) in variables.iter().filter(|(_, value)| !value.is_empty()) {
        match environment::key(name) {
            Some(key) => layers.set(&key, value, SettingPlace::Variable(name.clone()))?,
            None => warnings.extend(environment::overlooked(name, dialects, &layers.schema)),
        }
    }
    for flag in flags {
        let (key, value) = layers.flag(flag)?;
        layers.set(key, value, SettingPlace::Flag(key.to_owned()))?;
    }
    layers.list_app(variables)?;
    let Layers { settings, places, .. } = layers;
    Ok(Loaded { settings, places, file: None, warnings, dialects })
}

/// What serde says, without the value that it says it of: it may be a secret, and stands where the error points to.
fn without_value(message: &str) -> String {
    let Some((what, rest)) =
        message.split_once(": ").filter(|(what, _)| matches!(*what, "invalid type" | "invalid value"))
    else {
        return message.to_owned();
    };
    let kind = rest[..rest.find(['`', '"']).unwrap_or(rest.len())].trim_end();
    match rest.rsplit_once(", expected ") {
        // a number out of its range
        Some(_) if what == "invalid value" && matches!(kind, "integer" | "floating point") => message.to_owned(),
        Some((said, wanted)) if said.len() >= kind.len() => format!("{what}: {kind}, expected {wanted}"),
        _ => format!("{what}: {kind}"),
    }
}

struct Layers {
    table: Table,
    settings: Settings,
    places: Places,
    schema: Table,
    dialects: Dialects,
}

impl Layers {
    fn set(&mut self, key: &str, raw: &str, place: SettingPlace) -> Result<(), SettingsError> {
        let refused = |error: SettingsError| error.at(Some(place.clone()));
        let value = self.typed(key, raw).map_err(refused)?;
        let mut table = self.table.clone();
        insert(&mut table, key, value);
        self.settings = read::read(self.dialects, &table).map_err(|Misfit { message, .. }| {
            refused(SettingsError::new(format!("{key}: {}", without_value(&message))).did_you_mean())
        })?;
        self.table = table;
        self.places.overridden(key, place);
        Ok(())
    }

    /// The app of variables of its own is one more of those that are listed, and must not be listed already.
    fn list_app(&mut self, variables: &[(String, String)]) -> Result<(), SettingsError> {
        let listed = &self.settings.apps.listed;
        let Some(app) = environment::app(variables, self.dialects, listed.len(), &mut self.places)? else {
            return Ok(());
        };
        let key = app.get("key").and_then(Value::as_str).unwrap_or_default();
        let place = |index: usize| self.places.of(&format!("apps.listed.{index}"));
        if let Some(index) = listed.iter().position(|listed| listed.key == key) {
            let other = place(index).map_or_else(String::new, |place| format!(" ({place})"));
            let error = SettingsError::new(format!("the app {key:?} is among apps.listed, too{other}"));
            return Err(error.at(place(listed.len()).cloned()).hint("list it once"));
        }
        let apps = self.table.entry("apps").or_insert_with(|| Value::Table(Table::new())).as_table_mut();
        let listed = apps.map(|apps| apps.entry("listed").or_insert_with(|| Value::Array(Vec::new())));
        if let Some(Value::Array(listed)) = listed {
            listed.push(Value::Table(app));
        }
        self.settings = read::read(self.dialects, &self.table).map_err(|Misfit { path, message }| {
            let place = self.places.of(&path.join(".")).cloned();
            SettingsError::new(without_value(&message)).at(place).did_you_mean()
        })?;
        Ok(())
    }

    /// `raw` as a value of the type that `key` has.
    fn typed(&self, key: &str, raw: &str) -> Result<Value, SettingsError> {
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        let mut section = section.split('.').filter(|part| !part.is_empty());
        let section = section.try_fold(&self.schema, |table, part| table.get(part)?.as_table());
        let bad = |wanted: &str| SettingsError::new(format!("{key}: {raw:?} is not {wanted}"));
        // what stands in a list may be a secret
        let no_list = || {
            SettingsError::new(format!("{key}: begins with [ and is not a list"))
                .hint("a list is TOML or JSON, as in [\"a\", \"b\"], or words between commas")
        };
        match section.and_then(|section| section.get(name)) {
            // one server or several
            Some(Value::String(_)) if key == "cluster.bus" && is_list(raw) => list(raw).ok_or_else(no_list),
            Some(Value::String(_)) => Ok(Value::String(raw.to_owned())),
            Some(Value::Boolean(_)) => raw.parse().map(Value::Boolean).map_err(|_| bad("true or false")),
            Some(Value::Integer(_)) => raw.parse().map(Value::Integer).map_err(|_| bad("a whole number")),
            Some(Value::Array(_)) => list(raw).ok_or_else(no_list),
            _ => Err(self.unknown(key)),
        }
    }

    /// Key and value of a flag. What is no key is not repeated: whoever mistypes a flag may have put a secret anywhere.
    fn flag<'f>(&self, flag: &'f str) -> Result<(&'f str, &'f str), SettingsError> {
        let plain = |c: char| c.is_ascii_lowercase() || c == '_' || c == '.';
        let begins = &flag[..flag.find(|c| !plain(c)).unwrap_or(flag.len())];
        match flag.split_once('=') {
            Some((key, value)) if key == begins => Ok((key, value)),
            other => {
                let what = if other.is_some() { "there is no setting of that name" } else { "a value is missing" };
                let known = self.keys().into_iter().find(|key| key == begins).unwrap_or_default();
                let error = SettingsError::new(what).at(Some(SettingPlace::Flag(known)));
                Err(error.hint("write it as --set section.key=value, for example --set log.level=debug"))
            }
        }
    }

    fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        flatten("", &self.schema, &mut keys);
        keys
    }

    fn unknown(&self, key: &str) -> SettingsError {
        let keys = self.keys();
        let error = SettingsError::new("there is no setting of that name");
        match nearest(key, keys.iter().map(String::as_str)) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint("a setting is written section.key, in the environment WELLHEAD_SECTION__KEY"),
        }
    }
}

fn is_list(raw: &str) -> bool {
    raw.trim_start().starts_with('[')
}

/// A list as TOML or JSON writes it, or words between commas.
fn list(raw: &str) -> Option<Value> {
    if is_list(raw) {
        let toml = toml::from_str(&format!("list = {raw}")).ok().filter(|table: &Table| table.len() == 1);
        let value = toml.and_then(|mut table| table.remove("list")).or_else(|| serde_json::from_str(raw).ok());
        return value.filter(Value::is_array);
    }
    let words = raw.split(',').map(str::trim).filter(|word| !word.is_empty());
    Some(Value::Array(words.map(|word| Value::String(word.to_owned())).collect()))
}

fn insert(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(section) = section {
                insert(section, rest, value);
            }
        }
    }
}

/// Paths that stand in the file are meant from its folder; those of the environment and the command line from where the
/// process was started.
fn rebase(loaded: &mut Loaded, folder: &Path) {
    let Loaded { settings, places, dialects, .. } = loaded;
    let move_path = |key: &str, path: &mut String| {
        if !path.is_empty() && matches!(places.of(key), Some(SettingPlace::Line { .. })) {
            *path = folder.join(&*path).display().to_string();
        }
    };
    let move_keys = |key: &str, files: &mut [PublicKey]| {
        for (index, public_key) in files.iter_mut().enumerate() {
            move_path(&format!("{key}.{index}"), &mut public_key.file);
        }
    };
    // a master and a slave that are started in different folders are to meet, named or not; an address is left for the
    // plan to refuse
    let socket_place = places.of("cluster.socket");
    if matches!(socket_place, None | Some(SettingPlace::Line { .. })) && !settings.cluster.socket.contains("://") {
        settings.cluster.socket = folder.join(&settings.cluster.socket).display().to_string();
    }
    move_path("cluster.secret_file", &mut settings.cluster.secret_file);
    let nats = &mut settings.nats;
    for (key, path) in [
        ("nats.credentials_file", &mut nats.credentials_file),
        ("nats.password_file", &mut nats.password_file),
        ("nats.token_file", &mut nats.token_file),
        ("nats.tls.ca_file", &mut nats.tls.ca_file),
        ("nats.tls.cert_file", &mut nats.tls.cert_file),
        ("nats.tls.key_file", &mut nats.tls.key_file),
    ] {
        move_path(key, path);
    }
    move_path("jwt.secret_file", &mut settings.jwt.secret_file);
    move_keys("jwt.public_keys", &mut settings.jwt.public_keys);
    for (index, app) in settings.apps.listed.iter_mut().enumerate() {
        move_keys(&format!("apps.listed.{index}.public_keys"), &mut app.public_keys);
        move_path(&format!("apps.listed.{index}.remote.header_file"), &mut app.remote.header_file);
        for dialect in *dialects {
            let at = |key: &str| format!("apps.listed.{index}.{key}");
            dialect.visit_app_paths(&mut app.dialects, &mut |key, path| move_path(&at(key), path));
        }
    }
    for dialect in *dialects {
        dialect.visit_paths(&mut settings.dialects, &mut |key, path| move_path(key, path));
    }
}
