//! What people of a group wrote, and what trusted sources told: as marks, never as text, and never
//! more than [`PEOPLE`] and [`TOLD`] of them.
//!
//! Of a message only the person's own words count ([`own_words`]): not what they quoted, forwarded or
//! pasted as code. Of an answer only its values count: a letter in it is somebody else's words. What an
//! `untrusted` conversation had put into a call to a server, no answer of that server makes known
//! ([`Soil`]).

use std::collections::{HashSet, VecDeque};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::address::{self, Address, Kind};
use super::words::{Mark, Piece, Sort, is_hidden, pieces, quote, sign_mark, word_mark};
use crate::ids::ActionId;

/// The most marks of what people wrote that are kept of one conversation; the oldest messages go first.
pub const PEOPLE: usize = 32 * 1024;
/// The most marks of what trusted sources told it; the oldest answers go first.
pub const TOLD: usize = 64 * 1024;
/// The most marks of one message or answer.
const ONE: usize = 16 * 1024;
/// The most marks that are kept of what was put into one server.
const SOIL: usize = 64 * 1024;
/// A value of more words than these is a letter.
const LETTER: usize = 12;

/// Who named a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A person of the group wrote it.
    Person {
        /// Who.
        by: String,
        /// In which message, by its number.
        message: i64,
    },
    /// A source that is declared trusted told of it.
    Source {
        /// In the answer to which action.
        action: ActionId,
        /// That action's tool, as people read it.
        tool: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Person { by, .. } => write!(f, "`{by}` wrote it"),
            Self::Source { tool, .. } => write!(f, "`{tool}` told of it"),
        }
    }
}

/// One message or one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Whose.
    pub origin: Origin,
    /// Its words and signs, in their order.
    pub marks: Vec<Mark>,
    /// The addresses in it.
    pub addresses: Vec<Mark>,
}

impl Source {
    /// A person's own words.
    pub fn of_person(by: &str, message: i64, text: &str) -> Self {
        let mut source = Self::new(Origin::Person {
            by: by.to_owned(),
            message,
        });
        for line in own_words(text) {
            source.line(line, None);
        }
        source
    }

    /// The values in the answer of a trusted source: the raw result of an MCP request. Nothing, if it
    /// tells of a failure or cannot be read.
    pub fn of_answer(action: ActionId, tool: String, raw: &str, soil: &Soil) -> Self {
        let mut source = Self::new(Origin::Source { action, tool });
        if soil.full {
            return source;
        }
        let result: Value = serde_json::from_str(raw).unwrap_or_default();
        if result
            .get("isError")
            .is_some_and(|flag| *flag != Value::Bool(false))
        {
            return source;
        }
        if let Some(value) = result.get("structuredContent") {
            source.value(value, soil);
        }
        let lists = ["content", "contents", "messages"];
        let blocks = lists.iter().filter_map(|name| result.get(name)?.as_array());
        for block in blocks.flatten() {
            // Of a prompt's message, its content; of an embedded resource, the resource.
            let inner = block.get("content").or_else(|| block.get("resource"));
            let text = inner.unwrap_or(block).get("text").and_then(Value::as_str);
            if let Some(text) = text {
                source.told(text, soil);
            }
        }
        source
    }

    fn new(origin: Origin) -> Self {
        Self {
            origin,
            marks: Vec::new(),
            addresses: Vec::new(),
        }
    }

    /// Whether nothing can be found in it.
    pub fn is_empty(&self) -> bool {
        self.marks.iter().all(|mark| *mark == Mark::EDGE) && self.addresses.is_empty()
    }

    fn size(&self) -> usize {
        self.marks.len() + self.addresses.len()
    }

    fn is_person(&self) -> bool {
        matches!(self.origin, Origin::Person { .. })
    }

    /// Takes a text that stands by itself.
    fn line(&mut self, text: &str, soil: Option<&Soil>) {
        if self.size() >= ONE {
            return;
        }
        let clean = |mark: &Mark| soil.is_none_or(|soil| !soil.marks.contains(mark));
        self.marks.push(Mark::EDGE);
        let row = pieces(text);
        self.marks.extend(row.iter().map(|piece| match piece.sort {
            Sort::Word if !clean(&piece.mark) => Mark::EDGE,
            Sort::Word | Sort::Sign => piece.mark,
        }));
        self.marks.push(Mark::EDGE);
        let found = address::find(text);
        let marks = found.iter().flat_map(marks_of);
        self.addresses.extend(marks.filter(clean));
    }

