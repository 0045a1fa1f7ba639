//! Secrets: a value, or where it comes from.

use std::{fmt, path::PathBuf};

/// A secret value, or where it comes from.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Secret {
    /// The value itself, such as an unremarkable environment variable of a server.
    Plain(String),
    /// The name of an environment variable of the gateway.
    Env(String),
    /// A file that holds it; one trailing line break is not part of it.
    File(PathBuf),
    /// A program and its arguments that print it, run without a shell.
    Command(Vec<String>),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(_) => f.write_str("Plain(…)"),
            Self::Env(name) => f.debug_tuple("Env").field(name).finish(),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            // Arguments of a command may hold what must not be printed.
            Self::Command(argv) => f.debug_tuple("Command").field(&argv.first()).finish(),
        }
    }
}
