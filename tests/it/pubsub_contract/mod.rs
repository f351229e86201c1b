//! What every transport promises, held against each of them: NATS with a real server, and the Unix socket between processes
//! of one machine, its exchange being one of the nodes or not.

mod hostile;
mod local;
mod nats;
mod nats_doors;
mod node;
mod suite;

use self::node::PubSubNode;

/// Something that carries between nodes, and can be taken away and brought back.
pub trait PubSubCarrier: Sized {
    /// One that is not there yet.
    fn prepared() -> Self;

    fn start(&mut self);

    /// Without a warning.
    fn stop(&mut self);

    /// One more node.
    fn node(&mut self) -> PubSubNode;

    /// More bytes than may wait for a node.
    const FLOOD: usize;

    /// Is a node that was too slow disconnected, and comes back?
    const CUTS_OFF: bool;

    fn started() -> Self {
        let mut carrier = Self::prepared();
        carrier.start();
        carrier
    }
}

macro_rules! contract {
    ($module:ident, $carrier:ty, $($promise:ident),* $(,)?) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $promise() {
                    super::suite::$promise::<$carrier>().await;
                }
            )*
        }
    };
}

macro_rules! contract_of {
    ($module:ident, $carrier:ty) => {
        contract!(
            $module,
            $carrier,
            what_is_sent_to_a_subject_arrives_in_order,
            a_burst_is_not_too_much_for_a_reader_that_reads,
            a_node_hears_itself_and_listening_twice_is_once,
            what_is_not_listened_to_is_not_heard,
            after_a_confirmation_no_later_message_is_missed,
            all_who_wait_are_confirmed,
            every_slot_is_heard_at_once,
            a_message_of_a_mebibyte_arrives_and_a_larger_one_than_allowed_is_refused,
            who_closes_sends_what_is_queued,
            a_reader_without_room_loses_but_is_told_and_nobody_else_loses,
            nodes_wait_for_their_server,
            after_a_restart_everything_is_listened_to_and_nothing_stale_comes,
            nothing_that_was_taken_before_a_restart_comes_after_it,
        );
    };
}

contract_of!(nats_keeps_the_contract, super::nats::NatsPubSubCarrier);
contract_of!(links_keep_the_contract, super::local::ClientList);
contract!(
    the_exchange_keeps_the_contract,
    super::local::BrokerFirst,
    what_is_sent_to_a_subject_arrives_in_order,
    a_burst_is_not_too_much_for_a_reader_that_reads,
    a_node_hears_itself_and_listening_twice_is_once,
    what_is_not_listened_to_is_not_heard,
    after_a_confirmation_no_later_message_is_missed,
    all_who_wait_are_confirmed,
    every_slot_is_heard_at_once,
    a_message_of_a_mebibyte_arrives_and_a_larger_one_than_allowed_is_refused,
    a_reader_without_room_loses_but_is_told_and_nobody_else_loses,
);
