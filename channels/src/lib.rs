//! People and messages.
//!
//! What people say comes in once, in the order of its arrival: [`inbox`]. What they see is a list of
//! items that can be followed, and followed again: [`web`], for the console and the terminal, which
//! are two clients of one channel. A channel knows people by the platform's own stable ids, and
//! places; never a group, a role or a rule.
//!
//! Reading order: [`inbox`], [`web`], [`db`] (the tables of both).

pub mod db;
pub mod inbox;
pub mod web;
