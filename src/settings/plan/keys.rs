//! Keys, secrets and listed apps, read from where the settings say that they are.

use std::{collections::HashSet, str::FromStr, sync::Arc};

use jsonwebtoken::Algorithm;
use wellhead_proto::{
    dialect::{
        self,
        mount::{AppEntry, BadSetting, SecretFiles},
    },
    http_target::{BadTarget, HttpTarget},
    ids::AppId,
    jwt::{Key, Keyring},
    origin::Origins,
    remote::RemoteTarget,
    tenants::{ListedTenant, Tenants},
};

use super::Check;
use crate::{
    files::read_text,
    settings::{Dialects, PublicKey, RemoteSection, Secret, Unlisted, place::SettingsError},
};

impl Check<'_> {
    pub(super) fn keys(&self, secret: Option<&[u8]>) -> Result<Keyring, SettingsError> {
        let jwt = &self.settings.jwt;
        let mut keys = self.public_keys("jwt.public_keys", &jwt.public_keys)?;
        if let Some(secret) = secret {
            let key = Key::from_secret(secret)
                .map_err(|why| self.error("jwt.secret", why).hint("`openssl rand -base64 48` makes a good one"))?;
            keys.push(key);
        }
        Ok(Keyring::new(keys, jwt.require_exp))
    }

    fn public_keys(&self, key: &str, files: &[PublicKey]) -> Result<Vec<Key>, SettingsError> {
        files
            .iter()
            .enumerate()
            .map(|(index, public_key)| self.public_key(&format!("{key}.{index}"), public_key))
            .collect()
    }

    fn public_key(&self, key: &str, public_key: &PublicKey) -> Result<Key, SettingsError> {
        let PublicKey { file, kid, algorithm } = public_key;
        let only = algorithm.as_deref().map(|name| {
            Algorithm::from_str(name).map_err(|_| {
                self.error(key, format!("unknown algorithm {name:?}")).hint(
                    "RS256, RS384, RS512, ES256, ES384 or EdDSA; leave it out to allow what the key's kind allows",
                )
            })
        });
        let only = only.transpose()?;
        let pem = read_text(file).map_err(|error| {
            // who pastes the key itself may have taken the private one
            let file = if file.contains("-----") { "the file that it names" } else { file.as_str() };
            let error = self.error(key, format!("cannot read {file}: {error}"));
            error.hint("name the PEM file of a public key; `wellhead keys generate` makes a pair")
        })?;
        Key::from_pem(kid.clone(), pem.as_bytes(), only).map_err(|why| {
            self.error(key, format!("{file}: {why}"))
                .hint("`openssl pkey -in private.pem -pubout` prints the public half")
        })
    }

    /// A secret that stands in the settings or in a file, but not in both.
    pub(super) fn secret(
        &self,
        section: &str,
        name: &str,
        secret: &Secret,
        file: &str,
    ) -> Result<Option<Vec<u8>>, SettingsError> {
        SecretFiles::secret(self, section, name, secret, file).map_err(|bad| self.placed(bad))
    }

    /// The file that `key` names, and that holds a secret, cannot be read. Its name is not shown: it may be the secret
    /// itself, by mistake.
    pub(super) fn unreadable(&self, key: &str, why: &str) -> SettingsError {
        self.placed(unreadable(key, why))
    }

    pub(super) fn origins(&self, key: &str, entries: &[String]) -> Result<Origins, SettingsError> {
        Origins::read(entries).map_err(|(index, why)| {
            let hint = why.hint.clone();
            self.error(&format!("{key}.{index}"), format!("{:?}: {why}", entries[index])).hint(hint)
        })
    }

    /// The listed apps, without what dialects know of them.
    pub(super) fn listed(&self) -> Result<Vec<(AppId, ListedTenant)>, SettingsError> {
        let (mut listed, mut known) = (Vec::new(), HashSet::new());
        for (index, app) in self.settings.apps.listed.iter().enumerate() {
            let key = format!("apps.listed.{index}");
            let id = AppId::try_from(app.key.as_str()).map_err(|why| self.error(&format!("{key}.key"), why))?;
            let keys = self.public_keys(&format!("{key}.public_keys"), &app.public_keys)?;
            let keys = (!keys.is_empty()).then(|| Keyring::new(keys, self.settings.jwt.require_exp));
            let origins = app.allowed_origins.as_ref();
            let allowed_origins =
                origins.map(|entries| self.origins(&format!("{key}.allowed_origins"), entries)).transpose()?;
            if !known.insert(id.clone()) {
                return Err(self.error(&format!("{key}.key"), format!("the app {:?} is listed twice", app.key)));
            }
            listed.push((id, ListedTenant { keys, allowed_origins, ..ListedTenant::default() }));
        }
        if listed.is_empty() && self.settings.apps.unlisted == Unlisted::Refuse {
            let error = self.error("apps.unlisted", "no app is listed and others are refused: nobody could connect");
            return Err(error.hint("list your apps under [[apps.listed]], or set apps.unlisted = \"allow\""));
        }
        Ok(listed)
    }

    /// `tenants` with what each dialect knows of the app that its own settings name.
    pub(super) fn own_records(
        &self,
        dialects: Dialects,
        settings: &dialect::Settings,
        mut tenants: Tenants,
    ) -> Result<Tenants, SettingsError> {
        for dialect in dialects {
            if let Some(record) = dialect.record(settings, self).map_err(|bad| self.placed(bad))? {
                tenants = tenants.with_record(&record);
            }
        }
        Ok(tenants)
    }

    /// Add what each dialect knows of the listed apps.
    pub(super) fn records(
        &self,
        dialects: Dialects,
        listed: &mut [(AppId, ListedTenant)],
    ) -> Result<(), SettingsError> {
        let places: Vec<_> = (0..listed.len()).map(|index| format!("apps.listed.{index}")).collect();
        for dialect in dialects {
            let keys = listed.iter().map(|(key, _)| key);
            let settings = self.settings.apps.listed.iter().map(|app| &app.dialects);
            let apps = places.iter().zip(keys).zip(settings);
            let apps: Vec<_> = apps.map(|((place, key), settings)| AppEntry { place, key, settings }).collect();
            let records = dialect.records(&apps, self).map_err(|bad| self.placed(bad))?;
            for ((index, (_, tenant)), record) in listed.iter_mut().enumerate().zip(records) {
                if let Some(secret) = record.as_ref().and_then(|record| dialect.app_secret(record)) {
                    tenant.remote = self.remote(index, secret)?.map(Arc::new);
                }
                tenant.of_dialects.extend(record);
            }
        }
        let without = listed
            .iter()
            .zip(&self.settings.apps.listed)
            .position(|((_, tenant), app)| tenant.remote.is_none() && !app.remote.url.expose().is_empty());
        match without {
            Some(index) => {
                let error = self.error(&format!("apps.listed.{index}.remote"), "the app has no secret to sign with");
                Err(error.hint("give it an id and a secret, or take its remote away"))
            }
            None => Ok(()),
        }
    }

    /// Where the remote commands of an app with this secret are posted, if they are.
    fn remote(&self, index: usize, secret: &[u8]) -> Result<Option<RemoteTarget>, SettingsError> {
        let RemoteSection { url, header, header_file } = &self.settings.apps.listed[index].remote;
        let section = format!("apps.listed.{index}.remote");
        let header = self.secret(&section, "header", header, header_file)?;
        let bad = |key: &str, why: BadTarget| {
            let hint = match key {
                "url" => "for example \"https://app.example.com/commands\"",
                _ => "for example \"Authorization: Bearer a-secret\"",
            };
            self.error(&format!("{section}.{key}"), why).hint(hint)
        };
        if url.expose().is_empty() {
            let is_alone = header.is_some();
            return if is_alone { Err(bad("url", BadTarget::Scheme)) } else { Ok(None) };
        }
        let mut target = HttpTarget::new(url.expose()).map_err(|why| bad("url", why))?;
        if let Some(header) = header {
            let header = std::str::from_utf8(&header).map_err(|_| bad("header", BadTarget::Header))?;
            target = target.with_header(header).map_err(|why| bad("header", why))?;
        }
        Ok(Some(RemoteTarget::new(target, secret)))
    }
}

impl SecretFiles for Check<'_> {
    fn secret(&self, section: &str, name: &str, secret: &Secret, file: &str) -> Result<Option<Vec<u8>>, BadSetting> {
        let key = format!("{section}.{name}_file");
        match (secret.is_empty(), file.is_empty()) {
            (true, true) => Ok(None),
            (false, true) => Ok(Some(secret.expose().as_bytes().to_vec())),
            (false, false) => {
                let message = format!("{section}.{name} is set as well");
                Err(BadSetting::new(key, message).hint("say it once: keep one of the two"))
            }
            (true, false) => {
                let text = read_text(file).map_err(|error| unreadable(&key, &error.to_string()))?;
                match text.trim_end_matches(['\r', '\n']) {
                    "" => Err(BadSetting::new(key, "the file that it names is empty")),
                    secret => Ok(Some(secret.as_bytes().to_vec())),
                }
            }
        }
    }
}

fn unreadable(key: &str, why: &str) -> BadSetting {
    BadSetting::new(key, format!("cannot read the file that it names: {why}"))
        .hint("it is the path of a file; one in the configuration is meant from the folder of that, else from here")
}
