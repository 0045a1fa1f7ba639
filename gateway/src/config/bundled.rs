//! What is known of the servers that come with the gateway, where nobody wrote a `trust`.

use std::collections::BTreeMap;

use policy::traits::{Declared, Level};

use super::server::{Tool, Transport};

/// A server that runs inside the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bundled {
    /// The group's notes.
    Notes,
}

impl Bundled {
    /// Its name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Notes => "notes",
        }
    }
}

/// What `bundled` accepts.
pub(super) const NAMES: [(&str, Bundled); 1] = [("notes", Bundled::Notes)];

/// Whether a server comes with the gateway.
pub(super) fn is_ours(transport: &Transport) -> bool {
    defaults(transport).is_some()
}

/// The traits of a server that comes with the gateway, and those of its tools.
pub(super) fn defaults(transport: &Transport) -> Option<(Declared, BTreeMap<String, Declared>)> {
    match transport {
        Transport::Bundled(Bundled::Notes) => Some(notes()),
        Transport::Stdio { command, .. } if command == "portcullis-postbox" => Some(postbox()),
        Transport::Stdio { .. } | Transport::Http { .. } => None,
    }
}

/// What a person said of single tools, over what is known of them.
pub(super) fn complete(tools: &mut BTreeMap<String, Tool>, known: BTreeMap<String, Declared>) {
    for (name, known) in known {
        let said = &mut tools.entry(name).or_default().traits;
        *said = Declared {
            public_source: said.public_source.or(known.public_source),
            secret_data: said.secret_data.or(known.secret_data),
            public_sink: said.public_sink.or(known.public_sink),
            dangerous_writes: said.dangerous_writes.or(known.dangerous_writes),
            read_only: said.read_only.or(known.read_only),
        };
    }
}

const NOTHING: Declared = Declared {
    public_source: Some(Level::No),
    secret_data: Some(Level::No),
    public_sink: Some(Level::No),
    dangerous_writes: Some(Level::No),
    read_only: None,
};

fn notes() -> (Declared, BTreeMap<String, Declared>) {
    // No source of what strangers wrote by itself: what such a conversation noted comes back with
    // its labels.
    let server = Declared {
        secret_data: Some(Level::Yes),
        ..NOTHING
    };
    let reads = Declared {
        read_only: Some(true),
        ..Declared::default()
    };
    let deletes = Declared {
        dangerous_writes: Some(Level::Yes),
        ..Declared::default()
    };
    let tools = [("list", reads), ("read", reads), ("delete", deletes)];
    (server, named(tools))
}

fn postbox() -> (Declared, BTreeMap<String, Declared>) {
    let reads = Declared {
        public_source: Some(Level::Yes),
        read_only: Some(true),
        ..NOTHING
    };
    let sends = Declared {
        public_sink: Some(Level::Yes),
        ..NOTHING
    };
    // A tool that is not known is as bad as any.
    let tools = [("list", reads), ("read", reads), ("send", sends)];
    (Declared::default(), named(tools))
}

fn named<const N: usize>(tools: [(&str, Declared); N]) -> BTreeMap<String, Declared> {
    tools.map(|(name, known)| (name.to_owned(), known)).into()
}
