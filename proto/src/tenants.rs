//! The directory of tenants: every app with its keys, secrets, limits and origins, and the keys of backends, in one
//! immutable value.
//!
//! [`TenantDirectory`] holds the value that is in force. Whoever needs something of an app looks it up at the moment of
//! use and keeps no copy; a reload swaps the whole value, or nothing. One use takes one value: what it finds there
//! twice cannot disagree.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    fmt,
    sync::Arc,
};

use arc_swap::{ArcSwap, Guard};
use subtle::ConditionallySelectable;

use crate::{
    ids::{AppId, ChannelName},
    jwt::{BadToken, Claims, Keyring, claimed_app},
    origin::Origins,
    push_key::{KeyHash, PushKey},
    refusal::Refusal,
    remote::RemoteTarget,
};

/// The tenants that are in force. Reading takes no lock; threads that read never wait for a swap.
#[derive(Debug)]
pub struct TenantDirectory(ArcSwap<Tenants>);

impl TenantDirectory {
    /// A directory of these tenants.
    #[must_use]
    pub fn new(tenants: Tenants) -> Self {
        Self(ArcSwap::from_pointee(tenants))
    }

    /// The tenants at this moment, for a use that does not wait for anything.
    #[must_use]
    pub fn load(&self) -> Guard<Arc<Tenants>> {
        self.0.load()
    }

    /// The tenants at this moment, for a use that waits in between: one request, one handshake.
    #[must_use]
    pub fn load_full(&self) -> Arc<Tenants> {
        self.0.load_full()
    }

    /// Put `tenants` in force, whole. Each use that begins afterwards sees them.
    pub fn swap(&self, tenants: Tenants) {
        self.0.store(Arc::new(tenants));
    }
}

/// Every app that the settings name, whether others are served too, and the keys of backends.
#[derive(Clone, Default)]
pub struct Tenants {
    listed: HashMap<AppId, ListedTenant>,
    /// Verify the tokens of apps without keys of their own.
    keys: Keyring,
    serve_unlisted: bool,
    /// Origins that may open sockets of apps that do not say so themselves.
    allowed_origins: Origins,
    push_keys: Vec<Arc<PushKey>>,
    /// What dialects know of apps, by the type of their records.
    of_dialects: Vec<(TypeId, DialectRecords)>,
    /// Is there an app, or was there, that wants anything counted or announced? Most often none is.
    wants_any: bool,
}

/// What the settings say of one app.
#[derive(Clone, Default)]
pub struct ListedTenant {
    /// JWT keys of its own; when there are some, they alone verify its tokens.
    pub keys: Option<Keyring>,
    /// Origins that may open its sockets; without it, the setting for all apps holds.
    pub allowed_origins: Option<Origins>,
    /// What dialects know of it.
    pub of_dialects: Vec<DialectRecord>,
    /// Where the remote commands of its clients are posted, if they are.
    pub remote: Option<Arc<RemoteTarget>>,
    /// What the cluster counts and announces for it, besides what its dialects want.
    pub wants: AppWants,
}

/// What the cluster counts and announces only for apps that want it.
#[derive(Clone, Copy, Debug, Default)]
pub struct AppWants {
    /// Its clients may watch users: whether one is online is decided, and told those who watch.
    pub watchlists: bool,
    /// The sockets on those of its channels for which this says so are counted.
    pub counts: Option<fn(&ChannelName) -> bool>,
    /// Those sockets are told how many they are.
    pub tells_counts: bool,
}

impl AppWants {
    /// All that either wants.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            watchlists: self.watchlists || other.watchlists,
            counts: self.counts.or(other.counts),
            tells_counts: self.tells_counts || other.tells_counts,
        }
    }

    fn is_nothing(self) -> bool {
        !self.watchlists && self.counts.is_none()
    }
}

/// What one dialect knows of one app. The dialect finds it by its type.
#[derive(Clone)]
pub struct DialectRecord {
    kind: TypeId,
    /// What the dialect calls the app in places where its key does not stand.
    id: Option<String>,
    record: Arc<dyn Any + Send + Sync>,
    wants: AppWants,
}

impl DialectRecord {
    /// The record, if it is of the type `R`.
    #[must_use]
    pub fn of<R: Any>(&self) -> Option<&R> {
        self.record.downcast_ref()
    }

