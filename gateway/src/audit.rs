//! The log: a stub until it is merged.

pub mod read;
