//! What can be asked of the log: words, and what a story is filtered by; and the words under which a
//! story is found.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use policy::action::{Digest, Kind};
use policy::record::{Entry, Event, Story};
use serde::Deserialize;
use serde_json::Value;

use crate::db::search::{Bounds, Document};

/// Which stories to tell. What is empty says nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wanted {
    /// How many at most.
    pub limit: Option<usize>,
    /// Only those that began before this position.
    pub before: Option<i64>,
    /// Only those that hold these words; in quotes, one after the other; with a `*`, words that begin
    /// so.
    pub text: String,
    /// Only those of this group.
    pub group: String,
    /// Only those of this kind.
    pub kind: String,
    /// Only those of this server.
    pub server: String,
    /// Only those of this tool.
    pub tool: String,
    /// Only those decided so.
    pub decision: String,
    /// Only those that ended so.
    pub outcome: String,
    /// Only those that this credential asked for.
    pub principal: String,
    /// Only those that this person asked for, answered or did.
    pub person: String,
    /// Only those of a conversation with this label.
    pub label: String,
    /// Only those whose question stands so; `any` for all with a question.
    pub approval: String,
    /// Only those that began at this time or later.
    pub since: String,
    /// Only those that began before this time.
    pub until: String,
}

/// A time that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no time; accepted: such as `2026-01-31`, `2026-01-31T12:00:00Z`, or `24h` for a day ago"
)]
pub struct NoTime(String);

/// Reads a time: a date (UTC), a time after RFC 3339, or how long ago.
///
/// # Errors
/// [`NoTime`], if it is none of these.
pub fn time(text: &str, now: Timestamp) -> Result<Timestamp, NoTime> {
    let ago = crate::config::duration(text).and_then(|ago| now.checked_sub(ago).ok());
    let day = || text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok();
    ago.or_else(|| text.parse().ok())
        .or_else(|| day().map(|day| day.timestamp()))
        .ok_or_else(|| NoTime(text.to_owned()))
}

impl Wanted {
    /// What is looked for in the index. Of what the reader may see only these groups; `None` for all.
    /// With `begins`, the words asked for may be the beginnings of words.
    ///
    /// # Errors
    /// [`NoTime`], if a time cannot be read.
    pub fn bounds(
        &self,
        groups: Option<&[String]>,
        begins: bool,
        now: Timestamp,
    ) -> Result<Bounds, NoTime> {
        let at = |text: &str| match text {
            "" => Ok(None),
            text => time(text, now).map(|at| Some(at.as_millisecond())),
        };
        let mut all: Vec<String> = self
            .filters()
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("tags : {}", tag(name, value)))
            .collect();
        if let Some(groups) = groups {
            let any: Vec<String> = groups.iter().map(|group| tag("group", group)).collect();
            // Of no group: a word that no story has.
            let any = if any.is_empty() {
                tag("group", "\0")
            } else {
                any.join(" OR ")
            };
            all.push(format!("tags : ({any})"));
        }
        let pieces = pieces(&self.text);
        let nothing = !self.text.trim().is_empty() && pieces.is_empty();
        for (piece, star) in &pieces {
            let star = if *star || begins { "*" } else { "" };
            all.push(format!("text : \"{piece}\"{star}"));
        }
        if nothing {
            // Signs alone are words of nobody.
            all.push(format!("tags : {}", tag("group", "\0")));
        }
        Ok(Bounds {
            words: (!all.is_empty()).then(|| all.join(" AND ")),
            before: self.before.unwrap_or(i64::MAX),
            since: at(&self.since)?,
            until: at(&self.until)?,
        })
    }

    /// Whether some words were asked for that could be the beginnings of words.
    pub fn has_words(&self) -> bool {
        pieces(&self.text).iter().any(|(_, star)| !star)
    }

    /// What it is narrowed by besides words and times, by name.
    pub fn filters(&self) -> [(&'static str, &str); 10] {
        [
            ("group", &self.group),
            ("kind", &self.kind),
            ("server", &self.server),
            ("tool", &self.tool),
            ("decision", &self.decision),
            ("outcome", &self.outcome),
            ("principal", &self.principal),
            ("person", &self.person),
            ("label", &self.label),
            ("approval", &self.approval),
        ]
    }

    /// Whether a story is one of those, as far as it tells itself: the index may be a moment behind.
    ///
    /// # Errors
    /// [`NoTime`], if a time cannot be read.
    pub fn fits(&self, story: &Story, now: Timestamp) -> Result<bool, NoTime> {
        let is = |wanted: &str, name: &str| wanted.is_empty() || wanted == name;
        let since = (!self.since.is_empty())
            .then(|| time(&self.since, now))
            .transpose()?;
        let until = (!self.until.is_empty())
            .then(|| time(&self.until, now))
            .transpose()?;
        Ok(is(&self.group, &story.group)
            && is(&self.decision, story.decision.as_str())
            && is(&self.outcome, story.outcome.as_str())
            && (is(&self.kind, kind(story))
                || story.about.is_some_and(|about| about.as_str() == self.kind))
            && since.is_none_or(|since| story.at >= since)
            && until.is_none_or(|until| story.at < until))
    }
}

/// The name of a story's kind. What somebody did to the gateway itself is of none of the five.
pub fn kind(story: &Story) -> &'static str {
    if story.group.is_empty() && story.conversation.is_empty() {
        return "gateway";
    }
    match story.kind {
        Kind::Mcp => "mcp",
        Kind::Model => "model",
        Kind::Network => "network",
        Kind::Local => "local",
        Kind::Host => "host",
    }
}

