//! What is recorded of pins: which definitions of a server agents are served, since when, and by
//! whose word.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::action::Digest;

/// What happened to the pin of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Turn {
    /// It was seen for the first time as it is configured, and what it offered was pinned.
    First,
    /// It offers something else now; what was pinned is served on.
    Changed,
    /// A person took over what it offers now.
    Accepted,
    /// A person keeps what was pinned.
    Kept,
}

/// What kind of definition it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A tool.
    Tool,
    /// A prompt.
    Prompt,
    /// A resource template.
    Template,
    /// The server's instructions for the model.
    Instructions,
}

/// Which definition of a server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Of which kind.
    pub what: What,
    /// Its name, a template's URI; of the instructions empty.
    pub name: String,
}

impl Key {
    /// The key of a definition.
    pub fn new(what: What, name: impl Into<String>) -> Self {
        Self {
            what,
            name: name.into(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            What::Tool => write!(f, "tool `{}`", self.name),
            What::Prompt => write!(f, "prompt `{}`", self.name),
            What::Template => write!(f, "resource template `{}`", self.name),
            What::Instructions => f.write_str("the instructions"),
        }
    }
}

/// One definition that is another now, by its digests; `None` where there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Which definition.
    #[serde(flatten)]
    pub key: Key,
    /// What was pinned.
    pub was: Option<Digest>,
    /// What it is now.
    pub is: Option<Digest>,
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is = match self.key.what {
            What::Instructions => "are",
            What::Tool | What::Prompt | What::Template => "is",
        };
        match (&self.was, &self.is) {
            (Some(_), Some(_)) => write!(f, "{} changed", self.key),
            (None, _) => write!(f, "{} {is} new", self.key),
            (Some(_), None) => write!(f, "{} {is} gone", self.key),
        }
    }
}

/// A record about the pin of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    /// Which server.
    pub server: String,
    /// What happened.
    pub turn: Turn,
    /// Who said so, where a person did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Digest over the server's configured command or address.
    pub identity: Digest,
    /// Digest over all that was pinned before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<Digest>,
    /// Digest over all that is pinned from here on; of a change, over what the server offers.
    pub is: Digest,
    /// Digest over the set of names in that.
    pub names: Digest,
    /// Which definitions it is about; of a first sight none, for it is about all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moved: Vec<Moved>,
    /// Digest over the question that was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<Digest>,
    /// What was to be looked at in its tools: look-alikes, shadows, hidden characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Pinned {
    /// What happened, in a sentence.
    pub fn told(&self) -> String {
        const SHOWN: usize = 5;
        let server = &self.server;
        let mut moved: Vec<String> = self
            .moved
            .iter()
            .take(SHOWN)
            .map(ToString::to_string)
            .collect();
        if self.moved.len() > SHOWN {
            moved.push(format!("and {} more", self.moved.len() - SHOWN));
        }
        let moved = moved.join(", ");
        let told = match self.turn {
            Turn::First if self.was.is_some() => {
                format!("`{server}` is configured anew: what it offers was pinned anew")
            }
            Turn::First => format!("what `{server}` offers was pinned"),
            Turn::Changed => format!("`{server}` is not what was pinned: {moved}"),
            Turn::Accepted => format!("accepted of `{server}`: {moved}"),
            Turn::Kept => format!("kept what was pinned of `{server}`: {moved}"),
        };
        match self.warnings.first() {
            None => told,
            Some(first) => format!(
                "{told}; {} to look at, such as {first}",
                self.warnings.len()
            ),
        }
    }
}
