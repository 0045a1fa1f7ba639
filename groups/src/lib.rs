//! Groups: who an agent works for.
//!
//! A group has a queue (one run at a time, bounded, surviving restarts), a conversation and
//! [`notes`]. What people said is read from the inbox in the order of its arrival; an agent works
//! through it and reports; what it says is stored before it is acknowledged, and shown once. Groups
//! start no process and know no token: the gateway does that for them ([`Host`]).
//!
//! Reading order: [`life`] (what can happen to a run), `intake` (what an agent may report),
//! `history` (what an agent begins with), `engine` and its parts (doing all that), [`notes`],
//! [`db`].

pub mod bounds;
pub mod db;
mod engine;
mod history;
mod host;
mod intake;
pub mod life;
pub mod notes;

pub use engine::{EventError, GroupStatus, Groups, NotServed};
pub use host::{Ended, Host, LaunchError, Launched, RunKey, Settings};
