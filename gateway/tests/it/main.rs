//! The gateway's integration tests: one binary, real processes and sockets.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a helper of a test fails the test like the test itself"
)]

mod agents;
mod cli;
mod tidy;
mod upstreams;
