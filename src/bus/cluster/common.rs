//! What all nodes must have in common, and the limits for other nodes.

use std::{collections::BTreeMap, time::Duration};

use wellhead_proto::{fingerprint::Fingerprint, membership::MAX_NODES, node_message::MessageKey};

/// Names that a warning shows.
const NAMED: usize = 10;

/// What a node shares with the others.
#[derive(Clone, Debug)]
pub struct Common {
    /// Of the cluster's secret.
    pub secret: Fingerprint,
    /// Signs what is said to the others, and verifies what they say. Derived from the same secret.
    pub key: MessageKey,
    /// Is everything refused that is not signed?
    pub require_signed: bool,
    /// Nodes are given the secret by the owner of the bus: who has another one is about to be given this.
    pub given: bool,
    /// Of the settings that all nodes must share, by their names.
    pub settings: BTreeMap<String, Fingerprint>,
    /// Nodes on the membership at most.
    pub max_nodes: usize,
    /// How much of a difference between two clocks is allowed for.
    pub clock_tolerance: Duration,
}

impl Default for Common {
    fn default() -> Self {
        Self {
            secret: Fingerprint::default(),
            key: MessageKey::new(b""),
            require_signed: false,
            given: false,
            settings: BTreeMap::new(),
            max_nodes: MAX_NODES,
            clock_tolerance: Duration::from_secs(60),
        }
    }
}

impl Common {
    /// One fingerprint for all settings.
    pub(super) fn digest(&self) -> Fingerprint {
        let parts = self.settings.iter().map(|(name, value)| (name.as_bytes(), value.to_bytes())).collect::<Vec<_>>();
        Fingerprint::of(b"", parts.iter().flat_map(|(name, value)| [*name, &value[..]]))
    }

    /// How the settings of another node differ; `None` if they do not.
    pub(super) fn difference(&self, others: &[(String, Fingerprint)]) -> Option<String> {
        let others: BTreeMap<_, _> = others.iter().map(|(name, value)| (name, value)).collect();
        let missing = others.keys().copied().filter(|name| !self.settings.contains_key(*name));
        let alone = self.settings.keys().filter(|name| !others.contains_key(name));
        let other = self.settings.iter().filter(|(name, value)| others.get(name).is_some_and(|other| other != value));
        let found = [
            ("only there", names(missing)),
            ("only here", names(alone)),
            ("different", names(other.map(|(name, _)| name))),
        ];
        let said: Vec<_> =
            found.iter().filter_map(|(what, names)| Some(format!("{what}: {}", names.as_ref()?))).collect();
        (!said.is_empty()).then(|| said.join("; "))
    }
}

/// The first of some names. They come from the bus, so they are written with escapes, and cut.
fn names<'n>(names: impl Iterator<Item = &'n String>) -> Option<String> {
    let all: Vec<_> = names.collect();
    let short = |name: &&String| format!("{:?}", name.chars().take(200).collect::<String>());
    let mut said = all.iter().take(NAMED).map(short).collect::<Vec<_>>().join(", ");
    if all.len() > NAMED {
        said += &format!(" and {} more", all.len() - NAMED);
    }
    (!all.is_empty()).then_some(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common(settings: &[(&str, &[u8])]) -> Common {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), Fingerprint::of_secret(value)));
        Common { settings: settings.collect(), ..Common::default() }
    }

    fn told(common: &Common) -> Vec<(String, Fingerprint)> {
        common.settings.clone().into_iter().collect()
    }

    #[test]
    fn a_difference_names_what_differs_and_nothing_else() {
        let ours = common(&[("app \"a\"", b"1"), ("app \"b\"", b"2"), ("app \"c\"", b"3")]);
        let theirs = common(&[("app \"b\"", b"2"), ("app \"c\"", b"4"), ("app \"d\"", b"5")]);
        let said = r#"only there: "app \"d\""; only here: "app \"a\""; different: "app \"c\"""#;
        assert_eq!(ours.difference(&told(&theirs)).as_deref(), Some(said));
        assert_eq!(ours.difference(&told(&ours)), None);
        assert_ne!(ours.digest(), theirs.digest());
        assert_eq!(ours.digest(), ours.clone().digest());
    }

    #[test]
    fn names_from_the_bus_are_cut_and_escaped() {
        let forged: Vec<_> =
            (0..1_000).map(|no| (format!("{no}\n{}", "x".repeat(1_000)), Fingerprint::default())).collect();
        let said = common(&[]).difference(&forged).unwrap();
        assert!(said.len() < 3_000 && !said.contains('\n') && said.ends_with("and 990 more"), "{said}");
    }
}
