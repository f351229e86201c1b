//! What other machines reach, what guards it, and what the operator should know of that.

use wellhead_master::Keyless;

use super::{Check, Plan, Topology};
use crate::settings::{Settings, place::SettingsError};

/// Secrets of apps that are shorter can be guessed by who has seen a signature.
const SHORT_SECRET: usize = 16;

impl Plan {
    /// Do other machines reach it, or nodes on them?
    pub(super) fn is_exposed(&self) -> bool {
        matches!(self.topology, Topology::Nats(_)) || self.listeners().any(|(_, address)| !address.ip().is_loopback())
    }

    /// Who may use the rows that push keys guard, as long as there is none.
    #[must_use]
    pub fn keyless(&self, open: bool) -> Keyless {
        match self.master {
            Some(address) if !address.ip().is_loopback() && open => Keyless::Everybody,
            Some(address) if !address.ip().is_loopback() => Keyless::Nobody,
            _ => Keyless::ThisMachine,
        }
    }
}

impl Check<'_> {
    /// What may be reached from other machines.
    pub(super) fn exposure(&self, plan: &Plan) -> Result<(), SettingsError> {
        if plan.development
            && let Some((key, _)) = plan.listeners().find(|(_, address)| !address.ip().is_loopback())
        {
            let message = "without a key for clients' tokens (development mode) every listener must be on loopback";
            let hint = "`wellhead keys generate` makes a key pair; then set jwt.public_keys = [\"public.pem\"]";
            return Err(self.error(key, message).hint(hint));
        }
        let beyond = plan.master.is_some_and(|address| !address.ip().is_loopback());
        // Pusher's rows are guarded by the secrets of its apps, and the others are closed then
        let guarded = !self.settings.push_keys.is_empty() || plan.serves_pusher();
        if beyond && !guarded && !self.settings.master.open {
            let message = "without push keys the master serves this machine only, since anybody could push";
            let hint = "`wellhead keys push --name backend` makes one; master.open = true serves everybody";
            return Err(self.error("master.listen", message).hint(hint));
        }
        Ok(())
    }

    pub(super) fn warnings(&self, plan: &Plan) -> Vec<String> {
        let Settings { master, jwt, push_keys, .. } = self.settings;
        let mut warnings = Vec::new();
        let tokens = !plan.keys.is_empty() || plan.listed.values().any(|app| app.keys.is_some());
        if !plan.development && !tokens {
            warnings.push(
                "there is no key for clients' tokens (jwt.public_keys): only Pusher's clients can come".to_owned(),
            );
        }
        if tokens && !jwt.require_exp {
            warnings.push(
                "jwt.require_exp is false: a token without exp is valid for ever; set it to true once all your tokens \
                 carry one"
                    .to_owned(),
            );
        }
        let open = plan.master.filter(|address| !address.ip().is_loopback() && push_keys.is_empty() && master.open);
        if let Some(address) = open {
            warnings.push(format!("master.open is true: whoever reaches {address} may push to everybody"));
        }
        if push_keys.is_empty()
            && let Some(address) = plan.master
            && plan.keyless(master.open) == Keyless::Nobody
        {
            warnings.push(format!(
                "there is no push key: at {address} only signed requests of Pusher's libraries are served"
            ));
        }
        if push_keys.is_empty()
            && !plan.development
            && let Some(address) = plan.master
            && plan.keyless(master.open) == Keyless::ThisMachine
        {
            warnings.push(format!(
                "there is no push key: every program of this machine may push at {address}, and whoever reaches one that \
                 passes requests on; `wellhead keys push --name backend` makes a key"
            ));
        }
        for (app, key) in
            plan.pusher.apps.iter().filter(|app| app.secret.len() < SHORT_SECRET).map(|app| (&app.id, &app.key))
        {
            warnings.push(format!(
                "the secret of the app {key} (id {app}) is shorter than {SHORT_SECRET} bytes: it could be guessed"
            ));
        }
        if push_keys.is_empty() && plan.admin.is_some_and(|admin| !admin.ip().is_loopback()) {
            let key = plan.roles.admin();
            warnings.push(format!("{key} is beyond loopback and there is no push key: /metrics refuses everybody"));
        }
        warnings.extend(self.topology_warnings(plan));
        warnings
    }
}
