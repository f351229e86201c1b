//! How a dialect is mounted: which keys of the settings are its own, which values of them cannot be used, what they mean
//! for who may reach the process, and what is made from them. What loads settings and what plans from them knows dialects
//! by [`Definition`] only; a dialect fills in [`Mount`].

use std::{
    any::{Any, type_name},
    borrow::Cow,
    fmt,
    marker::PhantomData,
    net::SocketAddr,
    sync::Arc,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::contract::Dialect;
use crate::{
    ids::{AppId, SocketIdSeal},
    secret::Secret,
    tenants::{AppWants, DialectRecord, Tenant, Tenants},
};

/// Keys of the settings as a struct: their names, types and defaults. Unknown keys must be refused
/// (`#[serde(default, deny_unknown_fields)]`).
pub trait Keys:
    Clone + fmt::Debug + Default + DeserializeOwned + PartialEq + Send + Serialize + Sync + 'static
{
}

impl<K> Keys for K where
    K: Clone + fmt::Debug + Default + DeserializeOwned + PartialEq + Send + Serialize + Sync + 'static
{
}

/// No keys at all.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NoKeys {}

/// A dialect with its settings. Only [`Mount::new`] and the types must be said; the rest has a default that fits who has
/// none of it.
pub trait Mount: Dialect + Sized + 'static {
    /// Keys of the process, nested as they are in a file: `struct { pusher: Section }` is the section `[pusher]`. A
    /// section that is there already, such as `[master]`, may be given further keys.
    type Settings: Keys;
    /// Keys of each of `[[apps.listed]]`.
    type AppSettings: Keys;
    /// What the dialect knows of an app. It is kept in the directory of tenants ([`Tenant::of`], [`Tenants::by_id`]).
    type App: Send + Sync + 'static;

    /// Keys of an app that may come from variables `WELLHEAD_APP_KEY` and so on, which make one app: of each group one.
    const APP_VARIABLES: &'static [&'static [&'static str]] = &[];

    /// Who comes with credentials of the dialect's own, if somebody does. A process that serves apps of such a dialect
    /// needs neither push keys nor keys for tokens to be reached from other machines.
    const OWN_CREDENTIALS: Option<OwnCredentials> = None;

    /// The keys that are paths of files, each with its value: in a file they are meant from its folder.
    fn paths(settings: &mut Self::Settings) -> Vec<(&'static str, &mut String)> {
        let _ = settings;
        Vec::new()
    }

    /// The same of an app's keys.
    fn app_paths(settings: &mut Self::AppSettings) -> Vec<(&'static str, &mut String)> {
        let _ = settings;
        Vec::new()
    }

    /// The settings as they are used.
    ///
    /// # Errors
    ///
    /// A value that cannot be used.
    fn check(settings: Self::Settings) -> Result<Self::Settings, BadSetting> {
        Ok(settings)
    }

    /// What the dialect knows of each of the listed apps; nothing of those that are not its own.
    ///
    /// # Errors
    ///
    /// A value that cannot be used, by itself or beside those of other apps.
    fn apps(
        apps: &[AppEntry<'_, Self::AppSettings>],
        files: &dyn SecretFiles,
    ) -> Result<Vec<Option<Self::App>>, BadSetting> {
        let _ = files;
        Ok(apps.iter().map(|_| None).collect())
    }

    /// The dialect's own id of an app, where the API uses that instead of the app's key.
    fn app_id(app: &Self::App) -> Option<String> {
        let _ = app;
        None
    }

    /// What the cluster is to count and announce for an app.
    fn wants(app: &Self::App) -> AppWants {
        let _ = app;
        AppWants::default()
    }

    /// The secret that signs what Wellhead sends to the backend of an app, where the dialect has one.
    fn app_secret(app: &Self::App) -> Option<&[u8]> {
        let _ = app;
        None
    }

    /// What of an app's settings every node must have alike. `origins` is how the origins of the app are written, which
    /// stand among them. Nothing of an app that is not the dialect's own changes what the other nodes compare it with.
    fn alike(settings: &Self::AppSettings, app: Option<&Self::App>, origins: &str) -> Vec<Vec<u8>> {
        let _ = (settings, app, origins);
        Vec::new()
    }

    /// May others reach the process as they do, if these are the settings?
    ///
    /// # Errors
    ///
    /// They may not.
    fn exposure(settings: &Self::Settings, tenants: &Tenants, exposure: &Exposure) -> Result<(), BadSetting> {
        let _ = (settings, tenants, exposure);
        Ok(())
    }

    /// Warnings: what is allowed, but should be known.
    fn warnings(settings: &Self::Settings, tenants: &Tenants) -> Vec<String> {
        let _ = (settings, tenants);
        Vec::new()
    }

    /// The dialect. `seal` prints and reads socket ids that cannot be guessed.
    fn new(settings: Self::Settings, seal: &SocketIdSeal) -> Self;
}

/// One of `[[apps.listed]]`, as a dialect sees it.
#[derive(Clone, Debug)]
pub struct AppEntry<'a, S> {
    /// Its place in the settings: `apps.listed.0`.
    pub place: &'a str,
    /// Its key.
    pub key: &'a AppId,
    /// The dialect's keys in it.
    pub settings: S,
}

impl<S> AppEntry<'_, S> {
    /// The whole key of one of its settings.
    #[must_use]
    pub fn at(&self, name: &str) -> String {
        format!("{}.{name}", self.place)
    }
}

