//! What is wrong with a configuration, so that a person can mend all of it at once.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use policy::secret::MASK;
use serde::Serialize;

use crate::text::printable;

/// The widest source line that is shown, in characters.
const WIDEST: usize = 160;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1; 0 where it is about the whole file.
    pub line: usize,
    /// The column in characters, from 1; 0 where it is about the whole file.
    pub column: usize,
    /// The key, dotted.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What is accepted instead, or what to do.
    pub accepted: Option<String>,
    #[serde(skip)]
    excerpt: Option<Excerpt>,
}

/// The source line, ready to print.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    line: String,
    before: usize,
    marked: usize,
}

impl Problem {
    /// A problem of the whole file.
    pub(super) fn whole(file: &Path, message: impl Into<String>, todo: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            column: 0,
            key: String::new(),
            message: message.into(),
            accepted: Some(todo.into()),
            excerpt: None,
        }
    }

    /// A problem at a place of the text; what lies in `hidden` is not shown.
    pub(super) fn at(
        file: &Path,
        text: &str,
        span: Range<usize>,
        hidden: &[Range<usize>],
        key: String,
        message: String,
        accepted: Option<String>,
    ) -> Self {
        let start = floor(text, span.start);
        let before = text.get(..start).unwrap_or_default();
        let begin = before.rfind('\n').map_or(0, |n| n + 1);
        let line = text.get(begin..).unwrap_or_default();
        let line = line.lines().next().unwrap_or_default();
        let column = before.get(begin..).unwrap_or_default().chars().count() + 1;
        Self {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column,
            key,
            message,
            accepted,
            excerpt: Excerpt::new(line, begin, &span, hidden),
        }
    }
}

impl Excerpt {
    fn new(line: &str, begin: usize, span: &Range<usize>, hidden: &[Range<usize>]) -> Option<Self> {
        let is_hidden = |at: usize| hidden.iter().any(|range| range.contains(&at));
        let rest: String = line
            .char_indices()
            .filter(|(n, _)| !is_hidden(begin + n))
            .map(|(_, c)| c)
            .collect();
        if line.trim().is_empty() || policy::secret::is_credential(&rest) {
            return None;
        }
        let (mut out, mut before, mut marked) = (String::new(), 0, 0);
        let mut in_hidden = false;
        for (n, c) in line.char_indices() {
            let piece = match (is_hidden(begin + n), c) {
                (true, _) if in_hidden => String::new(),
                (true, _) => MASK.to_owned(),
                (false, '\t') => " ".to_owned(),
                (false, _) => printable(c.encode_utf8(&mut [0; 4])),
            };
            in_hidden = is_hidden(begin + n);
            let width = piece.chars().count();
            if begin + n < span.start {
                before += width;
            } else if begin + n < span.end {
                marked += width;
            }
            out.push_str(&piece);
        }
        if out.chars().count() > WIDEST {
            out = out.chars().take(WIDEST).chain(['…']).collect();
            marked = marked.min(WIDEST.saturating_sub(before));
        }
        Some(Self {
            line: out,
            before,
            marked: marked.max(1),
        })
    }
}

/// The nearest place at or before `at` where a character begins.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len()))
        .rev()
        .find(|n| text.is_char_boundary(*n))
        .unwrap_or(0)
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", printable(&self.file.to_string_lossy()))?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        f.write_str(": ")?;
        if !self.key.is_empty() {
            write!(f, "`{}`: ", printable(&self.key))?;
        }
        f.write_str(&printable(&self.message))?;
        let mut indent = 2;
        if let Some(excerpt) = &self.excerpt {
            let number = self.line.to_string();
            indent = number.len() + 3;
            write!(f, "\n  {number} | {}", excerpt.line)?;
            if excerpt.before <= WIDEST {
                write!(
                    f,
                    "\n{:indent$}| {:before$}{}",
                    "",
                    "",
                    "^".repeat(excerpt.marked),
                    before = excerpt.before
                )?;
            }
        }
        if let Some(accepted) = &self.accepted {
            for (n, line) in accepted.lines().enumerate() {
                let mark = if n == 0 { '=' } else { ' ' };
                f.write_str(format!("\n{:indent$}{mark} {line}", "").trim_end())?;
            }
        }
        Ok(())
    }
}

/// Everything that is wrong with a configuration, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}
