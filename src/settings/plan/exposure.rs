//! What other machines reach, what guards it, and what the operator should know of that.

use wellhead_master::Keyless;
use wellhead_proto::dialect::mount::{Exposure, OwnCredentials};

use super::{Check, Plan, Topology};
use crate::settings::{Settings, place::SettingsError};

impl Plan {
    /// Do other machines reach it, or nodes on them?
    pub(super) fn is_exposed(&self) -> bool {
        matches!(self.topology, Topology::Nats(_)) || self.listeners().any(|(_, address)| !address.ip().is_loopback())
    }

    /// Who may use the rows that push keys guard, as long as there is none.
    #[must_use]
    pub fn keyless(&self, open: bool) -> Keyless {
        match (self.others_reach_master(), open) {
            (false, _) => Keyless::ThisMachine,
            (true, true) => Keyless::Everybody,
            (true, false) => Keyless::Nobody,
        }
    }

    /// May others than programs of this machine reach the master? At one address they may even on loopback, through the proxy
    /// that clients come through; only in development mode there is none.
    fn others_reach_master(&self) -> bool {
        let beyond = self.master.is_some_and(|address| !address.ip().is_loopback());
        beyond || (self.one_port && !self.development)
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
        // rows of dialects with credentials of their own are guarded by these, and the others are closed then
        let guarded = !self.settings.push_keys.is_empty() || plan.own_credentials().any(|own| !own.requests.is_empty());
        if beyond && !guarded && !self.settings.master.open {
            let message = "without push keys the master serves this machine only, since anybody could push";
            let hint = "`wellhead keys push --name backend` makes one; master.open = true serves everybody";
            return Err(self.error(plan.master_key(), message).hint(hint));
        }
        let exposure = self.exposure_of(plan);
        for dialect in plan.dialects {
            let judged = dialect.exposure(&plan.of_dialects, &plan.tenants, &exposure);
            judged.map_err(|bad| self.placed(bad))?;
        }
        Ok(())
    }

    fn exposure_of(&self, plan: &Plan) -> Exposure {
        Exposure {
            master: plan.master,
            slave: plan.slave,
            is_exposed: plan.is_exposed(),
            push_keys: !self.settings.push_keys.is_empty(),
        }
    }

    pub(super) fn warnings(&self, plan: &Plan) -> Vec<String> {
        let Settings { master, jwt, push_keys, .. } = self.settings;
        let mut warnings = Vec::new();
        let tokens = plan.tenants.verify_tokens();
        let own = |who: fn(OwnCredentials) -> &'static str| {
            plan.own_credentials().map(who).filter(|who| !who.is_empty()).collect::<Vec<_>>().join(" and ")
        };
        if !plan.development && !tokens {
            let clients = own(|own| own.clients);
            let whose = "there is no key for clients' tokens (jwt.public_keys)";
            warnings.push(format!("{whose}: only {clients} can come, and those who need no token"));
        }
        if tokens && !jwt.require_exp {
            warnings.push(
                "jwt.require_exp is false: a token without exp is valid for ever; set it to true once all your tokens \
                 carry one"
                    .to_owned(),
            );
        }
        let keyless = plan.keyless(master.open);
        if push_keys.is_empty()
            && let Some(address) = plan.master
            && keyless == Keyless::Everybody
        {
            warnings.push(format!("master.open is true: whoever reaches {address} may push to everybody"));
        }
        if push_keys.is_empty()
            && let Some(address) = plan.master
            && keyless == Keyless::Nobody
        {
            let requests = own(|own| own.requests);
            let who = if requests.is_empty() { "no backend is".to_owned() } else { format!("only {requests} are") };
            warnings.push(format!("there is no push key: at {address} {who} served"));
        }
        if push_keys.is_empty()
            && !plan.development
            && let Some(address) = plan.master
            && keyless == Keyless::ThisMachine
        {
            warnings.push(format!(
                "there is no push key: every program of this machine may push at {address}, and whoever reaches one that \
                 passes requests on; `wellhead keys push --name backend` makes a key"
            ));
        }
        for dialect in plan.dialects {
            warnings.extend(dialect.warnings(&plan.of_dialects, &plan.tenants));
            warnings.extend(dialect.exposure_warnings(&plan.tenants, &self.exposure_of(plan)));
        }
        if push_keys.is_empty() && plan.admin.is_some_and(|admin| !admin.ip().is_loopback()) {
            let key = plan.roles.admin();
            warnings.push(format!("{key} is beyond loopback and there is no push key: /metrics refuses everybody"));
        }
        warnings.extend(self.topology_warnings(plan));
        warnings
    }
}