/// How sentences call those who come with credentials of a dialect's own.
#[derive(Clone, Copy, Debug)]
pub struct OwnCredentials {
    /// Its clients.
    pub clients: &'static str,
    /// The requests of its backends.
    pub requests: &'static str,
}

/// Who may reach a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exposure {
    /// Where backends call, if they do so here.
    pub master: Option<SocketAddr>,
    /// Where clients connect, if they do so here.
    pub slave: Option<SocketAddr>,
    /// Do other machines reach it, or nodes on them?
    pub is_exposed: bool,
    /// Is there a push key?
    pub push_keys: bool,
}

/// A setting that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadSetting {
    /// Its whole key.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
}

impl BadSetting {
    /// Something wrong with the setting `key`.
    pub fn new(key: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { key: key.into(), message: message.to_string(), hint: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// Secrets that are in the settings, or in files that these name.
pub trait SecretFiles {
    /// The secret `name` of `section`, which is in the settings or in `file`, but not in both.
    ///
    /// # Errors
    ///
    /// Both are set, or the file cannot be read.
    fn secret(&self, section: &str, name: &str, secret: &Secret, file: &str) -> Result<Option<Vec<u8>>, BadSetting>;
}

/// A prefix of paths without its last slash.
///
/// # Errors
///
/// No path can begin so.
pub fn prefix(key: &str, text: &str) -> Result<String, BadSetting> {
    let prefix = text.trim_end_matches('/');
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let begins = prefix.is_empty() || prefix.starts_with('/');
    if begins && !prefix.contains("//") && prefix.bytes().all(fits) {
        return Ok(prefix.to_owned());
    }
    Err(BadSetting::new(key, format!("{text:?} is no prefix of paths")).hint("write it as in \"/api\"; \"\" is none"))
}

/// Settings of any number of dialects, each found by its type. What is not there has its default.
#[derive(Clone, Default)]
pub struct DialectKeys(Vec<Arc<dyn AnyKeys>>);

impl DialectKeys {
    /// Those of the type `K`.
    #[must_use]
    pub fn of<K: Keys>(&self) -> Cow<'_, K> {
        self.0
            .iter()
            .find_map(|keys| keys.as_any().downcast_ref())
            .map_or_else(|| Cow::Owned(K::default()), Cow::Borrowed)
    }

    /// The same settings, with these among them.
    #[must_use]
    pub fn with<K: Keys>(mut self, keys: K) -> Self {
        self.put(Arc::new(keys));
        self
    }

    fn put(&mut self, keys: Arc<dyn AnyKeys>) {
        self.0.retain(|known| known.as_any().type_id() != keys.as_any().type_id());
        self.0.push(keys);
    }

    fn has_all_of(&self, other: &Self) -> bool {
        other.0.iter().all(|keys| {
            let same = self.0.iter().find(|known| known.as_any().type_id() == keys.as_any().type_id());
            same.map_or_else(|| keys.is_default(), |same| same.equals(&**keys))
        })
    }
}

impl PartialEq for DialectKeys {
    fn eq(&self, other: &Self) -> bool {
        self.has_all_of(other) && other.has_all_of(self)
    }
}

impl fmt::Debug for DialectKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

/// [`Keys`] of a type that only their dialect knows.
trait AnyKeys: fmt::Debug + Send + Sync {
    fn as_any(&self) -> &dyn Any;
    fn equals(&self, other: &dyn AnyKeys) -> bool;
    fn is_default(&self) -> bool;
}

impl<K: Keys> AnyKeys for K {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn equals(&self, other: &dyn AnyKeys) -> bool {
        other.as_any().downcast_ref() == Some(self)
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A value that does not fit its key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Misfit {
    /// The key, as it is nested.
    pub path: Vec<String>,
    /// What is wrong with it.
    pub message: String,
}

/// A tree of keys and values, as a file nests them.
pub type Tree = Map<String, Value>;

/// A dialect as the settings know it: one line of [`super::ALL`].
pub trait Definition: Send + Sync {
    /// Its type, for logs.
    fn type_name(&self) -> &'static str;

    /// Its keys with their defaults.
    fn defaults(&self) -> Tree;

    /// Its keys of an app, with their defaults.
    fn app_defaults(&self) -> Tree;

    /// Add what `tree` says of its keys to `settings`.
    ///
    /// # Errors
    ///
    /// See [`Misfit`].
    fn read(&self, tree: Tree, settings: &mut DialectKeys) -> Result<(), Misfit>;

    /// The same of an app's keys.
    ///
    /// # Errors
    ///
    /// See [`Misfit`].
    fn read_app(&self, tree: Tree, settings: &mut DialectKeys) -> Result<(), Misfit>;

    /// See [`Mount::APP_VARIABLES`].
    fn app_variables(&self) -> &'static [&'static [&'static str]];

    /// Show each key that is a path of a file, with its value.
    fn visit_paths(&self, settings: &mut DialectKeys, visit: &mut dyn FnMut(&str, &mut String));

    /// The same of an app's keys.
    fn visit_app_paths(&self, settings: &mut DialectKeys, visit: &mut dyn FnMut(&str, &mut String));

    /// Make `settings` what is used.
    ///
    /// # Errors
    ///
    /// See [`Mount::check`].
    fn check(&self, settings: &mut DialectKeys) -> Result<(), BadSetting>;

    /// What it knows of each of `apps`.
    ///
    /// # Errors
    ///
    /// See [`Mount::apps`].
    fn records(
        &self,
        apps: &[AppEntry<'_, &DialectKeys>],
        files: &dyn SecretFiles,
    ) -> Result<Vec<Option<DialectRecord>>, BadSetting>;

    /// See [`Mount::app_secret`].
    fn app_secret<'a>(&self, record: &'a DialectRecord) -> Option<&'a [u8]>;

    /// See [`Mount::alike`].
    fn alike(&self, settings: &DialectKeys, app: Tenant<'_>, origins: &str) -> Vec<Vec<u8>>;

    /// Who comes with credentials of its own, if it has apps.
    fn own_credentials(&self, tenants: &Tenants) -> Option<OwnCredentials>;

    /// May others reach the process as they do?
    ///
    /// # Errors
    ///
    /// See [`Mount::exposure`].
    fn exposure(&self, settings: &DialectKeys, tenants: &Tenants, exposure: &Exposure) -> Result<(), BadSetting>;

    /// See [`Mount::warnings`].
    fn warnings(&self, settings: &DialectKeys, tenants: &Tenants) -> Vec<String>;

    /// The dialect.
    fn build(&self, settings: &DialectKeys, seal: &SocketIdSeal) -> Arc<dyn Dialect>;
}

impl fmt::Debug for dyn Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.type_name())
    }
}

/// The dialect `M`, as the settings know it.
#[must_use]
pub const fn of<M: Mount>() -> &'static dyn Definition {
    &Mounted::<M>(PhantomData)
}

struct Mounted<M>(PhantomData<fn() -> M>);

impl<M: Mount> Definition for Mounted<M> {
    fn type_name(&self) -> &'static str {
        type_name::<M>()
    }

    fn defaults(&self) -> Tree {
        tree_of(&M::Settings::default())
    }

    fn app_defaults(&self) -> Tree {
        tree_of(&M::AppSettings::default())
    }

    fn read(&self, tree: Tree, settings: &mut DialectKeys) -> Result<(), Misfit> {
        settings.put(Arc::new(read::<M::Settings>(tree)?));
        Ok(())
    }

    fn read_app(&self, tree: Tree, settings: &mut DialectKeys) -> Result<(), Misfit> {
        settings.put(Arc::new(read::<M::AppSettings>(tree)?));
        Ok(())
    }

    fn app_variables(&self) -> &'static [&'static [&'static str]] {
        M::APP_VARIABLES
    }

    fn visit_paths(&self, settings: &mut DialectKeys, visit: &mut dyn FnMut(&str, &mut String)) {
        let mut own = settings.of::<M::Settings>().into_owned();
        M::paths(&mut own).into_iter().for_each(|(key, path)| visit(key, path));
        settings.put(Arc::new(own));
    }

    fn visit_app_paths(&self, settings: &mut DialectKeys, visit: &mut dyn FnMut(&str, &mut String)) {
        let mut own = settings.of::<M::AppSettings>().into_owned();
        M::app_paths(&mut own).into_iter().for_each(|(key, path)| visit(key, path));
        settings.put(Arc::new(own));
    }

    fn check(&self, settings: &mut DialectKeys) -> Result<(), BadSetting> {
        let own = settings.of::<M::Settings>().into_owned();
        settings.put(Arc::new(M::check(own)?));
        Ok(())
    }

    fn records(
        &self,
        apps: &[AppEntry<'_, &DialectKeys>],
        files: &dyn SecretFiles,
    ) -> Result<Vec<Option<DialectRecord>>, BadSetting> {
        let own = |entry: &AppEntry<'_, &DialectKeys>| entry.settings.of::<M::AppSettings>().into_owned();
        let apps: Vec<_> =
            apps.iter().map(|entry| AppEntry { place: entry.place, key: entry.key, settings: own(entry) }).collect();
        let records = M::apps(&apps, files)?;
        Ok(records
            .into_iter()
            .map(|app| {
                app.map(|app| {
                    let wants = M::wants(&app);
                    DialectRecord::new(M::app_id(&app), app).wanting(wants)
                })
            })
            .collect())
    }

    fn app_secret<'a>(&self, record: &'a DialectRecord) -> Option<&'a [u8]> {
        M::app_secret(record.of::<M::App>()?)
    }

