//! What a conversation has read, and where that came from.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::ActionId;

/// A mark on a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// It has read what strangers wrote.
    Untrusted,
    /// It has read what would hurt if it leaked.
    Secret,
}

impl Label {
    /// The label's name, as in the configuration and the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Secret => "secret",
        }
    }
}

/// Which action put a label there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The action that delivered it.
    pub action: ActionId,
    /// That action's tool, as people read it.
    pub tool: String,
    /// When.
    pub at: Timestamp,
}

/// The labels of a conversation. They only grow, but for [`Labels::without`], by a person's word.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// Where the first untrusted text came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untrusted: Option<Provenance>,
    /// Where the first secret came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Provenance>,
}

impl Labels {
    /// Whether the label is there.
    pub fn has(&self, label: Label) -> bool {
        match label {
            Label::Untrusted => self.untrusted.is_some(),
            Label::Secret => self.secret.is_some(),
        }
    }

    /// Adds a label; the first provenance stays.
    pub fn add(&mut self, label: Label, from: &Provenance) {
        let slot = match label {
            Label::Untrusted => &mut self.untrusted,
            Label::Secret => &mut self.secret,
        };
        slot.get_or_insert_with(|| from.clone());
    }

    /// These labels without some of them: what is left when a person declassifies.
    #[must_use]
    pub fn without(&self, removed: &BTreeSet<Label>) -> Self {
        let kept = |label: Label, from: &Option<Provenance>| {
            from.clone().filter(|_| !removed.contains(&label))
        };
        Self {
            untrusted: kept(Label::Untrusted, &self.untrusted),
            secret: kept(Label::Secret, &self.secret),
        }
    }

    /// The labels that are there.
    pub fn all(&self) -> BTreeSet<Label> {
        let all = [Label::Untrusted, Label::Secret];
        all.into_iter().filter(|label| self.has(*label)).collect()
    }

    /// The names of the labels that are there.
    pub fn names(&self) -> Vec<&'static str> {
        [Label::Untrusted, Label::Secret]
            .into_iter()
            .filter(|l| self.has(*l))
            .map(Label::as_str)
            .collect()
    }
}
