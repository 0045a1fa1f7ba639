//! The agent's integration tests: the real binary, and a gateway that does what a test wants.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails the test like the test itself"
)]

mod answers;
mod command;
mod failures;
mod home;
mod link;
mod restarts;
mod script;
mod tools;
