//! The shape of the log: an append-only chain of entries, and the story they tell of an action.
//!
//! Every entry holds the hash of the one before it, so that none can be changed, removed, inserted
//! or moved without the rest failing to fit. What happens to an action later is a later entry; no
//! entry is ever changed.

pub mod apart;

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::action::{Digest, Kind};
use crate::approval::State;
use crate::decision::{Decision, Facts, Why};
use crate::ids::{ActionId, ConversationId, GroupName, QuestionId};
use crate::label::{Label, Labels};
use crate::pin::Pinned;

/// How an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Decided, and being done or waiting.
    Running,
    /// Done.
    Ok,
    /// Done or tried, and the server said no.
    Error,
    /// Not done.
    Refused,
    /// Begun, and nobody knows whether it was done.
    Unknown,
}

impl Outcome {
    /// The outcome's name in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// What one entry says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// An action was decided. Written before anything is done.
    Decided {
        /// What the decision was made from; credentials in the arguments and `_meta` are masked.
        facts: Box<Facts>,
        /// The decision.
        why: Why,
        /// Keyed digest over the arguments as they were, where anything was masked; with `_meta`,
        /// over both in an array.
        #[serde(skip_serializing_if = "Option::is_none")]
        sealed_args: Option<String>,
        /// The question that was put.
        #[serde(skip_serializing_if = "Option::is_none")]
        approval: Option<QuestionId>,
        /// The configuration it was decided by.
        revision: String,
    },
    /// One of several people who must say yes did; the question stays open.
    Agreed {
        /// Which question.
        approval: QuestionId,
        /// Who.
        by: String,
        /// How many must.
        of: u8,
    },
    /// A question came to an end.
    Answered {
        /// Which.
        approval: QuestionId,
        /// How.
        state: State,
        /// Who said so, where somebody did.
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<String>,
        /// The person's words, or why it was withdrawn.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// An approved action was decided again, and is now done. Written before it is.
    Released {
        /// The second decision.
        why: Why,
    },
    /// What an action told brings labels with it. Written before any of it is handed over.
    Labelled {
        /// Which.
        labels: BTreeSet<Label>,
    },
    /// An action ended.
    Closed {
        /// How.
        outcome: Outcome,
        /// A few words, where they help.
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
        /// What came back.
        #[serde(skip_serializing_if = "Option::is_none")]
        result: Option<Told>,
    },
    /// Something tried what it may not, outside any action: a forged approval, a foreign peer.
    Refused {
        /// Who tried.
        principal: String,
        /// What.
        attempt: String,
    },
    /// What a server offers was pinned, is another than was pinned, or a person answered to that.
    Pinned(Box<Pinned>),
    /// A person took labels off a conversation.
    Declassified {
        /// Off which.
        conversation: ConversationId,
        /// Whose it is.
        group: GroupName,
        /// Who.
        by: String,
        /// Why, in their words.
        reason: String,
        /// The labels that are gone, and what had brought them.
        labels: Labels,
    },
    /// Somebody did something to the gateway itself: a token issued or revoked.
    Noted {
        /// Who.
        by: String,
        /// What.
        what: String,
        /// What it is about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        about: Option<About>,
    },
}

/// What something that was done to the gateway itself is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// Links and sessions of the console.
    Login,
    /// Tokens of agents.
    Token,
    /// The configuration.
    Configuration,
    /// Rules.
    Policy,
    /// Labels of conversations.
    Label,
    /// Definitions of tools.
    Definition,
    /// The log itself.
    Log,
    /// Start and stop.
    Run,
}

impl About {
    /// Its name in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Token => "token",
            Self::Configuration => "configuration",
            Self::Policy => "policy",
            Self::Label => "label",
            Self::Definition => "definition",
            Self::Log => "log",
            Self::Run => "run",
        }
    }
}