/// What is asked for: words or, in quotes, phrases, each with whether a `*` ends it. A word that the
/// index takes apart, such as an address, is a phrase of its parts.
fn pieces(text: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    for (n, part) in text.split('"').enumerate() {
        let words: Vec<&str> = if n % 2 == 1 {
            vec![part]
        } else {
            part.split_whitespace().collect()
        };
        for word in words {
            let star = word.ends_with('*');
            let word = spaced(word).replace('\0', " ");
            if word.chars().any(char::is_alphanumeric) {
                found.push((word, star));
            }
        }
    }
    found
}

/// One word for a filter and its value, made so that no text has it.
fn tag(name: &str, value: &str) -> String {
    let digest = Digest::of(format!("{name}={value}").as_bytes());
    format!("x{}", digest.as_str().chars().take(16).collect::<String>())
}

/// Text in which every character of a script without spaces is a word of its own, so that what is
/// written in it can be found.
fn spaced(text: &str) -> String {
    let alone = |c: char| matches!(c, '\u{2e80}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}' | '\u{e00}'..='\u{eff}');
    if !text.chars().any(alone) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        if alone(c) {
            out.extend([' ', c, ' ']);
        } else {
            out.push(c);
        }
    }
    out
}

/// The longest text of a story that is indexed, in bytes.
const LONGEST: usize = 64 * 1024;

/// The words of a story, gathered up to [`LONGEST`].
#[derive(Default)]
struct Words(String);

impl Words {
    fn add(&mut self, text: &str) {
        if self.0.len() < LONGEST {
            let room = LONGEST - self.0.len();
            let end = (0..=room.min(text.len()))
                .rev()
                .find(|end| text.is_char_boundary(*end));
            let (text, _) = text.split_at_checked(end.unwrap_or(0)).unwrap_or_default();
            self.0.push_str(&spaced(text));
            self.0.push('\n');
        }
    }

    /// The names and values in a JSON value.
    fn add_json(&mut self, value: &Value) {
        match value {
            Value::Null | Value::Bool(_) => {}
            Value::Number(number) => self.add(&number.to_string()),
            Value::String(text) => self.add(text),
            Value::Array(items) => items.iter().for_each(|item| self.add_json(item)),
            Value::Object(members) => {
                for (name, value) in members {
                    self.add(name);
                    self.add_json(value);
                }
            }
        }
    }
}

/// What the index keeps of the story that these entries tell; `None` if they tell none.
pub(super) fn document(entries: &[Entry]) -> Option<Document> {
    let story = super::read::told(entries)?;
    let mut words = Words::default();
    let mut tags = Vec::new();
    let mut put = |name: &str, value: &str| {
        if !value.is_empty() {
            tags.push(tag(name, value));
        }
    };
    put("group", &story.group);
    put("kind", kind(&story));
    put(
        "kind",
        story
            .about
            .map(policy::record::About::as_str)
            .unwrap_or_default(),
    );
    put("tool", &story.tool);
    put("decision", story.decision.as_str());
    put("outcome", story.outcome.as_str());
    put("principal", &story.principal);
    // Without what its owner calls it.
    put(
        "principal",
        story.principal.split(" (").next().unwrap_or_default(),
    );
    put("person", person(&story.principal));
    for label in &story.labels {
        put("label", label);
    }
    for text in [
        story.id.as_str(),
        &story.tool,
        &story.group,
        &story.conversation,
        &story.principal,
    ] {
        words.add(text);
    }
    if let Some(answer) = &story.answer {
        put("approval", "any");
        put("approval", answer.state.as_str());
        put(
            "person",
            answer.by.as_deref().map(person).unwrap_or_default(),
        );
        words.add(answer.id.as_str());
        for text in [&answer.by, &answer.reason].into_iter().flatten() {
            words.add(text);
        }
    }
    for entry in entries {
        if let Ok(Event::Decided { facts, .. }) = serde_json::from_str(&entry.body) {
            put("server", &facts.action.server);
            put("person", facts.person.as_deref().unwrap_or_default());
            words.add(facts.action.run.as_str());
        }
    }
    words.add_json(&story.args);
    if let Some(meta) = &story.meta {
        meta.values().for_each(|value| words.add_json(value));
    }
    if let Some(told) = story
        .result
        .as_ref()
        .and_then(|result| result.told.as_ref())
    {
        words.add_json(told);
    }
    let rest = [&story.rules, &story.labels, &story.reasons];
    for text in rest.into_iter().flatten().chain(&story.detail) {
        words.add(text);
    }
    Some(Document {
        seq: story.seq,
        id: story.id.to_string(),
        at: story.at.as_millisecond(),
        text: words.0,
        tags: tags.join(" "),
    })
}

/// The name of the person that did something, without the way they did it by.
fn person(by: &str) -> &str {
    let name = by.split(" (").next().unwrap_or_default();
    name.strip_prefix("user:").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_phrases_and_beginnings_are_read_from_what_a_person_typed() {
        let read = |text: &str| -> Vec<String> {
            let star = |(piece, star): (String, bool)| piece + if star { "+" } else { "" };
            pieces(text).into_iter().map(star).collect()
        };
        assert_eq!(
            read("ana@example.org  letter"),
            ["ana@example.org", "letter"]
        );
        assert_eq!(read("\"dear ana\" post*"), ["dear ana", "post*+"]);
        assert_eq!(read("-- \"\" ) ("), Vec::<String>::new());
        assert_eq!(read("あい"), [" あ  い "]);
    }

    #[test]
    fn times_are_dates_moments_and_how_long_ago() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        for (text, at) in [
            ("2026-01-31", "2026-01-31T00:00:00Z"),
            ("2026-01-31T12:30:00+02:00", "2026-01-31T10:30:00Z"),
            ("36h", "2026-02-28T00:00:00Z"),
        ] {
            assert_eq!(time(text, now).unwrap().to_string(), at, "{text}");
        }
        assert!(time("yesterday", now).is_err());
    }
}
