//! *Always*: rules that would have let a call through, from narrow to wide.
//!
//! A rule is proposed only if it speaks of the very call that was asked about and opens every gate
//! that stopped it: that is found out by deciding again. Nothing of it is the agent's choice of words
//! but the values themselves, which are written so that they stay values.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use url::Url;

use crate::action::Method;
use crate::condition::Condition;
use crate::decision::{Decision, Facts, Policy, explain};
use crate::destination::address;
use crate::rule::{Effect, Gate, Pattern, Rule};

/// The gates that a rule of a person's *always* opens. The others are asked about each time.
pub const LIFTED: [Gate; 2] = [Gate::PublicSink, Gate::DangerousWrites];

/// How much a proposed rule lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Width {
    /// This tool, with exactly these destinations.
    Narrow,
    /// This tool, with destinations of the same domain or folder.
    Middle,
    /// This tool.
    Wide,
}

/// A rule that a person may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// How wide it is.
    pub width: Width,
    /// The rule.
    pub rule: Rule,
    /// What it lets through, in words; the values of the call are in it as they are.
    pub words: String,
}

/// What a proposal is made for.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// The name of the rule.
    pub name: &'a str,
    /// The arguments that name whom or what the tool reaches.
    pub destinations: &'a [String],
    /// When the rule ends.
    pub until: Timestamp,
}

/// The rules that would have let a call through, narrow to wide. None, where no rule of this kind would.
pub fn proposals(policy: &Policy, facts: &Facts, wish: Wish<'_>) -> Vec<Proposal> {
    let action = &facts.action;
    let closed = explain(policy, facts).gates;
    let tool = action.tool();
    let liftable = !closed.is_empty() && closed.iter().all(|gate| LIFTED.contains(gate));
    // A name with a star would be a pattern.
    if action.method != Method::Call || !liftable || tool.contains('*') {
        return Vec::new();
    }
    let Value::Object(args) = &action.args else {
        return Vec::new();
    };
    let lifts: Vec<Gate> = closed.iter().copied().collect();
    let conditions = [
        (Width::Narrow, narrow(args, wish.destinations)),
        (Width::Middle, middle(args, wish.destinations)),
        (
            Width::Wide,
            Some((None, "whatever its arguments".to_owned())),
        ),
    ];
    let mut found: Vec<Proposal> = Vec::new();
    for (width, condition) in conditions {
        let Some((source, said)) = condition else {
            continue;
        };
        let when = match source.map(|source| Condition::parse(&source)) {
            None => None,
            Some(Ok(when)) => Some(when),
            Some(Err(_)) => continue,
        };
        let rule = Rule {
            name: wish.name.to_owned(),
            groups: Some(vec![action.group.clone()]),
            servers: None,
            tools: Some(vec![Pattern::new(tool.clone())]),
            when,
            until: Some(wish.until),
            then: Effect::Allow,
            lifts: lifts.clone(),
            people: 1,
        };
        let words = format!("allow `{tool}` in group `{}`, {said}", action.group);
        if lets_through(policy, facts, &rule) && found.iter().all(|one| one.rule.when != rule.when)
        {
            found.push(Proposal { width, rule, words });
        }
    }
    found
}

/// A policy with one rule more.
pub fn with(policy: &Policy, rule: &Rule) -> Policy {
    let mut rules = policy.rules.clone();
    rules.push(rule.clone());
    Policy { rules }
}

fn lets_through(policy: &Policy, facts: &Facts, rule: &Rule) -> bool {
    let why = explain(&with(policy, rule), facts);
    why.decision == Decision::Allow && why.rules.contains(&rule.name)
}

type Told = Option<(Option<String>, String)>;

/// Exactly these destinations; where none is named, exactly these arguments.
fn narrow(args: &Map<String, Value>, destinations: &[String]) -> Told {
    let mut named: Vec<(&String, &Value)> = present(args, destinations);
    let whole = named.is_empty();
    if whole {
        named = args.iter().collect();
        named.sort_by_key(|(name, _)| *name);
    }
    let mut parts = vec![only_these(args)];
    let mut words = Vec::new();
    for (name, value) in named {
        parts.push(format!("{} == {}", member(name), literal(value)?));
        words.push(format!("{name} = {}", plain(value)));
    }
    let said = match (whole, words.is_empty()) {
        (_, true) => "without arguments".to_owned(),
        (true, false) => format!("with exactly these arguments: {}", words.join(", ")),
        (false, false) => format!("with exactly {}", words.join(", ")),
    };
    Some((Some(parts.join(" && ")), said))
}

/// Destinations of the same domain, host or folder.
fn middle(args: &Map<String, Value>, destinations: &[String]) -> Told {
    let mut parts = vec![only_these(args)];
    let mut words = Vec::new();
    let mut wider = false;
    for (name, value) in present(args, destinations) {
        if let Some((condition, said)) = like(name, value) {
            wider = true;
            parts.push(condition);
            words.push(said);
        } else {
            parts.push(format!("{} == {}", member(name), literal(value)?));
            words.push(format!("{name} = {}", plain(value)));
        }
    }
    wider.then(|| {
        (
            Some(parts.join(" && ")),
            format!("with {}", words.join(", ")),
        )
    })
}

fn present<'a>(args: &'a Map<String, Value>, names: &[String]) -> Vec<(&'a String, &'a Value)> {
    let said = args.iter().filter(|(name, _)| names.contains(name));
    let mut said: Vec<_> = said.collect();
    said.sort_by_key(|(name, _)| *name);
    said
}

/// No argument beside these: one more could name somebody else.
fn only_these(args: &Map<String, Value>) -> String {
    let mut names: Vec<String> = args.keys().map(|name| quoted(name)).collect();
    names.sort();
    format!("args.all(name, name in [{}])", names.join(", "))
}

