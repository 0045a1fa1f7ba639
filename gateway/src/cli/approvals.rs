//! `approvals`, `approve`, `deny`: a person's word, given on a terminal.

use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Failure;
use super::client::{Client, rows, shown, text};
use super::output::{Cell, Output, from_now, utc_text};
use crate::text::printable;

/// For how long a yes counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum For {
    /// This call.
    Once,
    /// This tool, until the task ends.
    Run,
    /// From now on, as a rule.
    Always,
}

#[derive(Debug, Args)]
pub(super) struct Approve {
    /// The question's id.
    id: String,
    /// For how long.
    #[arg(long = "for", value_enum, default_value_t = For::Once, value_name = "HOW LONG")]
    scope: For,
    /// Run it although who asked has gone.
    #[arg(long)]
    run_anyway: bool,
}

#[derive(Debug, Args)]
pub(super) struct Deny {
    /// The question's id.
    id: String,
    /// What the agent is told.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(super) async fn list(all: bool, client: &Client, out: Output) -> Result<(), Failure> {
    let query: &[(&str, &str)] = if all { &[("all", "true")] } else { &[] };
    let value = client.get(&["approvals"], query).await?;
    out.print(&value, || {
        let now = Timestamp::now();
        let questions = rows(&value);
        if questions.is_empty() {
            return "no question waits for an answer\n".to_owned();
        }
        questions
            .iter()
            .map(|question| one(question, now, out))
            .collect::<Vec<_>>()
            .join("\n")
    })
}

/// A question as a person reads it in a list: what, why, and how it was answered.
fn one(question: &Value, now: Timestamp, out: Output) -> String {
    shown_as(question, now, out, cut)
}

/// The same with every argument whole, to be answered where it stands.
pub(super) fn whole(question: &Value, now: Timestamp, out: Output) -> String {
    shown_as(question, now, out, str::to_owned)
}

/// How a question came to its end, in a line.
pub(super) fn ended(question: &Value, out: Output) -> String {
    let by = match text(question, "decided_by") {
        "" => String::new(),
        by => format!(" by {}", printable(by)),
    };
    let reason = match text(question, "reason") {
        "" => String::new(),
        reason => format!(": {}", printable(reason)),
    };
    format!(
        "{}  {}{by}{reason}  {}  in group {}\n",
        printable(text(question, "id")),
        out.word(text(question, "state")),
        printable(text(question, "tool")),
        printable(text(question, "group")),
    )
}

fn shown_as(question: &Value, now: Timestamp, out: Output, cut: fn(&str) -> String) -> String {
    let state = text(question, "state");
    let mut head = format!(
        "{}  {}  {}",
        printable(text(question, "id")),
        out.word(state),
        printable(text(question, "tool"))
    );
    let _ = write!(head, "  in group {}", printable(text(question, "group")));
    let mut lines: Vec<Vec<Cell>> = Vec::new();
    let mut line =
        |name: &str, value: String| lines.push(vec!["  ".into(), name.into(), value.into()]);
    if let Some(args) = question.get("args").filter(|args| !args.is_null()) {
        match args.as_object().filter(|members| !members.is_empty()) {
            Some(members) => {
                for (n, (name, value)) in members.iter().enumerate() {
                    let label = if n == 0 { "arguments" } else { "" };
                    let value = value
                        .as_str()
                        .map_or_else(|| value.to_string(), str::to_owned);
                    line(label, format!("{name} = {}", cut(&value)));
                }
            }
            None => line("arguments", cut(&args.to_string())),
        }
    }
    for (n, reason) in rows(question.get("reasons").unwrap_or(&Value::Null))
        .iter()
        .enumerate()
    {
        line(
            if n == 0 { "why" } else { "" },
            reason.as_str().unwrap_or_default().to_owned(),
        );
    }
    for (n, label) in rows(question.get("because").unwrap_or(&Value::Null))
        .iter()
        .enumerate()
    {
        let words = match text(label, "label") {
            "untrusted" => "what strangers wrote",
            "secret" => "what would hurt if it leaked",
            other => other,
        };
        let (tool, action) = (text(label, "tool"), text(label, "action"));
        let at = utc_text(text(label, "at"));
        line(
            if n == 0 { "it had read" } else { "" },
            format!("{words}, since {tool} at {at} UTC ({action})"),
        );
    }
    let needed = question.get("people").and_then(Value::as_u64).unwrap_or(1);
    if needed > 1 {
        let agreed = rows(question.get("agreed").unwrap_or(&Value::Null));
        let names: Vec<&str> = agreed.iter().map(|one| text(one, "by")).collect();
        let names = if names.is_empty() {
            "nobody yet".to_owned()
        } else {
            names.join(", ")
        };
        line("said yes", format!("{} of {needed}: {names}", agreed.len()));
    }
    line(
        "asked",
        format!("{} UTC", utc_text(text(question, "asked_at"))),
    );
    if matches!(state, "pending" | "caller_gone") {
        let expires = text(question, "expires_at");
        let left = expires
            .parse()
            .map_or_else(|_| String::new(), |at| format!(", {}", from_now(at, now)));
        line("expires", format!("{} UTC{left}", utc_text(expires)));
        line("may answer", shown(question, "approvers"));
    } else {
        line("decided by", shown(question, "decided_by"));
        line("outcome", shown(question, "outcome"));
    }
    if state == "caller_gone" {
        line(
            "note",
            "who asked has gone: only `--run-anyway` still runs it".to_owned(),
        );
    }
    format!("{head}\n{}", out.lines(lines))
}

/// The most characters of one argument that are shown.
const WIDEST: usize = 2000;

/// An argument as it will be sent; where it is too long to read, how much is missing is said, for
/// nobody should approve what they have not seen.
fn cut(text: &str) -> String {
    let count = text.chars().count();
    if count <= WIDEST {
        return text.to_owned();
    }
    let shown: String = text.chars().take(WIDEST).collect();
    let more = count - WIDEST;
    format!("{shown}… ({more} characters are not shown here; `--json` shows all)")
}

pub(super) async fn approve(
    approve: Approve,
    client: impl FnOnce() -> Result<Client, Failure>,
    out: Output,
) -> Result<(), Failure> {
    let scope = match approve.scope {
        For::Once => "once",
        For::Run => "run",
        For::Always => {
            return Err(Failure::Usage(
                "`--for always` comes in a later version; accepted now: `once`, `run`".to_owned(),
            ));
        }
    };
    let body = json!({"for": scope, "run_anyway": approve.run_anyway});
    answer(&approve.id, "approve", body, &client()?, out).await
}

pub(super) async fn deny(deny: Deny, client: &Client, out: Output) -> Result<(), Failure> {
    let body = json!({"reason": deny.reason});
    answer(&deny.id, "deny", body, client, out).await
}

async fn answer(
    id: &str,
    word: &str,
    body: Value,
    client: &Client,
    out: Output,
) -> Result<(), Failure> {
    let question = client.post(&["approvals", id, word], body).await?;
    out.print(&question, || {
        let others = if word == "approve" && text(&question, "state") == "pending" {
            "; it takes somebody else's yes, too"
        } else {
            ""
        };
        format!(
            "{}: {} in group {} ({}){others}\n",
            out.word(text(&question, "state")),
            printable(text(&question, "tool")),
            printable(text(&question, "group")),
            printable(id),
        )
    })
}
