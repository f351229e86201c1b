//! Fingerprints of the settings that all nodes must share, so that nodes can compare them.

use std::{collections::BTreeMap, fs};

use wellhead_proto::{
    dialect::mount::Definition,
    fingerprint::Fingerprint,
    node_message::MessageKey,
    tenants::{Tenant, Tenants},
};

use crate::{
    bus::cluster::Common,
    settings::{
        PublicKey, Settings,
        plan::{Plan, Topology},
    },
};

/// What a process with these settings shares.
pub(super) fn common(settings: &Settings, plan: &Plan, tenants: &Tenants, secret: &[u8]) -> Common {
    let of = |parts: &[Vec<u8>]| Fingerprint::of(secret, parts.iter().map(Vec::as_slice));
    let mut shared = BTreeMap::new();
    for app in &settings.apps.listed {
        let (known, origins) = (tenants.named(&app.key), format!("{:?}", app.allowed_origins));
        let alike = |dialect: &&dyn Definition| dialect.alike(&app.dialects, known, &origins);
        let mut parts: Vec<_> = plan.dialects.iter().flat_map(alike).collect();
        parts.extend(keys(&app.public_keys));
        parts.extend(remote(known));
        shared.insert(format!("app {}", app.key), of(&parts));
    }
    for (name, parts) in plan.dialects.iter().filter_map(|dialect| dialect.all_alike(tenants)) {
        shared.insert(name.to_owned(), of(&parts));
    }
    shared.insert("apps.unlisted".to_owned(), of(&[format!("{:?}", settings.apps.unlisted).into_bytes()]));
    let mut jwt = vec![plan.jwt_secret.clone().unwrap_or_default()];
    jwt.extend(keys(&settings.jwt.public_keys));
    shared.insert("keys of [jwt]".to_owned(), of(&jwt));
    Common {
        secret: Fingerprint::of_secret(secret),
        key: MessageKey::new(secret),
        require_signed: settings.cluster.require_signed,
        given: matches!(plan.topology, Topology::Socket(_)),
        settings: shared,
        max_nodes: settings.cluster.max_nodes,
        clock_tolerance: settings.cluster.clock_tolerance.0,
    }
}

/// Where the remote commands of an app are posted. Nothing of an app without changes what the other nodes compare it with.
fn remote(app: Tenant<'_>) -> Option<Vec<u8>> {
    let target = app.remote()?.http();
    Some(format!("{} {:?}", target.url(), target.header()).into_bytes())
}

/// The keys themselves, in any order: files have their own names on each machine.
fn keys(keys: &[PublicKey]) -> Vec<Vec<u8>> {
    let key = |key: &PublicKey| {
        let mut text = fs::read(&key.file).unwrap_or_default();
        text.extend(format!("{:?} {:?}", key.kid, key.algorithm).into_bytes());
        text
    };
    let mut keys: Vec<_> = keys.iter().map(key).collect();
    keys.sort();
    keys
}

#[cfg(test)]
mod tests {
    use wellhead_proto::dialect::{self, pusher::PusherAppSettings};

    use super::*;
    use crate::settings::{ListedApp, plan::Roles};

    fn app(key: &str, secret: &str) -> ListedApp {
        signed(key, PusherAppSettings { secret: secret.into(), ..PusherAppSettings::default() })
    }

    fn signed(key: &str, settings: PusherAppSettings) -> ListedApp {
        let dialects = dialect::Settings::default().with(PusherAppSettings { id: key.to_owned(), ..settings });
        ListedApp { key: key.to_owned(), dialects, ..ListedApp::default() }
    }

    fn of(listed: Vec<ListedApp>, secret: &[u8]) -> Common {
        let mut settings = Settings::default();
        settings.apps.listed = listed;
        let plan = Plan::new(&settings.clone().into(), Roles::Standalone).unwrap();
        common(&settings, &plan, &plan.tenants, secret)
    }

    #[test]
    fn an_apps_secret_counts_and_is_not_told() {
        let apps = |secret| vec![app("demo", secret), app("other", "the same secret")];
        let (one, two) = (of(apps("a secret"), b"cluster"), of(apps("another secret"), b"cluster"));
        assert_eq!(one.settings["app other"], two.settings["app other"]);
        assert_ne!(one.settings["app demo"], two.settings["app demo"]);
        assert_eq!(one.settings, of(apps("a secret"), b"cluster").settings);
        assert_ne!(one.settings["app demo"], of(apps("a secret"), b"another cluster").settings["app demo"]);
        let more = PusherAppSettings { secret: "a secret".into(), client_events: true, ..PusherAppSettings::default() };
        let more = signed("demo", more);
        assert_ne!(one.settings["app demo"], of(vec![more], b"cluster").settings["app demo"]);
    }
}
