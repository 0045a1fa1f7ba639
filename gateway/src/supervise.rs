//! The supervisor of a child process: a stub until it is merged.

use std::{ffi::OsString, process::ExitCode};

/// Runs the supervisor over the arguments after `supervise`.
pub fn main(_args: impl Iterator<Item = OsString>) -> ExitCode {
    ExitCode::FAILURE
}
