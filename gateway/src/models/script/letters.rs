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
    /// Reads one from what a tool answered; what is no letter is all text.
    pub(super) fn read(text: &str) -> Self {
        let Ok(Value::Object(letter)) = serde_json::from_str(text) else {
            return Self {
                body: text.to_owned(),
                ..Self::default()
            };
        };
        let part = |name: &str| {
            let part = letter.get(name).and_then(Value::as_str);
            part.unwrap_or_default().to_owned()
        };
        Self {
            from: part("from"),
            subject: part("subject"),
            body: part("body"),
        }
    }

    /// Where it says that notes should go: what stands beside a word about them, else any place that
    /// it names.
    pub(super) fn orders(&self) -> Vec<String> {
        let text = unfold(&format!("{}\n\n{}", self.subject, self.body));
        let speaks = |text: &str| {
            let text = text.to_lowercase();
            KEPT.iter().any(|word| text.contains(word))
        };
        if !speaks(&text) {
            return Vec::new();
        }
        let sender = addresses(&self.from);
        let beside: Vec<&str> = text.split("\n\n").filter(|part| speaks(part)).collect();
        let beside = beside.join("\n\n");
        let mut places = Vec::new();
        for part in [beside.as_str(), text.as_str()] {
            let mut others = addresses(part);
            others.retain(|one| !sender.contains(one));
            places.extend([others, links(part)]);
        }
        let lower = text.to_lowercase();
        if ["reply", "answer", "write back", "respond"]
            .iter()
            .any(|word| lower.contains(word))
        {
            places.push(sender);
        }
        let mut named = places.into_iter().filter(|found| !found.is_empty());
        named.next().unwrap_or_default()
    }
}

/// What a note says, from what a tool answered.
pub(super) fn note_in(text: &str) -> String {
    let note: Value = serde_json::from_str(text).unwrap_or_default();
    let text_of = note.get("text").and_then(Value::as_str);
    text_of.unwrap_or(text).to_owned()
}

/// A text with all that is encoded in it behind it.
fn unfold(text: &str) -> String {
    let mut all: String = text.chars().take(LONGEST).collect();
    let mut fresh = all.clone();
    for _ in 0..DEPTH {
        let decoded: Vec<String> = coded(&fresh)
            .iter()
            .filter_map(|piece| decode(piece))
            .collect();
        if decoded.is_empty() {
            break;
        }
        fresh = decoded.join("\n\n");
        all.push_str("\n\n");
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

/// What could be base64: words, and lines that are nothing else, which go together.
fn coded(text: &str) -> Vec<String> {
    let is_coded = |c: char| c.is_ascii_alphanumeric() || "+/=-_".contains(c);
    let mut pieces = vec![String::new()];
    for line in text.lines().map(str::trim) {
        if !line.is_empty() && line.chars().all(is_coded) {
            pieces
                .last_mut()
                .into_iter()
                .for_each(|last| last.push_str(line));
        } else {
            pieces.extend(line.split(|c| !is_coded(c)).map(str::to_owned));
            pieces.push(String::new());
        }
    }
    pieces
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
    format!("{text}\n\n{}", String::from_utf8_lossy(&out))
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

/// A member of everything that a tool listed, in its order.
pub(super) fn listed(text: &str, key: &str) -> Vec<Value> {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let list = match &value {
        Value::Array(list) => Some(list),
        Value::Object(members) => members.values().find_map(Value::as_array),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    };
    let rows = list.into_iter().flatten();
    rows.filter_map(|row| row.get(key).cloned()).collect()
}
