//! Pusher's HTTP API and protocol against the real binary: signatures, limits, refusals, members, and what the hostile try.

mod counts;
mod hostile;
mod limits;
mod presence;
mod publish;
mod replay;
mod sign_in;
mod signing;
mod socket;
mod watchlist;
mod webhooks;
