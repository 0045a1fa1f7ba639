//! The small parts of which pages are made.
//!
//! A template gets what others wrote only as [`Text`], whose deceptive characters are spelled out;
//! the template engine escapes what means something in HTML.

use std::fmt;

use askama::Template;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse as _, Response};
use jiff::Timestamp;
use policy::approval::State;
use policy::decision::Decision;
use policy::label::Label;
use policy::record::Outcome;
use serde_json::Value;

use crate::api::card::Because;
use crate::text::{printable, printable_lines, prose};

/// Text that somebody else wrote, with nothing in it that deceives a reader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Text(String);

impl Text {
    /// A name or a line.
    pub(super) fn line(text: &str) -> Self {
        Self(printable(text))
    }

    /// Lines as they are: an argument, a result.
    pub(super) fn lines(text: &str) -> Self {
        Self(printable_lines(text))
    }

    /// Running text.
    pub(super) fn prose(text: &str) -> Self {
        Self(prose(text))
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A moment; the page's script says it in the reader's own zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Time {
    /// For programs.
    pub(super) exact: String,
    /// For people without the script.
    pub(super) utc: String,
}

impl From<Timestamp> for Time {
    fn from(at: Timestamp) -> Self {
        Self {
            exact: at.to_string(),
            utc: at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        }
    }
}

/// An argument as it will be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Argument {
    /// Its name; empty where the arguments have none.
    pub(super) name: Text,
    /// All of it.
    pub(super) value: Text,
    /// It needs a box of its own.
    pub(super) long: bool,
    /// How long it is, where that is hard to see.
    pub(super) size: Option<String>,
}

/// Every argument, readable and whole.
pub(super) fn arguments(args: &Value) -> Vec<Argument> {
    match args {
        Value::Null => Vec::new(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| argument(name, value))
            .collect(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            vec![argument("", args)]
        }
    }
}

fn argument(name: &str, value: &Value) -> Argument {
    const LONG: usize = 80;
    const HARD_TO_SEE: usize = 400;
    const LINES: usize = 8;
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => {
            serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    };
    let characters = text.chars().count();
    let lines = text.split('\n').count();
    // Its box scrolls: how much there is must be said before what is seen is taken for all.
    let size = if lines > LINES {
        Some(format!("{lines} lines, {characters} characters"))
    } else {
        (characters > HARD_TO_SEE).then(|| format!("{characters} characters"))
    };
    Argument {
        name: Text::line(name),
        long: characters > LONG || lines > 1,
        size,
        value: Text::lines(&text),
    }
}

/// A few words that hint at the arguments.
pub(super) fn hint(args: &Value) -> Text {
    const WIDEST: usize = 90;
    let plain = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    };
    let all = match args {
        Value::Object(members) => members.values().map(plain).collect::<Vec<_>>().join(" · "),
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => plain(args),
    };
    let one_line = all.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut cut: String = one_line.chars().take(WIDEST).collect();
    if one_line.chars().count() > WIDEST {
        cut.push('…');
    }
    Text::line(&cut)
}

/// A word of ours in the colour of what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// What is read.
    pub(super) text: &'static str,
    /// `good`, `careful`, `bad` or `faint`.
    pub(super) tone: &'static str,
}

impl Word {
    const fn new(text: &'static str, tone: &'static str) -> Self {
        Self { text, tone }
    }
}

impl From<Decision> for Word {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Allow => Self::new("allowed", "good"),
            Decision::Ask => Self::new("asked", "careful"),
            Decision::Deny => Self::new("denied", "bad"),
        }
    }
}

impl From<Outcome> for Word {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Running => Self::new("under way", "careful"),
            Outcome::Ok => Self::new("done", "good"),
            Outcome::Error => Self::new("failed", "bad"),
            Outcome::Refused => Self::new("not done", "faint"),
            Outcome::Unknown => Self::new("unknown", "careful"),
        }
    }
}

impl From<State> for Word {
    fn from(state: State) -> Self {
        match state {
            State::Pending => Self::new("waiting", "careful"),
            State::Approved => Self::new("allowed", "good"),
            State::Denied => Self::new("denied", "bad"),
            State::Expired => Self::new("expired", "faint"),
            State::Withdrawn => Self::new("withdrawn", "faint"),
            State::CallerGone => Self::new("caller gone", "careful"),
        }
    }
}

/// A label with the call that brought it in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Read {
    /// The label's name.
    pub(super) label: &'static str,
    /// What it means.
    pub(super) words: &'static str,
    /// The call.
    pub(super) tool: Text,
    /// The call's id in the log.
    pub(super) action: String,
    /// When.
    pub(super) at: Time,
}

impl From<&Because> for Read {
    fn from(because: &Because) -> Self {
        Self {
            label: because.label.as_str(),
            words: meaning(because.label),
            tool: Text::line(&because.tool),
            action: because.action.to_string(),
            at: because.at.into(),
        }
    }
}

/// What a label says of a conversation.
pub(super) fn meaning(label: Label) -> &'static str {
    match label {
        Label::Untrusted => "what strangers wrote",
        Label::Secret => "what would hurt if it leaked",
    }
}

/// A reason of the policy: the gate that asked, where it was one, and the sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reason {
    /// The gate's name.
    pub(super) gate: Option<Text>,
    /// Why.
    pub(super) words: Text,
}

/// Reasons as they are stored: `gate: words`, or words.
pub(super) fn reasons(all: &[String], gates: &[String]) -> Vec<Reason> {
    let reason = |text: &String| match text.split_once(": ") {
        Some((gate, words)) if gates.iter().any(|one| one == gate) => Reason {
            gate: Some(Text::line(gate)),
            words: Text::line(words),
        },
        Some(_) | None => Reason {
            gate: None,
            words: Text::line(text),
        },
    };
    all.iter().map(reason).collect()
}

/// A page, or a part of one, from its template. A template that cannot be filled in is our mistake.
pub(super) fn page(template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => {
            tracing::error!("a page cannot be shown: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_argument_is_there_whole() {
        let long = "x".repeat(5000);
        let all = arguments(&json!({"to": "a\u{202e}b", "n": 5, "list": ["c"], "body": long}));
        let shown: Vec<String> = all.iter().map(|one| one.value.to_string()).collect();
        assert_eq!(shown, ["a\\u{202e}b", "5", "[\n  \"c\"\n]", &long]);
        assert_eq!(
            all.iter().map(|one| one.long).collect::<Vec<_>>(),
            [false, false, true, true]
        );
        assert_eq!(arguments(&json!("x")).len(), 1);
        // What is below the edge of its box is announced, however short it is.
        let size = |text: String| arguments(&json!({ "a": text })).remove(0).size;
        assert_eq!(size("a\n".repeat(7)), None);
        let tall = size(format!("fine{}not fine", "\n".repeat(40)));
        assert_eq!(tall.unwrap(), "41 lines, 52 characters");
        assert_eq!(size(long).unwrap(), "5000 characters");
    }
}
