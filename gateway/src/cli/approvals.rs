//! `approvals`, `approve`, `deny`: a person's word, given on a terminal.

use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Failure;
use super::client::{Client, rows, shown, text};
use super::output::{Cell, Output, from_now, utc_text};
use crate::config::{DURATION, duration};
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
    /// The question's id; several for those that are alike.
    #[arg(required = true)]
    id: Vec<String>,
    /// For how long.
    #[arg(long = "for", value_enum, default_value_t = For::Once, value_name = "HOW LONG")]
    scope: For,
    /// Run it although who asked has gone.
    #[arg(long)]
    run_anyway: bool,
    /// Of `--for always`: take this of the proposed rules.
    #[arg(long, value_name = "N", conflicts_with = "yes")]
    rule: Option<usize>,
    /// Of `--for always`: take the first of the proposed rules, the narrowest.
    #[arg(long)]
    yes: bool,
    /// Of `--for always`: how long the rule counts.
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = ttl)]
    ttl: u64,
    /// Allow it with these arguments instead, a JSON object.
    #[arg(long, value_name = "JSON", conflicts_with_all = ["scope", "rule", "yes"])]
    args: Option<String>,
}

fn ttl(text: &str) -> Result<u64, String> {
    match duration(text) {
        Some(duration) if duration.as_secs() > 0 => Ok(duration.as_secs()),
        Some(_) | None => Err(DURATION.to_owned()),
    }
}

#[derive(Debug, Args)]
pub(super) struct Deny {
    /// The question's id; several for those that are alike.
    #[arg(required = true)]
    id: Vec<String>,
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
    if !text(question, "edits").is_empty() {
        line(
            "changed",
            format!(
                "a person changed the arguments of {}",
                text(question, "edits")
            ),
        );
    }
    let alike = text(question, "batch");
    if matches!(state, "pending") && !alike.is_empty() && alike != text(question, "id") {
        line("alike", format!("came together with {alike}"));
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
    if let Some(args) = &approve.args {
        let args: Value = serde_json::from_str(args)
            .map_err(|error| Failure::Usage(format!("--args: this is no JSON: {error}")))?;
        let id = one_only(&approve.id)?;
        let client = client()?;
        let question = client
            .post(&["approvals", id, "edit"], json!({ "args": args }))
            .await?;
        return told(&question, "approve", out);
    }
    let scope = match approve.scope {
        For::Once => "once",
        For::Run => "run",
        For::Always => {
            let id = one_only(&approve.id)?;
            let chosen = if approve.yes { Some(1) } else { approve.rule };
            let client = client()?;
            let offers = Offers::of(id, approve.ttl, &client).await?;
            let mut body = offers.body(chosen, out)?;
            body.insert("for".to_owned(), json!("always"));
            body.insert("run_anyway".to_owned(), json!(approve.run_anyway));
            let body = Value::Object(body);
            let question = client.post(&["approvals", id, "approve"], body).await?;
            return told(&question, "approve", out);
        }
    };
    let body = json!({"for": scope, "run_anyway": approve.run_anyway});
    answer(&approve.id, "approve", body, &client()?, out).await
}

fn one_only(ids: &[String]) -> Result<&str, Failure> {
    match ids {
        [one] => Ok(one),
        _ => Err(Failure::Usage(
            "this is said to one question at a time".to_owned(),
        )),
    }
}

type Body = serde_json::Map<String, Value>;

/// The rules that are proposed for a question.
pub(super) struct Offers {
    offers: Value,
    ttl: u64,
}

impl Offers {
    pub(super) async fn of(id: &str, ttl: u64, client: &Client) -> Result<Self, Failure> {
        let seconds = ttl.to_string();
        let query = [("ttl_seconds", seconds.as_str())];
        let offers = client.get(&["approvals", id, "rules"], &query).await?;
        Ok(Self { offers, ttl })
    }

    /// What is sent for the one that is taken; where none is, they are printed.
    pub(super) fn body(&self, chosen: Option<usize>, out: Output) -> Result<Body, Failure> {
        let offers = rows(&self.offers);
        let Some(number) = chosen else {
            out.print(&self.offers, || offers_told(offers))?;
            super::output::complain(
                "nothing was decided; take one with `--rule N`, or the first with `--yes`",
            );
            return Err(Failure::Told(2));
        };
        let offer = number.checked_sub(1).and_then(|n| offers.get(n));
        let offer = offer
            .ok_or_else(|| Failure::Usage(format!("--rule: accepted: 1 to {}", offers.len())))?;
        let of_offer = |name: &str| offer.get(name).cloned().unwrap_or(Value::Null);
        let members = [
            ("rule", of_offer("width")),
            ("when", of_offer("when")),
            ("ttl_seconds", json!(self.ttl)),
        ];
        let members = members.into_iter();
        Ok(members
            .map(|(name, value)| (name.to_owned(), value))
            .collect())
    }
}

/// Proposed rules as a person reads them: in words, what they would have done, and in TOML.
pub(super) fn offers_told(offers: &[Value]) -> String {
    let mut told = String::new();
    for (n, offer) in offers.iter().enumerate() {
        let _ = writeln!(
            told,
            "{}. {}\n   until {} UTC; {}",
            n + 1,
            printable(text(offer, "words")),
            utc_text(text(offer, "until")),
            printable(text(offer, "said")),
        );
        for line in text(offer, "toml").lines() {
            let _ = writeln!(told, "     {}", printable(line));
        }
        told.push('\n');
    }
    told
}

pub(super) async fn deny(deny: Deny, client: &Client, out: Output) -> Result<(), Failure> {
    let body = json!({"reason": deny.reason});
    answer(&deny.id, "deny", body, client, out).await
}

/// Each by itself: that one was answered by somebody else stops none of the others.
async fn answer(
    ids: &[String],
    word: &str,
    body: Value,
    client: &Client,
    out: Output,
) -> Result<(), Failure> {
    if let [id] = ids {
        let question = client.post(&["approvals", id, word], body).await?;
        return told(&question, word, out);
    }
    let (mut questions, mut failed) = (Vec::new(), None);
    for id in ids {
        match client.post(&["approvals", id, word], body.clone()).await {
            Ok(question) => questions.push(question),
            Err(failure) => {
                super::output::complain(&failure.to_string());
                failed = Some(Failure::Told(failure.code()));
            }
        }
    }
    let all = json!(questions);
    out.print(&all, || {
        questions.iter().map(|one| line(one, word, out)).collect()
    })?;
    failed.map_or(Ok(()), Err)
}

fn told(question: &Value, word: &str, out: Output) -> Result<(), Failure> {
    out.print(question, || line(question, word, out))
}

fn line(question: &Value, word: &str, out: Output) -> String {
    let others = if word == "approve" && text(question, "state") == "pending" {
        "; it takes another yes, too"
    } else {
        ""
    };
    format!(
        "{}: {} in group {} ({}){others}\n",
        out.word(text(question, "state")),
        printable(text(question, "tool")),
        printable(text(question, "group")),
        printable(text(question, "id")),
    )
}
