//! Finding credentials, and masking them for the log and the card.
//!
//! Two questions with different answers: *does this text hold a credential* ([`Finder::find`], a gate,
//! so it should rarely be wrong) and *should this be shown* ([`Finder::mask`], which would rather hide
//! too much). Credentials are known by their form ([`forms`]) or because the gateway holds them
//! (`known`); how random a text looks says nothing here.

mod forms;
mod known;

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use aho_corasick::AhoCorasick;
use regex::Regex;
use serde_json::Value;

/// What stands in place of a secret.
pub const MASK: &str = "•••";
/// The shortest word that is remembered of a secret that was found, in bytes.
const SHORTEST_WORD: usize = 12;
/// The shortest piece that is looked into for something encoded, in bytes.
const SHORTEST_CODED: usize = 24;

/// Names of members whose value is hidden whatever it looks like.
static SECRET_NAME: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?i)(?:^|[_.-])(?:password|passwd|passphrase|secret|token|api[_-]?key|private[_-]?key|authorization|credentials?|cookie)$").ok()
});

/// Whether a text holds something in the form of a credential.
pub fn is_credential(text: &str) -> bool {
    !forms::found(text).is_empty()
}

/// The names of the forms that credentials are known by.
pub fn forms() -> impl Iterator<Item = &'static str> {
    forms::all().map(|form| form.name)
}

/// Knows a word again that was part of a credential before.
pub type Remembered = dyn Fn(&str) -> bool + Send + Sync;

/// Finds credentials: those of a known form, those that the gateway itself holds, and the words of
/// those that were found before.
#[derive(Clone, Default)]
pub struct Finder {
    known: Option<AhoCorasick>,
    remembered: Option<Arc<Remembered>>,
    broken: bool,
}

impl fmt::Debug for Finder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Finder(…)")
    }
}

impl Finder {
    /// One that also knows these secrets, in whatever spelling; those shorter than 8 bytes are not
    /// looked for.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let spellings: Vec<String> = secrets.into_iter().flat_map(known::spellings).collect();
        if spellings.is_empty() {
            return Self::default();
        }
        let known = AhoCorasick::new(&spellings).ok();
        Self {
            broken: known.is_none(),
            known,
            remembered: None,
        }
    }

    /// The same, which also finds the words that are known again.
    #[must_use]
    pub fn remembering(self, remembered: Arc<Remembered>) -> Self {
        Self {
            remembered: Some(remembered),
            ..self
        }
    }

    /// Where a text holds a credential, in order and without overlap. Where the finder could not be
    /// built, everything is one: unreadable is refused.
    pub fn spans(&self, text: &str) -> Vec<Range<usize>> {
        if self.broken {
            return std::iter::once(0..text.len()).collect();
        }
        let known = self
            .known
            .iter()
            .flat_map(|known| known.find_overlapping_iter(text));
        let mut spans: Vec<Range<usize>> = known.map(|found| found.range()).collect();
        spans.extend(forms::found(text).into_iter().map(|found| found.whole));
        if let Some(remembered) = &self.remembered {
            let words = word_spans(text);
            spans.extend(
                words.filter(|span| text.get(span.clone()).is_some_and(|word| remembered(word))),
            );
        }
        spans.sort_by_key(|span| span.start);
        let mut merged: Vec<Range<usize>> = Vec::with_capacity(spans.len());
        for span in spans {
            match merged.last_mut() {
                Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
                _ => merged.push(span),
            }
        }
        merged
    }

    /// Whether a text holds one.
    pub fn holds(&self, text: &str) -> bool {
        self.holds_kept(text) || is_credential(text) || {
            let remembered = self.remembered.as_ref();
            remembered.is_some_and(|remembered| words(text).any(|word| remembered(word)))
        }
    }

    /// Whether a text holds a secret of the gateway itself, in whatever spelling.
    pub fn holds_kept(&self, text: &str) -> bool {
        self.broken
            || self
                .known
                .as_ref()
                .is_some_and(|known| known.is_match(text))
    }

    /// Whether a text holds one, plain or encoded once: in base64, in hexadecimal, in a URL.
    pub fn holds_somehow(&self, text: &str) -> bool {
        self.holds(text)
            || known::from_percent(text).is_some_and(|text| self.holds(&text))
            || coded(text).any(|piece| {
                let decoded = [known::from_base64(piece), known::from_hex(piece)];
                let mut texts = decoded
                    .into_iter()
                    .flatten()
                    .filter_map(|bytes| String::from_utf8(bytes).ok());
                texts.any(|text| self.holds(&text))
            })
    }

    /// The JSON pointers (RFC 6901) of the strings and member names that hold a credential. What a
    /// pointer itself holds is hidden.
    pub fn find(&self, value: &Value) -> Vec<String> {
        let mut found = Vec::new();
        walk(value, &mut String::new(), &mut |path, text| {
            if self.holds_somehow(text) {
                found.push(self.mask_text(path));
            }
        });
        found.dedup();
        found
    }

    /// The words of the credentials in a text, to know them again where nothing else tells what
    /// they are.
    pub fn secret_words<'a>(&self, text: &'a str) -> Vec<&'a str> {
        let kept = self
            .known
            .iter()
            .flat_map(|known| known.find_overlapping_iter(text));
        let kept = kept.map(|found| found.range());
        let found = forms::found(text).into_iter().map(|found| found.secret);
        let parts = kept.chain(found).filter_map(|span| text.get(span));
        parts.flat_map(words).collect()
    }

    /// The value with its credentials hidden; second, whether anything was.
    pub fn mask(&self, value: &Value) -> (Value, bool) {
        let mut hidden = false;
        let masked = self.mask_in(value, &mut hidden);
        (masked, hidden)
    }

    /// A text with its credentials hidden.
    pub fn mask_text(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut from = 0;
        for span in self.spans(text) {
            let rest = text.get(span.end..).unwrap_or_default();
            // One that is longer than its form is hidden to its end.
            let more = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_-".contains(c)));
            let end = span.end + more.unwrap_or(rest.len());
            if span.start >= from {
                out.push_str(text.get(from..span.start).unwrap_or_default());
                out.push_str(MASK);
            }
            from = from.max(end);
        }
        out.push_str(text.get(from..).unwrap_or_default());
        out
    }

    fn mask_in(&self, value: &Value, hidden: &mut bool) -> Value {
        match value {
            Value::String(text) => {
                let masked = self.mask_text(text);
                *hidden |= masked != *text;
                Value::String(masked)
            }
            Value::Array(items) => items
                .iter()
                .map(|item| self.mask_in(item, hidden))
                .collect(),
            Value::Object(members) => members
                .iter()
                .map(|(name, member)| {
                    let secret = SECRET_NAME
                        .as_ref()
                        .is_none_or(|names| names.is_match(name));
                    let shown = if secret && !matches!(member, Value::Null | Value::Bool(_)) {
                        *hidden = true;
                        Value::String(MASK.to_owned())
                    } else {
                        self.mask_in(member, hidden)
                    };
                    let known_as = self.mask_text(name);
                    *hidden |= known_as != *name;
                    (known_as, shown)
                })
                .collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }
}

