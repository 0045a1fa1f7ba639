//! Whether what a condition reads of the arguments can be there, by the schemas of the tools that it
//! speaks of. Where a tool is not known yet, nothing is said.

use policy::condition::Step;
use policy::rule::{Pattern, Rule};
use serde_json::Value;

use super::{Config, Problem};

/// Something that a condition reads, and what to say if no tool has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) rule: String,
    pub(super) steps: Vec<Step>,
    pub(super) problem: Problem,
}

/// The tools of a server with their input schemas.
type Tools = Vec<(String, Value)>;

/// How deep a schema is followed.
const DEEPEST: usize = 24;

impl Config {
    /// What conditions read of arguments that cannot be there; `known` gives the tools of a server
    /// with their input schemas, where they are known.
    pub fn impossible(&self, known: &dyn Fn(&str) -> Option<Tools>) -> Vec<Problem> {
        let listings: Vec<(&str, Option<Tools>)> = self
            .servers
            .keys()
            .map(|server| (server.as_str(), known(server.as_str())))
            .collect();
        let impossible = |read: &&Read| {
            let rule = self.policy.rules.iter().find(|rule| rule.name == read.rule);
            rule.is_some_and(|rule| is_impossible(rule, &read.steps, &listings))
        };
        let found = self.reads.iter().filter(impossible);
        found.map(|read| read.problem.clone()).collect()
    }
}

fn is_impossible(rule: &Rule, steps: &[Step], listings: &[(&str, Option<Tools>)]) -> bool {
    let mut spoken_of = false;
    let fits = |patterns: &Option<Vec<Pattern>>, text: &str| {
        let all = patterns.as_ref();
        all.is_none_or(|all| all.iter().any(|one| one.matches(text)))
    };
    // A provider of models has arguments of its own.
    if rule
        .tools
        .as_ref()
        .is_none_or(|all| all.iter().any(|one| one.matches("model:x__y")))
    {
        return false;
    }
    for (server, tools) in listings {
        if !fits(&rule.servers, server) {
            continue;
        }
        let prefix = format!("{server}__");
        let named = |pattern: &Pattern| {
            let text = pattern.as_str();
            let start = text.split_once('*').map_or(text, |(start, _)| start);
            start.starts_with(&prefix) || prefix.starts_with(start)
        };
        if !rule.tools.as_ref().is_none_or(|all| all.iter().any(named)) {
            continue;
        }
        let Some(tools) = tools else { return false };
        for (tool, schema) in tools {
            if fits(&rule.tools, &format!("{prefix}{tool}")) {
                spoken_of = true;
                if has(schema, schema, steps, DEEPEST) != Has::No {
                    return false;
                }
            }
        }
    }
    spoken_of
}

/// Whether a schema has something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Has {
    /// It names it.
    Yes,
    /// It does not say.
    Open,
    /// It names others, or it is of another type.
    No,
}

fn has(root: &Value, schema: &Value, steps: &[Step], left: usize) -> Has {
    let Some((step, rest)) = steps.split_first() else {
        return Has::Yes;
    };
    let Some(schema) = schema.as_object().filter(|_| left > 0) else {
        return if schema == &Value::Bool(false) {
            Has::No
        } else {
            Has::Open
        };
    };
    let wanted = match step {
        Step::Name(_) => "object",
        Step::Each => "array",
    };
    let types = match schema.get("type") {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        _ => vec![wanted],
    };
    if !types.contains(&wanted) {
        return Has::No;
    }
    let mut found = vec![match step {
        Step::Name(name) => match schema.get("properties").and_then(|all| all.get(name)) {
            Some(member) => return has(root, member, rest, left - 1),
            None => unnamed(schema),
        },
        Step::Each => match schema.get("items") {
            Some(items) => return has(root, items, rest, left - 1),
            None => Has::Open,
        },
    }];
    let own_says_nothing = found == [Has::Open] && !schema.contains_key("additionalProperties");
    let parts = ["allOf", "anyOf", "oneOf"]
        .into_iter()
        .filter_map(|key| schema.get(key)?.as_array())
        .flatten();
    let branches = ["then", "else"]
        .into_iter()
        .filter_map(|key| schema.get(key));
    let reference = schema.get("$ref").and_then(Value::as_str).map(|to| {
        to.strip_prefix('#')
            .and_then(|to| root.pointer(to))
            .unwrap_or(&Value::Null)
    });
    let before = found.len();
    found.extend(
        parts
            .chain(branches)
            .chain(reference)
            .map(|part| has(root, part, steps, left - 1)),
    );
    // What only puts others together has nothing of its own to say.
    if found.len() > before && own_says_nothing {
        found.remove(0);
    }
    if found.contains(&Has::Yes) {
        Has::Yes
    } else if found.contains(&Has::Open) {
        Has::Open
    } else {
        Has::No
    }
}

/// What a schema says of a member that it does not name. Where it names some and does not say that
/// there are others, it is taken at its word: `args["name"]` reads what no schema tells of.
fn unnamed(schema: &serde_json::Map<String, Value>) -> Has {
    let others = match schema.get("additionalProperties") {
        None => !schema.contains_key("properties"),
        Some(Value::Bool(others)) => *others,
        Some(_) => true,
    };
    if others || schema.contains_key("patternProperties") {
        Has::Open
    } else {
        Has::No
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(schema: Value, path: &str) -> Has {
        let steps: Vec<Step> = path
            .split('.')
            .map(|step| match step {
                "[]" => Step::Each,
                name => Step::Name(name.to_owned()),
            })
            .collect();
        has(&schema, &schema, &steps, DEEPEST)
    }

    #[test]
    fn a_schema_is_taken_at_its_word() {
        let mail = json!({
            "type": "object",
            "properties": {
                "to": {"type": "array", "items": {"type": "string"}},
                "from": {"$ref": "#/$defs/person"},
                "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}},
                "free": {"type": "object"},
                "open": {"type": "object", "properties": {"a": {}}, "additionalProperties": true},
                "any": {},
                "either": {"anyOf": [{"type": "string"}, {"type": "object", "properties": {"b": {}}}]},
                "both": {"allOf": [{"properties": {"c": {}}}, {"properties": {"d": {}}}]},
                "loop": {"$ref": "#"},
                "far": {"$ref": "https://example.org/x"},
            },
            "$defs": {
                "person": {"type": "object", "properties": {"name": {"type": "string"}}, "additionalProperties": false},
                "part": {"type": ["object", "null"], "properties": {"text": {}}},
            },
        });
        for (path, has) in [
            ("to", Has::Yes),
            ("amont", Has::No),
            ("to.[]", Has::Yes),
            ("to.[].name", Has::No),
            ("to.name", Has::No),
            ("from.name", Has::Yes),
            ("from.nam", Has::No),
            ("parts.[].text", Has::Yes),
            ("parts.[].tex", Has::No),
            ("free.x", Has::Open),
            ("open.x", Has::Open),
            ("any.x.y", Has::Open),
            ("either.b", Has::Yes),
            ("either.x", Has::No),
            ("both.d", Has::Yes),
            ("both.x", Has::No),
            ("loop.loop.to", Has::Yes),
            ("loop.loop.x", Has::No),
            ("far.x", Has::Open),
        ] {
            assert_eq!(check(mail.clone(), path), has, "{path}");
        }
        assert_eq!(check(json!({"type": "object"}), "x"), Has::Open);
        assert_eq!(check(json!({}), "x"), Has::Open);
        assert_eq!(check(json!(true), "x"), Has::Open);
    }
}
