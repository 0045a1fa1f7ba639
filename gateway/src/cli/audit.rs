//! `audit` and `why`: the log, read from the data directory whether an instance runs or not.

use std::fmt::Write as _;
use std::path::Path;

use clap::Subcommand;
use policy::approval::State;
use policy::decision::Decision;
use policy::record::{Outcome, Story};
use serde_json::json;

use super::Failure;
use super::client::Client;
use super::output::{Cell, Output, short, utc};
use crate::audit::find::Wanted;
use crate::audit::index::{FindError, Index};
use crate::audit::read::{self, ReadError, VerifyError};
use crate::config::Paths;
use crate::db::Db;
use crate::text::{printable, printable_lines};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List what was asked and done, the newest last.
    List(Filters),
    /// Show everything about one action.
    Show {
        /// The action's id, or its question's.
        id: String,
    },
    /// List what holds all of some words.
    Search {
        /// The words; in quotes one after the other, with a `*` at the end what begins so.
        text: String,
        #[command(flatten)]
        filters: Filters,
    },
    /// Check that nothing in the log was changed, removed, inserted or moved.
    Verify,
}

/// What the list is narrowed by.
#[derive(Debug, clap::Args)]
pub(super) struct Filters {
    /// At most so many, the newest.
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: usize,
    /// Only this group.
    #[arg(long, default_value = "", hide_default_value = true)]
    group: String,
    /// Only this kind: mcp, model, network, local, host or gateway.
    #[arg(long, default_value = "", hide_default_value = true)]
    kind: String,
    /// Only this tool, as `server__tool`.
    #[arg(long, default_value = "", hide_default_value = true)]
    tool: String,
    /// Only this server.
    #[arg(long, default_value = "", hide_default_value = true)]
    server: String,
    /// Only what was decided so: allow, ask or deny.
    #[arg(long, default_value = "", hide_default_value = true)]
    decision: String,
    /// Only what ended so: running, ok, error, refused or unknown.
    #[arg(long, default_value = "", hide_default_value = true)]
    outcome: String,
    /// Only what this person asked for, answered or did.
    #[arg(long, default_value = "", hide_default_value = true)]
    person: String,
    /// Only what this credential asked for, such as `token:tok_1`.
    #[arg(long, default_value = "", hide_default_value = true)]
    principal: String,
    /// Only conversations with this label: untrusted or secret.
    #[arg(long, default_value = "", hide_default_value = true)]
    label: String,
    /// Only what was asked and stands so: pending, approved, denied, expired, withdrawn,
    /// `caller_gone`; `any` for all that was asked.
    #[arg(long, default_value = "", hide_default_value = true)]
    approval: String,
    /// Only what began then or later: `2026-01-31`, `2026-01-31T12:00:00Z`, or `24h` for a day ago.
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "TIME"
    )]
    since: String,
    /// Only what began before then.
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "TIME"
    )]
    until: String,
}

impl Filters {
    fn wanted(self, text: String) -> Wanted {
        let Self {
            limit,
            group,
            kind,
            tool,
            server,
            decision,
            outcome,
            person,
            principal,
            label,
            approval,
            since,
            until,
        } = self;
        Wanted {
            limit: Some(limit),
            before: None,
            text,
            group,
            kind,
            server,
            tool,
            decision,
            outcome,
            principal,
            person,
            label,
            approval,
            since,
            until,
        }
    }
}

pub(super) async fn run(command: Command, paths: &Paths, out: Output) -> Result<(), Failure> {
    let data = &paths.data;
    settle(paths).await;
    match command {
        Command::List(filters) => list(data, &filters.wanted(String::new()), out).await,
        Command::Search { text, filters } => list(data, &filters.wanted(text), out).await,
        Command::Show { id } => {
            let story = find(data, &id).await?;
            out.print(&story, || show(&story, out))
        }
        Command::Verify => verify(data, out).await,
    }
}

/// Where an instance runs, waits until its log holds what was done before. Reading the log needs
/// none, so whatever goes wrong here is of no interest.
async fn settle(paths: &Paths) {
    if let Ok(client) = Client::new(paths, None) {
        let _ = client
            .post(&["audit", "settle"], serde_json::Value::Null)
            .await;
    }
}