/// The words of a text that are long enough to be a secret.
fn words(text: &str) -> impl Iterator<Item = &str> {
    word_spans(text).filter_map(|span| text.get(span))
}

fn word_spans(text: &str) -> impl Iterator<Item = Range<usize>> {
    const AROUND: [char; 6] = ['/', '=', '.', '~', '-', '+'];
    let mut at = 0;
    let parts = text.split(|c: char| !(c.is_ascii_alphanumeric() || "_-+/=.~".contains(c)));
    let spans = parts.map(move |part| {
        // The letter of `\n` in a text within a text is no part of the word behind it.
        let escape = text.get(..at).is_some_and(|before| before.ends_with('\\'));
        let bare = part
            .strip_prefix(['n', 'r', 't'])
            .filter(|_| escape)
            .unwrap_or(part);
        let begin = at + (part.len() - bare.trim_start_matches(AROUND).len());
        // What splits words is one character, of however many bytes.
        let after = text
            .get(at + part.len()..)
            .and_then(|rest| rest.chars().next());
        at += part.len() + after.map_or(0, char::len_utf8);
        begin..begin + bare.trim_matches(AROUND).len()
    });
    spans.filter(|span| span.len() >= SHORTEST_WORD)
}

/// The pieces of a text that could be base64 or hexadecimal.
fn coded(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split(|c: char| !(c.is_ascii_alphanumeric() || "_-+/=".contains(c)));
    parts.filter(|part| part.len() >= SHORTEST_CODED)
}

