//! What sockets may subscribe to, kept once for all that may do the same. Pure.
//!
//! A few patterns are tried one after the other. Many are compiled, but only once somebody asks: most sockets subscribe
//! once or not at all, and an idle one holds its list and nothing more. Sockets with equal lists share what was compiled.

use std::{
    borrow::Borrow,
    cell::OnceCell,
    collections::HashSet,
    hash::{Hash, Hasher},
    ops::Deref,
    rc::Rc,
};

use wellhead_proto::{
    channel::{ChannelPattern, PatternSet, allowed, written},
    ids::ChannelName,
};

/// As many patterns are tried faster than they are compiled.
const FEW: usize = 16;

/// What one socket may subscribe to: the patterns, as they were given.
#[derive(Clone, Debug)]
pub enum Grants {
    /// So few that nothing is compiled.
    Few(Rc<[ChannelPattern]>),
    /// More than that.
    Many(Rc<Many>),
}

/// Many patterns.
#[derive(Debug)]
pub struct Many {
    patterns: Box<[ChannelPattern]>,
    compiled: OnceCell<PatternSet>,
}

impl Grants {
    fn new(patterns: Vec<ChannelPattern>) -> Self {
        if patterns.len() <= FEW {
            Self::Few(patterns.into())
        } else {
            Self::Many(Rc::new(Many { patterns: patterns.into(), compiled: OnceCell::new() }))
        }
    }

    /// Is `channel` among them?
    #[must_use]
    pub fn allow(&self, channel: &ChannelName) -> bool {
        match self {
            Self::Few(patterns) => allowed(patterns, channel),
            Self::Many(many) => many.compiled.get_or_init(|| PatternSet::new(&many.patterns)).allows(channel),
        }
    }

    /// Are they the very same, kept once? What is equal is, unless it was given before the last sweep.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Few(ours), Self::Few(theirs)) => Rc::ptr_eq(ours, theirs),
            (Self::Many(ours), Self::Many(theirs)) => Rc::ptr_eq(ours, theirs),
            _ => false,
        }
    }

    fn holders(&self) -> usize {
        match self {
            Self::Few(patterns) => Rc::strong_count(patterns),
            Self::Many(many) => Rc::strong_count(many),
        }
    }
}

impl Default for Grants {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Deref for Grants {
    type Target = [ChannelPattern];