    /// `record`; the dialect finds it by `id`, too, if it calls the app something else than its key.
    pub fn new<R: Any + Send + Sync>(id: Option<String>, record: R) -> Self {
        Self { kind: TypeId::of::<R>(), id, record: Arc::new(record), wants: AppWants::default() }
    }

    /// The same of an app for which the cluster is to do this.
    #[must_use]
    pub fn wanting(self, wants: AppWants) -> Self {
        Self { wants, ..self }
    }
}

/// The records of one type.
#[derive(Clone, Default)]
struct DialectRecords {
    /// In the order of the settings.
    all: Vec<Arc<dyn Any + Send + Sync>>,
    by_id: HashMap<String, Arc<dyn Any + Send + Sync>>,
}

impl Tenants {
    /// The tenants of a cluster, without push keys. `keys` and `allowed_origins` hold for apps that say nothing
    /// themselves.
    #[must_use]
    pub fn new(
        keys: Keyring,
        listed: impl IntoIterator<Item = (AppId, ListedTenant)>,
        serve_unlisted: bool,
        allowed_origins: Origins,
    ) -> Self {
        let tenants = Self { keys, serve_unlisted, allowed_origins, ..Self::default() };
        listed.into_iter().fold(tenants, |tenants, (app, listed)| tenants.with_listed(app, listed))
    }

    /// The same with one more listed app; of two with the same key the first is replaced.
    #[must_use]
    pub fn with_listed(mut self, app: AppId, listed: ListedTenant) -> Self {
        if let Some(former) = self.listed.remove(&app) {
            former.of_dialects.iter().for_each(|record| self.forget(record));
        }
        for DialectRecord { kind, id, record, .. } in &listed.of_dialects {
            let at = self.of_dialects.iter().position(|(known, _)| known == kind).unwrap_or_else(|| {
                self.of_dialects.push((*kind, DialectRecords::default()));
                self.of_dialects.len() - 1
            });
            let records = &mut self.of_dialects[at].1;
            records.all.push(record.clone());
            if let Some(id) = id {
                records.by_id.insert(id.clone(), record.clone());
            }
        }
        self.wants_any |= !listed.wants().is_nothing();
        self.listed.insert(app, listed);
        self
    }

    /// The same with other keys for the tokens of apps that have none of their own.
    #[must_use]
    pub fn with_keys(self, keys: Keyring) -> Self {
        Self { keys, ..self }
    }

    /// The same with other keys of backends.
    #[must_use]
    pub fn with_push_keys(self, keys: Vec<PushKey>) -> Self {
        Self { push_keys: keys.into_iter().map(Arc::new).collect(), ..self }
    }

    fn forget(&mut self, DialectRecord { kind, record, .. }: &DialectRecord) {
        for (_, records) in self.of_dialects.iter_mut().filter(|(known, _)| known == kind) {
            records.all.retain(|known| !Arc::ptr_eq(known, record));
            records.by_id.retain(|_, known| !Arc::ptr_eq(known, record));
        }
        self.of_dialects.retain(|(_, records)| !records.all.is_empty());
    }

    /// What the cluster counts and announces for `app`: quick where nobody wants anything.
    #[must_use]
    pub fn wants(&self, app: &AppId) -> AppWants {
        if self.wants_any { self.app(app).wants() } else { AppWants::default() }
    }

