//! `tools`: what the servers offer, how that differs from what was pinned, and a person's answer.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Failure;
use super::client::{Client, rows, shown, text};
use super::output::{self, Cell, Output, Tone, short, utc_text};
use crate::catalog::diff::cut;
use crate::text::{printable, printable_lines};

/// How much of a question's digest is shown: what an answer has to name of it.
const DIGITS: usize = 16;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show how servers differ from what was pinned of them.
    Diff {
        /// Only this server.
        server: Option<String>,
    },
    /// Take over what a server is now, and pin that.
    Accept(Answer),
    /// Keep what was pinned of a server, and be asked no more about how it is now.
    Reject(Answer),
}

#[derive(Debug, Args)]
pub(super) struct Answer {
    /// The server.
    server: String,
    /// Only its tool, prompt or template of this name.
    name: Option<String>,
    /// What `tools diff` calls this change: an answer to it, and to no later one.
    #[arg(long, value_name = "DIGEST")]
    digest: Option<String>,
}

pub(super) async fn run(
    command: Option<Command>,
    client: &Client,
    out: Output,
) -> Result<(), Failure> {
    match command {
        None => list(client, out).await,
        Some(Command::Diff { server }) => diff(server.as_deref(), client, out).await,
        Some(Command::Accept(answer)) => answered(answer, "accept", client, out).await,
        Some(Command::Reject(answer)) => answered(answer, "keep", client, out).await,
    }
}

async fn list(client: &Client, out: Output) -> Result<(), Failure> {
    let value = client.get(&["tools"], &[]).await?;
    let pins = client.get(&["pins"], &[]).await?;
    out.print(&value, || {
        let rows = rows(&value)
            .iter()
            .map(|tool| {
                let title = match text(tool, "title") {
                    "" => text(tool, "description"),
                    title => title,
                };
                let line = title.lines().next().unwrap_or_default();
                vec![
                    text(tool, "name").into(),
                    shown(tool, "server").into(),
                    Cell::word(text(tool, "state")),
                    short(line, 80).into(),
                ]
            })
            .collect();
        let table = out.table(
            &["TOOL", "SERVER", "STATE", "DOES"],
            rows,
            "no tools are known; they are once a server has been started",
        );
        table + &warned(&pins, out)
    })
}

/// What there is to look at, a line each.
fn warned(pins: &Value, out: Output) -> String {
    let mut all = String::new();
    for pin in rows(pins) {
        for warning in pin.get("warnings").map(rows).unwrap_or_default() {
            let line = format!(
                "{}__{}: {}",
                text(pin, "server"),
                text(warning, "tool"),
                text(warning, "text")
            );
            let _ = writeln!(all, "{}", out.paint(&printable(&line), Tone::Careful));
        }
    }
    all
}

/// The changed servers, of one name or all.
async fn changed(server: Option<&str>, client: &Client) -> Result<Vec<Value>, Failure> {
    let value = client.get(&["pins"], &[]).await?;
    let mut pins = rows(&value).to_vec();
    if let Some(server) = server {
        pins.retain(|pin| text(pin, "server") == server);
        if pins.is_empty() {
            let text = format!("nothing is known of a server `{}`", printable(server));
            return Err(Failure::Failed(text));
        }
    }
    pins.retain(|pin| {
        pin.get("differences")
            .is_some_and(|all| !rows(all).is_empty())
    });
    Ok(pins)
}

async fn diff(server: Option<&str>, client: &Client, out: Output) -> Result<(), Failure> {
    let pins = changed(server, client).await?;
    out.print(&pins, || {
        if pins.is_empty() {
            return "every server is as it was pinned\n".to_owned();
        }
        let all: Vec<String> = pins.iter().map(|pin| whole(pin, None, out)).collect();
        all.join("\n")
    })
}

