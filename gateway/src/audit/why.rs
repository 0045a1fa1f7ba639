//! The whole story of an action in words: what was read before, what was decided and why, who was
//! asked and answered, what ran, what came back, how it ended.

use std::fmt::Write as _;

use jiff::Timestamp;
use policy::action::canonical;
use policy::approval::State;
use policy::decision::{Decision, Facts, Why};
use policy::label::{Label, Provenance};
use policy::record::{Entry, Event, Outcome, Story, Told};
use serde::Serialize;
use serde_json::Value;

/// What happened, step by step.
#[derive(Clone, Debug, Serialize)]
pub struct Steps {
    /// What the conversation had read.
    pub read: Vec<Read>,
    /// What happened, in the order of the records.
    pub steps: Vec<Step>,
    /// What came back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Told>,
    /// The configuration it was decided by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

/// Where a label of the conversation came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Read {
    /// Which label.
    pub label: Label,
    /// The action that brought it.
    pub action: String,
    /// That action's tool.
    pub tool: String,
    /// When.
    pub at: Timestamp,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The position of its record.
    pub seq: i64,
    /// When.
    pub at: Timestamp,
    /// What happened.
    pub what: String,
}

fn read(facts: &Facts) -> Vec<Read> {
    let pairs = [
        (Label::Untrusted, &facts.labels.untrusted),
        (Label::Secret, &facts.labels.secret),
    ];
    let one = |(label, from): (Label, &Option<Provenance>)| {
        from.as_ref().map(|from| Read {
            label,
            action: from.action.to_string(),
            tool: from.tool.clone(),
            at: from.at,
        })
    };
    let mut all: Vec<Read> = pairs.into_iter().filter_map(one).collect();
    all.sort_by_key(|read| read.at);
    all
}

/// What a label means.
pub fn meaning(label: Label) -> &'static str {
    match label {
        Label::Untrusted => "what strangers wrote",
        Label::Secret => "what would hurt if it leaked",
    }
}

/// The steps that entries tell.
pub fn steps(entries: &[(Entry, Event)]) -> Steps {
    let mut told = Steps {
        read: Vec::new(),
        steps: Vec::new(),
        result: None,
        revision: None,
    };
    for (entry, event) in entries {
        let at = Timestamp::from_millisecond(entry.at).unwrap_or_default();
        let mut step = |what: String| {
            told.steps.push(Step {
                seq: entry.seq,
                at,
                what,
            });
        };
        match event {
            Event::Decided {
                facts,
                why,
                approval,
                revision,
                ..
            } => {
                step(format!(
                    "{} asked for {} in group {}{}",
                    facts.action.principal,
                    facts.action.tool(),
                    facts.action.group,
                    with(&facts.action.args)
                ));
                step(decided(why));
                if let Some(id) = approval {
                    step(format!(
                        "question {id} was put to the people who may answer it"
                    ));
                }
                told.read = read(facts);
                told.revision = Some(revision.clone());
            }
            Event::Agreed { approval, by, of } => {
                step(format!("{by} said yes to question {approval}; {of} must"));
            }
            Event::Answered {
                approval,
                state,
                by,
                reason,
            } => step(answered(
                approval.as_str(),
                *state,
                by.as_deref(),
                reason.as_deref(),
            )),
            Event::Released { why } => step(format!("decided again, and begun: {}", decided(why))),
            Event::Labelled { labels } => {
                let brings: Vec<&str> = labels.iter().map(|label| meaning(*label)).collect();
                step(format!("what it told holds {}", brings.join(" and ")));
            }
            Event::Closed {
                outcome,
                detail,
                result,
            } => {
                if let Some(result) = result {
                    step(came_back(result));
                }
                let detail = detail
                    .as_ref()
                    .map_or_else(String::new, |text| format!(": {text}"));
                step(format!("{}{detail}", ended(*outcome)));
                told.result.clone_from(result);
            }
            Event::Refused { principal, attempt } => {
                step(format!("{principal} tried {attempt}, and was refused"));
            }
            Event::Pinned(pinned) => {
                let by = pinned.by.as_deref().unwrap_or(&pinned.server);
                step(format!("{by}: {}", pinned.told()));
            }
            Event::Declassified {
                by, reason, labels, ..
            } => {
                let names = labels.names().join(" and ");
                step(format!("{by} took off {names}: {reason}"));
            }
            Event::Noted { by, what, .. } => step(format!("{by}: {what}")),
        }
    }
    told
}