    fn deref(&self) -> &[ChannelPattern] {
        match self {
            Self::Few(patterns) => patterns,
            Self::Many(many) => &many.patterns,
        }
    }
}

impl Borrow<[ChannelPattern]> for Grants {
    fn borrow(&self) -> &[ChannelPattern] {
        self
    }
}

impl PartialEq for Grants {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Grants {}

impl Hash for Grants {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

/// Swept when it has grown by so many, and has doubled.
const SWEEP: usize = 64;

/// All that sockets of a thread hold.
#[derive(Default)]
pub struct AllGrants {
    held: HashSet<Grants>,
    /// How many were left by the last sweep.
    swept: usize,
}

impl AllGrants {
    /// These `patterns`, shared with whoever holds the same.
    pub fn share(&mut self, patterns: Vec<ChannelPattern>) -> Grants {
        if let Some(grants) = self.held.get(patterns.as_slice()) {
            return grants.clone();
        }
        if self.held.len() >= 2 * self.swept + SWEEP {
            self.held.retain(|grants| grants.holders() > 1);
            self.held.shrink_to(2 * self.held.len() + SWEEP);
            self.swept = self.held.len();
        }
        let grants = Grants::new(patterns);
        self.held.insert(grants.clone());
        grants
    }
}

/// `held`, with what lies wholly inside one of the patterns `within` replaced by as many of `new` as there is room for:
/// all together may come to `most` bytes. What lies elsewhere stays, whatever it comes to.
#[must_use]
pub fn replaced(
    held: &[ChannelPattern],
    within: &PatternSet,
    new: &[ChannelPattern],
    most: usize,
) -> Vec<ChannelPattern> {
    let mut grants: Vec<_> = held.iter().filter(|pattern| !within.covers(pattern)).cloned().collect();
    let mut bytes = written(&grants);
    grants.extend(new.iter().cloned().take_while(|pattern| {
        bytes += written(std::slice::from_ref(pattern));
        bytes <= most
    }));
    grants
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(names: &[&str]) -> Vec<ChannelPattern> {
        names.iter().map(|&name| name.try_into().unwrap()).collect()
    }

    #[test]
    fn equal_grants_are_kept_once() {
        let mut all = AllGrants::default();
        let (one, two) = (all.share(patterns(&["a", "b"])), all.share(patterns(&["a", "b"])));
        assert!(one.is(&two));
        assert_eq!(*one, patterns(&["a", "b"]));
        assert!(!one.is(&all.share(patterns(&["b", "a"]))), "as they were given");
        assert!(all.share(Vec::new()).is_empty());
    }

    #[test]
    fn only_what_lies_wholly_inside_is_replaced() {
        let held = patterns(&["a", "a1", "ab*", "b", "*a", "*", "news", "news*", ""]);
        let after =
            |within: &[&str], new: &[&str]| replaced(&held, &PatternSet::new(&patterns(within)), &patterns(new), 1_000);
        assert_eq!(after(&["*"], &["x"]), patterns(&["x"]));
        assert_eq!(after(&["a*", "news"], &[]), patterns(&["a", "b", "*a", "*", "news*", ""]));
        assert_eq!(after(&["a*", "news"], &["a7"]), patterns(&["a", "b", "*a", "*", "news*", "", "a7"]));
        assert_eq!(after(&["b"], &["b"]), patterns(&["a", "a1", "ab*", "*a", "*", "news", "news*", "", "b"]));
        assert_eq!(after(&[], &[]), held);
        let room_for = |most| replaced(&patterns(&["a", "b"]), &PatternSet::new(&patterns(&["a"])), &held, most);
        assert_eq!((room_for(0), room_for(11)), (patterns(&["b"]), patterns(&["b", "a"])), "four bytes and four");
    }

    #[test]
    fn grants_that_nobody_holds_do_not_stay() {
        let mut all = AllGrants::default();
        let kept = all.share(patterns(&["kept"]));
        for no in 0..100_000 {
            all.share(patterns(&[&no.to_string()]));
        }
        assert!(all.held.len() <= 2 * SWEEP, "{}", all.held.len());
        assert!(kept.is(&all.share(patterns(&["kept"]))));
    }

    #[test]
    fn few_and_many_allow_the_same() {
        for many in [1, FEW, FEW + 1, 1_000] {
            let names: Vec<_> =
                (0..many).map(|no| if no % 2 == 0 { format!("c{no}") } else { format!("p{no}-*") }).collect();
            let grants = AllGrants::default().share(patterns(&names.iter().map(String::as_str).collect::<Vec<_>>()));
            assert_eq!(grants.len(), many);
            assert!(grants.allow(&"c0".parse().unwrap()) && !grants.allow(&"c1".parse().unwrap()));
            assert_eq!(grants.allow(&"p1-x".parse().unwrap()), many > 1);
            assert!(!grants.allow(&"p1-".parse().unwrap()));
        }
    }

    #[test]
    fn only_who_asks_has_them_compiled_and_then_for_all_who_hold_them() {
        let names: Vec<_> = (0..100).map(|no| format!("c{no}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let mut all = AllGrants::default();
        let (one, two) = (all.share(patterns(&names)), all.share(patterns(&names)));
        let (Grants::Many(one), Grants::Many(both)) = (&one, &two) else { panic!("a hundred are many") };
        assert!(one.compiled.get().is_none(), "nobody has asked");
        assert!(two.allow(&"c7".parse().unwrap()));
        assert!(one.compiled.get().is_some() && Rc::ptr_eq(one, both));
        assert_eq!(size_of::<Grants>(), size_of::<Rc<[ChannelPattern]>>(), "a seat holds one");
    }
}
