//! Who is linked, and who listens to what. Pure.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;
use wellhead_proto::ids::NodeId;

use crate::bus::{
    local::{frame::ToLink, outbound::Outbound},
    wire::Subject,
};

/// Who listens to what.
#[derive(Default)]
pub(super) struct Routes {
    pub(super) links: FxHashMap<LinkId, Plug>,
    /// Nodes, and the latest link of each.
    nodes: FxHashMap<NodeId, LinkId>,
    pub(super) listeners: FxHashMap<Subject, SmallVec<[LinkId; 2]>>,
    /// What this process listens to.
    pub(super) own: FxHashSet<Subject>,
    last: LinkId,
}

pub(super) type LinkId = u64;

/// The exchange's view of a link.
pub(super) struct Plug {
    pub(super) node: NodeId,
    pub(super) out: Arc<Outbound>,
    listens: FxHashSet<Subject>,
}

impl Routes {
    pub(super) fn plug(&mut self, node: NodeId, out: Arc<Outbound>) -> LinkId {
        self.last += 1;
        self.links.insert(self.last, Plug { node, out, listens: FxHashSet::default() });
        self.nodes.insert(node, self.last);
        self.last
    }

    /// The link's end. `true` if its node has no other.
    pub(super) fn unplug(&mut self, id: LinkId) -> bool {
        self.unlisten_all(id);
        let Some(plug) = self.links.remove(&id) else { return false };
        let latest = self.nodes.get(&plug.node) == Some(&id);
        if latest {
            self.nodes.remove(&plug.node);
        }
        latest
    }

    /// `false` if the link would listen to more than `most` subjects.
    pub(super) fn listen(&mut self, id: LinkId, subject: Subject, most: usize) -> bool {
        let Some(plug) = self.links.get_mut(&id) else { return true };
        // one that is cut off gets nothing more
        if plug.out.has_ended() || !plug.listens.insert(subject) {
            return true;
        }
        let allowed = plug.listens.len() <= most;
        self.listeners.entry(subject).or_default().push(id);
        allowed
    }

    pub(super) fn unlisten(&mut self, id: LinkId, subject: Subject) {
        if let Some(plug) = self.links.get_mut(&id)
            && plug.listens.remove(&subject)
        {
            self.forget(id, subject);
        }
    }

    fn unlisten_all(&mut self, id: LinkId) {
        let Some(plug) = self.links.get_mut(&id) else { return };
        for subject in std::mem::take(&mut plug.listens) {
            self.forget(id, subject);
        }
    }

    fn forget(&mut self, id: LinkId, subject: Subject) {
        if let Some(listeners) = self.listeners.get_mut(&subject) {
            listeners.retain(|listener| *listener != id);
            if listeners.is_empty() {
                self.listeners.remove(&subject);
            }
        }
    }

    /// The link is too slow. Its node and how many messages it loses, unless it was cut off before.
    pub(super) fn cut_off(&mut self, id: LinkId) -> Option<(NodeId, usize)> {
        self.unlisten_all(id);
        let plug = self.links.get(&id)?;
        let dropped = plug.out.cut_off(ToLink::CutOff.frame())?;
        Some((plug.node, dropped + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Subject = Subject::Slot(1);

    fn plugged(routes: &mut Routes, node: u32) -> LinkId {
        routes.plug(NodeId::from_random(node), Arc::new(Outbound::new(100)))
    }

    #[test]
    fn nothing_is_left_of_a_link_that_is_gone() {
        let mut routes = Routes::default();
        let (one, other) = (plugged(&mut routes, 1), plugged(&mut routes, 2));
        assert!(routes.listen(one, SLOT, 9) && routes.listen(one, SLOT, 9) && routes.listen(other, SLOT, 9));
        assert!(routes.listen(one, Subject::Everyone, 9));
        assert_eq!(routes.listeners[&SLOT].as_slice(), [one, other]);
        assert!(routes.unplug(one));
        assert_eq!(routes.listeners[&SLOT].as_slice(), [other]);
        routes.unlisten(other, SLOT);
        assert!(routes.listeners.is_empty());
        assert!(routes.unplug(other) && !routes.unplug(other));
        assert!(routes.links.is_empty() && routes.nodes.is_empty());
    }

    #[test]
    fn a_node_is_gone_with_its_latest_link() {
        let mut routes = Routes::default();
        let (old, new) = (plugged(&mut routes, 1), plugged(&mut routes, 1));
        assert!(!routes.unplug(old));
        assert!(routes.unplug(new));
    }

    #[test]
    fn a_link_listens_to_so_many_subjects_and_to_none_once_it_is_cut_off() {
        let mut routes = Routes::default();
        let link = plugged(&mut routes, 1);
        assert!(routes.listen(link, SLOT, 1));
        assert!(!routes.listen(link, Subject::Slot(2), 1));
        assert_eq!(routes.cut_off(link), Some((NodeId::from_random(1), 1)));
        assert_eq!(routes.cut_off(link), None);
        assert!(routes.listen(link, Subject::Slot(3), 1));
        assert!(routes.listeners.is_empty());
    }
}