    /// What is known of `app`.
    #[must_use]
    pub fn app(&self, app: &AppId) -> Tenant<'_> {
        self.named(app.as_str())
    }

    /// What is known of the app that is called `app`, if that is the name of one.
    #[must_use]
    pub fn named(&self, app: &str) -> Tenant<'_> {
        Tenant { tenants: self, listed: self.listed.get(app) }
    }

    /// Is there any key that verifies clients' tokens?
    #[must_use]
    pub fn verify_tokens(&self) -> bool {
        !self.keys.is_empty() || self.listed.values().any(|listed| listed.keys.is_some())
    }

    /// The claims of `jwt`, verified with the keys of the app that it names.
    ///
    /// # Errors
    ///
    /// See [`BadToken`].
    pub fn verify(&self, jwt: &str, now: f64) -> Result<Claims, BadToken> {
        // the app is read before the JWT is verified, only to pick the keys: the JWT must verify with those
        let app = claimed_app(jwt);
        let keys = app.as_ref().map_or(&self.keys, |app| self.app(app).keys());
        let claims = keys.verify(jwt, now)?;
        if app.as_ref() != Some(&claims.grant.app) {
            return Err(BadToken::Malformed);
        }
        if self.app(&claims.grant.app).is_served() { Ok(claims) } else { Err(BadToken::WrongApp) }
    }

    /// Is there no push key?
    #[must_use]
    pub fn is_keyless(&self) -> bool {
        self.push_keys.is_empty()
    }

    /// The push key that a backend shows. Every hash is compared, to the end, so that the time tells nothing.
    #[must_use]
    pub fn push_key(&self, shown: &str) -> Option<&Arc<PushKey>> {
        let hash = KeyHash::of(shown);
        let mut found = u64::MAX;
        for (index, known) in self.push_keys.iter().enumerate() {
            found.conditional_assign(&(index as u64), known.sha256.same_as(&hash));
        }
        usize::try_from(found).ok().and_then(|index| self.push_keys.get(index))
    }

    /// What a dialect knows of its apps: all records of the type `R`, in the order of the settings.
    pub fn all_of<R: Any>(&self) -> impl Iterator<Item = &R> {
        self.records::<R>().into_iter().flat_map(|records| &records.all).filter_map(|record| record.downcast_ref())
    }

    /// What a dialect knows of the app that it calls `id`.
    #[must_use]
    pub fn by_id<R: Any>(&self, id: &str) -> Option<&R> {
        self.records::<R>()?.by_id.get(id)?.downcast_ref()
    }

    /// Does a dialect that knows its apps by records of the type `R` have any?
    #[must_use]
    pub fn has<R: Any>(&self) -> bool {
        self.records::<R>().is_some()
    }

    fn records<R: Any>(&self) -> Option<&DialectRecords> {
        let kind = TypeId::of::<R>();
        self.of_dialects.iter().find(|(known, _)| *known == kind).map(|(_, records)| records)
    }
}

/// Never shows a secret.
impl fmt::Debug for Tenants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenants").field("listed", &self.listed.keys()).finish_non_exhaustive()
    }
}

/// What is known of one app, whether the settings name it or not.
#[derive(Clone, Copy, Debug)]
pub struct Tenant<'t> {
    tenants: &'t Tenants,
    listed: Option<&'t ListedTenant>,
}

impl<'t> Tenant<'t> {
    /// Is the app served at all?
    #[must_use]
    pub fn is_served(self) -> bool {
        self.is_listed() || self.tenants.serve_unlisted
    }

    /// Do the settings name it?
    #[must_use]
    pub fn is_listed(self) -> bool {
        self.listed.is_some()
    }

    /// The keys that verify its tokens.
    #[must_use]
    pub fn keys(self) -> &'t Keyring {
        self.listed.and_then(|listed| listed.keys.as_ref()).unwrap_or(&self.tenants.keys)
    }

    /// May a page with this `Origin` header open a socket of the app, which is called `app`?
    ///
    /// # Errors
    ///
    /// It may not; the refusal names the setting that says so.
    pub fn admit_origin(self, app: &AppId, origin: &str) -> Result<(), Refusal> {
        let own = self.listed.and_then(|listed| listed.allowed_origins.as_ref());
        if own.unwrap_or(&self.tenants.allowed_origins).allow(origin) {
            return Ok(());
        }
        Err(Refusal::Forbidden(match own {
            Some(_) => format!("this origin may not open sockets (allowed_origins of the app {app})").into(),
            None => "this origin may not open sockets (slave.allowed_origins)".into(),
        }))
    }

    /// What the cluster counts and announces for it.
    #[must_use]
    pub fn wants(self) -> AppWants {
        self.listed.map(ListedTenant::wants).unwrap_or_default()
    }

    /// Where the remote commands of its clients are posted, if they are.
    #[must_use]
    pub fn remote(self) -> Option<&'t Arc<RemoteTarget>> {
        self.listed?.remote.as_ref()
    }

    /// What a dialect knows of it: its record of the type `R`.
    #[must_use]
    pub fn of<R: Any>(self) -> Option<&'t R> {
        self.listed?.of_dialects.iter().find_map(|of| of.record.downcast_ref())
    }
}

impl ListedTenant {
    fn wants(&self) -> AppWants {
        self.of_dialects.iter().map(|record| record.wants).fold(self.wants, AppWants::or)
    }
}

