//! `audit` and `why`: the log, read from the data directory whether an instance runs or not.

mod export;
mod tail;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use policy::record::{Entry, Outcome, Story};
use serde_json::json;

use super::Failure;
use super::client::Client;
use super::output::{Cell, Output, short, utc};
use crate::audit::find::Wanted;
use crate::audit::index::{FindError, Index};
use crate::audit::read::{self, ReadError, VerifyError};
use crate::audit::why;
use crate::config::Paths;
use crate::db::Db;
use crate::keys::{Keys, PublicKey};
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
    /// Print what comes, as it comes.
    Tail,
    /// Check that nothing in the log was changed, removed, inserted or moved.
    Verify {
        /// Check this export instead, as `audit export` wrote it; `-` is standard input.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// The key that has to have signed the export, as `audit key` prints it.
        #[arg(long, requires = "file", value_name = "KEY")]
        key: Option<PublicKey>,
        /// A copy of checkpoints in another place.
        #[arg(long, conflicts_with = "file", value_name = "FILE")]
        checkpoints: Vec<PathBuf>,
    },
    /// Print the key that checks what is signed of the log.
    Key,
    /// Write the log for other programs, or to be kept in another place.
    Export {
        /// In which form.
        #[arg(long, value_enum, default_value_t = Form::Jsonl)]
        format: Form,
        /// Where to; without it to standard output.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Only what was recorded then or later: `2026-01-31`, `2026-01-31T12:00:00Z`, or `24h`.
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// Only what was recorded before then.
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
    },
}

/// The forms of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Form {
    /// Every record as it is in the chain; `audit verify --file` checks it anywhere.
    Jsonl,
    /// A table, a line for each story.
    Csv,
    /// API Activity of OCSF 1.3.0, a line for each story.
    Ocsf,
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
        Command::Tail => tail::run(paths, out).await,
        Command::Verify {
            file: Some(file),
            key,
            ..
        } => export::verify(&file, key.as_ref(), out),
        Command::Verify { checkpoints, .. } => verify(data, &checkpoints, out).await,
        Command::Key => key(data, out),
        Command::Export {
            format,
            output,
            since,
            until,
        } => export::run(data, format, output.as_deref(), since, until).await,
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
    let db = Db::open_to_read(&paths.data).await;
    let db = db.map_err(|error| Failure::of(&error))?;
    let entries = read::entries(&db, id)
        .await
        .map_err(|error| Failure::of(&error));
    db.close().await;
    let entries = entries?;
    let raw: Vec<Entry> = entries.iter().map(|(entry, _)| entry.clone()).collect();
    let story = read::told(&raw).ok_or_else(|| unknown(id))?;
    let told = why::steps(&entries);
    let sentences = why::sentences(&story, &told);
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
        "read": told.read,
        "args": story.args,
        "steps": told.steps,
        "result": told.result,
        "revision": told.revision,
        "why": sentences,
    });
    out.print(&value, || {
        let lines: Vec<String> = sentences.iter().map(|line| printable(line)).collect();
        lines.join("\n")
    })
}

/// Prints the key that checks what is signed of the log.
fn key(data: &Path, out: Output) -> Result<(), Failure> {
    let key = Keys::open_public(data).map_err(|error| Failure::of(&error))?;
    let key = key.ok_or_else(|| {
        Failure::Failed(
            "there is no key yet; has `portcullis up` run on this directory?".to_owned(),
        )
    })?;
    let value = json!({ "algorithm": "Ed25519", "key": key });
    out.print(&value, || format!("{key}\n"))
}

fn unknown(id: &str) -> Failure {
    let id = printable(id);
    Failure::Failed(format!("the log knows no action or question `{id}`"))
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
    read::story(data, id)
        .await
        .map_err(failed)?
        .ok_or_else(|| unknown(id))
}

fn failed(error: ReadError) -> Failure {
    Failure::of(&error)
}

async fn verify(data: &Path, copies: &[PathBuf], out: Output) -> Result<(), Failure> {
    match read::verify(data, copies).await {
        Ok(verified) => {
            let value = json!({
                "ok": true,
                "records": verified.entries,
                "removed": verified.removed,
                "head": verified.head,
                "checkpoints": verified.checkpoints,
                "signed_to": verified.signed_to,
            });
            out.print(&value, || {
                let removed = match verified.removed {
                    0 => String::new(),
                    older => format!(" after {older} older ones that were removed"),
                };
                format!(
                    "{}: {} records{removed}, head {}, {} checkpoints up to record {}\n",
                    out.word("ok"),
                    verified.entries,
                    verified.head,
                    verified.checkpoints,
                    verified.signed_to
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
        Err(error @ (VerifyError::Db(_) | VerifyError::Key(_) | VerifyError::Checkpoints(_))) => {
            Err(Failure::of(&error))
        }
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
    let result = story.result.as_ref();
    let told = result.and_then(|result| result.told.as_ref());
    let told = told.map(serde_json::to_string_pretty);
    let cut = result.is_some_and(|result| result.cut);
    let title = if cut {
        "what came back, cut off"
    } else {
        "what came back"
    };
    for (title, part) in [("arguments", args), ("_meta", meta), (title, told)] {
        let Some(Ok(part)) = part else { continue };
        let _ = writeln!(text, "{title}");
        for line in printable_lines(&part).lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

#[cfg(test)]
mod tests;
