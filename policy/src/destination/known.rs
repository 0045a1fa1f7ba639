//! What people of a group wrote, and what trusted sources told: as marks, never as text, and never
//! more than [`PEOPLE`] and [`TOLD`] of them.
//!
//! Of a message only the person's own words count ([`own_words`]): not what they quoted, forwarded or
//! pasted as code. Of an answer in the form of a record only whole values count: an address in a letter
//! is somebody else's word, whoever keeps the letter. What a conversation put into a call to a server
//! after it had read something, no answer of that server makes known ([`Soil`]).

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
    /// The addresses in it, and the values of a record as a whole.
    pub values: Vec<Mark>,
}

impl Source {
    /// A person's own words.
    pub fn of_person(by: &str, message: i64, text: &str) -> Self {
        let mut source = Self::new(Origin::Person {
            by: by.to_owned(),
            message,
        });
        for line in own_words(text) {
            source.line(line, &|_| false);
        }
        source
    }

    /// What the answer of a trusted source makes known: the raw result of an MCP request. Nothing, if it
    /// tells of a failure or cannot be read. `own` is what the call itself put in.
    pub fn of_answer(action: ActionId, tool: String, raw: &str, soil: &Soil, own: &[Mark]) -> Self {
        let mut source = Self::new(Origin::Source { action, tool });
        let result: Value = serde_json::from_str(raw).unwrap_or_default();
        let failed = result
            .get("isError")
            .is_some_and(|flag| *flag != Value::Bool(false));
        if soil.full || failed {
            return source;
        }
        let stray = |mark: &Mark| soil.marks.contains(mark) || own.contains(mark);
        if let Some(value) = result.get("structuredContent") {
            source.value(value, &stray);
        }
        let lists = ["content", "contents", "messages"];
        let blocks = lists.iter().filter_map(|name| result.get(name)?.as_array());
        for block in blocks.flatten() {
            // Of a prompt's message, its content; of an embedded resource, the resource.
            let inner = block.get("content").or_else(|| block.get("resource"));
            let text = inner.unwrap_or(block).get("text").and_then(Value::as_str);
            if let Some(text) = text {
                source.told(text, &stray);
            }
        }
        source
    }

