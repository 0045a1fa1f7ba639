//! Groups through their public surface: people write to the web channel, agents speak through
//! `turns` and `events`, and what counts is what people see and what the next agent begins with.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test may"
)]

mod chaos;
mod crashes;
mod house;
mod intake;
mod queue;
mod runs;
