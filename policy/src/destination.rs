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

use std::cmp::Ordering;

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
    /// The call names none, so a text that it holds may be one.
    Text,
    /// As `Text`, and it is a number, a date or a time: it names nobody.
    Plain,
    /// The call names none, and people wrote of what its tool is for.
    Purpose,
    /// Its tool does not say which arguments name destinations, so nobody knows them all.
    Unsaid,
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
    /// It has the form of an address, and can hardly be something else.
    #[serde(default)]
    pub address: bool,
    /// Who named it; nothing, if neither people nor a trusted source did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Origin>,
}

impl Destination {
    fn is_chosen(&self) -> bool {
        self.found.is_some() || self.role == Role::Plain
    }
}

/// Whether every destination of a call was chosen. One that has none was chosen by nobody.
pub fn all_chosen(destinations: &[Destination]) -> bool {
    !destinations.is_empty() && destinations.iter().all(Destination::is_chosen)
}

/// Whether a call holds an address that nobody named.
pub fn has_stray_address(destinations: &[Destination]) -> bool {
    destinations
        .iter()
        .any(|one| one.address && !one.is_chosen())
}

/// The destinations of a call. `declared` are the arguments that name them: a member's name, or a path
/// of names with dots between them; lists are looked into. Every address in another argument is one,
/// too: what is reached by a link is reached.
///
/// Where the call gives none of the declared ones, it reaches nobody by name. Then people have to have
/// written of what the tool is for, or every text in it has to be chosen.
pub fn of_call(tool: &str, args: &Value, declared: &[String], known: &Known) -> Vec<Destination> {
    let mut named = Vec::new();
    for path in declared {
        follow(args, path, "", &mut |at, value| {
            leaves(value, at, &mut |at, text| {
                if !named.iter().any(|(other, _)| other == at) {
                    named.push((at.to_owned(), text));
                }
            });
        });
    }
    let mut found = Vec::new();
    if declared.is_empty() {
        found.push(Destination {
            at: String::new(),
            value: String::new(),
            role: Role::Unsaid,
            address: false,
            found: None,
        });
    }
    for (at, text) in &named {
        let address =
            address::whole(text).is_some_and(|one| one.sure) || !address::find(text).is_empty();
        add(
            &mut found,
            at,
            text,
            (Role::Named, address),
            known.find(text),
        );
    }
    strings(args, "", &mut |at, text| {
        if named.iter().any(|(other, _)| other == at) {
            return;
        }
        for address in address::find(text).iter().filter(|one| one.sure) {
            let origin = known.find(&address.written);
            add(
                &mut found,
                at,
                &address.written,
                (Role::Inside, true),
                origin,
            );
        }
    });
    if !declared.is_empty() && named.is_empty() {
        if let Some((noun, origin)) = known.purpose(tool) {
            add(&mut found, "", &noun, (Role::Purpose, false), Some(origin));
        } else {
            leaves(args, "", &mut |at, text| {
                let plain = text
                    .chars()
                    .all(|c| c.is_ascii_digit() || " \t.,:/TZ+-".contains(c));
                let role = if plain { Role::Plain } else { Role::Text };
                add(&mut found, at, &text, (role, false), known.find(&text));
            });
        }
    }
    found
}

fn add(
    all: &mut Vec<Destination>,
    at: &str,
    value: &str,
    (role, address): (Role, bool),
    found: Option<&Origin>,
) {
    let destination = match all.len().cmp(&MOST) {
        Ordering::Less => Destination {
            at: at.to_owned(),
            value: value.chars().take(SHOWN).collect(),
            role,
            address,
            found: found.cloned(),
        },
        Ordering::Equal => Destination {
            at: at.to_owned(),
            value: format!("more than {MOST} values"),
            role: Role::Text,
            address: true,
            found: None,
        },
        Ordering::Greater => return,
    };
    all.push(destination);
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
            // A server may take a name in another spelling for it.
            let same = |name: &str| name == path || loosely(name) == loosely(path);
            let mut there = members.iter().filter(|(name, _)| same(name)).peekable();
            if there.peek().is_some() {
                there.for_each(|(name, member)| see(&pointer(at, name), member));
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

fn loosely(name: &str) -> String {
    let letters = name.chars().filter(|c| !matches!(c, '_' | '-'));
    letters.flat_map(char::to_lowercase).collect()
}

fn pointer(at: &str, name: &str) -> String {
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Texts and numbers in a value; a text of nothing names nobody.
fn leaves(value: &Value, at: &str, see: &mut impl FnMut(&str, String)) {
    match value {
        Value::String(text) if text.trim().is_empty() => {}
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
    let stray = destinations.iter().filter(|one| !one.is_chosen());
    let stray: Vec<&Destination> = stray.filter(|one| one.role != Role::Unsaid).collect();
    if stray.is_empty() {
        return None;
    }
    let told = stray
        .iter()
        .take(TOLD)
        .map(|one| format!("`{}`", one.value));
    let told: Vec<String> = told.collect();
    let more = match stray.len().saturating_sub(TOLD) {
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
    let told = destinations.iter().filter_map(|one| {
        let origin = one.found.as_ref()?;
        match one.role {
            Role::Named | Role::Inside => Some(format!("`{}` ({origin})", one.value)),
            Role::Purpose => Some(format!("nobody by name; people wrote of `{}`", one.value)),
            Role::Text | Role::Plain | Role::Unsaid => None,
        }
    });
    let mut told: Vec<String> = told.collect();
    told.dedup();
    if told.is_empty() {
        told.push("nobody by name; people wrote all that it says".to_owned());
    }
    format!("whom it reaches was chosen: {}", told.join(", "))
}

#[cfg(test)]
mod tests;