/// What came back of an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Digest over it as it was handed over.
    pub digest: Digest,
    /// How long that was, in bytes; of what came in pieces it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
    /// What it was, credentials masked; `None` where it is not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<serde_json::Value>,
    /// That is only its beginning.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

impl From<Digest> for Told {
    fn from(digest: Digest) -> Self {
        Self {
            digest,
            size: None,
            told: None,
            cut: false,
        }
    }
}

/// One link of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Position, from 1, without gaps.
    pub seq: i64,
    /// The action it is about, or an id of its own.
    pub id: String,
    /// When it was written, in milliseconds since 1970 (UTC).
    pub at: i64,
    /// The [`Event`], as the JSON text that was hashed.
    pub body: String,
    /// The hash of the entry before it; of the first, [`Entry::GENESIS`].
    pub prev: String,
    /// SHA-256 over all of the above.
    pub hash: String,
}

impl Entry {
    /// What the first entry follows.
    pub const GENESIS: &'static str =
        "0000000000000000000000000000000000000000000000000000000000000000";

    /// Makes the next link.
    pub fn seal(seq: i64, id: String, at: i64, body: String, prev: String) -> Self {
        let hash = Self::hash_of(seq, &id, at, &body, &prev);
        Self {
            seq,
            id,
            at,
            body,
            prev,
            hash,
        }
    }

    fn hash_of(seq: i64, id: &str, at: i64, body: &str, prev: &str) -> String {
        // A JSON array: no two different entries have the same bytes.
        let text = serde_json::to_vec(&(seq, id, at, body, prev)).unwrap_or_default();
        Digest::of(&text).to_string()
    }
}

/// The first entry that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("record {seq} ({id}): {problem}")]
pub struct Bad {
    /// Its position, as stored.
    pub seq: i64,
    /// Its id, as stored.
    pub id: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Walks the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// The position of the last entry that fits.
    pub seq: i64,
    /// Its hash.
    pub hash: String,
}

impl Default for Walk {
    fn default() -> Self {
        Self {
            seq: 0,
            hash: Entry::GENESIS.to_owned(),
        }
    }
}

impl Walk {
    /// Takes the next stored entry, in the order of `seq`.
    ///
    /// # Errors
    /// [`Bad`], if it does not follow the one before or was changed.
    pub fn step(&mut self, entry: &Entry) -> Result<(), Bad> {
        let problem = if entry.seq != self.seq + 1 {
            format!(
                "record {} should come here: one was removed, inserted or moved",
                self.seq + 1
            )
        } else if entry.prev != self.hash {
            "it does not follow the record before it".to_owned()
        } else if entry.hash
            != Entry::hash_of(entry.seq, &entry.id, entry.at, &entry.body, &entry.prev)
        {
            "it was changed after it was written".to_owned()
        } else {
            self.seq = entry.seq;
            self.hash.clone_from(&entry.hash);
            return Ok(());
        };
        Err(Bad {
            seq: entry.seq,
            id: entry.id.clone(),
            problem,
        })
    }
}

/// All that is known of one action, told from its entries: what `audit list` prints. The field
/// names stay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Story {
    /// Position of its first entry.
    pub seq: i64,
    /// The action's id.
    pub id: ActionId,
    /// When it was decided (RFC 3339).
    pub at: Timestamp,
    /// Which of the five kinds.
    pub kind: Kind,
    /// The group; empty for an attempt from outside.
    pub group: String,
    /// The conversation.
    pub conversation: String,
    /// Who asked.
    pub principal: String,
    /// The tool, as people read it.
    pub tool: String,
    /// The arguments, credentials masked.
    pub args: serde_json::Value,
    /// What was sent as `_meta`, credentials masked; of a question, what came with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<serde_json::Map<String, serde_json::Value>>,
    /// What was decided.
    pub decision: Decision,
    /// The rules and closed gates that had a say.
    pub rules: Vec<String>,
    /// The labels of the conversation when it was decided.
    pub labels: Vec<String>,
    /// The question, where one was put.
    pub approval: Option<QuestionId>,
    /// How that went.
    pub answer: Option<Answer>,
    /// How it ended.
    pub outcome: Outcome,
    /// Hash of the first entry.
    pub hash: String,
    /// Hash of the entry before that.
    pub prev: String,
    /// Why it was decided so, in sentences.
    pub reasons: Vec<String>,
    /// The labels it adds.
    pub adds: BTreeSet<Label>,
    /// What was said at the end.
    pub detail: Option<String>,
    /// When it ended.
    pub closed_at: Option<Timestamp>,
    /// What came back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Told>,
    /// What it is about, where it is no action of an agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<About>,
}