pub(super) async fn why(id: &str, paths: &Paths, out: Output) -> Result<(), Failure> {
    settle(paths).await;
    let story = find(&paths.data, id).await?;
    let why = sentences(&story);
    let value = json!({
        "id": story.id,
        "tool": story.tool,
        "decision": story.decision,
        "rules": story.rules,
        "labels": story.labels,
        "reasons": story.reasons,
        "approval": story.approval,
        "answer": story.answer,
        "outcome": story.outcome,
        "why": why,
    });
    out.print(&value, || {
        let lines: Vec<String> = why.iter().map(|line| printable(line)).collect();
        lines.join("\n")
    })
}

async fn list(data: &Path, wanted: &Wanted, out: Output) -> Result<(), Failure> {
    let mut stories = found(data, wanted).await?;
    stories.sort_by_key(|story| story.seq);
    out.print(&stories, || {
        let rows = stories
            .iter()
            .map(|story| {
                let approval = story.answer.as_ref();
                vec![
                    story.seq.to_string().into(),
                    utc(story.at).into(),
                    story.id.as_str().into(),
                    or_dash(&story.group).into(),
                    short(&story.tool, 48).into(),
                    Cell::word(story.decision.as_str()),
                    approval.map_or_else(|| Cell::from("-"), |one| Cell::word(one.state.as_str())),
                    Cell::word(story.outcome.as_str()),
                ]
            })
            .collect();
        out.table(
            &[
                "SEQ", "AT (UTC)", "ID", "GROUP", "WHAT", "DECISION", "APPROVAL", "OUTCOME",
            ],
            rows,
            "nothing in the log",
        )
    })
}

/// What fits, as far as the limit goes. Whoever can read the data directory may see all of it.
async fn found(data: &Path, wanted: &Wanted) -> Result<Vec<Story>, Failure> {
    let fails = |error: FindError| match &error {
        FindError::Time(_) => Failure::Usage(error.to_string()),
        FindError::Db(_) => Failure::of(&error),
    };
    let db = Db::open_to_read(data)
        .await
        .map_err(|error| Failure::of(&error))?;
    let index = Index::open(data, db.clone())
        .await
        .map_err(|error| Failure::of(&error))?;
    let limit = wanted.limit.unwrap_or(usize::MAX);
    let mut stories = Vec::new();
    let mut wanted = wanted.clone();
    while stories.len() < limit {
        let room = limit - stories.len();
        let (more, next) = index
            .find(&wanted, None, room, |_| true)
            .await
            .map_err(fails)?;
        stories.extend(more);
        wanted.before = next;
        if next.is_none() {
            break;
        }
    }
    index.close().await;
    db.close().await;
    Ok(stories)
}

/// The story of an action, by its id or its question's.
async fn find(data: &Path, id: &str) -> Result<Story, Failure> {
    read::story(data, id).await.map_err(failed)?.ok_or_else(|| {
        let id = printable(id);
        Failure::Failed(format!("the log knows no action or question `{id}`"))
    })
}

fn failed(error: ReadError) -> Failure {
    Failure::of(&error)
}