fn walk(value: &Value, path: &mut String, see: &mut impl FnMut(&str, &str)) {
    match value {
        Value::String(text) => see(path, text),
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                let before = path.len();
                path.push('/');
                path.push_str(&n.to_string());
                walk(item, path, see);
                path.truncate(before);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                let before = path.len();
                path.push('/');
                path.push_str(&name.replace('~', "~0").replace('/', "~1"));
                see(path, name);
                walk(member, path, see);
                path.truncate(before);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::strategy::{Strategy as _, ValueTree as _};
    use proptest::test_runner::TestRunner;
    use serde_json::json;

    fn find(value: &Value, known: &[&str]) -> Vec<String> {
        Finder::new(known.iter().copied()).find(value)
    }

    #[test]
    fn credentials_are_found_where_they_are_and_ordinary_text_is_not() {
        let value = json!({
            "to": "ana@example.org",
            "body": ["hello", "key: ghp_0123456789abcdef0123456789abcdef0123"],
            "url": "https://user:hunter22@example.org/x",
            "note": "a sk-short one, task-force, https://example.org:8080/a@b",
        });
        assert_eq!(find(&value, &[]), ["/body/1", "/url"]);
        assert_eq!(
            find(&json!({"x": "my s3cr3t-value"}), &["s3cr3t-value"]),
            ["/x"]
        );
        let name = format!("sk-ant-{}", "x7".repeat(20));
        assert_eq!(find(&json!({ name: 1 }), &[]), ["/•••"]);
    }

    #[test]
    fn every_form_is_found_and_masked_whatever_stands_around_it() {
        let mut runner = TestRunner::deterministic();
        let finder = Finder::default();
        let mut names = std::collections::BTreeSet::new();
        for form in forms::all() {
            assert!(names.insert(form.name), "`{}` is there twice", form.name);
            let bare = form.pattern.replace(r"\b", "").replace("(?s)", "");
            let shape = proptest::string::string_regex(&bare).unwrap();
            for _ in 0..8 {
                let sample = shape.new_tree(&mut runner).unwrap().current();
                if !sample.is_ascii() {
                    continue; // A password that nobody could send in a URL.
                }
                for text in [
                    sample.clone(),
                    format!("it is {sample}, you know"),
                    format!("{{\"k\":\"{sample}\"}}"),
                ] {
                    let found = forms::found(&text);
                    assert!(
                        found.iter().any(|one| one.form.name == form.name),
                        "`{}` not in {text}",
                        form.name
                    );
                    let masked = finder.mask_text(&text);
                    assert!(
                        masked.contains(MASK) && !masked.contains(&sample),
                        "{}: {masked}",
                        form.name
                    );
                }
            }
        }
        assert!(names.len() > 100);
    }

    #[test]
    fn a_secret_of_the_gateway_is_found_in_every_spelling() {
        let secret = "correct horse/battery\"staple";
        let finder = Finder::new([secret]);
        for (spelt, how) in [
            ("correct horse/battery\"staple", "plain"),
            ("correct horse\\/battery\\\"staple", "JSON"),
            ("correct%20horse%2Fbattery%22staple", "a URL"),
            ("correct+horse%2fbattery%22staple", "a form"),
            ("Y29ycmVjdCBob3JzZS9iYXR0ZXJ5InN0YXBsZQ==", "base64"),
            (
                "b3JzdC4gY29ycmVjdCBob3JzZS9iYXR0ZXJ5InN0YXBsZSE",
                "base64 with something before it",
            ),
            (
                "636f727265637420686f7273652f6261747465727922737461706c65",
                "hexadecimal",
            ),
            ("elpats\"yrettab/esroh tcerroc", "backwards"),
        ] {
            assert!(finder.holds_somehow(&format!("x {spelt} y")), "{how}");
            assert!(
                !Finder::default().holds_somehow(&format!("x {spelt} y")),
                "{how}"
            );
        }
    }

    #[test]
    fn a_form_is_found_through_one_coat_of_code() {
        let key = "ghp_0123456789abcdef0123456789abcdef0123";
        let hexed = crate::action::hex(key.as_bytes());
        for text in [
            "Z2hwXzAxMjM0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWJjZGVmMDEyMw==".to_owned(),
            hexed,
            key.replace('_', "%5F"),
        ] {
            assert!(
                Finder::default().holds_somehow(&format!("see {text}.")),
                "{text}"
            );
        }
    }

    #[test]
    fn the_words_of_what_was_found_are_known_again_where_nothing_tells_what_they_are() {
        let finder = Finder::default();
        let read = "db: postgres://administrator:correcthorsebattery@db.example.org/x and -----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG\n-----END PRIVATE KEY-----";
        let secret: Vec<String> = finder
            .secret_words(read)
            .into_iter()
            .map(str::to_owned)
            .collect();
        let is = |word: &str| secret.iter().any(|one| one == word);
        assert!(
            is("correcthorsebattery") && is("MIIEvQIBADANBgkqhkiG"),
            "{secret:?}"
        );
        assert!(!is("administrator"), "{secret:?}");
        let known = secret.clone();
        let finder = finder.remembering(Arc::new(move |word| known.iter().any(|one| one == word)));
        assert_eq!(
            finder.find(&json!({"q": "«is it correcthorsebattery»?", "r": "no"})),
            ["/q"]
        );
        assert!(finder.find(&json!({"q": "is it correcthorse?"})).is_empty());
        assert!(
            finder.holds(r#"{"key":"x\nMIIEvQIBADANBgkqhkiG\n"}"#),
            "a text within a text"
        );
        let masked = finder.mask_text("é correcthorsebattery, é /MIIEvQIBADANBgkqhkiG= é");
        assert_eq!(masked, "é •••, é /•••= é");
    }

    #[test]
    fn what_is_masked_does_not_hold_the_secret_any_more() {
        let value = json!({"password": "x", "api_key": 5, "text": "AKIAABCDEFGHIJKLMNOP and s3cr3t-value", "keyboard": "qwerty", "tokens": 3});
        let (masked, hidden) = Finder::new(["s3cr3t-value"]).mask(&value);
        assert!(hidden);
        assert_eq!(
            masked,
            json!({"password": MASK, "api_key": MASK, "text": format!("{MASK} and {MASK}"), "keyboard": "qwerty", "tokens": 3})
        );
        assert!(!Finder::default().mask(&json!({"a": ["b", null, 1]})).1);
        let long = format!("a ghp_{} b", "x".repeat(60));
        assert_eq!(Finder::default().mask_text(&long), format!("a {MASK} b"));
    }
}
