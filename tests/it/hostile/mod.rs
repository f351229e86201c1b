//! Input that means harm, and what becomes of it: a clear refusal, and nobody else notices.

mod frames;
mod http;
mod jwt;
mod keyless;
mod memory;
mod noise;
mod proxied;
mod slow;
mod upgrade;
