//! Values without a form: names of people, places, channels and files.
//!
//! A text is a row of marks, one for each word and each sign between words. A name is in a text where
//! its own row stands in it without a gap, so that it begins and ends where words do.

use aws_lc_rs::digest::{SHA256, digest};
use unicode_normalization::UnicodeNormalization as _;

/// A digest in place of a word, a sign or an address: 128 bits of SHA-256, so that none can be made to
/// fit another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark(u128);

impl Mark {
    /// Where a text begins or ends, or a line, or a field of a record. No text has it.
    pub const EDGE: Self = Self(0);

    /// Of a word or a sign, as it is compared.
    pub fn of(text: &str) -> Self {
        let mut bytes = [0; 16];
        for (to, from) in bytes
            .iter_mut()
            .zip(digest(&SHA256, text.as_bytes()).as_ref())
        {
            *to = *from;
        }
        Self(u128::from_le_bytes(bytes).max(1))
    }

    /// Marks as bytes, to be stored.
    pub fn pack(marks: &[Self]) -> Vec<u8> {
        marks.iter().flat_map(|mark| mark.0.to_le_bytes()).collect()
    }

    /// Marks that were stored; `None` if these are none.
    pub fn unpack(bytes: &[u8]) -> Option<Vec<Self>> {
        let (chunks, rest) = bytes.as_chunks::<16>();
        rest.is_empty().then(|| {
            chunks
                .iter()
                .map(|one| Self(u128::from_le_bytes(*one)))
                .collect()
        })
    }
}

/// What a mark stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Word,
    Sign,
}

/// A word or a sign of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) mark: Mark,
    pub(super) sort: Sort,
    /// A word that says little by itself, and is in many texts.
    pub(super) weak: bool,
}

/// All kinds of quotation marks are one.
const QUOTE: &str = "\"";

/// Characters that cannot be seen, or change how others are seen. A value with one is nobody's choice.
pub(super) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Words that are in many texts without meaning anybody: articles and the like, and what lists and
/// channels for everybody are called.
const COMMON: &[&str] = &[
    "about",
    "admin",
    "after",
    "again",
    "all",
    "also",
    "and",
    "another",
    "any",
    "anybody",
    "anyone",
    "are",
    "ask",
    "been",
    "before",
    "but",
    "call",
    "can",
    "channel",
    "check",
    "could",
    "create",
    "date",
    "day",
    "delete",
    "der",
    "die",
    "das",
    "did",
    "does",
    "done",
    "email",
    "everybody",
    "everyone",
    "external",
    "file",
    "files",
    "find",
    "first",
    "for",
    "from",
    "get",
    "give",
    "had",
    "has",
    "have",
    "her",
    "here",
    "hello",
    "him",
    "his",
    "how",
    "info",
    "into",
    "its",
    "just",
    "last",
    "let",
    "link",
    "list",
    "mail",
    "make",
    "may",
    "message",
    "money",
    "more",
    "most",
    "must",
    "name",
    "need",
    "new",
    "next",
    "not",
    "now",
    "off",
    "one",
    "only",
    "other",
    "our",
    "out",
    "over",
    "page",
    "pay",
    "people",
    "please",
    "post",
    "public",
    "read",
    "same",
    "say",
    "see",
    "send",
    "set",
    "share",
    "she",
    "should",
    "some",
    "somebody",
    "someone",
    "support",
    "tell",
    "thank",
    "thanks",
    "that",
    "the",
    "their",
    "them",
    "then",
    "there",
    "these",
    "they",
    "this",
    "those",
    "today",
    "tomorrow",
    "two",
    "und",
    "use",
    "user",
    "very",
    "want",
    "was",
    "web",
    "website",
    "well",
    "were",
    "what",
    "when",
    "where",
    "which",
    "who",
    "whom",
    "whose",
    "why",
    "will",
    "with",
    "work",
    "world",
    "would",
    "write",
    "yes",
    "yesterday",
    "you",
    "your",
];

fn is_weak(word: &str) -> bool {
    let digits = word.chars().all(|c| c.is_ascii_digit());
    let short = word.chars().count() < if word.is_ascii() { 3 } else { 2 };
    short || (digits && word.len() < 5) || COMMON.contains(&word)
}

/// A word as it is compared: NFC, and without case, but for what looks like a path, whose case means
/// something.
fn form(word: &str) -> String {
    let nfc: String = word.nfc().collect();
    if nfc.contains(['/', '\\']) {
        nfc
    } else {
        nfc.to_lowercase().nfc().collect()
    }
}

fn is_quote(c: char) -> bool {
    matches!(
        c,
        '"' | '“' | '”' | '„' | '«' | '»' | '`' | '\'' | '‘' | '’'
    )
}

/// The pieces of one line.
pub(super) fn pieces(line: &str) -> Vec<Piece> {
    let mut all = Vec::new();
    for chunk in line.split_whitespace() {
        let mut rest = chunk;
        while let Some(c) = rest.chars().find(|c| super::address::separates(*c)) {
            let Some((before, after)) = rest.split_once(c) else {
                break;
            };
            word(before, &mut all);
            sign(c, &mut all);
            rest = after;
        }
        word(rest, &mut all);
    }
    all
}

fn sign(c: char, all: &mut Vec<Piece>) {
    let mark = if is_quote(c) {
        Mark::of(QUOTE)
    } else {
        Mark::of(&format!("sign {c}"))
    };
    all.push(Piece {
        mark,
        sort: Sort::Sign,
        weak: true,
    });
}

/// A word with the signs around it.
fn word(text: &str, all: &mut Vec<Piece>) {
    let mut text = text;
    while let Some(c) = text.chars().next().filter(|c| opens(*c)) {
        sign(c, all);
        text = text.get(c.len_utf8()..).unwrap_or_default();
    }
    let mut after = Vec::new();
    while let Some(c) = text.chars().next_back().filter(|c| closes(*c)) {
        after.push(c);
        text = text.get(..text.len() - c.len_utf8()).unwrap_or_default();
    }
    let of_whom = ["'s", "’s"].iter().find_map(|end| text.strip_suffix(end));
    let (text, owned) = match of_whom {
        Some(name) if !name.is_empty() => (name, true),
        Some(_) | None => (text, false),
    };
    if !text.is_empty() {
        let form = form(text);
        all.push(Piece {
            mark: Mark::of(&format!("word {form}")),
            sort: Sort::Word,
            weak: is_weak(&form),
        });
    }
    if owned {
        sign('s', all);
    }
    for c in after.into_iter().rev() {
        sign(c, all);
    }
}

/// Whether a word's first character is no part of it.
fn opens(c: char) -> bool {
    matches!(c, '*' | '#' | '@' | '¿' | '¡') || is_quote(c)
}

/// Whether a word's last character is no part of it.
fn closes(c: char) -> bool {
    matches!(c, '.' | ':' | '!' | '?' | '…' | '*') || is_quote(c)
}

/// The mark of a quotation mark, of whatever kind.
pub(super) fn quote() -> Mark {
    Mark::of(QUOTE)
}

/// The mark of another sign.
pub(super) fn sign_mark(c: char) -> Mark {
    Mark::of(&format!("sign {c}"))
}

/// The mark of a word.
pub(super) fn word_mark(word: &str) -> Mark {
    Mark::of(&format!("word {}", form(word)))
}
