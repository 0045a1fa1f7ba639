//! What a person wrote on top of the default matrix.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::action::{Action, Kind, Method};
use crate::condition::Condition;
use crate::ids::GroupName;

/// What a rule says. `deny` beats `ask` beats `allow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Lift the named gates.
    Allow,
    /// A person decides.
    Ask,
    /// Never.
    Deny,
}

/// A built-in reason to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// It could carry something out to strangers.
    PublicSink,
    /// It could do harm that cannot be undone.
    DangerousWrites,
    /// Its arguments hold a credential.
    Credential,
    /// The tool is not what it was when it was pinned.
    ChangedTool,
}

impl Gate {
    /// The gate's name, as in the configuration and the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PublicSink => "public_sink",
            Self::DangerousWrites => "dangerous_writes",
            Self::Credential => "credential",
            Self::ChangedTool => "changed_tool",
        }
    }
}

/// A text in which `*` stands for any run of characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pattern(String);

impl Pattern {
    /// A pattern; every text is one.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether all of `text` fits.
    pub fn matches(&self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(first) else {
            return false;
        };
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            let Some((_, after)) = rest.split_once(part) else {
                return false;
            };
            rest = after;
        }
        false
    }
}

/// One `[[rules]]` entry. A selector that is left out fits everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its name in explanations and the log.
    pub name: String,
    /// The groups it is for.
    pub groups: Option<Vec<GroupName>>,
    /// The servers it is for.
    pub servers: Option<Vec<Pattern>>,
    /// The tools it is for, as `server__tool` or `model:NAME__model`; such a rule fits calls of
    /// tools and models only.
    pub tools: Option<Vec<Pattern>>,
    /// What must hold beyond that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Condition>,
    /// From then on it is spent, and says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// What it says.
    pub then: Effect,
    /// The gates that an `allow` lifts; empty for the others.
    pub lifts: Vec<Gate>,
    /// How many people must say yes where it asks; 1 for the others.
    #[serde(default = "one")]
    pub people: u8,
}

/// One person is enough, where nothing else was said.
pub(crate) fn one() -> u8 {
    1
}

/// What the selectors of rules are held against: worked out once for all of them.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    action: &'a Action,
    /// [`Action::tool`].
    pub(crate) tool: &'a str,
    now: Timestamp,
}

impl<'a> Target<'a> {
    /// Of an action at a time; `tool` is its [`Action::tool`].
    pub(crate) fn new(action: &'a Action, tool: &'a str, now: Timestamp) -> Self {
        Self { action, tool, now }
    }
}

impl Rule {
    /// Whether the rule's selectors speak of this action at this time; what it says `when` is not
    /// looked at.
    pub fn fits(&self, action: &Action, now: Timestamp) -> bool {
        self.speaks_of(&Target::new(action, &action.tool(), now))
    }

    /// As [`fits`](Self::fits). A model call never waits for a person, so a rule that asks does not
    /// speak of one.
    pub(crate) fn speaks_of(&self, target: &Target<'_>) -> bool {
        let action = target.action;
        if action.kind == Kind::Model && self.then == Effect::Ask {
            return false;
        }
        let group = self
            .groups
            .as_ref()
            .is_none_or(|groups| groups.contains(&action.group));
        let server = || {
            self.servers
                .as_ref()
                .is_none_or(|all| all.iter().any(|one| one.matches(&action.server)))
        };
        let tool = || {
            self.tools.as_ref().is_none_or(|all| {
                matches!(action.method, Method::Call | Method::Model)
                    && all.iter().any(|one| one.matches(target.tool))
            })
        };
        group && tool() && server() && !self.is_spent(target.now)
    }

    /// Whether its time is over.
    pub fn is_spent(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn a_star_stands_for_any_run_of_characters_and_nothing_else_does() {
        for (pattern, text, fits) in [
            ("mail__send", "mail__send", true),
            ("mail__send", "mail__send2", false),
            ("mail__*", "mail__send", true),
            ("*__send", "mail__send", true),
            ("*", "", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxc", false),
            ("ab*ba", "aba", false),
            ("", "x", false),
            ("mail.*", "mail__send", false),
        ] {
            assert_eq!(
                Pattern::new(pattern).matches(text),
                fits,
                "{pattern} on {text}"
            );
        }
    }
}
