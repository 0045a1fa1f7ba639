//! Reading a TOML document key by key: every problem is kept with its place, none ends the reading.
//!
//! A [`Table`] learns which keys are accepted from the keys that are asked for, so the list in
//! "unknown key" is always that of the code.

use std::cell::RefCell;
use std::ops::Range;
use std::str::FromStr;

use jiff::Timestamp;
use policy::condition::{Path, Step};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Problem, Problems};
use super::schema::Read;

/// What a key of a later version says.
pub(super) const LATER: &str = "not available in this version";

/// A configuration's text, and what was found wrong with it so far.
#[derive(Debug)]
pub(super) struct Source<'a> {
    file: &'a std::path::Path,
    text: &'a str,
    problems: RefCell<Vec<Found>>,
    hidden: RefCell<Vec<Range<usize>>>,
    notes: RefCell<Vec<(usize, String)>>,
    reads: RefCell<Vec<(String, Vec<Step>, Found)>>,
}

#[derive(Debug)]
struct Found {
    span: Range<usize>,
    key: String,
    message: String,
    accepted: Option<String>,
}

impl<'a> Source<'a> {
    pub(super) fn new(file: &'a std::path::Path, text: &'a str) -> Self {
        Self {
            file,
            text,
            problems: RefCell::default(),
            hidden: RefCell::default(),
            notes: RefCell::default(),
            reads: RefCell::default(),
        }
    }

    pub(super) fn problem(
        &self,
        span: Range<usize>,
        key: impl Into<String>,
        message: impl Into<String>,
        accepted: Option<&str>,
    ) {
        self.problems.borrow_mut().push(Found {
            span,
            key: key.into(),
            message: message.into(),
            accepted: accepted.map(str::to_owned),
        });
    }

    /// The value if nothing was wrong, with what was noted, and what conditions read; else every
    /// problem.
    pub(super) fn finish<T>(
        self,
        value: Option<T>,
    ) -> Result<(T, Vec<String>, Vec<Read>), Problems> {
        let mut found = self.problems.into_inner();
        let hidden = self.hidden.into_inner();
        let problem = |one: Found| {
            Problem::at(
                self.file,
                self.text,
                one.span,
                &hidden,
                one.key,
                one.message,
                one.accepted,
            )
        };
        match value {
            Some(value) if found.is_empty() => {
                let mut notes = self.notes.into_inner();
                notes.sort();
                let notes = notes.into_iter().map(|(_, note)| note).collect();
                let reads = self.reads.into_inner().into_iter();
                let reads = reads.map(|(rule, steps, found)| Read {
                    rule,
                    steps,
                    problem: problem(found),
                });
                Ok((value, notes, reads.collect()))
            }
            Some(_) | None => {
                found.sort_by(|a, b| {
                    (a.span.start, &a.key, &a.message).cmp(&(b.span.start, &b.key, &b.message))
                });
                Err(Problems(found.into_iter().map(problem).collect()))
            }
        }
    }
}

/// A table being read.
#[derive(Debug)]
pub(super) struct Table<'a> {
    source: &'a Source<'a>,
    path: String,
    span: Range<usize>,
    entries: &'a DeTable<'a>,
    asked: RefCell<Vec<&'static str>>,
    later: RefCell<Vec<&'static str>>,
}

impl<'a> Table<'a> {
    pub(super) fn root(source: &'a Source<'a>, entries: &'a DeTable<'a>) -> Self {
        Self {
            source,
            path: String::new(),
            span: 0..0,
            entries,
            asked: RefCell::default(),
            later: RefCell::default(),
        }
    }

