//! The log: stories in a list, and one story as it went.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use jiff::Timestamp;
use policy::action::Digest;
use policy::decision::{Facts, Why};
use policy::ids::GroupName;
use policy::pin::Turn;
use policy::record::{self, Entry, Event, Story};

use super::view::{Argument, Read, Reason, Text, Time, Word, arguments, hint, page, reasons};
use crate::api::audit::{self, Wanted, kind};
use crate::api::card::because;
use crate::api::{Api, Refused, Who};

struct Line {
    id: String,
    at: Time,
    tool: Text,
    hint: Text,
    group: String,
    principal: Text,
    kind: &'static str,
    decision: Word,
    outcome: Word,
    answered: Option<Text>,
}

impl From<&Story> for Line {
    fn from(story: &Story) -> Self {
        let answer = story.answer.as_ref();
        Self {
            id: story.id.to_string(),
            at: story.at.into(),
            tool: Text::line(&story.tool),
            hint: hint(&story.args),
            group: story.group.clone(),
            principal: Text::line(&story.principal),
            kind: kind(story),
            decision: story.decision.into(),
            outcome: story.outcome.into(),
            answered: answer.and_then(|answer| Some(Text::line(answer.by.as_ref()?))),
        }
    }
}

struct Choice {
    value: &'static str,
    words: &'static str,
    chosen: bool,
}

fn choices(all: &[(&'static str, &'static str)], chosen: &str) -> Vec<Choice> {
    let choice = |(value, words): &(&'static str, &'static str)| Choice {
        value,
        words,
        chosen: *value == chosen,
    };
    all.iter().map(choice).collect()
}

#[derive(Template)]
#[template(path = "log.html")]
struct Log {
    text: Text,
    groups: Vec<(String, bool)>,
    decisions: Vec<Choice>,
    outcomes: Vec<Choice>,
    kinds: Vec<Choice>,
    labels: Vec<Choice>,
    approvals: Vec<Choice>,
    tool: Text,
    server: Text,
    person: Text,
    principal: Text,
    since: Text,
    until: Text,
    lines: Vec<Line>,
    /// Where the page of older stories is.
    older: Option<String>,
    /// The text or more is asked for.
    filtered: bool,
    /// More than the text is asked for.
    narrowed: bool,
}

/// The list.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Refused> {
    const DECISIONS: [(&str, &str); 3] =
        [("allow", "allowed"), ("ask", "asked"), ("deny", "denied")];
    const OUTCOMES: [(&str, &str); 5] = [
        ("running", "under way"),
        ("ok", "done"),
        ("error", "failed"),
        ("refused", "not done"),
        ("unknown", "unknown"),
    ];
    const KINDS: [(&str, &str); 6] = [
        ("mcp", "tools"),
        ("model", "models"),
        ("network", "network"),
        ("local", "local tools"),
        ("host", "host"),
        ("gateway", "the gateway"),
    ];
    const LABELS: [(&str, &str); 2] = [("untrusted", "untrusted"), ("secret", "secret")];
    const APPROVALS: [(&str, &str); 6] = [
        ("any", "with a question"),
        ("pending", "waits"),
        ("approved", "approved"),
        ("denied", "denied"),
        ("expired", "expired"),
        ("withdrawn", "withdrawn"),
    ];
    let found = audit::page(&api, &who, &wanted).await?;
    let config = &api.broker.config.now();
    let names = config.groups.keys().map(GroupName::to_string);
    let names = names.filter(|name| who.may_see(config, name));
    let mut filters = wanted.filters().into_iter();
    let narrowed = filters.any(|(_, value)| !value.is_empty())
        || !wanted.since.is_empty()
        || !wanted.until.is_empty();
    Ok(page(&Log {
        groups: names
            .map(|name| (name.clone(), name == wanted.group))
            .collect(),
        decisions: choices(&DECISIONS, &wanted.decision),
        outcomes: choices(&OUTCOMES, &wanted.outcome),
        kinds: choices(&KINDS, &wanted.kind),
        labels: choices(&LABELS, &wanted.label),
        approvals: choices(&APPROVALS, &wanted.approval),
        tool: Text::line(&wanted.tool),
        server: Text::line(&wanted.server),
        person: Text::line(&wanted.person),
        principal: Text::line(&wanted.principal),
        since: Text::line(&wanted.since),
        until: Text::line(&wanted.until),
        lines: found.stories.iter().map(Line::from).collect(),
        older: found.next.and_then(|next| older(&wanted, next)),
        filtered: narrowed || !wanted.text.is_empty(),
        narrowed,
        text: Text::line(&wanted.text),
    }))
}