async fn verify(data: &Path, out: Output) -> Result<(), Failure> {
    match read::verify(data).await {
        Ok(verified) => {
            let value = json!({"ok": true, "records": verified.entries, "head": verified.head});
            out.print(&value, || {
                format!(
                    "{}: {} records, head {}\n",
                    out.word("ok"),
                    verified.entries,
                    verified.head
                )
            })
        }
        Err(VerifyError::Bad(bad)) => {
            let value = json!({"ok": false, "first_bad": bad});
            out.print(&value, || {
                format!("{}: {}\n", out.word("fail"), printable(&bad.to_string()))
            })?;
            Err(Failure::Told(1))
        }
        Err(error @ (VerifyError::Db(_) | VerifyError::Key(_))) => Err(Failure::of(&error)),
    }
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn show(story: &Story, out: Output) -> String {
    let mut lines: Vec<Vec<Cell>> = Vec::new();
    let mut line = |name: &str, value: Cell| lines.push(vec![name.into(), value]);
    line("id", story.id.as_str().into());
    line("seq", story.seq.to_string().into());
    line("at", format!("{} UTC", utc(story.at)).into());
    if let Some(at) = story.closed_at {
        line("closed at", format!("{} UTC", utc(at)).into());
    }
    line("group", or_dash(&story.group).into());
    line("conversation", or_dash(&story.conversation).into());
    line("principal", or_dash(&story.principal).into());
    line("what", story.tool.as_str().into());
    line("decision", Cell::word(story.decision.as_str()));
    line("rules", or_dash(&story.rules.join(", ")).into());
    line("labels", or_dash(&story.labels.join(", ")).into());
    if !story.adds.is_empty() && story.outcome != Outcome::Refused {
        let adds: Vec<&str> = story.adds.iter().map(|label| label.as_str()).collect();
        line("adds", adds.join(", ").into());
    }
    for (n, reason) in story.reasons.iter().enumerate() {
        line(if n == 0 { "why" } else { "" }, reason.into());
    }
    if let Some(answer) = &story.answer {
        let by = answer
            .by
            .as_ref()
            .map_or_else(String::new, |by| format!(" by {by}"));
        line(
            "approval",
            format!("{}: {}{by}", answer.id, answer.state.as_str()).into(),
        );
        if let Some(reason) = &answer.reason {
            line("in words", reason.into());
        }
    }
    line("outcome", Cell::word(story.outcome.as_str()));
    if let Some(detail) = &story.detail {
        line("detail", detail.into());
    }
    line("hash", story.hash.as_str().into());
    line("prev", story.prev.as_str().into());
    let mut text = out.lines(lines);
    let meta = story.meta.as_ref().map(serde_json::to_string_pretty);
    let args = (!story.args.is_null()).then(|| serde_json::to_string_pretty(&story.args));
    for (title, part) in [("arguments", args), ("_meta", meta)] {
        let Some(Ok(part)) = part else { continue };
        let _ = writeln!(text, "{title}");
        for line in printable_lines(&part).lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

/// The story in sentences.
fn sentences(story: &Story) -> Vec<String> {
    let mut out = Vec::new();
    let whose = if story.group.is_empty() {
        String::new()
    } else {
        format!(" for group {}", story.group)
    };
    out.push(format!(
        "At {} UTC, {} asked for {}{whose}.",
        utc(story.at),
        or_dash(&story.principal),
        story.tool
    ));
    if !story.labels.is_empty() {
        let read: Vec<&str> = story
            .labels
            .iter()
            .map(|label| match label.as_str() {
                "untrusted" => "what strangers wrote",
                "secret" => "what would hurt if it leaked",
                other => other,
            })
            .collect();
        out.push(format!("The conversation had read {}.", read.join(" and ")));
    }
    out.push(
        match story.decision {
            Decision::Allow => "It was allowed:",
            Decision::Ask => "A person had to decide:",
            Decision::Deny => "It was denied:",
        }
        .to_owned(),
    );
    if story.reasons.is_empty() {
        out.push("- nothing stood against it".to_owned());
    }
    out.extend(story.reasons.iter().map(|reason| format!("- {reason}")));
    if !story.rules.is_empty() {
        out.push(format!(
            "Rules and gates that had a say: {}.",
            story.rules.join(", ")
        ));
    }
    if let Some(answer) = &story.answer {
        let by = answer.by.as_deref().unwrap_or("nobody");
        let (id, reason) = (&answer.id, &answer.reason);
        let words = reason
            .as_ref()
            .map_or_else(String::new, |text| format!(" (\"{text}\")"));
        out.push(match answer.state {
            State::Pending => format!("Question {id} waits for an answer."),
            State::Approved => format!("Question {id}: {by} said yes{words}."),
            State::Denied => format!("Question {id}: {by} said no{words}."),
            State::Expired => format!("Question {id}: nobody answered in time, which is a no."),
            State::Withdrawn => format!("Question {id} was withdrawn{words}."),
            State::CallerGone => format!("Question {id}: who asked has gone."),
        });
    }
    let detail = story
        .detail
        .as_ref()
        .map_or_else(String::new, |text| format!(": {text}"));
    out.push(match story.outcome {
        Outcome::Running if story.answer.as_ref().is_some_and(|one| one.state.is_open()) => {
            "It has not run.".to_owned()
        }
        Outcome::Running => "It has not ended yet.".to_owned(),
        Outcome::Ok => format!("It was done{detail}."),
        Outcome::Error => format!("It was tried and failed{detail}."),
        Outcome::Refused => format!("It was not done{detail}."),
        Outcome::Unknown => {
            format!("It was begun, and nobody knows whether it was done{detail}.")
        }
    });
    out
}

#[cfg(test)]
mod tests;