/// Never shows a secret.
impl fmt::Debug for ListedTenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListedTenant").field("allowed_origins", &self.allowed_origins).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(app: &str) -> AppId {
        app.parse().unwrap()
    }

    #[test]
    fn a_refused_origin_hears_which_setting_refuses_it() {
        let origins = |entry: &str| Origins::read([&entry.to_owned()]).unwrap();
        let own = ListedTenant { allowed_origins: Some(origins("https://shop.example")), ..ListedTenant::default() };
        let listed = [(name("shop"), own), (name("plain"), ListedTenant::default())];
        let tenants = Tenants::new(Keyring::default(), listed, true, origins("https://house.example"));
        let admit = |app: &str, origin| {
            let app = name(app);
            tenants.app(&app).admit_origin(&app, origin).map_err(|why| why.to_string())
        };
        assert_eq!(admit("shop", "https://shop.example"), Ok(()));
        assert!(admit("shop", "https://house.example").unwrap_err().contains("(allowed_origins of the app shop)"));
        for app in ["plain", "unlisted"] {
            assert_eq!(admit(app, "https://house.example"), Ok(()));
            assert!(admit(app, "https://shop.example").unwrap_err().contains("(slave.allowed_origins)"));
        }
    }

    #[test]
    fn a_dialect_finds_its_record_by_key_and_by_id_and_no_other_dialects() {
        #[derive(Debug, Eq, PartialEq)]
        struct One(u8);
        #[derive(Debug, Eq, PartialEq)]
        struct Other(u8);
        let listed = |records: Vec<DialectRecord>| ListedTenant { of_dialects: records, ..ListedTenant::default() };
        let both =
            vec![DialectRecord::new(Some("7".to_owned()), One(1)), DialectRecord::new(Some("7".to_owned()), Other(2))];
        let apps = [(name("a"), listed(both)), (name("b"), listed(vec![DialectRecord::new(None, One(3))]))];
        let tenants = Tenants::new(Keyring::default(), apps, false, Origins::any());
        assert_eq!(tenants.app(&name("a")).of(), Some(&One(1)));
        assert_eq!(tenants.app(&name("b")).of::<Other>(), None);
        assert_eq!(tenants.app(&name("c")).of::<One>(), None);
        assert_eq!((tenants.by_id("7"), tenants.by_id("7")), (Some(&One(1)), Some(&Other(2))));
        assert_eq!(tenants.by_id::<One>("a"), None);
        assert_eq!(tenants.all_of().collect::<Vec<&One>>(), [&One(1), &One(3)]);
        assert!(tenants.has::<Other>() && !tenants.has::<u8>());
        // an app that is listed anew leaves nothing of what it was
        let tenants = tenants.with_listed(name("a"), listed(vec![DialectRecord::new(Some("8".to_owned()), One(4))]));
        assert_eq!((tenants.by_id::<One>("7"), tenants.by_id("8")), (None, Some(&One(4))));
        assert!(!tenants.has::<Other>());
    }

    #[test]
    fn a_swap_puts_the_whole_value_in_force_and_a_use_under_way_keeps_its_own() {
        let tenants =
            |app: &str| Tenants::new(Keyring::default(), [(name(app), ListedTenant::default())], false, Origins::any());
        let directory = TenantDirectory::new(tenants("old"));
        let under_way = directory.load_full();
        directory.swap(tenants("new"));
        assert!(under_way.app(&name("old")).is_served() && !under_way.app(&name("new")).is_served());
        let now = directory.load();
        assert!(!now.app(&name("old")).is_served() && now.app(&name("new")).is_served());
    }

    #[test]
    fn nothing_of_it_is_shown() {
        let key = PushKey {
            name: "backend".to_owned(),
            sha256: KeyHash::of("hush"),
            apps: Vec::new(),
            channels: Vec::new(),
            rights: Vec::new(),
        };
        let record = DialectRecord::new(None, "hush".to_owned());
        let listed = ListedTenant { of_dialects: vec![record], ..ListedTenant::default() };
        let tenants = Tenants::new(Keyring::default(), [(name("shop"), listed)], false, Origins::any());
        let tenants = tenants.with_push_keys(vec![key]);
        assert!(tenants.push_key("hush").is_some() && tenants.push_key("hus").is_none());
        let shown = format!("{:?}{:?}", TenantDirectory::new(tenants.clone()), tenants.app(&name("shop")));
        assert!(shown.contains("shop") && !shown.contains("hush"), "{shown}");
    }
}
