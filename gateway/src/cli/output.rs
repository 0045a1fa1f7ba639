//! What a person reads: tables, colours, times. One write to standard output per command, so that
//! `--json` is exactly one value and a closed pipe is no panic.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::Failure;
use crate::config::env_var;
use crate::text::{printable, printable_json};

/// Where a command's answer goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    /// One JSON value instead of text.
    pub(super) json: bool,
    colour: bool,
}

/// Whether a stream shows colours.
pub(super) fn colour(stream: &impl IsTerminal) -> bool {
    // https://no-color.org: present and not empty.
    let refused = env_var("NO_COLOR").is_some_and(|text| !text.is_empty());
    let dumb = env_var("TERM").is_some_and(|term| term == "dumb");
    !refused && !dumb && stream.is_terminal()
}

/// Says on standard error what went wrong.
pub(super) fn complain(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = writeln!(stderr, "{text}");
}

/// The colour of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Careful,
    Bad,
    Faint,
}

/// A cell of a table: text that was made safe to show.
#[derive(Clone, Debug)]
pub(super) struct Cell(String, Tone);

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self(printable(text.as_ref()), Tone::Plain)
    }
}

impl Cell {
    /// A word in the colour of what it means.
    pub(super) fn word(text: &str) -> Self {
        Self(printable(text), tone(text))
    }
}

/// What a word of ours means for a person.
fn tone(word: &str) -> Tone {
    match word {
        "allow" | "ok" | "approved" | "ready" | "running" => Tone::Good,
        "ask" | "pending" | "caller_gone" | "warn" | "unknown" | "starting" | "changed" | "new" => {
            Tone::Careful
        }
        "deny" | "denied" | "error" | "failed" | "fail" | "refused" | "expired" | "gone" => {
            Tone::Bad
        }
        "idle" | "stopped" | "withdrawn" | "pinned" | "-" => Tone::Faint,
        _ => Tone::Plain,
    }
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            colour: !json && colour(&io::stdout()),
        }
    }

    /// Prints a JSON value, or what `text` makes of it.
    pub(super) fn print<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let mut whole = if self.json {
            printable_json(&serde_json::to_string(value).map_err(|error| Failure::of(&error))?)
        } else {
            text()
        };
        if !whole.ends_with('\n') {
            whole.push('\n');
        }
        write(&whole)
    }

    /// A text in a colour, where there are any.
    pub(super) fn paint(self, text: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Plain => "",
            Tone::Good => "32",
            Tone::Careful => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
        };
        if self.colour && !code.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// A word in the colour of what it means.
    pub(super) fn word(self, text: &str) -> String {
        self.paint(&printable(text), tone(text))
    }

    /// An aligned table; `none` where there are no rows.
    pub(super) fn table(self, head: &[&str], rows: Vec<Vec<Cell>>, none: &str) -> String {
        if rows.is_empty() {
            return format!("{none}\n");
        }
        let head = head
            .iter()
            .map(|text| Cell((*text).to_owned(), Tone::Faint))
            .collect();
        self.lines(std::iter::once(head).chain(rows).collect())
    }

    /// Aligned lines without a head.
    pub(super) fn lines(self, rows: Vec<Vec<Cell>>) -> String {
        let mut widths: Vec<usize> = Vec::new();
        for row in &rows {
            for (n, cell) in row.iter().enumerate() {
                let width = cell.0.chars().count();
                match widths.get_mut(n) {
                    Some(widest) => *widest = (*widest).max(width),
                    None => widths.push(width),
                }
            }
        }
        let mut out = String::new();
        for row in rows {
            let last = row.len().saturating_sub(1);
            for (n, (Cell(text, tone), width)) in row.into_iter().zip(&widths).enumerate() {
                let gap = if n == last {
                    0
                } else {
                    width.saturating_sub(text.chars().count()) + 2
                };
                let _ = write!(out, "{}{:gap$}", self.paint(&text, tone), "");
            }
            out.truncate(out.trim_end_matches(' ').len());
            out.push('\n');
        }
        out
    }
}

/// Writes a piece of an output that goes on. Where nobody reads any more, there is nothing to say.
pub(super) fn say(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    written.map_err(|error| {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Failure::Told(0)
        } else {
            Failure::Failed(format!("cannot write the answer: {error}"))
        }
    })
}

/// Writes an output that is whole. That nobody reads it is no failure.
fn write(text: &str) -> Result<(), Failure> {
    match say(text) {
        Err(Failure::Told(0)) => Ok(()),
        other => other,
    }
}

/// A moment, in UTC, to the second.
pub(super) fn utc(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A moment as another program wrote it, in UTC; as it was if it is none.
pub(super) fn utc_text(at: &str) -> String {
    at.parse().map_or_else(|_| at.to_owned(), utc)
}

/// How far a moment is from now.
pub(super) fn from_now(at: Timestamp, now: Timestamp) -> String {
    let seconds = at.as_second() - now.as_second();
    let span = span(Duration::from_secs(seconds.unsigned_abs()));
    if seconds >= 0 {
        format!("in {span}")
    } else {
        format!("{span} ago")
    }
}

/// A duration in its two largest units.
pub(super) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}m {rest}s"),
        (0, _, _) => format!("{hours}h {minutes}m"),
        (_, _, _) => format!("{days}d {hours}h"),
    }
}

/// A text on one line of a table, cut where it is long.
pub(super) fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars()
        .take(most.saturating_sub(1))
        .chain(['…'])
        .collect()
}