    /// Takes a value of a record.
    fn field(&mut self, text: &str, soil: &Soil) {
        if !text.contains('\n') && text.split_whitespace().count() <= LETTER {
            self.line(text, Some(soil));
        }
    }

    /// Takes the values of what came as JSON.
    fn value(&mut self, value: &Value, soil: &Soil) {
        match value {
            Value::String(text) => self.field(text, soil),
            Value::Number(number) => self.field(&number.to_string(), soil),
            Value::Array(items) => items.iter().for_each(|item| self.value(item, soil)),
            Value::Object(members) => members.values().for_each(|item| self.value(item, soil)),
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// Takes what came as text: JSON, or lines with a value each.
    fn told(&mut self, text: &str, soil: &Soil) {
        if let Ok(value) = serde_json::from_str::<Value>(text) {
            return self.value(&value, soil);
        }
        for value in lines(text) {
            self.field(&value, soil);
        }
    }
}

/// The lines of a record. A line that is further in, and is no item and no member, goes on the one
/// before it; a list in brackets is a line for each of its texts.
fn lines(text: &str) -> Vec<String> {
    if text.trim_start().starts_with(['[', '{', '(']) {
        let items = text.replace("\", \"", "', '");
        return items.split("', '").map(str::to_owned).collect();
    }
    let mut all: Vec<String> = Vec::new();
    for line in text.lines() {
        let inner = line.trim();
        let deeper = line.starts_with([' ', '\t']);
        let item = inner.starts_with("- ")
            || inner
                .split_once(':')
                .is_some_and(|(name, _)| !name.contains([' ', '"', '\'']));
        match all.last_mut() {
            Some(last) if (deeper && !item) || inner.is_empty() => {
                last.push(' ');
                last.push_str(inner);
            }
            Some(_) | None => all.push(inner.to_owned()),
        }
    }
    all
}

/// The marks by which an address is found.
fn marks_of(address: &Address) -> Vec<Mark> {
    let mark = |kind: Kind, text: &str| Mark::of(&format!("{kind:?} {text}"));
    let mut all = vec![mark(address.kind, &address.text)];
    if address.kind == Kind::Link {
        // Who names a page names where it is.
        let host = address.text.split(['/', '?', ':']).next();
        all.extend(
            host.filter(|_| !address.text.contains("://"))
                .map(|host| mark(Kind::Host, host)),
        );
    }
    all
}

/// The lines of a message that are the person's own words: without what is quoted (`>`), what is
/// pasted as code, and whatever follows the head of another message.
pub fn own_words(text: &str) -> Vec<&str> {
    let mut own = Vec::new();
    let mut fence = None;
    let mut heads = 0;
    for line in text.lines() {
        let inner = line.trim();
        let mark = ["```", "~~~"]
            .into_iter()
            .find(|mark| inner.starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => {
                // A fence that ends where it begins is a word in a line.
                let closed = inner.get(3..).is_some_and(|rest| rest.contains(mark));
                fence = (!closed).then_some(mark);
                continue;
            }
            (Some(open), Some(mark)) if open == mark => {
                fence = None;
                continue;
            }
            (Some(_), _) => continue,
            (None, None) => {}
        }
        if is_forwarded(inner) {
            break;
        }
        heads = if is_head(inner) { heads + 1 } else { 0 };
        if heads == 2 {
            own.pop();
            break;
        }
        let quoted = inner.starts_with(['>', '|', '┃', '▎', '»']) || inner.starts_with("&gt;");
        let code = line.starts_with("    ") || line.starts_with('\t');
        if !quoted && !code {
            own.push(line);
        }
    }
    own
}

/// Whether a line says that what follows was written by somebody else.
fn is_forwarded(line: &str) -> bool {
    let line = line.to_lowercase();
    let dashes = line.starts_with("--") && line.trim_matches(['-', ' ']).len() > 3;
    let named = [
        "forwarded message",
        "original message",
        "weitergeleitete nachricht",
        "message transféré",
    ];
    let wrote = (line.starts_with("on ") && line.ends_with(" wrote:"))
        || (line.starts_with("am ") && line.ends_with(" schrieb:"))
        || (line.starts_with("le ") && line.ends_with(" a écrit :"));
    (dashes && named.iter().any(|name| line.contains(name)))
        || line.starts_with("begin forwarded message")
        || line.starts_with("forwarded from")
        || wrote
}

/// Whether a line is one of the head of a letter. Two of them begin one.
fn is_head(line: &str) -> bool {
    const HEADS: [&str; 9] = [
        "from", "to", "cc", "date", "sent", "subject", "reply-to", "von", "betreff",
    ];
    line.split_once(':')
        .is_some_and(|(name, _)| HEADS.contains(&name.trim().to_lowercase().as_str()))
}

/// Some of the messages or answers, the newest last, with a limit.
#[derive(Clone, Debug, Default)]
struct Kept {
    all: VecDeque<Source>,
    size: usize,
}

impl Kept {
    fn add(&mut self, source: Source, most: usize) -> bool {
        let same = |one: &Source| one.marks == source.marks && one.addresses == source.addresses;
        if source.is_empty() || self.all.iter().any(same) {
            return false;
        }
        self.size += source.size();
        self.all.push_back(source);
        while self.size > most && self.all.len() > 1 {
            self.size -= self.all.pop_front().map_or(0, |one| one.size());
        }
        true
    }
}

/// All that is known to be chosen in one conversation.
#[derive(Clone, Debug, Default)]
pub struct Known {
    people: Kept,
    told: Kept,
}

impl Known {
    /// Adds a message or an answer; false, if it says nothing new.
    pub fn learn(&mut self, source: Source) -> bool {
        if source.is_person() {
            self.people.add(source, PEOPLE)
        } else {
            self.told.add(source, TOLD)
        }
    }

    /// How many messages are kept, or how many answers: what the origin is.
    pub fn kept(&self, origin: &Origin) -> usize {
        match origin {
            Origin::Person { .. } => self.people.all.len(),
            Origin::Source { .. } => self.told.all.len(),
        }
    }

    /// What people wrote first, then what was told, the newest first.
    fn sources(&self) -> impl Iterator<Item = &Source> {
        self.people
            .all
            .iter()
            .rev()
            .chain(self.told.all.iter().rev())
    }

    /// Who named a value; nothing, if nobody did or it cannot be read.
    pub fn find(&self, value: &str) -> Option<&Origin> {
        if value.chars().any(is_hidden) {
            return None;
        }
        if let Some(origin) = self.one(value) {
            return Some(origin);
        }
        // A list, or a name with an address behind it, as mail programs write them.
        if value.contains([',', ';']) {
            let mut first = None;
            for part in value.split([',', ';']) {
                let origin = self.mailbox(part.trim())?;
                first = first.or(Some(origin));
            }
            return first;
        }
        self.mailbox(value)
    }

    fn mailbox(&self, value: &str) -> Option<&Origin> {
        if value.contains([',', ';']) {
            return None;
        }
        match value
            .strip_suffix('>')
            .and_then(|rest| rest.split_once('<'))
        {
            Some((name, address)) if !name.contains(['@', '<', '>']) && address.contains('@') => {
                self.one(address)
            }
            Some(_) => None,
            None => self.one(value),
        }
    }

    fn one(&self, value: &str) -> Option<&Origin> {
        if let Some(address) = address::whole(value) {
            let wanted = Mark::of(&format!("{:?} {}", address.kind, address.text));
            let named = self
                .sources()
                .find(|source| source.addresses.contains(&wanted));
            if let Some(named) = named {
                return Some(&named.origin);
            }
            if matches!(address.kind, Kind::Mail | Kind::Link) {
                return None;
            }
        } else if value.contains("://")
            || value.get(1..).is_none_or(|rest| rest.contains('@')) && value.len() > 1
        {
            // It was meant to be an address, and none can read it.
            return None;
        }
        self.name(value)
    }

    /// Finds a name, in one piece.
    fn name(&self, value: &str) -> Option<&Origin> {
        let odd = value.starts_with(' ') || value.ends_with(' ') || value.contains("  ");
        if odd || value.chars().any(|c| c.is_whitespace() && c != ' ') {
            return None;
        }
        let row = pieces(value);
        if let Some(origin) = self.row(&row, None) {
            return Some(origin);
        }
        // `#general` is the channel that people call `general`.
        let mut rest = value.chars();
        let sigil = rest.next().filter(|c| matches!(c, '@' | '#'))?;
        self.row(&pieces(rest.as_str()), Some(sigil))
    }

    /// Finds a row of words and signs; with a sigil, not behind the other one.
    fn row(&self, row: &[Piece], sigil: Option<char>) -> Option<&Origin> {
        let first = row.first()?.mark;
        let weak = row.iter().all(|piece| piece.weak);
        if !row.iter().any(|piece| piece.sort == Sort::Word) {
            return None;
        }
        let other = sigil.map(|sigil| sign_mark(if sigil == '@' { '#' } else { '@' }));
        let signs = Signs::new();
        let found = self.sources().find(|source| {
            let marks = &source.marks;
            let starts = marks.iter().enumerate().filter(|(_, mark)| **mark == first);
            starts.into_iter().any(|(at, _)| {
                let Some(there) = marks.get(at..at + row.len()) else {
                    return false;
                };
                let same = there
                    .iter()
                    .zip(row)
                    .all(|(mark, piece)| *mark == piece.mark);
                let before = at.checked_sub(1).and_then(|at| marks.get(at)).copied();
                let after = marks.get(at + row.len()).copied();
                same && (other.is_none() || before != other)
                    && (!weak || signs.set_off(before, after, marks.get(..at), source.is_person()))
            })
        });
        found.map(|source| &source.origin)
    }
}

/// Signs that set a value off from what stands around it.
struct Signs {
    quote: Mark,
    sigils: [Mark; 2],
    before: Vec<Mark>,
    after: Vec<Mark>,
    numbers: Vec<Mark>,
}

impl Signs {
    fn new() -> Self {
        Self {
            quote: quote(),
            sigils: [sign_mark('@'), sign_mark('#')],
            before: [':', ',', '[', '(', '{']
                .map(sign_mark)
                .into_iter()
                .chain([word_mark("-"), Mark::EDGE])
                .collect(),
            after: [',', ';', ']', ')', '}']
                .map(sign_mark)
                .into_iter()
                .chain([Mark::EDGE])
                .collect(),
            numbers: ["id", "no", "nr", "number", "ids"].map(word_mark).to_vec(),
        }
    }

    /// Whether a value that says little by itself was meant as one: quoted, with a sigil, called an id;
    /// in an answer, a value of its own.
    fn set_off(
        &self,
        before: Option<Mark>,
        after: Option<Mark>,
        row: Option<&[Mark]>,
        person: bool,
    ) -> bool {
        let before = before.unwrap_or(Mark::EDGE);
        let after = after.unwrap_or(Mark::EDGE);
        if (before == self.quote && after == self.quote) || self.sigils.contains(&before) {
            return true;
        }
        if person {
            let mut back = row.unwrap_or_default().iter().rev();
            let last = back.find(|mark| {
                !self.before.contains(mark) && **mark != self.quote && **mark != sign_mark('.')
            });
            return last.is_some_and(|mark| self.numbers.contains(mark));
        }
        let edge = |mark| mark == self.quote;
        (edge(before) || self.before.contains(&before))
            && (edge(after) || self.after.contains(&after))
    }
}

/// What `untrusted` conversations put into calls to one server.
#[derive(Clone, Debug, Default)]
pub struct Soil {
    marks: HashSet<Mark>,
    /// It was too much to be kept: nothing that this server tells is trusted any more.
    full: bool,
}

impl Soil {
    /// The words and addresses in arguments that nobody has chosen and that are new here.
    pub fn of_call(&self, args: &Value, known: &Known) -> Vec<Mark> {
        if self.full {
            return Vec::new();
        }
        let mut marks = HashSet::new();
        put(args, &mut marks);
        marks.retain(|mark| !self.marks.contains(mark));
        if !marks.is_empty() {
            for source in known.sources() {
                for mark in source.marks.iter().chain(&source.addresses) {
                    marks.remove(mark);
                }
            }
        }
        let mut marks: Vec<Mark> = marks.into_iter().collect();
        marks.sort();
        marks
    }

    /// Keeps what was put in.
    pub fn add(&mut self, marks: &[Mark]) {
        if self.marks.len() + marks.len() > SOIL {
            self.full = true;
            self.marks = HashSet::new();
        }
        if !self.full {
            self.marks.extend(marks);
        }
    }
}

fn put(value: &Value, marks: &mut HashSet<Mark>) {
    match value {
        Value::String(text) => put_text(text, marks),
        Value::Number(number) => put_text(&number.to_string(), marks),
        Value::Array(items) => items.iter().for_each(|item| put(item, marks)),
        Value::Object(members) => {
            for (name, member) in members {
                put_text(name, marks);
                put(member, marks);
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn put_text(text: &str, marks: &mut HashSet<Mark>) {
    for line in text.lines() {
        // More than can be kept is not looked at any further.
        if marks.len() > SOIL {
            return;
        }
        let words = pieces(line).into_iter();
        marks.extend(
            words
                .filter(|piece| piece.sort == Sort::Word)
                .map(|piece| piece.mark),
        );
        marks.extend(address::find(line).iter().flat_map(marks_of));
    }
}