    fn new(origin: Origin) -> Self {
        Self {
            origin,
            marks: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Whether nothing can be found in it.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && self.marks.iter().all(|mark| *mark == Mark::EDGE)
    }

    fn size(&self) -> usize {
        self.marks.len() + self.values.len()
    }

    fn is_person(&self) -> bool {
        matches!(self.origin, Origin::Person { .. })
    }

    /// Takes a text that stands by itself.
    fn line(&mut self, text: &str, stray: &Stray<'_>) {
        if self.size() >= ONE {
            return;
        }
        self.marks.push(Mark::EDGE);
        self.marks
            .extend(pieces(text).iter().map(|piece| match piece.sort {
                Sort::Word if stray(&piece.mark) => Mark::EDGE,
                Sort::Word | Sort::Sign => piece.mark,
            }));
        self.marks.push(Mark::EDGE);
        self.addresses(text, stray);
    }

    fn addresses(&mut self, text: &str, stray: &Stray<'_>) {
        let found = address::find(text);
        let marks = found.iter().flat_map(marks_of);
        self.values.extend(marks.filter(|mark| !stray(mark)));
    }

    /// Takes a value of a record, whole.
    fn field(&mut self, text: &str, stray: &Stray<'_>) {
        let text = text.trim();
        let row = pieces(text);
        let words = row.iter().filter(|piece| piece.sort == Sort::Word);
        if self.size() >= ONE || words.clone().any(|piece| stray(&piece.mark)) {
            return;
        }
        if let Some(mark) = whole_mark(text) {
            self.values.push(mark);
        }
        let addresses = text.split([',', ';']).map(|part| {
            let part = part.trim();
            match part.strip_suffix('>').and_then(|rest| rest.split_once('<')) {
                Some((name, address)) if !name.contains('@') => address,
                Some(_) | None => part,
            }
        });
        // A list of addresses, or it is none.
        let parsed: Option<Vec<_>> = addresses.map(address::whole).collect();
        let marks = parsed.iter().flatten().flat_map(marks_of);
        self.values.extend(marks.filter(|mark| !stray(mark)));
    }

    /// Takes the values of what came as JSON.
    fn value(&mut self, value: &Value, stray: &Stray<'_>) {
        match value {
            Value::String(text) => self.field(text, stray),
            Value::Number(number) => self.field(&number.to_string(), stray),
            Value::Array(items) => items.iter().for_each(|item| self.value(item, stray)),
            Value::Object(members) => {
                for (name, member) in members {
                    // What a member is called by everybody names nobody.
                    if !name.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
                        self.field(name, stray);
                    }
                    self.value(member, stray);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// Takes what came as text: JSON, lines with a value each, or words.
    fn told(&mut self, text: &str, stray: &Stray<'_>) {
        match serde_json::from_str::<Value>(text) {
            Ok(value @ (Value::Array(_) | Value::Object(_))) => self.value(&value, stray),
            Ok(_) | Err(_) => match values(text) {
                Some(values) => values.iter().for_each(|value| self.field(value, stray)),
                None => text.lines().for_each(|line| self.line(line, stray)),
            },
        }
    }
}

/// Whether a word or an address was put there by whoever asks.
type Stray<'a> = dyn Fn(&Mark) -> bool + 'a;

/// The mark of a value of a record; `None` for one that nothing can be compared with.
fn whole_mark(text: &str) -> Option<Mark> {
    let row = pieces(text);
    let marks: Vec<Mark> = row.iter().map(|piece| piece.mark).collect();
    row.iter()
        .any(|piece| piece.sort == Sort::Word)
        .then(|| Mark::of(&format!("value {:?}", Mark::pack(&marks))))
}

/// The values of a text with one a line (`- value`, `name: value`), or of a list in brackets; `None`
/// for other text. A line that is further in, and is neither, goes on the one before it.
fn values(text: &str) -> Option<Vec<String>> {
    if text.trim_start().starts_with(['[', '{', '(']) {
        let inner = text.trim().trim_matches(['[', ']', '{', '}', '(', ')']);
        let inner = inner.replace("\", \"", "', '");
        let items = inner
            .split("', '")
            .map(|item| item.trim_matches(['\'', '"']).to_owned());
        return Some(items.collect());
    }
    let first = text.lines().find(|line| !line.trim().is_empty())?;
    member(first.trim())?;
    let mut all: Vec<String> = Vec::new();
    for line in text.lines() {
        let inner = line.trim();
        match (member(inner), all.last_mut()) {
            (Some(value), _) => all.push(value.to_owned()),
            (None, Some(last)) => {
                last.push(' ');
                last.push_str(inner);
            }
            (None, None) => all.push(inner.to_owned()),
        }
    }
    let bare = |value: String| {
        let value = value.trim();
        let quoted = ['\'', '"']
            .into_iter()
            .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
        quoted.unwrap_or(value).to_owned()
    };
    Some(all.into_iter().map(bare).collect())
}

/// The value of a line that holds one: of an item, of a member.
fn member(line: &str) -> Option<&str> {
    let item = line.strip_prefix("- ").map(str::trim_start);
    let inner = item.unwrap_or(line);
    let named = inner.split_once(':').filter(|(name, rest)| {
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
        !name.is_empty() && name.chars().all(plain) && (rest.is_empty() || rest.starts_with(' '))
    });
    match named {
        Some((_, value)) => Some(value.trim()),
        None => item,
    }
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
        let same = |one: &Source| one.marks == source.marks && one.values == source.values;
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

    /// Whether people wrote anything.
    pub fn heard(&self) -> bool {
        !self.people.all.is_empty()
    }

    /// What a tool is for, where people wrote of it: the last word of its name, one or many.
    pub fn purpose(&self, tool: &str) -> Option<(String, &Origin)> {
        let mut noun = String::new();
        for c in tool.chars() {
            if matches!(c, '_' | '-' | '.' | '/')
                || (c.is_uppercase() && noun.ends_with(char::is_lowercase))
            {
                noun.clear();
            }
            if c.is_alphanumeric() {
                noun.push(c);
            }
        }
        let noun = noun.to_lowercase();
        let one = noun.strip_suffix('s').unwrap_or(&noun).to_owned();
        if one.len() < 3 {
            return None;
        }
        let wanted = [word_mark(&one), word_mark(&format!("{one}s"))];
        let mut people = self.people.all.iter().rev();
        let said = people.find(|said| said.marks.iter().any(|mark| wanted.contains(mark)))?;
        Some((one, &said.origin))
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
                .find(|source| source.values.contains(&wanted));
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
        if let Some(origin) = self.value(value).or_else(|| self.row(&pieces(value), None)) {
            return Some(origin);
        }
        // `#general` is the channel that people call `general`.
        let mut rest = value.chars();
        let sigil = rest.next().filter(|c| matches!(c, '@' | '#'))?;
        let named = self.value(rest.as_str());
        named.or_else(|| self.row(&pieces(rest.as_str()), Some(sigil)))
    }

    /// Finds a value of a record.
    fn value(&self, value: &str) -> Option<&Origin> {
        let wanted = whole_mark(value)?;
        let mut sources = self.sources();
        let told = sources.find(|source| source.values.contains(&wanted));
        told.map(|told| &told.origin)
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
                let before = marks.get(..at).unwrap_or_default();
                let after = marks.get(at + row.len()).copied();
                same && (other.is_none() || before.last().copied() != other)
                    && (!weak || signs.set_off(before, after))
            })
        });
        found.map(|source| &source.origin)
    }
}

