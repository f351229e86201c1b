//! Who is connected, and who listens to what. Pure.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;
use wellhead_proto::ids::NodeId;

use crate::bus::{
    local::{frame::ToClient, outbound::Outbound},
    pubsub::Subject,
};

/// Who listens to what.
#[derive(Default)]
pub(super) struct Routes {
    pub(super) clients: FxHashMap<ClientId, ConnectedClient>,
    /// Nodes, and the latest client of each.
    nodes: FxHashMap<NodeId, ClientId>,
    pub(super) listeners: FxHashMap<Subject, SmallVec<[ClientId; 2]>>,
    /// What this process listens to.
    pub(super) own: FxHashSet<Subject>,
    last: ClientId,
}

pub(super) type ClientId = u64;

/// The broker's view of a client.
pub(super) struct ConnectedClient {
    pub(super) node: NodeId,
    pub(super) out: Arc<Outbound>,
    listens: FxHashSet<Subject>,
}

impl Routes {
    pub(super) fn connect(&mut self, node: NodeId, out: Arc<Outbound>) -> ClientId {
        self.last += 1;
        self.clients.insert(self.last, ConnectedClient { node, out, listens: FxHashSet::default() });
        self.nodes.insert(node, self.last);
        self.last
    }

    /// The client's end. `true` if its node has no other.
    pub(super) fn disconnect(&mut self, id: ClientId) -> bool {
        self.unlisten_all(id);
        let Some(client) = self.clients.remove(&id) else { return false };
        let latest = self.nodes.get(&client.node) == Some(&id);
        if latest {
            self.nodes.remove(&client.node);
        }
        latest
    }

    /// `false` if the client would listen to more than `most` subjects.
    pub(super) fn listen(&mut self, id: ClientId, subject: Subject, most: usize) -> bool {
        let Some(client) = self.clients.get_mut(&id) else { return true };
        // one that is cut off gets nothing more
        if client.out.has_ended() || !client.listens.insert(subject) {
            return true;
        }
        let allowed = client.listens.len() <= most;
        self.listeners.entry(subject).or_default().push(id);
        allowed
    }

    pub(super) fn unlisten(&mut self, id: ClientId, subject: Subject) {
        if let Some(client) = self.clients.get_mut(&id)
            && client.listens.remove(&subject)
        {
            self.forget(id, subject);
        }
    }

    fn unlisten_all(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        for subject in std::mem::take(&mut client.listens) {
            self.forget(id, subject);
        }
    }

    fn forget(&mut self, id: ClientId, subject: Subject) {
        if let Some(listeners) = self.listeners.get_mut(&subject) {
            listeners.retain(|listener| *listener != id);
            if listeners.is_empty() {
                self.listeners.remove(&subject);
            }
        }
    }

    /// The client is too slow. Its node and how many messages it loses, unless it was cut off before.
    pub(super) fn cut_off(&mut self, id: ClientId) -> Option<(NodeId, usize)> {
        self.unlisten_all(id);
        let client = self.clients.get(&id)?;
        let dropped = client.out.cut_off(ToClient::CutOff.frame())?;
        Some((client.node, dropped + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Subject = Subject::Slot(1);

    fn connected(routes: &mut Routes, node: u32) -> ClientId {
        routes.connect(NodeId::from_random(node), Arc::new(Outbound::new(100)))
    }

    #[test]
    fn nothing_is_left_of_a_link_that_is_gone() {
        let mut routes = Routes::default();
        let (one, other) = (connected(&mut routes, 1), connected(&mut routes, 2));
        assert!(routes.listen(one, SLOT, 9) && routes.listen(one, SLOT, 9) && routes.listen(other, SLOT, 9));
        assert!(routes.listen(one, Subject::Everyone, 9));
        assert_eq!(routes.listeners[&SLOT].as_slice(), [one, other]);
        assert!(routes.disconnect(one));
        assert_eq!(routes.listeners[&SLOT].as_slice(), [other]);
        routes.unlisten(other, SLOT);
        assert!(routes.listeners.is_empty());
        assert!(routes.disconnect(other) && !routes.disconnect(other));
        assert!(routes.clients.is_empty() && routes.nodes.is_empty());
    }

    #[test]
    fn a_node_is_gone_with_its_latest_link() {
        let mut routes = Routes::default();
        let (old, new) = (connected(&mut routes, 1), connected(&mut routes, 1));
        assert!(!routes.disconnect(old));
        assert!(routes.disconnect(new));
    }

    #[test]
    fn a_link_listens_to_so_many_subjects_and_to_none_once_it_is_cut_off() {
        let mut routes = Routes::default();
        let client = connected(&mut routes, 1);
        assert!(routes.listen(client, SLOT, 1));
        assert!(!routes.listen(client, Subject::Slot(2), 1));
        assert_eq!(routes.cut_off(client), Some((NodeId::from_random(1), 1)));
        assert_eq!(routes.cut_off(client), None);
        assert!(routes.listen(client, Subject::Slot(3), 1));
        assert!(routes.listeners.is_empty());
    }
}
