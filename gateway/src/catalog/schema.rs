//! Checks arguments against a tool's `inputSchema`, as far as that cannot be made expensive.
//!
//! A schema is written by a server, which may be hostile: a few lines that refer to each other can
//! stand for more work than there is time. Whatever is not known to be cheap is not checked here,
//! and the server checks it itself.

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

/// The most values that a schema may hold once its references are followed.
const MOST_NODES: usize = 10_000;
/// The most of these in all schemas of one server together.
pub(super) const MOST_OF_ALL: usize = 500_000;
/// The deepest that they may be nested, references included: validation is recursive.
const DEEPEST: usize = 128;
/// How many values one regular expression counts for.
const PATTERN: usize = 500;
/// The most bytes that a regular expression may be compiled to.
const PATTERN_BYTES: usize = 64 * 1024;
/// The most bytes of memory that matching it may take.
const PATTERN_MEMORY: usize = 512 * 1024;
/// The most work that one check may be: values of the schema times bytes of the arguments.
const MOST_WORK: usize = 50_000_000;
/// The most problems that are told at once.
const SHOWN: usize = 5;

/// A schema that is cheap enough to check with.
#[derive(Debug)]
pub(super) struct Schema {
    validator: Validator,
    nodes: usize,
}

impl Schema {
    /// Takes what a server wrote; `room` is what is left for all its schemas.
    ///
    /// # Errors
    /// Why the server has to check its arguments itself.
    pub(super) fn read(schema: &Value, room: &mut usize) -> Result<Self, String> {
        let nodes = nodes(schema).ok_or("it is too large, or refers to itself or elsewhere")?;
        *room = room
            .checked_sub(nodes)
            .ok_or("the schemas of its server are too large together")?;
        // The engine that never backtracks; what only the other one knows is no valid pattern here.
        let patterns = PatternOptions::regex()
            .size_limit(PATTERN_BYTES)
            .dfa_size_limit(PATTERN_MEMORY);
        let validator = jsonschema::options()
            .with_pattern_options(patterns)
            .build(schema)
            .map_err(|error| error.to_string())?;
        Ok(Self { validator, nodes })
    }

    /// What is wrong with some arguments, in words for an agent.
    pub(super) fn problems(&self, args: &Value) -> Vec<String> {
        if self.nodes.saturating_mul(args.to_string().len()) > MOST_WORK {
            return Vec::new();
        }
        self.validator
            .iter_errors(args)
            .take(SHOWN)
            .map(|error| {
                let place = error.instance_path().to_string();
                if place.is_empty() {
                    error.to_string()
                } else {
                    format!("at {place}: {error}")
                }
            })
            .collect()
    }
}

/// How many values a schema holds with its references followed; `None` for one that is not to be
/// used here.
fn nodes(schema: &Value) -> Option<usize> {
    // There `id` is what `$id` is in all later drafts.
    let draft = schema.get("$schema").and_then(Value::as_str);
    if draft.is_some_and(|draft| draft.contains("draft-03") || draft.contains("draft-04")) {
        return None;
    }
    let mut count = 0;
    walk(schema, schema, 1, 0, &mut count)?;
    Some(count)
}

fn walk(root: &Value, at: &Value, weight: usize, depth: usize, count: &mut usize) -> Option<()> {
    *count = count.saturating_add(weight);
    // A cycle is a reference without an end, so it ends here as well.
    if *count > MOST_NODES || depth > DEEPEST {
        return None;
    }
    match at {
        Value::Array(items) => {
            for item in items {
                walk(root, item, weight, depth + 1, count)?;
            }
        }
        Value::Object(members) => {
            // What was evaluated is found out by evaluating it once more, on every level.
            let again = members.keys().any(|name| name.starts_with("unevaluated"));
            let weight = if again { weight * 2 } else { weight };
            for (name, member) in members {
                match (name.as_str(), member) {
                    // Escaped, it could mean another place to whoever unescapes it.
                    ("$ref", Value::String(target)) if target.contains('%') => return None,
                    ("$ref", Value::String(target)) => {
                        let target = root.pointer(target.strip_prefix('#')?)?;
                        walk(root, target, weight, depth + 1, count)?;
                    }
                    ("$dynamicRef" | "$recursiveRef", Value::String(_)) => return None,
                    // These change what a reference below them means.
                    ("$id" | "$schema", Value::String(_)) if depth > 0 => return None,
                    ("pattern", Value::String(_)) => {
                        *count = count.saturating_add(PATTERN * weight);
                    }
                    ("patternProperties", Value::Object(patterns)) => {
                        *count = count.saturating_add(PATTERN * weight * patterns.len());
                    }
                    _ => {}
                }
                walk(root, member, weight, depth + 1, count)?;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(schema: &Value) -> Result<Schema, String> {
        Schema::read(schema, &mut MOST_OF_ALL.clone())
    }

    #[test]
    fn an_ordinary_schema_is_checked() {
        let schema = json!({
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "object",
            "definitions": { "name": { "type": "string", "pattern": "^[a-z]{1,64}$" } },
            "properties": { "a": { "$ref": "#/definitions/name" }, "$id": { "type": "string" } },
            "required": ["a"],
        });
        let schema = read(&schema).unwrap();
        assert_eq!(schema.problems(&json!({ "a": "x" })).len(), 0);
        for wrong in [json!({}), json!({ "a": 1 }), json!({ "a": "A" })] {
            assert_eq!(schema.problems(&wrong).len(), 1, "{wrong}");
        }
    }

    #[test]
    fn what_can_be_made_expensive_is_left_to_the_server() {
        let mut doubling = json!({ "$defs": {}, "$ref": "#/$defs/d0" });
        for level in 0..30 {
            let next = json!({ "$ref": format!("#/$defs/d{}", level + 1) });
            doubling["$defs"][format!("d{level}")] = json!({ "anyOf": [next, next] });
        }
        doubling["$defs"]["d30"] = json!({ "type": "null" });
        let nested = (0..20).fold(
            json!({ "type": "null" }),
            |inner, _| json!({ "allOf": [inner], "unevaluatedProperties": false }),
        );
        let patterns: Vec<Value> = (0..30)
            .map(|n| json!({ "pattern": n.to_string() }))
            .collect();
        for schema in [
            doubling,
            nested,
            json!({ "properties": { "next": { "$ref": "#" } } }),
            json!({ "$ref": "https://elsewhere.example/schema" }),
            json!({ "$ref": "#anchor" }),
            json!({ "$defs": { "a%25": true, "a%": false }, "$ref": "#/$defs/a%25" }),
            json!({ "$dynamicRef": "#" }),
            json!({ "anyOf": [{ "$id": "urn:x", "$ref": "#/anyOf" }] }),
            json!({ "$schema": "http://json-schema.org/draft-04/schema#" }),
            json!({ "enum": (0..20_000).collect::<Vec<_>>() }),
            json!({ "allOf": patterns }),
            json!({ "pattern": "^(?=(a+)+$)" }),
            json!({ "pattern": "(?:a{1000}){1000}" }),
        ] {
            let shown: String = schema.to_string().chars().take(200).collect();
            assert!(read(&schema).is_err(), "{shown}");
        }
        assert!(Schema::read(&json!({ "type": "object" }), &mut 1).is_err());
    }

    #[test]
    fn too_much_work_is_not_done() {
        let items: Vec<i32> = (0..1000).collect();
        let schema = read(&json!({ "items": { "type": "integer", "enum": items } })).unwrap();
        assert_eq!(schema.problems(&json!(["x"])).len(), 2);
        assert_eq!(schema.problems(&json!(["x".repeat(60_000)])).len(), 0);
    }
}
