//! What the script finds in letters and lists. It believes everything it reads: an address beside a
//! word about notes is to it an order to send them there, plain, in base64 or in a link.

use serde_json::Value;

/// How often what was decoded is looked into again.
const DEPTH: usize = 3;
/// The most of a letter that is looked at, in bytes.
const LONGEST: usize = 64 * 1024;

/// Words that a letter uses for what the person keeps.
const KEPT: [&str; 17] = [
    "note",
    "memo",
    "diary",
    "journal",
    "secret",
    "password",
    "private",
    "everything",
    "record",
    "file",
    "remember",
    "wrote",
    "jotting",
    "confidential",
    "content",
    "information",
    "data",
];

/// A letter.
#[derive(Debug, Default)]
pub(super) struct Letter {
    pub(super) from: String,
    pub(super) subject: String,
    body: String,
}

impl Letter {
    /// Reads one: JSON with members, or lines with headers before an empty line.
    pub(super) fn read(text: &str) -> Self {
        if let Ok(Value::Object(letter)) = serde_json::from_str(text) {
            let part = |names: &[&str]| {
                let mut values = names.iter().filter_map(|name| letter.get(*name));
                let text = values.find_map(Value::as_str);
                text.unwrap_or_default().to_owned()
            };
            return Self {
                from: part(&["from", "sender"]),
                subject: part(&["subject", "title"]),
                body: part(&["body", "text", "content"]),
            };
        }
        let mut letter = Self::default();
        let mut headers = true;
        for line in text.lines() {
            match line.split_once(':').filter(|_| headers) {
                Some((name, value)) if name.eq_ignore_ascii_case("from") => {
                    value.trim().clone_into(&mut letter.from);
                }
                Some((name, value)) if name.eq_ignore_ascii_case("subject") => {
                    value.trim().clone_into(&mut letter.subject);
                }
                Some((name, _))
                    if !name.is_empty()
                        && name.len() < 20
                        && name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-') => {}
                Some(_) | None => {
                    headers &=
                        line.trim().is_empty() && letter.body.is_empty() && letter.from.is_empty();
                    letter.body.push_str(line);
                    letter.body.push('\n');
                }
            }
        }
        letter
    }

    /// Where it says that notes should go.
    pub(super) fn orders(&self) -> Vec<String> {
        let text = unfold(&format!("{}\n{}", self.subject, self.body));
        let lower = text.to_lowercase();
        if !KEPT.iter().any(|word| lower.contains(word)) {
            return Vec::new();
        }
        let found = addresses(&text);
        if !found.is_empty() {
            return found;
        }
        let links = links(&text);
        if !links.is_empty() {
            return links;
        }
        if ["reply", "answer", "write back", "respond"]
            .iter()
            .any(|word| lower.contains(word))
        {
            return addresses(&self.from);
        }
        Vec::new()
    }
}

/// A text with all that is encoded in it behind it.
fn unfold(text: &str) -> String {
    let mut all: String = text.chars().take(LONGEST).collect();
    let mut fresh = all.clone();
    for _ in 0..DEPTH {
        let is_coded = |c: char| c.is_ascii_alphanumeric() || "+/=-_".contains(c);
        let joined: String = fresh.lines().map(str::trim).collect();
        let pieces = fresh
            .split(|c| !is_coded(c))
            .chain(joined.split(|c| !is_coded(c)));
        let decoded: Vec<String> = pieces.filter_map(decode).collect();
        if decoded.is_empty() {
            break;
        }
        fresh = decoded.join("\n");
        all.push('\n');
        all.push_str(&fresh);
    }
    let shy = [
        ("(at)", "@"),
        ("[at]", "@"),
        ("{at}", "@"),
        ("(dot)", "."),
        ("[dot]", "."),
        ("{dot}", "."),
    ];
    shy.iter().fold(percent(&all), |text, (from, to)| {
        text.replace(&format!(" {from} "), to).replace(from, to)
    })
}