/// How a server differs, whole: nobody answers to what they have not seen.
fn whole(pin: &Value, only: Option<&str>, out: Output) -> String {
    let server = printable(text(pin, "server"));
    let by = match text(pin, "pinned_by") {
        "" => "trusted on first use".to_owned(),
        by => format!("accepted by {}", printable(by)),
    };
    let mut all = format!(
        "{server} is not what was pinned on {} UTC ({by})\n",
        utc_text(text(pin, "pinned_at"))
    );
    let differences = pin.get("differences").map(rows).unwrap_or_default();
    let named = |one: &&Value| only.is_none_or(|name| text(one, "name") == name);
    for one in differences.iter().filter(named) {
        let _ = writeln!(
            all,
            "\n  {}",
            out.paint(&printable(text(one, "told")), Tone::Careful)
        );
        for part in one.get("parts").map(rows).unwrap_or_default() {
            let place = match text(part, "place") {
                "" => "text",
                place => place,
            };
            let _ = writeln!(all, "    {}", out.paint(&printable(place), Tone::Faint));
            all.push_str(&sides(
                part.get("was").and_then(Value::as_str),
                part.get("is").and_then(Value::as_str),
                out,
            ));
        }
    }
    for warning in pin.get("warnings").map(rows).unwrap_or_default() {
        let line = format!(
            "look at `{}`: it {}",
            text(warning, "tool"),
            text(warning, "text")
        );
        let _ = writeln!(all, "\n  {}", out.paint(&printable(&line), Tone::Bad));
    }
    let digest: String = text(pin, "question").chars().take(DIGITS).collect();
    let _ = writeln!(
        all,
        "\n  Agents are told what was pinned, and calls to what changed ask a person. Answer with\n    \
         portcullis tools accept {server} --digest {digest}\n    \
         portcullis tools reject {server} --digest {digest}"
    );
    all
}

/// What was and what is, line by line, with what differs in colour.
fn sides(was: Option<&str>, is: Option<&str>, out: Output) -> String {
    let parted = cut(was.unwrap_or_default(), is.unwrap_or_default());
    let side = |mark: &str, text: &str, tone| {
        let safe = printable_lines(text);
        let painted: Vec<String> = safe.split('\n').map(|line| out.paint(line, tone)).collect();
        // Every line begins with the mark, so that none passes for a word of ours.
        painted.join(&format!("\n    {mark} "))
    };
    let line = |mark: &str, middle: &str, tone| {
        let [before, middle, after] = [
            side(mark, parted.before, Tone::Plain),
            side(mark, middle, tone),
            side(mark, parted.after, Tone::Plain),
        ];
        format!("    {mark} {before}{middle}{after}\n")
    };
    let mut both = String::new();
    if was.is_some() {
        both.push_str(&line("-", parted.was, Tone::Bad));
    }
    if is.is_some() {
        both.push_str(&line("+", parted.is, Tone::Good));
    }
    both
}

async fn answered(answer: Answer, word: &str, client: &Client, out: Output) -> Result<(), Failure> {
    let Answer {
        server,
        name,
        digest,
    } = answer;
    let digest = if let Some(digest) = digest {
        digest
    } else {
        let pins = changed(Some(&server), client).await?;
        let Some(pin) = pins.first() else {
            let text = format!("`{server}` is as it was pinned: there is nothing to answer");
            return Err(Failure::Failed(text));
        };
        // Not on standard output: that is for the answer.
        output::complain(&whole(pin, name.as_deref(), out));
        if !agreed(word)? {
            return Err(Failure::Failed("nothing was changed".to_owned()));
        }
        text(pin, "question").to_owned()
    };
    let body = json!({ "question": digest, "name": name });
    let pins = client.post(&["pins", &server, word], body).await?;
    out.print(&pins, || {
        let left = rows(&pins).first().and_then(|pin| pin.get("differences"));
        let left = left.map_or(0, |left| rows(left).len());
        let said = match word {
            "accept" => "accepted: agents are told what it is now",
            _ => "kept: agents are told what was pinned",
        };
        let more = match left {
            0 => String::new(),
            left => format!(" ({left} more wait for an answer)"),
        };
        format!("{}: {said}{more}\n", printable(&server))
    })
}

/// Whether the person at the terminal says yes to what they were just shown.
fn agreed(word: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Failed(
            "say with `--digest` which change this is the answer to".to_owned(),
        ));
    }
    let asked = match word {
        "accept" => "Accept what it is now?",
        _ => "Keep what was pinned?",
    };
    let mut stderr = io::stderr().lock();
    let _ = write!(stderr, "{asked} [y/N] ");
    let _ = stderr.flush();
    let mut line = String::new();
    io::stdin()
        .read_line(&mut line)
        .map_err(|error| Failure::of(&error))?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}
