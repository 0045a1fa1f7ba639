//! Groups: who an agent works for.
//!
//! What is promised: a group's queue (one run at a time, surviving restarts), its conversation,
//! memory, schedules and worktrees. Not implemented yet: today a group is its entry in the
//! configuration, which the gateway reads.