/// The kinds of values that have something wider than themselves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Like {
    Domain(String),
    Site(String),
    Folder(String),
}

impl Like {
    fn of(text: &str) -> Option<Self> {
        if let Some(address) = address::whole(text)
            && address.kind == address::Kind::Mail
        {
            return Some(Self::Domain(text.rsplit_once('@')?.1.to_owned()));
        }
        if let Ok(url) = Url::parse(text)
            && matches!(url.scheme(), "http" | "https")
        {
            let site = format!("{}/", url.origin().ascii_serialization());
            return text.starts_with(&site).then_some(Self::Site(site));
        }
        let (folder, _) = text.rsplit_once('/')?;
        let plain = !folder.is_empty()
            && !text.contains("..")
            && !text.contains('\\')
            && !text.contains("://");
        plain.then(|| Self::Folder(format!("{folder}/")))
    }

    /// That a text is like this.
    fn holds(&self, text: &str) -> String {
        match self {
            // One address and nothing beside it.
            Self::Domain(domain) => {
                let pattern = format!(r#"^[^@\s,;:<>()\[\]"\\]+@{}$"#, escaped(domain));
                format!("{text}.matches({})", quoted(&pattern))
            }
            Self::Site(site) => format!("{text}.startsWith({})", quoted(site)),
            Self::Folder(folder) => {
                format!(
                    "({text}.startsWith({}) && !{text}.contains(\"..\"))",
                    quoted(folder)
                )
            }
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Domain(domain) => format!("anybody at {domain}"),
            Self::Site(site) => format!("anything at {site}"),
            Self::Folder(folder) => format!("anything in {folder}"),
        }
    }
}

fn like(name: &str, value: &Value) -> Option<(String, String)> {
    let place = member(name);
    let (texts, list): (Vec<&str>, bool) = match value {
        Value::String(text) => (vec![text], false),
        Value::Array(items) => (
            items.iter().map(Value::as_str).collect::<Option<_>>()?,
            true,
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return None,
    };
    let all: BTreeSet<Like> = texts.into_iter().map(Like::of).collect::<Option<_>>()?;
    let subject = if list { "one" } else { place.as_str() };
    let any: Vec<String> = all.iter().map(|like| like.holds(subject)).collect();
    let words: Vec<String> = all.iter().map(Like::words).collect();
    if any.is_empty() {
        return None;
    }
    let any = any.join(" || ");
    let condition = match (list, all.len()) {
        (true, _) => format!("{place}.all(one, {any})"),
        (false, 1) => any,
        (false, _) => format!("({any})"),
    };
    Some((condition, format!("{name} = {}", words.join(" or "))))
}

/// `args.to`, or `args["odd name"]`.
fn member(name: &str) -> String {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic());
    let plain = first && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if plain && !RESERVED.contains(&name) {
        format!("args.{name}")
    } else {
        format!("args[{}]", quoted(name))
    }
}

/// Words that CEL keeps to itself.
const RESERVED: [&str; 19] = [
    "as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in",
    "let", "loop", "null", "package", "return", "true", "var", "while",
];

/// A value as CEL writes it; `None` where it cannot be written so that it stays the same.
fn literal(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.as_i64()?.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(literal).collect::<Option<_>>()?;
            format!("[{}]", items.join(", "))
        }
        Value::Object(members) => {
            let pair = |(name, value): (&String, &Value)| {
                Some(format!("{}: {}", quoted(name), literal(value)?))
            };
            let members: Vec<String> = members.iter().map(pair).collect::<Option<_>>()?;
            format!("{{{}}}", members.join(", "))
        }
    })
}

/// A text in double quotes, as CEL and TOML both read it: whatever is in it stays in it.
pub fn quoted(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            ' '..='~' => out.push(c),
            c if c.is_alphanumeric() => out.push(c),
            c => {
                let code = u32::from(c);
                let _ = if code > 0xffff {
                    write!(out, "\\U{code:08x}")
                } else {
                    write!(out, "\\u{code:04x}")
                };
            }
        }
    }
    out.push('"');
    out
}

/// A text as a pattern that fits it alone.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if !c.is_alphanumeric() && c != '-' {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

/// A rule as it would stand in the configuration.
pub fn toml(rule: &Rule) -> String {
    use std::fmt::Write as _;
    let list = |items: Vec<String>| format!("[{}]", items.join(", "));
    let mut out = format!("[[rules]]\nname = {}\n", quoted(&rule.name));
    if let Some(groups) = &rule.groups {
        let names = groups.iter().map(|group| quoted(group.as_str())).collect();
        let _ = writeln!(out, "groups = {}", list(names));
    }
    for (key, patterns) in [("servers", &rule.servers), ("tools", &rule.tools)] {
        if let Some(patterns) = patterns {
            let texts = patterns.iter().map(|one| quoted(one.as_str())).collect();
            let _ = writeln!(out, "{key} = {}", list(texts));
        }
    }
    if let Some(when) = &rule.when {
        let _ = writeln!(out, "when = {}", quoted(when.source()));
    }
    let then = match rule.then {
        Effect::Allow => "allow",
        Effect::Ask => "ask",
        Effect::Deny => "deny",
    };
    let _ = writeln!(out, "then = \"{then}\"");
    if rule.people > 1 {
        let _ = writeln!(out, "people = {}", rule.people);
    }
    if !rule.lifts.is_empty() {
        let names = rule
            .lifts
            .iter()
            .map(|gate| quoted(gate.as_str()))
            .collect();
        let _ = writeln!(out, "lifts = {}", list(names));
    }
    if let Some(until) = rule.until {
        let _ = writeln!(out, "until = {until}");
    }
    out
}

#[cfg(test)]
mod tests;