fn with(args: &Value) -> String {
    if args.is_null() || args.as_object().is_some_and(serde_json::Map::is_empty) {
        return String::new();
    }
    format!(" with {}", short(&canonical(args)))
}

/// A text of a line's length.
fn short(text: &str) -> String {
    const LONGEST: usize = 400;
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    let begun: String = text.chars().take(LONGEST).collect();
    format!("{begun}… ({} bytes)", text.len())
}

fn decided(why: &Why) -> String {
    let decision = match why.decision {
        Decision::Allow => "it was allowed",
        Decision::Ask => "a person had to decide",
        Decision::Deny => "it was denied",
    };
    let mut out = decision.to_owned();
    if why.reasons.is_empty() {
        out.push_str(": nothing stood against it");
    } else {
        out.push_str(": ");
        out.push_str(&why.reasons.join("; "));
    }
    if !why.rules.is_empty() {
        let _ = write!(out, " [{}]", why.rules.join(", "));
    }
    if !why.lifted.is_empty() {
        let lifted: Vec<&str> = why.lifted.iter().map(|gate| gate.as_str()).collect();
        let _ = write!(out, "; lifted: {}", lifted.join(", "));
    }
    out
}

fn answered(id: &str, state: State, by: Option<&str>, reason: Option<&str>) -> String {
    let by = by.unwrap_or("nobody");
    let words = reason.map_or_else(String::new, |text| format!(": \"{text}\""));
    match state {
        State::Pending => format!("question {id} is open again{words}"),
        State::Approved => format!("{by} said yes to question {id}{words}"),
        State::Denied => format!("{by} said no to question {id}{words}"),
        State::Expired => format!("nobody answered question {id} in time, which is a no"),
        State::Withdrawn => format!("question {id} was withdrawn{words}"),
        State::CallerGone => format!("who asked question {id} has gone"),
    }
}

fn came_back(result: &Told) -> String {
    let size = result
        .size
        .map_or_else(String::new, |size| format!(" of {size} bytes"));
    match &result.told {
        Some(told) => format!("what came back{size}: {}", short(&canonical(told))),
        None => format!(
            "what came back{size} is not kept; its digest is {}",
            result.digest
        ),
    }
}

fn ended(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Running => "it has not ended",
        Outcome::Ok => "it was done",
        Outcome::Error => "it was tried and failed",
        Outcome::Refused => "it was not done",
        Outcome::Unknown => "it was begun, and nobody knows whether it was done",
    }
}

/// The story in sentences, with its steps.
pub fn sentences(story: &Story, told: &Steps) -> Vec<String> {
    let clock = |at: Timestamp| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    let mut out: Vec<String> = told
        .read
        .iter()
        .map(|read| {
            format!(
                "Before, at {}, the conversation read {}: {} ({}).",
                clock(read.at),
                meaning(read.label),
                read.tool,
                read.action
            )
        })
        .collect();
    if told.read.is_empty() && !story.conversation.is_empty() && story.labels.is_empty() {
        out.push(
            "Before, the conversation had read nothing that strangers wrote and no secrets."
                .to_owned(),
        );
    }
    out.extend(
        told.steps
            .iter()
            .map(|step| format!("At {}, {}.", clock(step.at), step.what)),
    );
    match story.outcome {
        Outcome::Running if story.answer.as_ref().is_some_and(|one| one.state.is_open()) => {
            out.push("It waits for an answer and has not run.".to_owned());
        }
        Outcome::Running => out.push("It has not ended yet.".to_owned()),
        Outcome::Ok | Outcome::Error | Outcome::Refused | Outcome::Unknown => {}
    }
    out
}

#[cfg(test)]
mod tests;
