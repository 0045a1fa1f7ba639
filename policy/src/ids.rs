//! Names that were checked once, at the door.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A name that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a {noun}: {accepted}")]
pub struct BadName {
    given: String,
    noun: &'static str,
    accepted: &'static str,
}

/// `[a-z][a-z0-9-]{0,31}`, as in `product.md`.
fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    text.len() <= 32
        && chars.next().is_some_and(|c| c.is_ascii_lowercase())
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $noun:literal, $reserved:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                let reserved: &[&str] = $reserved;
                if is_name(&text) && !reserved.contains(&text.as_str()) {
                    return Ok(Self(text));
                }
                let accepted = if reserved.contains(&text.as_str()) {
                    "this name is reserved"
                } else {
                    "1 to 32 of `a-z`, `0-9` and `-`, the first a letter"
                };
                Err(BadName { given: text, noun: $noun, accepted })
            }
        }

        impl std::str::FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A group's name.
    GroupName, "group name", &[]
);
name!(
    /// An MCP server's name; `portcullis` is reserved for the gateway's own tools.
    ServerName, "server name", &["portcullis"]
);
name!(
    /// The name of a provider of models.
    ModelName, "provider name", &[]
);
name!(
    /// A person's name in the configuration.
    UserName, "user name", &[]
);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes an id that the caller made or read back.
            pub fn new(id: impl Into<String>) -> Self {
                Self(id.into())
            }
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// One action; also the id of its record.
    ActionId
);
id!(
    /// One question to a person, short enough to type.
    QuestionId
);
id!(
    /// Whatever shares one model context; it owns the labels.
    ConversationId
);
id!(
    /// A conversation's work on one task.
    RunId
);