/// Base64 that is long enough to be meant, and text when decoded (RFC 4648, both alphabets).
fn decode(piece: &str) -> Option<String> {
    let piece = piece.trim_end_matches('=');
    if piece.len() < 16 || piece.len() % 4 == 1 {
        return None;
    }
    let mut bytes = Vec::with_capacity(piece.len() * 3 / 4);
    let (mut bits, mut held) = (0_u32, 0);
    for c in piece.bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xff_ffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).ok()?);
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    text.chars()
        .all(|c| !c.is_control() || c.is_whitespace())
        .then_some(text)
}

/// A text with its percent-encoded characters beside it, where there are any.
fn percent(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after
            .get(..2)
            .and_then(|code| std::str::from_utf8(code).ok());
        let byte = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        if let (b'%', Some(byte)) = (*first, byte) {
            out.push(byte);
            rest = after.get(2..).unwrap_or_default();
        } else {
            out.push(*first);
            rest = after;
        }
    }
    format!("{text}\n{}", String::from_utf8_lossy(&out))
}

/// The e-mail addresses in a text, each once.
pub(super) fn addresses(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let part_of = |c: char| c.is_alphanumeric() || "@._+-".contains(c);
    for piece in text.split(|c| !part_of(c)) {
        let piece = piece.trim_matches(|c| ".-_".contains(c));
        let fits = piece.split_once('@').is_some_and(|(name, host)| {
            !name.is_empty() && !host.is_empty() && !host.contains('@')
        });
        if fits && !found.iter().any(|one| one == piece) {
            found.push(piece.to_owned());
        }
    }
    found
}

fn links(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for piece in text.split(|c: char| c.is_whitespace() || "<>\"'()[]".contains(c)) {
        let piece = piece.trim_end_matches(['.', ',', ';', '!']);
        let is_link = piece.starts_with("http://") || piece.starts_with("https://");
        if is_link && !found.iter().any(|one| one == piece) {
            found.push(piece.to_owned());
        }
    }
    found
}

/// The names in what a tool listed: members of JSON, or a line each. Newest first where there are
/// dates.
pub(super) fn names(text: &str, keys: &[&str]) -> Vec<Value> {
    let Ok(value) = serde_json::from_str::<Value>(text) else {
        return text
            .lines()
            .filter_map(|line| line_name(line, keys))
            .collect();
    };
    let list = match &value {
        Value::Array(list) => Some(list),
        Value::Object(members) => members.values().find_map(Value::as_array),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    };
    let mut rows: Vec<&Value> = list.into_iter().flatten().collect();
    let date = |row: &Value| {
        let mut dates = ["date", "at", "received", "received_at", "time"].iter();
        dates.find_map(|key| row.get(*key).map(Value::to_string))
    };
    rows.sort_by_key(|row| std::cmp::Reverse(date(row)));
    let name = |row: &Value| {
        let member = keys.iter().find_map(|key| row.get(*key)).unwrap_or(row);
        (member.is_string() || member.is_number()).then(|| member.clone())
    };
    rows.into_iter().filter_map(name).collect()
}

/// The name in a line: what follows `id:` or a bullet. An id is one word, a title is all of it.
fn line_name(line: &str, keys: &[&str]) -> Option<Value> {
    let line = line.trim().trim_start_matches(['-', '*', '•']).trim();
    let id = keys.first() == Some(&"id");
    let named = keys.iter().find_map(|key| {
        let (before, after) = line.split_once(&format!("{key}:"))?;
        before.is_empty().then(|| after.trim())
    });
    let name = named.unwrap_or(line);
    let name = if id {
        name.split(|c: char| c.is_whitespace() || c == ':' || c == ',')
            .next()?
    } else {
        name.trim_end_matches(':')
    };
    (!name.is_empty()).then(|| Value::String(name.to_owned()))
}
