//! Large values of an entry are kept apart from it, once each, by their digest.
//!
//! The entry's text then has `null` in their place, and says at its end, beside the event, where they
//! belong: what an agent sends is always deeper in it, so nobody else can say so. The text with the
//! digests is what is hashed into the chain, and the digests hold the values.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::action::Digest;

/// Where in an event large values can be.
const ROOTS: [&str; 3] = ["/facts/action/args", "/facts/action/meta", "/result/told"];

/// The member of an entry's text that names what is kept apart.
const APART: &str = "apart";

/// One value that is kept apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Where it belongs (a JSON pointer).
    pub at: String,
    /// SHA-256 over its JSON text.
    pub digest: Digest,
    /// How long that is, in bytes.
    pub size: usize,
}

/// An entry's text without its large values, and these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Apart {
    /// The text to be hashed.
    pub body: String,
    /// JSON texts by their digests.
    pub values: Vec<(Digest, String)>,
}

/// Takes out what is longer than `inline` bytes; `None` where nothing is.
pub fn take(body: &str, inline: usize) -> Option<Apart> {
    if body.len() <= inline {
        return None;
    }
    let mut event: Value = serde_json::from_str(body).ok()?;
    let mut values = Vec::new();
    let mut parts = Vec::new();
    for root in ROOTS {
        let Some(value) = event.pointer_mut(root) else {
            continue;
        };
        // Texts first: the same letter or file is the same value, wherever it comes up.
        let mut texts = Vec::new();
        take_texts(value, inline, &mut root.to_owned(), &mut texts);
        let rest = value.to_string();
        if rest.len() > inline {
            *value = Value::Null;
            parts.push(part(root.to_owned(), rest, &mut values));
        }
        // Put back in this order: first the whole, then the texts in it.
        for (at, text) in texts {
            parts.push(part(at, text, &mut values));
        }
    }
    if parts.is_empty() {
        return None;
    }
    let parts = serde_json::to_value(parts).ok()?;
    event.as_object_mut()?.insert(APART.to_owned(), parts);
    Some(Apart {
        body: event.to_string(),
        values,
    })
}

fn part(at: String, text: String, values: &mut Vec<(Digest, String)>) -> Part {
    let digest = Digest::of(text.as_bytes());
    let size = text.len();
    values.push((digest.clone(), text));
    Part { at, digest, size }
}

fn take_texts(
    value: &mut Value,
    inline: usize,
    at: &mut String,
    taken: &mut Vec<(String, String)>,
) {
    let mut within = |name: &str, value: &mut Value, at: &mut String| {
        let end = at.len();
        at.push('/');
        at.push_str(&name.replace('~', "~0").replace('/', "~1"));
        take_texts(value, inline, at, taken);
        at.truncate(end);
    };
    match value {
        Value::String(text) if text.len() > inline => {
            taken.push((at.clone(), value.take().to_string()));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        Value::Array(items) => {
            for (n, item) in items.iter_mut().enumerate() {
                within(&n.to_string(), item, at);
            }
        }
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                within(name, member, at);
            }
        }
    }
}

/// What is kept apart of an entry's text.
pub fn parts(body: &str) -> Vec<Part> {
    #[derive(Deserialize)]
    struct Named {
        #[serde(default)]
        apart: Vec<Part>,
    }
    // Most have nothing, and need not be read for that.
    if !body.contains("\"apart\":[") {
        return Vec::new();
    }
    serde_json::from_str::<Named>(body)
        .map(|named| named.apart)
        .unwrap_or_default()
}

/// An entry's text with its large values in their places; those that are not there any more stay
/// `null`.
pub fn put_back(body: &str, fetch: impl Fn(&Digest) -> Option<String>) -> String {
    let parts = parts(body);
    let Ok(mut event) = serde_json::from_str::<Value>(body) else {
        return body.to_owned();
    };
    for part in parts {
        let value = fetch(&part.digest).and_then(|text| serde_json::from_str(&text).ok());
        if let (Some(value), Some(place)) = (value, event.pointer_mut(&part.at)) {
            *place = value;
        }
    }
    if let Some(members) = event.as_object_mut() {
        members.shift_remove(APART);
    }
    event.to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

    use super::*;

    fn around(args: Value) -> String {
        json!({ "event": "decided", "facts": { "action": { "args": args, "name": "send" } } })
            .to_string()
    }

    fn back(apart: &Apart) -> String {
        let values: HashMap<_, _> = apart.values.iter().cloned().collect();
        put_back(&apart.body, |digest| values.get(digest).cloned())
    }

    #[test]
    fn what_is_small_stays_and_what_is_large_comes_back_where_it_was() {
        assert_eq!(take(&around(json!({ "a": "b" })), 100), None);
        let long = "x".repeat(200);
        let many: Vec<usize> = (0..100).collect();
        for args in [
            json!({ "a/b~c": [1, { "text": long }], "short": "s" }),
            json!({ "text": long, "many": many }),
            json!(many),
            json!(long),
        ] {
            let body = around(args);
            let apart = take(&body, 100).unwrap();
            assert!(apart.body.len() < 500, "{}", apart.body);
            assert_eq!(back(&apart), body);
            assert_eq!(parts(&apart.body).len(), apart.values.len());
        }
    }

    #[test]
    fn the_same_text_has_the_same_digest_wherever_it_is() {
        let long = "x".repeat(200);
        let one = take(&around(json!({ "body": long })), 100).unwrap();
        let two = take(&around(json!({ "other": ["y", long] })), 100).unwrap();
        assert_eq!(one.values, two.values);
    }

    #[test]
    fn an_agent_cannot_say_what_is_kept_apart() {
        let forged = json!({ "apart": [{ "at": "/facts/action/name", "digest": "0", "size": 1 }] });
        let body = around(forged);
        assert_eq!(parts(&body), Vec::new());
        assert_eq!(put_back(&body, |_| Some("\"another\"".to_owned())), body);
        // Nor by the length of what it sends.
        let long = json!({ "apart": "x".repeat(200) });
        let apart = take(&around(long), 100).unwrap();
        assert_eq!(parts(&apart.body).len(), 1);
    }
}