/// Signs that set a value off from what stands around it.
struct Signs {
    quote: Mark,
    sigils: [Mark; 2],
    between: [Mark; 4],
    ids: [Mark; 5],
}

impl Signs {
    fn new() -> Self {
        Self {
            quote: quote(),
            sigils: ['@', '#'].map(sign_mark),
            between: [quote(), sign_mark(':'), sign_mark('.'), sign_mark('(')],
            ids: ["id", "ids", "no", "nr", "number"].map(word_mark),
        }
    }

    /// Whether a value that says little by itself was meant as one: quoted, with a sigil, called an id.
    fn set_off(&self, before: &[Mark], after: Option<Mark>) -> bool {
        let last = before.last().copied();
        if last.is_some_and(|mark| self.sigils.contains(&mark)) {
            return true;
        }
        if last == Some(self.quote) && after == Some(self.quote) {
            return true;
        }
        let called = before
            .iter()
            .rev()
            .find(|mark| !self.between.contains(mark));
        called.is_some_and(|mark| self.ids.contains(mark))
    }
}

/// What conversations that had read something put into calls to one server.
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
        put(args, known, &mut marks);
        marks.retain(|mark| !self.marks.contains(mark));
        if !marks.is_empty() {
            for source in known.sources() {
                for mark in source.marks.iter().chain(&source.values) {
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

fn put(value: &Value, known: &Known, marks: &mut HashSet<Mark>) {
    match value {
        // A value that was chosen as a whole is, with all its words.
        Value::String(text) if known.find(text).is_some() => {}
        Value::String(text) => put_text(text, marks),
        Value::Number(number) => put_text(&number.to_string(), marks),
        Value::Array(items) => items.iter().for_each(|item| put(item, known, marks)),
        Value::Object(members) => {
            for (name, member) in members {
                put_text(name, marks);
                put(member, known, marks);
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
