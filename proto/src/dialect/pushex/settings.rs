//! The settings of PushEx: the app of those who name none, its public channels, and where keys and tokens are shown.

use serde::{Deserialize, Serialize};

use crate::{channel::ChannelPattern, dialect::mount::BadSetting, ids::AppId, tenants::Tenants, units::Span};

/// The app that development mode has.
const DEFAULT_APP: &str = "demo";

/// PushEx' keys of the process.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `[pushex]`.
    pub pushex: PushExRows,
}

/// `[pushex]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "struct PushEx")]
pub struct PushExRows {
    /// The app of push keys that are for several apps, and of clients without a token.
    pub app: String,
    /// Channels of that app that need no token.
    pub public: Vec<ChannelPattern>,
    /// A header that shows the push key, as an alternative to `Authorization: Bearer`.
    pub key_header: String,
    /// A query parameter that does.
    pub key_parameter: String,
    /// The parameter of a socket that shows the token.
    pub token_parameter: String,
    /// How long a client may send nothing.
    pub idle_timeout: Span,
}

impl Default for PushExRows {
    fn default() -> Self {
        Self {
            app: DEFAULT_APP.to_owned(),
            public: Vec::new(),
            key_header: String::new(),
            key_parameter: String::new(),
            token_parameter: "token".to_owned(),
            // below the 55 s after which Heroku's router gives up
            idle_timeout: Span::seconds(45),
        }
    }
}

impl Settings {
    /// The settings with their header in lower case.
    pub(super) fn check(mut self) -> Result<Self, BadSetting> {
        let PushExRows { app, public, key_header, key_parameter, token_parameter, idle_timeout } = &mut self.pushex;
        let bad = |name: &str, message: String| BadSetting::new(format!("pushex.{name}"), message);
        if !app.is_empty()
            && let Err(why) = AppId::try_from(app.as_str())
        {
            return Err(bad("app", why.to_string()));
        }
        if app.is_empty() && !public.is_empty() {
            return Err(bad("public", "the public channels are those of pushex.app, which is empty".to_owned())
                .hint("pushex.app = \"demo\", or whatever the app is called in tokens"));
        }
        if public.iter().any(|pattern| pattern.as_str().is_empty()) {
            return Err(bad("public", "an empty pattern allows no channel".to_owned())
                .hint("public = [\"news\", \"score-*\"]; \"*\" is every channel"));
        }
        if !key_header.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
            return Err(bad("key_header", format!("{key_header:?} is no name of a header")).hint("\"x-api-key\""));
        }
        for (name, parameter) in [("key_parameter", &*key_parameter), ("token_parameter", &*token_parameter)] {
            if !parameter.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
                return Err(
                    bad(name, format!("{parameter:?} is no name of a parameter")).hint("letters, digits, -, _ and .")
                );
            }
        }
        if ["channel", "data", "event"].contains(&&**key_parameter) {
            return Err(bad("key_parameter", format!("{key_parameter:?} is an argument of a push")).hint("\"key\""));
        }
        if token_parameter.is_empty() || token_parameter == "vsn" {
            return Err(bad("token_parameter", format!("{token_parameter:?} cannot show a token")).hint("\"token\""));
        }
        if !idle_timeout.0.is_zero() && idle_timeout.0.as_secs() == 0 {
            return Err(bad("idle_timeout", "clients have a second at least".to_owned())
                .hint("\"45s\"; \"0s\" lets them be silent, and pings them as slave.ping_interval says"));
        }
        key_header.make_ascii_lowercase();
        Ok(self)
    }
}

impl PushExRows {
    /// Is the app served that the settings rely on? Nobody has to set one who does not use PushEx.
    pub(super) fn check_app(&self, tenants: &Tenants) -> Result<(), BadSetting> {
        let is_meant = self.app != DEFAULT_APP || !self.public.is_empty();
        if self.app.is_empty() || !is_meant || tenants.named(&self.app).is_served() {
            return Ok(());
        }
        let message = format!("the app {:?} is not listed, and apps.unlisted = \"refuse\"", self.app);
        let hint = format!("[[apps.listed]] with key = {:?}", self.app);
        Err(BadSetting::new("pushex.app", message).hint(hint))
    }

    /// What is allowed, but should be known.
    pub(super) fn warnings(&self) -> Vec<String> {
        let open = self.public.iter().any(ChannelPattern::is_everything);
        let words = || format!("pushex.public allows every channel of the app {}: anybody may read them", self.app);
        open.then(words).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{jwt::Keyring, origin::Origins, tenants::ListedTenant};

    fn checked(change: impl FnOnce(&mut PushExRows)) -> Result<PushExRows, String> {
        let mut settings = Settings::default();
        change(&mut settings.pushex);
        settings.check().map(|settings| settings.pushex).map_err(|bad| bad.key)
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_its_key() {
        assert_eq!(checked(|_| {}), Ok(PushExRows::default()));
        assert_eq!(checked(|rows| rows.key_header = "X-Api-Key".to_owned()).unwrap().key_header, "x-api-key");
        let public = |pattern: &str| vec![ChannelPattern::try_from(pattern).unwrap()];
        for (key, refused) in [
            ("app", checked(|rows| rows.app = "x".repeat(2_000))),
            ("public", checked(|rows| rows.public = public(""))),
            ("public", checked(|rows| (rows.app, rows.public) = (String::new(), public("a")))),
            ("key_header", checked(|rows| rows.key_header = "a: b".to_owned())),
            ("key_parameter", checked(|rows| rows.key_parameter = "a[b]".to_owned())),
            ("key_parameter", checked(|rows| rows.key_parameter = "data".to_owned())),
            ("token_parameter", checked(|rows| rows.token_parameter = String::new())),
            ("token_parameter", checked(|rows| rows.token_parameter = "vsn".to_owned())),
            ("idle_timeout", checked(|rows| rows.idle_timeout = Span(std::time::Duration::from_millis(5)))),
        ] {
            assert_eq!(refused, Err(format!("pushex.{key}")));
        }
        assert!(checked(|rows| rows.idle_timeout = Span::seconds(0)).is_ok());
    }

    #[test]
    fn an_app_that_is_relied_on_must_be_served() {
        let listed = ("shop".parse().unwrap(), ListedTenant::default());
        let closed = Tenants::new(Keyring::default(), [listed], false, Origins::any());
        let open = Tenants::new(Keyring::default(), [], true, Origins::any());
        let rows = |app: &str, public: &[&str]| PushExRows {
            app: app.to_owned(),
            public: public.iter().map(|&pattern| pattern.try_into().unwrap()).collect(),
            ..PushExRows::default()
        };
        for (rows, is_fine) in [
            (rows("demo", &[]), true),
            (rows("", &[]), true),
            (rows("shop", &["a"]), true),
            (rows("demo", &["a"]), false),
            (rows("other", &[]), false),
        ] {
            assert_eq!(rows.check_app(&closed).is_ok(), is_fine, "{rows:?}");
            assert!(rows.check_app(&open).is_ok());
        }
        assert_eq!(rows("shop", &["a*"]).warnings(), Vec::<String>::new());
        assert_eq!(rows("shop", &["a", "*"]).warnings().len(), 1);
    }
}
