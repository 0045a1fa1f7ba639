//! What differs between two definitions, place by place, for people: whole, and with nothing left out.
//!
//! The texts are what the server wrote. Whoever shows them makes them safe first.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

/// One place of a definition that is another now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// The way to it, such as `inputSchema/properties/to`; empty for the whole.
    pub place: String,
    /// What was there; `None` if nothing.
    pub was: Option<String>,
    /// What is there now; `None` if nothing.
    pub is: Option<String>,
}

/// Every place in which two definitions differ, those that a model reads first.
pub fn parts(was: Option<&Value>, is: Option<&Value>) -> Vec<Part> {
    let mut parts = Vec::new();
    match (was, is) {
        // Of one that is new or gone, each member is a place of its own.
        (None, Some(Value::Object(_))) => walk(
            "",
            Some(&Value::Object(serde_json::Map::new())),
            is,
            &mut parts,
        ),
        (Some(Value::Object(_)), None) => walk(
            "",
            was,
            Some(&Value::Object(serde_json::Map::new())),
            &mut parts,
        ),
        _ => walk("", was, is, &mut parts),
    }
    parts.sort_by_key(|part| rank(&part.place));
    parts
}

fn rank(place: &str) -> usize {
    const FIRST: [&str; 4] = ["name", "title", "description", "annotations"];
    let top = place.split('/').next().unwrap_or_default();
    let known = FIRST.iter().position(|name| *name == top);
    known.unwrap_or(FIRST.len())
}

fn walk(place: &str, was: Option<&Value>, is: Option<&Value>, parts: &mut Vec<Part>) {
    if was == is {
        return;
    }
    let below = |name: &str| {
        if place.is_empty() {
            name.to_owned()
        } else {
            format!("{place}/{name}")
        }
    };
    match (was, is) {
        (Some(Value::Object(was)), Some(Value::Object(is))) => {
            let names: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
            for name in names {
                walk(&below(name), was.get(name), is.get(name), parts);
            }
        }
        (Some(Value::Array(was)), Some(Value::Array(is))) if was.len() == is.len() => {
            for (n, (was, is)) in was.iter().zip(is).enumerate() {
                walk(&below(&n.to_string()), Some(was), Some(is), parts);
            }
        }
        _ => parts.push(Part {
            place: place.to_owned(),
            was: was.map(text),
            is: is.map(text),
        }),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => {
            serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// Two texts in what they begin with alike, what each has of its own, and what they end with alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut<'a> {
    /// What both begin with.
    pub before: &'a str,
    /// What only the first has.
    pub was: &'a str,
    /// What only the second has.
    pub is: &'a str,
    /// What both end with.
    pub after: &'a str,
}

/// Cuts two texts where they begin to differ and where they end to.
pub fn cut<'a>(was: &'a str, is: &'a str) -> Cut<'a> {
    let alike = |one: (char, char)| one.0 == one.1;
    let begin: usize = was
        .chars()
        .zip(is.chars())
        .take_while(|one| alike(*one))
        .map(|(c, _)| c.len_utf8())
        .sum();
    let (before, was) = was.split_at_checked(begin).unwrap_or(("", was));
    let (_, is) = is.split_at_checked(begin).unwrap_or(("", is));
    let end: usize = was
        .chars()
        .rev()
        .zip(is.chars().rev())
        .take_while(|one| alike(*one))
        .map(|(c, _)| c.len_utf8())
        .sum();
    let (was, after) = was.split_at_checked(was.len() - end).unwrap_or((was, ""));
    let (is, _) = is.split_at_checked(is.len() - end).unwrap_or((is, ""));
    Cut {
        before,
        was,
        is,
        after,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_place_that_differs_is_told_whole() {
        let long = "x".repeat(20_000);
        let was = json!({"name": "t", "description": "old", "inputSchema": {"properties": {"a": {"type": "string"}}}, "x": 1});
        let is = json!({"name": "t", "description": long, "inputSchema": {"properties": {"a": {"type": "string"}, "b": {}}}, "y": [1]});
        let shown: Vec<String> = parts(Some(&was), Some(&is))
            .iter()
            .map(|part| {
                format!(
                    "{}: {:?} → {:?}",
                    part.place,
                    part.was,
                    part.is.as_ref().map(String::len)
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                "description: Some(\"old\") → Some(20000)",
                "inputSchema/properties/b: None → Some(2)",
                "x: Some(\"1\") → None",
                "y: None → Some(7)",
            ]
        );
        // A new one shows all its members, a text is one place.
        assert_eq!(parts(None, Some(&was)).len(), 4);
        assert_eq!(parts(Some(&json!("a")), Some(&json!("b"))).len(), 1);
        assert_eq!(parts(Some(&was), Some(&was)), []);
    }

    #[test]
    fn a_cut_is_all_of_both_texts() {
        for (was, is, middle) in [
            (
                "Sends a letter.",
                "Sends a letter. Also to evil.",
                ("", " Also to evil."),
            ),
            ("same", "same", ("", "")),
            ("aa", "aaa", ("", "a")),
            ("xéy", "xêy", ("é", "ê")),
            ("", "new", ("", "new")),
        ] {
            let cut = cut(was, is);
            assert_eq!(format!("{}{}{}", cut.before, cut.was, cut.after), was);
            assert_eq!(format!("{}{}{}", cut.before, cut.is, cut.after), is);
            assert_eq!((cut.was, cut.is), middle, "{was} {is}");
        }
    }
}