fn older(wanted: &Wanted, next: i64) -> Option<String> {
    let mut url = reqwest::Url::parse("http://localhost/audit").ok()?;
    {
        let mut query = url.query_pairs_mut();
        let rest = [
            ("text", wanted.text.as_str()),
            ("since", &wanted.since),
            ("until", &wanted.until),
        ];
        for (name, value) in rest.into_iter().chain(wanted.filters()) {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        }
        query.append_pair("before", &next.to_string());
    }
    Some(format!("/audit?{}", url.query().unwrap_or_default()))
}

/// A step of a story.
struct Step {
    seq: i64,
    at: Time,
    title: String,
    tone: &'static str,
    words: Option<Text>,
    reasons: Vec<Reason>,
    facts: Vec<(&'static str, Text)>,
    hash: String,
    prev: String,
}

#[derive(Template)]
#[template(path = "story.html")]
struct Told {
    id: String,
    tool: Text,
    group: String,
    principal: Text,
    conversation: Text,
    decision: Word,
    outcome: Word,
    at: Time,
    args: Vec<Argument>,
    read: Vec<Read>,
    question: Option<String>,
    steps: Vec<Step>,
}

/// One story.
pub(super) async fn story(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
) -> Result<Response, Refused> {
    let (story, entries) = audit::tell(&api, &who, &id).await?;
    let facts = entries.iter().find_map(|(_, event)| match event {
        Event::Decided { facts, .. } => Some(&**facts),
        Event::Agreed { .. }
        | Event::Answered { .. }
        | Event::Released { .. }
        | Event::Labelled { .. }
        | Event::Closed { .. }
        | Event::Refused { .. }
        | Event::Pinned(_)
        | Event::Declassified { .. }
        | Event::Noted { .. } => None,
    });
    let read = facts.map(because).unwrap_or_default();
    Ok(page(&Told {
        id: story.id.to_string(),
        tool: Text::line(&story.tool),
        group: story.group.clone(),
        principal: Text::line(&story.principal),
        conversation: Text::line(&story.conversation),
        decision: story.decision.into(),
        outcome: story.outcome.into(),
        at: story.at.into(),
        args: arguments(&story.args),
        read: read.iter().map(Read::from).collect(),
        question: story.approval.as_ref().map(ToString::to_string),
        steps: entries
            .iter()
            .map(|(entry, event)| step(entry, event))
            .collect(),
    }))
}

fn gates(why: &Why) -> Vec<String> {
    let all = why.gates.iter().chain(&why.lifted);
    all.map(|gate| gate.as_str().to_owned()).collect()
}

/// What a decision was made from, as far as a person asks for it.
fn made_from(facts: &Facts, why: &Why, revision: &str) -> Vec<(&'static str, Text)> {
    let adds: Vec<&str> = why.adds.iter().map(|label| label.as_str()).collect();
    let lifted: Vec<&str> = why.lifted.iter().map(|gate| gate.as_str()).collect();
    let traits = facts.traits;
    let traits: Vec<&str> = [
        ("public source", traits.public_source.holds()),
        ("secret data", traits.secret_data.holds()),
        ("public sink", traits.public_sink.holds()),
        ("dangerous writes", traits.dangerous_writes.holds()),
        ("read only", traits.read_only),
    ]
    .into_iter()
    .filter_map(|(name, holds)| holds.then_some(name))
    .collect();
    [
        ("the tool can", traits.join(", ")),
        ("rules", why.rules.join(", ")),
        ("lifted", lifted.join(", ")),
        ("its answer adds", adds.join(", ")),
        ("task", facts.action.run.to_string()),
        ("definition", facts.action.definition.to_string()),
        ("server", facts.action.identity.to_string()),
        ("configuration", revision.to_owned()),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(name, value)| (name, Text::line(&value)))
    .collect()
}

/// What came back of an action.
fn came_back(result: &record::Told) -> Vec<(&'static str, Text)> {
    let told = result.told.as_ref().map(|told| {
        let name = if result.cut {
            "it told, cut off"
        } else {
            "it told"
        };
        (name, Text::prose(&told.to_string()))
    });
    let size = (result.size).map(|size| ("bytes", Text::line(&size.to_string())));
    let digest = ("digest", Text::line(result.digest.as_str()));
    told.into_iter().chain(size).chain([digest]).collect()
}

#[expect(
    clippy::too_many_lines,
    reason = "one arm for each event, exhaustively"
)]
fn step(entry: &Entry, event: &Event) -> Step {
    let at = Timestamp::from_millisecond(entry.at).unwrap_or_default();
    let blank = |title: String, tone| Step {
        seq: entry.seq,
        at: at.into(),
        title,
        tone,
        words: None,
        reasons: Vec::new(),
        facts: Vec::new(),
        hash: entry.hash.clone(),
        prev: entry.prev.clone(),
    };
    match event {
        Event::Decided {
            facts,
            why,
            approval,
            revision,
            ..
        } => {
            let word = Word::from(why.decision);
            let title = match approval {
                Some(id) => format!("A person had to decide: question {id}"),
                None => format!("It was {}", word.text),
            };
            Step {
                reasons: reasons(&why.reasons, &gates(why)),
                facts: made_from(facts, why, revision),
                ..blank(title, word.tone)
            }
        }
        Event::Agreed { approval, by, of } => blank(
            format!("Question {approval}: {by} said yes; it takes {of} people"),
            "careful",
        ),
        Event::Answered {
            approval,
            state,
            by,
            reason,
        } => {
            let word = Word::from(*state);
            let by = by.as_deref().unwrap_or("nobody");
            Step {
                words: reason.as_deref().map(Text::prose),
                ..blank(
                    format!("Question {approval}: {}, by {by}", word.text),
                    word.tone,
                )
            }
        }
        Event::Released { why } => Step {
            reasons: reasons(&why.reasons, &gates(why)),
            ..blank("Decided again, and begun".to_owned(), "good")
        },
        Event::Labelled { labels } => {
            let names: Vec<&str> = labels.iter().map(|label| label.as_str()).collect();
            let title = format!("What it told brought labels: {}", names.join(", "));
            blank(title, "careful")
        }
        Event::Closed {
            outcome,
            detail,
            result,
        } => {
            let word = Word::from(*outcome);
            let result = result.iter().flat_map(came_back);
            Step {
                words: detail.as_deref().map(Text::prose),
                facts: result.collect(),
                ..blank(format!("The end: {}", word.text), word.tone)
            }
        }
        Event::Refused { principal, attempt } => Step {
            words: Some(Text::line(&format!("{principal} tried: {attempt}"))),
            ..blank("Refused".to_owned(), "bad")
        },
        Event::Pinned(pinned) => {
            let by = pinned.by.as_ref().map(|by| format!("{by}: "));
            let digest = |digest: &Digest| Text::line(digest.as_str());
            let was = pinned.was.as_ref().map(|was| ("was", digest(was)));
            let facts = was.into_iter().chain([("is", digest(&pinned.is))]);
            Step {
                words: Some(Text::line(&(by.unwrap_or_default() + &pinned.told()))),
                facts: facts.collect(),
                ..blank(
                    "What a server offers".to_owned(),
                    if pinned.turn == Turn::Changed {
                        "careful"
                    } else {
                        "faint"
                    },
                )
            }
        }
        Event::Declassified {
            by, reason, labels, ..
        } => Step {
            words: Some(Text::prose(reason)),
            ..blank(
                format!("{by} took off labels: {}", labels.names().join(", ")),
                "careful",
            )
        },
        Event::Noted { by, what, .. } => Step {
            words: Some(Text::line(&format!("{by}: {what}"))),
            ..blank("Noted".to_owned(), "faint")
        },
    }
}