    fn alike(&self, settings: &DialectKeys, app: Tenant<'_>, origins: &str) -> Vec<Vec<u8>> {
        M::alike(&settings.of::<M::AppSettings>(), app.of::<M::App>(), origins)
    }

    fn own_credentials(&self, tenants: &Tenants) -> Option<OwnCredentials> {
        M::OWN_CREDENTIALS.filter(|_| tenants.has::<M::App>())
    }

    fn exposure(&self, settings: &DialectKeys, tenants: &Tenants, exposure: &Exposure) -> Result<(), BadSetting> {
        M::exposure(&settings.of::<M::Settings>(), tenants, exposure)
    }

    fn warnings(&self, settings: &DialectKeys, tenants: &Tenants) -> Vec<String> {
        M::warnings(&settings.of::<M::Settings>(), tenants)
    }

    fn build(&self, settings: &DialectKeys, seal: &SocketIdSeal) -> Arc<dyn Dialect> {
        Arc::new(M::new(settings.of::<M::Settings>().into_owned(), seal))
    }
}

fn tree_of<K: Keys>(keys: &K) -> Tree {
    match serde_json::to_value(keys) {
        Ok(Value::Object(tree)) => tree,
        _ => unreachable!("settings are a struct of plain values"),
    }
}

fn read<K: Keys>(tree: Tree) -> Result<K, Misfit> {
    serde_path_to_error::deserialize(Value::Object(tree))
        .map_err(|error| Misfit { path: path_of(error.path()), message: error.inner().to_string() })
}

/// The keys and numbers of a path.
#[must_use]
pub fn path_of(path: &serde_path_to_error::Path) -> Vec<String> {
    use serde_path_to_error::Segment;
    let name = |segment: &Segment| match segment {
        Segment::Map { key } => Some(key.clone()),
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Enum { .. } | Segment::Unknown => None,
    };
    path.iter().map_while(name).collect()
}
