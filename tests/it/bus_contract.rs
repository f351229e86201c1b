//! What the bus promises (`proto/src/bus.rs`), held against each of them: NATS with a real server, the Unix socket between
//! processes of one machine, a transport in memory, and, as far as it applies, the bus of a single process.

mod carriers;
mod node;
mod suite;
mod users;

use std::sync::Arc;

use wellhead::bus::local::InProcessBus;
use wellhead_proto::{
    bus::{Bus, BusError},
    ids::NodeId,
    query::StatsQuery,
};

use self::node::{BusNode, push};

macro_rules! contract {
    ($module:ident, $carrier:ident, $($promise:ident),* $(,)?) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $promise() {
                    super::suite::$promise::<super::carriers::$carrier>().await;
                }
            )*
        }
    };
}

/// What is promised about users, where they have slots of their own.
macro_rules! contract_of_user_slots {
    ($module:ident, $carrier:ident, $($promise:ident),* $(,)?) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $promise() {
                    super::users::$promise::<super::carriers::$carrier>().await;
                }
            )*
        }
    };
}

macro_rules! contract_of {
    ($module:ident, $carrier:ident, $($more:ident),* $(,)?) => {
        contract!(
            $module,
            $carrier,
            pushes_arrive_in_order_wherever_they_are_wanted,
            what_a_slave_pushes_reaches_everybody_and_itself_in_order,
            once_an_interest_is_confirmed_no_push_is_missed,
            large_pushes_and_small_ones_keep_their_order,
            questions_are_answered_by_all_slaves_also_at_length,
            who_is_silent_is_named_and_waited_for_once,
            one_node_can_be_asked,
            a_push_to_a_pattern_is_answered_with_what_matched,
            changes_of_members_keep_their_order_with_pushes,
            reports_arrive_in_order,
            who_says_goodbye_is_gone_at_once,
            what_is_listened_to_follows_what_is_wanted,
            $($more,)*
        );
    };
}

contract_of!(nats_keeps_the_contract, NatsCarrier, while_it_is_down_nothing_is_taken_and_nothing_stale_comes_after,);
contract_of!(the_socket_keeps_the_contract, Local,);
contract_of!(memory_keeps_the_contract, MemoryCarrier,);

contract_of_user_slots!(
    nats_keeps_the_contract_of_users,
    NatsCarrier,
    what_is_for_a_user_reaches_the_slaves_where_the_user_is_in_order,
    a_push_that_follows_a_connect_is_never_missed,
    two_who_come_at_once_are_both_let_in,
    a_push_to_a_user_costs_the_other_slaves_nothing,
    what_is_received_follows_the_users_who_are_here,
    a_connect_waits_for_a_bus_that_is_down_and_users_are_received_for_after_it,
);
contract_of_user_slots!(
    memory_keeps_the_contract_of_users,
    MemoryCarrier,
    what_is_for_a_user_reaches_the_slaves_where_the_user_is_in_order,
    a_push_that_follows_a_connect_is_never_missed,
    two_who_come_at_once_are_both_let_in,
    a_push_to_a_user_costs_the_other_slaves_nothing,
    what_is_received_follows_the_users_who_are_here,
);
// without slots of users everybody hears everything
contract_of_user_slots!(
    the_socket_keeps_the_contract_of_users,
    Local,
    what_is_for_a_user_reaches_the_slaves_where_the_user_is_in_order,
    a_push_that_follows_a_connect_is_never_missed,
);

#[tokio::test]
async fn the_bus_of_one_process_keeps_what_applies_to_it() {
    let id = NodeId::from_random(1);
    let hub = Arc::new(InProcessBus::new(id));
    let node = BusNode::new(id, hub.clone(), None);
    hub.attach(node.book.clone());
    suite::alone_pushes_arrive_in_order_and_questions_are_answered(&*hub, &node).await;
    hub.stop();
    assert_eq!(hub.publish(push("a", "c", "x")).await, Err(BusError::Down));
    assert_eq!(hub.gather(StatsQuery.into()).await, Err(BusError::Down));
}