/// How the question of a [`Story`] went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The question.
    pub id: QuestionId,
    /// Where it stands.
    pub state: State,
    /// Who answered.
    pub by: Option<String>,
    /// In which words.
    pub reason: Option<String>,
    /// Who said yes before, where more than one person must.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agreed: Vec<String>,
}

impl Story {
    /// Begins a story with an entry; `None` if the entry begins none.
    #[expect(
        clippy::too_many_lines,
        reason = "one arm for each event, exhaustively"
    )]
    pub fn begin(entry: &Entry) -> Option<Self> {
        let at = Timestamp::from_millisecond(entry.at).ok()?;
        let blank = |principal: &str, tool: &str, decision, outcome| Self {
            seq: entry.seq,
            id: ActionId::new(entry.id.clone()),
            at,
            kind: Kind::Host,
            group: String::new(),
            conversation: String::new(),
            principal: principal.to_owned(),
            tool: tool.to_owned(),
            args: serde_json::Value::Null,
            meta: None,
            decision,
            rules: Vec::new(),
            labels: Vec::new(),
            approval: None,
            answer: None,
            outcome,
            hash: entry.hash.clone(),
            prev: entry.prev.clone(),
            reasons: Vec::new(),
            adds: BTreeSet::new(),
            detail: None,
            closed_at: None,
            result: None,
            about: None,
        };
        match serde_json::from_str(&entry.body).ok()? {
            Event::Decided {
                facts,
                why,
                approval,
                ..
            } => {
                let action = facts.action;
                Some(Self {
                    kind: action.kind,
                    group: action.group.to_string(),
                    conversation: action.conversation.to_string(),
                    tool: action.tool(),
                    args: action.args,
                    meta: action.meta,
                    rules: why
                        .rules
                        .iter()
                        .cloned()
                        .chain(why.gates.iter().map(|gate| gate.as_str().to_owned()))
                        .collect(),
                    labels: facts
                        .labels
                        .names()
                        .into_iter()
                        .map(str::to_owned)
                        .collect(),
                    answer: approval.clone().map(|id| Answer {
                        id,
                        state: State::Pending,
                        by: None,
                        reason: None,
                        agreed: Vec::new(),
                    }),
                    approval,
                    reasons: why.reasons,
                    adds: why.adds,
                    ..blank(&action.principal, "", why.decision, Outcome::Running)
                })
            }
            Event::Refused { principal, attempt } => Some(blank(
                &principal,
                &attempt,
                Decision::Deny,
                Outcome::Refused,
            )),
            Event::Pinned(pinned) => {
                let by = pinned.by.as_deref().unwrap_or(&pinned.server);
                Some(Self {
                    about: Some(About::Definition),
                    ..blank(by, &pinned.told(), Decision::Allow, Outcome::Ok)
                })
            }
            Event::Declassified {
                conversation,
                group,
                by,
                reason,
                labels,
            } => Some(Self {
                group: group.to_string(),
                conversation: conversation.to_string(),
                labels: labels.names().into_iter().map(str::to_owned).collect(),
                reasons: vec![reason],
                ..blank(&by, "declassify", Decision::Allow, Outcome::Ok)
            }),
            Event::Noted { by, what, about } => Some(Self {
                about,
                ..blank(&by, &what, Decision::Allow, Outcome::Ok)
            }),
            Event::Agreed { .. }
            | Event::Answered { .. }
            | Event::Released { .. }
            | Event::Labelled { .. }
            | Event::Closed { .. } => None,
        }
    }

    /// Goes on with a later entry of the same id.
    pub fn go_on(&mut self, entry: &Entry) {
        match serde_json::from_str(&entry.body) {
            Ok(Event::Answered {
                approval,
                state,
                by,
                reason,
            }) => {
                let agreed = self.answer.take().map(|answer| answer.agreed);
                self.answer = Some(Answer {
                    id: approval,
                    state,
                    by,
                    reason,
                    agreed: agreed.unwrap_or_default(),
                });
            }
            Ok(Event::Agreed { by, .. }) => {
                if let Some(answer) = &mut self.answer {
                    answer.agreed.push(by);
                }
            }
            Ok(Event::Labelled { labels }) => self.adds.extend(labels),
            Ok(Event::Closed {
                outcome,
                detail,
                result,
            }) => {
                self.outcome = outcome;
                self.detail = detail;
                self.result = result;
                self.closed_at = Timestamp::from_millisecond(entry.at).ok();
            }
            Ok(
                Event::Decided { .. }
                | Event::Released { .. }
                | Event::Refused { .. }
                | Event::Pinned(_)
                | Event::Declassified { .. }
                | Event::Noted { .. },
            )
            | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> Vec<Entry> {
        let mut prev = Entry::GENESIS.to_owned();
        (1..=5)
            .map(|seq| {
                let entry = Entry::seal(
                    seq,
                    format!("a{seq}"),
                    1000 + seq,
                    format!("{{\"n\":{seq}}}"),
                    prev.clone(),
                );
                prev.clone_from(&entry.hash);
                entry
            })
            .collect()
    }

    fn first_bad(entries: &[Entry]) -> Option<i64> {
        let mut walk = Walk::default();
        entries
            .iter()
            .find_map(|entry| walk.step(entry).err())
            .map(|bad| bad.seq)
    }

    #[test]
    fn an_untouched_chain_fits() {
        assert_eq!(first_bad(&chain()), None);
    }

    #[test]
    fn any_change_to_any_field_is_found_where_it_is() {
        type Change = fn(&mut Entry);
        let changes: [Change; 6] = [
            |e| e.seq += 10,
            |e| e.id.push('x'),
            |e| e.at += 1,
            |e| e.body.push(' '),
            |e| {
                e.prev
                    .replace_range(..1, if e.prev.starts_with('f') { "e" } else { "f" });
            },
            |e| {
                e.hash
                    .replace_range(..1, if e.hash.starts_with('f') { "e" } else { "f" });
            },
        ];
        for (n, change) in changes.iter().enumerate() {
            for place in 0..5 {
                let mut entries = chain();
                change(&mut entries[place]);
                let bad = entries[place].seq;
                assert_eq!(first_bad(&entries), Some(bad), "change {n} at {place}");
            }
        }
    }

    #[test]
    fn removing_inserting_and_swapping_are_found() {
        let mut removed = chain();
        removed.remove(2);
        assert_eq!(first_bad(&removed), Some(4));
        let mut inserted = chain();
        inserted.insert(
            2,
            Entry::seal(3, "evil".into(), 1, "{}".into(), inserted[1].hash.clone()),
        );
        assert_eq!(first_bad(&inserted), Some(3));
        let mut swapped = chain();
        swapped.swap(1, 3);
        assert_eq!(first_bad(&swapped), Some(4));
        // Contents swapped, positions kept.
        let mut bodies = chain();
        let body = bodies[1].body.clone();
        bodies[1].body = bodies[2].body.clone();
        bodies[2].body = body;
        assert_eq!(first_bad(&bodies), Some(2));
    }
}
