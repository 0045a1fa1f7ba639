//! What a server and its tools can do, as declared by the person who configured them.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Whether a server has a trait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// It has not: written `false`.
    No,
    /// It has, or nobody said: written `true`.
    Yes,
    /// A call that exercises it is denied: written `"forbidden"`.
    Forbidden,
}

impl Level {
    /// Whether it counts as present.
    pub fn holds(self) -> bool {
        self != Self::No
    }
}

impl Serialize for Level {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::No => to.serialize_bool(false),
            Self::Yes => to.serialize_bool(true),
            Self::Forbidden => to.serialize_str("forbidden"),
        }
    }
}

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Level;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("`true`, `false` or `\"forbidden\"`")
            }
            fn visit_bool<E: de::Error>(self, yes: bool) -> Result<Level, E> {
                Ok(if yes { Level::Yes } else { Level::No })
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Level, E> {
                if text == "forbidden" {
                    return Ok(Level::Forbidden);
                }
                Err(E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        from.deserialize_any(Visitor)
    }
}

/// The four traits of a call's target, resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Traits {
    /// Can deliver what strangers wrote.
    pub public_source: Level,
    /// Delivers what would hurt if it leaked.
    pub secret_data: Level,
    /// Can send to strangers.
    pub public_sink: Level,
    /// Irreversible or of high impact.
    pub dangerous_writes: Level,
    /// The call cannot change anything. Lifts `dangerous_writes` only.
    pub read_only: bool,
}

impl Traits {
    /// What nobody declared: the worst.
    pub const UNDECLARED: Self = Self {
        public_source: Level::Yes,
        secret_data: Level::Yes,
        public_sink: Level::Yes,
        dangerous_writes: Level::Yes,
        read_only: false,
    };
    /// Declared to have none.
    pub const ORDINARY: Self = Self {
        public_source: Level::No,
        secret_data: Level::No,
        public_sink: Level::No,
        dangerous_writes: Level::No,
        read_only: false,
    };

    /// The worse of two in each: what a target may do of which it is not known which of two it is.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        Self {
            public_source: self.public_source.max(other.public_source),
            secret_data: self.secret_data.max(other.secret_data),
            public_sink: self.public_sink.max(other.public_sink),
            dangerous_writes: self.dangerous_writes.max(other.dangerous_writes),
            read_only: self.read_only && other.read_only,
        }
    }
}

/// What a configuration says of a server or a tool; what it leaves out is inherited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// See [`Traits::public_source`].
    pub public_source: Option<Level>,
    /// See [`Traits::secret_data`].
    pub secret_data: Option<Level>,
    /// See [`Traits::public_sink`].
    pub public_sink: Option<Level>,
    /// See [`Traits::dangerous_writes`].
    pub dangerous_writes: Option<Level>,
    /// See [`Traits::read_only`]; of a tool only.
    pub read_only: Option<bool>,
}

/// The hints of an MCP tool's `annotations` that policy looks at (MCP, *`ToolAnnotations`*).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hints {
    /// `readOnlyHint`.
    pub read_only: Option<bool>,
    /// `destructiveHint`.
    pub destructive: Option<bool>,
    /// `openWorldHint`.
    pub open_world: Option<bool>,
    /// The configuration says `annotations = "trust"`: hints may also loosen.
    pub trusted: bool,
}

/// Traits of a tool: the person's word on the tool, else on the server, else the worst; the
/// server's own hints make that stricter, and looser only where they are trusted.
pub fn resolve(server: Declared, tool: Declared, hints: Hints) -> Traits {
    let pick = |tool: Option<Level>, server: Option<Level>, hint: Option<bool>| {
        if let Some(level) = tool {
            return level;
        }
        let level = server.unwrap_or(Level::Yes);
        match hint {
            Some(true) => level.max(Level::Yes),
            Some(false) if hints.trusted && level == Level::Yes => Level::No,
            Some(false) | None => level,
        }
    };
    let read_only = match (tool.read_only, hints.read_only) {
        (Some(said), _) => said,
        (None, Some(true)) => hints.trusted,
        (None, Some(false) | None) => false,
    };
    // A destructive hint says nothing of a tool that also says it only reads.
    let destructive = hints.destructive.filter(|_| hints.read_only != Some(true));
    Traits {
        public_source: pick(tool.public_source, server.public_source, None),
        secret_data: pick(tool.secret_data, server.secret_data, None),
        public_sink: pick(tool.public_sink, server.public_sink, hints.open_world),
        dangerous_writes: pick(tool.dangerous_writes, server.dangerous_writes, destructive),
        read_only,
    }
}
