//! The master from head to reply, on a bus that only records.
