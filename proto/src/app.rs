//! Apps: which are served, and what each allows.

use std::collections::HashMap;

use crate::{
    ids::AppId,
    jwt::{BadToken, Claims, Keyring, claimed_app},
    origin::Origins,
    refusal::Refusal,
};

/// A listed app's own settings.
#[derive(Clone, Debug, Default)]
pub struct App {
    /// JWT keys of its own; when there are some, they alone verify its tokens.
    pub keys: Option<Keyring>,
    /// Origins that may open its sockets, if it says so itself.
    pub allowed_origins: Option<Origins>,
}

/// Every app that the settings name, and whether others are served too.
#[derive(Clone, Debug)]
pub struct Apps {
    listed: HashMap<AppId, App>,
    /// Keys that verify the tokens of every app without keys of its own.
    keys: Keyring,
    serve_unlisted: bool,
    allowed_origins: Origins,
}

impl Apps {
    /// The apps of a cluster. `allowed_origins` holds for apps that say nothing themselves.
    #[must_use]
    pub fn new(keys: Keyring, listed: HashMap<AppId, App>, serve_unlisted: bool, allowed_origins: Origins) -> Self {
        Self { listed, keys, serve_unlisted, allowed_origins }
    }

    /// Is `app` served at all?
    #[must_use]
    pub fn serves(&self, app: &AppId) -> bool {
        self.serve_unlisted || self.listed.contains_key(app)
    }

    /// Is `app` named in the settings? Only such names become labels of metrics.
    #[must_use]
    pub fn is_listed(&self, app: &AppId) -> bool {
        self.listed.contains_key(app)
    }

    /// The keys that verify the tokens of `app`; those of every app if none is named.
    #[must_use]
    pub fn keys(&self, app: Option<&AppId>) -> &Keyring {
        app.and_then(|app| self.listed.get(app)).and_then(|app| app.keys.as_ref()).unwrap_or(&self.keys)
    }

    /// The claims of `jwt`, verified with the keys of the app that it names.
    ///
    /// # Errors
    ///
    /// See [`BadToken`].
    pub fn verify(&self, jwt: &str, now: f64) -> Result<Claims, BadToken> {
        // read before it is verified, only to pick the keys: whatever it says, it must verify with those
        let app = claimed_app(jwt);
        let claims = self.keys(app.as_ref()).verify(jwt, now)?;
        if app.as_ref() != Some(&claims.gusher.app) {
            return Err(BadToken::Malformed);
        }
        if self.serves(&claims.gusher.app) { Ok(claims) } else { Err(BadToken::WrongApp) }
    }

    /// May a page with this `Origin` header open a socket of `app`?
    ///
    /// # Errors
    ///
    /// It may not; the refusal names the setting that says so.
    pub fn admit_origin(&self, app: &AppId, origin: &str) -> Result<(), Refusal> {
        let own = self.listed.get(app).and_then(|app| app.allowed_origins.as_ref());
        if own.unwrap_or(&self.allowed_origins).allow(origin) {
            return Ok(());
        }
        Err(Refusal::Forbidden(match own {
            Some(_) => format!("this origin may not open sockets (allowed_origins of the app {app})").into(),
            None => "this origin may not open sockets (slave.allowed_origins)".into(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_origin_hears_which_setting_refuses_it() {
        let origins = |entry: &str| Origins::read([&entry.to_owned()]).unwrap();
        let own = App { keys: None, allowed_origins: Some(origins("https://shop.example")) };
        let listed = HashMap::from([("shop".parse().unwrap(), own), ("plain".parse().unwrap(), App::default())]);
        let apps = Apps::new(Keyring::default(), listed, true, origins("https://house.example"));
        let admit = |app: &str, origin| apps.admit_origin(&app.parse().unwrap(), origin).map_err(|why| why.to_string());
        assert_eq!(admit("shop", "https://shop.example"), Ok(()));
        assert!(admit("shop", "https://house.example").unwrap_err().contains("(allowed_origins of the app shop)"));
        for app in ["plain", "unlisted"] {
            assert_eq!(admit(app, "https://house.example"), Ok(()));
            assert!(admit(app, "https://shop.example").unwrap_err().contains("(slave.allowed_origins)"));
        }
    }
}
