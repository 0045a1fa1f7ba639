//! Groups: who an agent works for.
//!
//! What is promised: a group's queue (one run at a time, surviving restarts), its conversation,
//! memory, schedules and worktrees. Implemented so far: its [`notes`].

pub mod db;
pub mod notes;