    fn under(&self, key: &str) -> String {
        let plain = !key.is_empty()
            && key
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let key = if plain {
            key.to_owned()
        } else {
            format!("{key:?}")
        };
        if self.path.is_empty() {
            key
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn item(
        &self,
        key: &'a Spanned<std::borrow::Cow<'a, str>>,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Item<'a> {
        Item {
            source: self.source,
            name: key.get_ref(),
            path: self.under(key.get_ref()),
            key: key.span(),
            value,
        }
    }

    /// The value of a key that is accepted here.
    pub(super) fn get(&self, key: &'static str) -> Option<Item<'a>> {
        self.asked.borrow_mut().push(key);
        self.find(key)
    }

    fn find(&self, key: &str) -> Option<Item<'a>> {
        let (key, value) = self.entries.get_key_value(key)?;
        Some(self.item(key, value))
    }

    /// A key that a later version accepts: refused, for ignoring it would be unsafe.
    pub(super) fn later(&self, key: &'static str, instead: &str) {
        self.later.borrow_mut().push(key);
        if let Some(item) = self.find(key) {
            item.problem_at_key(LATER, Some(instead));
        }
    }

    /// A key that is read for its form alone: it takes effect in a later version.
    pub(super) fn idle(&self, key: &'static str) -> Option<Item<'a>> {
        let item = self.get(key)?;
        item.note("has no effect in this version");
        Some(item)
    }

    /// Whether the key is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Every entry, where the keys are names that a person chose.
    pub(super) fn entries(&self) -> impl Iterator<Item = Item<'a>> {
        self.entries
            .iter()
            .map(|(key, value)| self.item(key, value))
    }

    /// Reports the keys that nobody asked for. To be called when every key has been.
    pub(super) fn done(&self) {
        let mut asked = self.asked.borrow().clone();
        asked.sort_unstable();
        asked.dedup();
        let later = self.later.borrow();
        for item in self.entries() {
            if asked.contains(&item.name) || later.contains(&item.name) {
                continue;
            }
            let list: Vec<String> = asked.iter().map(|key| format!("`{key}`")).collect();
            item.problem_at_key(
                "unknown key",
                Some(&format!("accepted: {}", list.join(", "))),
            );
        }
    }

    /// A problem of the table as a whole.
    pub(super) fn problem(&self, message: impl Into<String>, accepted: &str) {
        self.source
            .problem(self.span.clone(), &self.path, message, Some(accepted));
    }
}

/// A key and its value.
#[derive(Debug)]
pub(super) struct Item<'a> {
    source: &'a Source<'a>,
    /// The key.
    pub(super) name: &'a str,
    path: String,
    key: Range<usize>,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Item<'a> {
    /// A problem of the value.
    pub(super) fn problem(&self, message: impl Into<String>, accepted: &str) {
        self.source
            .problem(self.value.span(), &self.path, message, Some(accepted));
    }

    /// A problem of a part of a text, in bytes of what was read.
    pub(super) fn problem_within(
        &self,
        part: &Range<usize>,
        message: impl Into<String>,
        accepted: &str,
    ) {
        let span = self.within(part);
        self.source
            .problem(span, &self.path, message, Some(accepted));
    }

    /// What a rule's condition reads of the arguments, with what to say if no tool has it.
    pub(super) fn reads(&self, rule: &str, path: &Path) {
        let found = Found {
            span: self.within(&path.at),
            key: self.path.clone(),
            message: format!("no tool that the rule speaks of takes `{path}`"),
            accepted: Some(
                "see `portcullis tools`; args[\"name\"] reads what no schema tells of".to_owned(),
            ),
        };
        let mut reads = self.source.reads.borrow_mut();
        reads.push((rule.to_owned(), path.steps.clone(), found));
    }

    /// Where a part of a text is written: all of it, where it is not written as it is read.
    fn within(&self, part: &Range<usize>) -> Range<usize> {
        let whole = self.value.span();
        let raw = self.source.text.get(whole.clone()).unwrap_or_default();
        let span = self.as_text().and_then(|text| {
            let at = whole.start + raw.find(text).filter(|_| !text.is_empty())?;
            (part.end <= text.len()).then_some(at + part.start..at + part.end)
        });
        span.unwrap_or(whole)
    }

    /// A time, as TOML's own or as a text.
    pub(super) fn timestamp(&self) -> Option<Timestamp> {
        let value = match self.value.get_ref() {
            DeValue::Datetime(time) => time.to_string().parse().ok(),
            DeValue::String(text) => text.parse().ok(),
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => None,
        };
        if value.is_none() {
            self.problem(
                "it is not a time with its zone",
                "accepted: such as 2026-12-31T18:00:00Z or \"2026-12-31T19:00:00+01:00\"",
            );
        }
        value
    }

    /// A problem of the key, or of all that is under it.
    pub(super) fn problem_at_key(&self, message: impl Into<String>, accepted: Option<&str>) {
        self.source
            .problem(self.key.clone(), &self.path, message, accepted);
    }

    /// Something worth knowing that is no problem.
    pub(super) fn note(&self, what: &str) {
        let before = self.source.text.get(..self.key.start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        self.source.notes.borrow_mut().push((
            line,
            format!(
                "{}:{line}: `{}` {what}",
                self.source.file.display(),
                self.path
            ),
        ));
    }

    /// Keeps the value out of every excerpt.
    pub(super) fn hide(&self) {
        self.source.hidden.borrow_mut().push(self.value.span());
    }

    fn mismatch(&self, accepted: &str) {
        let found = match self.value.get_ref() {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let span = if self.value.get_ref().is_table() {
            self.key.clone()
        } else {
            self.value.span()
        };
        self.source.problem(
            span,
            &self.path,
            format!("{found} does not fit here"),
            Some(accepted),
        );
    }

    /// The value as text, or `None` without a problem.
    pub(super) fn as_text(&self) -> Option<&'a str> {
        self.value.get_ref().as_str()
    }

    /// The value as true or false, or `None` without a problem.
    pub(super) fn as_flag(&self) -> Option<bool> {
        self.value.get_ref().as_bool()
    }

    /// Whether the value is a table.
    pub(super) fn is_table(&self) -> bool {
        self.value.get_ref().is_table()
    }

    /// Whether the value is a list.
    pub(super) fn is_list(&self) -> bool {
        self.value.get_ref().is_array()
    }

    /// A text of at least one character.
    pub(super) fn text(&self) -> Option<&'a str> {
        match self.as_text() {
            Some("") => self.problem("it is empty", "accepted: a text"),
            Some(text) if text.contains('\0') => {
                self.problem("it holds a NUL character", "accepted: a text without it");
            }
            Some(text) => return Some(text),
            None => self.mismatch("accepted: a text, in quotes"),
        }
        None
    }

    pub(super) fn flag(&self) -> Option<bool> {
        let flag = self.as_flag();
        if flag.is_none() {
            self.mismatch("accepted: `true`, `false`");
        }
        flag
    }

    /// A whole number in a range.
    pub(super) fn number(&self, range: std::ops::RangeInclusive<usize>) -> Option<usize> {
        let accepted = format!(
            "accepted: a whole number from {} to {}",
            range.start(),
            range.end()
        );
        if !self.value.get_ref().is_integer() {
            self.mismatch(&accepted);
            return None;
        }
        let number = self.as_number().filter(|n| range.contains(n));
        if number.is_none() {
            self.problem("the number is too small or too large", &accepted);
        }
        number
    }

    /// The value as a whole number, not negative, or `None` without a problem.
    pub(super) fn as_number(&self) -> Option<usize> {
        let number = self.value.get_ref().as_integer()?;
        usize::from_str_radix(number.as_str(), number.radix()).ok()
    }

    /// A text that parses; its error says what is accepted.
    pub(super) fn parsed<T: FromStr>(&self) -> Option<T>
    where
        T::Err: std::fmt::Display,
    {
        let text = self.text()?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.source
                    .problem(self.value.span(), &self.path, error.to_string(), None);
                None
            }
        }
    }

    /// The key as a checked name.
    pub(super) fn parsed_name<T: FromStr>(&self) -> Option<T>
    where
        T::Err: std::fmt::Display,
    {
        match self.name.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem_at_key(error.to_string(), None);
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let list: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        let accepted = format!("accepted: {}", list.join(", "));
        let Some(text) = self.as_text() else {
            self.mismatch(&accepted);
            return None;
        };
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            self.problem(format!("{text:?} is none of them"), &accepted);
        }
        found.map(|(_, value)| *value)
    }

    pub(super) fn list(&self) -> Option<Vec<Item<'a>>> {
        let Some(items) = self.value.get_ref().as_array() else {
            self.mismatch("accepted: a list, such as [\"a\", \"b\"]");
            return None;
        };
        Some(
            items
                .iter()
                .enumerate()
                .map(|(n, value)| Item {
                    source: self.source,
                    name: self.name,
                    path: format!("{}[{n}]", self.path),
                    key: value.span(),
                    value,
                })
                .collect(),
        )
    }

    /// A list of texts.
    pub(super) fn texts(&self) -> Option<Vec<String>> {
        let items = self.list()?;
        let texts: Vec<&str> = items.iter().filter_map(Item::text).collect();
        (texts.len() == items.len()).then(|| texts.into_iter().map(str::to_owned).collect())
    }

    /// A list of names, each once.
    pub(super) fn names<T: FromStr + PartialEq>(&self) -> Vec<(Item<'a>, T)>
    where
        T::Err: std::fmt::Display,
    {
        let mut names: Vec<(Item<'a>, T)> = Vec::new();
        for item in self.list().unwrap_or_default() {
            if let Some(name) = item.parsed::<T>() {
                if names.iter().any(|(_, other)| *other == name) {
                    item.problem("it is listed twice", "name it once");
                } else {
                    names.push((item, name));
                }
            }
        }
        names
    }

    pub(super) fn table(&self) -> Option<Table<'a>> {
        let Some(entries) = self.value.get_ref().as_table() else {
            self.mismatch("accepted: a table");
            return None;
        };
        Some(Table {
            source: self.source,
            path: self.path.clone(),
            span: self.key.clone(),
            entries,
            asked: RefCell::default(),
            later: RefCell::default(),
        })
    }
}
