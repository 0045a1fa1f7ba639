//! Destinations: whom or what a call reaches, and who named it.
//!
//! A value counts as *chosen* where it occurs in what people of the group wrote themselves, or in the
//! answer of a source that is declared trusted ([`Known`]). One that only strangers wrote does not.
//! Values are parsed and compared whole, never as parts of other values: `ana@example.org` is not in
//! `ana@example.org.evil.com`, and `bob` is not in `bobby`. What cannot be read counts as chosen by
//! nobody.
//!
//! Reading order: [`address`] (values that have a form), [`words`] (those that have none), [`known`].

pub mod address;
pub mod known;
pub mod words;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use known::{Known, Origin, Soil, Source};

/// The most values of one call that are looked at; a call with more is not chosen.
pub const MOST: usize = 64;
/// How much of a value is recorded, in characters.
const SHOWN: usize = 120;

/// Why a value counts as a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It is in an argument that is declared to name one.
    Named,
    /// It is an address inside another argument: a link, an account, somebody to write to.
    Inside,
    /// The call names none, so whatever it holds may be one.
    Text,
}

/// A value that a call reaches or could reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// Where it is in the arguments (JSON pointer).
    pub at: String,
    /// What it is, cut where it is long.
    pub value: String,
    /// Why it counts.
    pub role: Role,
    /// Who named it; nothing, if neither people nor a trusted source did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Origin>,
}

/// Whether every destination of a call was chosen. One that has none was chosen by nobody.
pub fn all_chosen(destinations: &[Destination]) -> bool {
    !destinations.is_empty() && destinations.iter().all(|one| one.found.is_some())
}

/// The destinations of a call. `declared` are the arguments that name them: a member's name, or a path
/// of names with dots between them; lists are looked into. Where the call gives none of these, every
/// text and number in its arguments is one.
pub fn of_call(args: &Value, declared: &[String], known: &Known) -> Vec<Destination> {
    let mut named = Vec::new();
    for path in declared {
        follow(args, path, "", &mut |at, value| {
            leaves(value, at, &mut |at, text| {
                named.push((at.to_owned(), text));
            });
        });
    }
    let mut found = Vec::new();
    if named.is_empty() {
        leaves(args, "", &mut |at, text| {
            add(&mut found, at, &text, Role::Text, known);
        });
        return found;
    }
    for (at, text) in &named {
        add(&mut found, at, text, Role::Named, known);
    }
    strings(args, "", &mut |at, text| {
        if named.iter().any(|(other, _)| other == at) {
            return;
        }
        for address in address::find(text) {
            if address.sure {
                add(&mut found, at, &address.written, Role::Inside, known);
            }
        }
    });
    found
}

fn add(all: &mut Vec<Destination>, at: &str, value: &str, role: Role, known: &Known) {
    let shown: String = value.chars().take(SHOWN).collect();
    if all.len() < MOST {
        all.push(Destination {
            at: at.to_owned(),
            found: known.find(value).cloned(),
            value: shown,
            role,
        });
    } else if all.len() == MOST {
        all.push(Destination {
            at: at.to_owned(),
            value: format!("more than {MOST} values"),
            role,
            found: None,
        });
    }
}

/// Goes down a path, through lists as if they were not there. A member whose name has dots counts
/// before a path does.
fn follow<'a>(value: &'a Value, path: &str, at: &str, see: &mut impl FnMut(&str, &'a Value)) {
    match value {
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                follow(item, path, &format!("{at}/{n}"), see);
            }
        }
        Value::Object(members) => {
            if let Some(member) = members.get(path) {
                see(&pointer(at, path), member);
                return;
            }
            // Every split, for a name on the way may have dots too.
            for (dot, _) in path.match_indices('.') {
                let (Some(name), Some(rest)) = (path.get(..dot), path.get(dot + 1..)) else {
                    continue;
                };
                if let Some(member) = members.get(name) {
                    follow(member, rest, &pointer(at, name), see);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn pointer(at: &str, name: &str) -> String {
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Texts and numbers in a value; a text of nothing names nobody.
fn leaves(value: &Value, at: &str, see: &mut impl FnMut(&str, String)) {
    match value {
        Value::String(text) if text.is_empty() => {}
        Value::String(text) => see(at, text.clone()),
        Value::Number(number) => see(at, number.to_string()),
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                leaves(item, &format!("{at}/{n}"), see);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                leaves(member, &pointer(at, name), see);
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

/// Texts in a value, and the names of its members.
fn strings<'a>(value: &'a Value, at: &str, see: &mut impl FnMut(&str, &'a str)) {
    match value {
        Value::String(text) => see(at, text),
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                strings(item, &format!("{at}/{n}"), see);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                let at = pointer(at, name);
                // A name that holds an address is not the member that was declared.
                see(&format!("{at}#"), name);
                strings(member, &at, see);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Why the destinations of a call were not all chosen, in words.
pub fn unchosen(destinations: &[Destination]) -> Option<String> {
    const TOLD: usize = 3;
    let stray: Vec<&Destination> = destinations
        .iter()
        .filter(|one| one.found.is_none())
        .collect();
    if stray.is_empty() {
        return None;
    }
    let mut told: Vec<String> = stray
        .iter()
        .take(TOLD)
        .map(|one| format!("`{}`", one.value))
        .collect();
    told.dedup();
    let more = stray.len().saturating_sub(TOLD);
    let more = match more {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    Some(format!(
        "nobody of the group wrote {}{more}, and no trusted source told of it",
        told.join(", ")
    ))
}

/// Who chose the destinations of a call, in words.
pub fn chosen(destinations: &[Destination]) -> String {
    let mut told: Vec<String> = destinations
        .iter()
        .filter(|one| one.role == Role::Named)
        .filter_map(|one| Some(format!("`{}` ({})", one.value, one.found.as_ref()?)))
        .collect();
    told.dedup();
    if told.is_empty() {
        "everything that it holds was chosen by people of the group, or comes from a trusted source"
            .to_owned()
    } else {
        format!("whom it reaches was chosen: {}", told.join(", "))
    }
}

#[cfg(test)]
mod tests;
