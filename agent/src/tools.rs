//! The tools of a run: as the model may know them, and called.

mod result;

use std::collections::HashMap;

use agent::{Event, Limits, Message};
use futures::StreamExt as _;
use serde_json::{Map, Value, json};

use crate::mcp::{Mcp, NoResult};
use crate::outbox::Outbox;

/// The longest name that models take.
const MAX_NAME: usize = 64;
/// The most bytes of the results of one turn together, so that one message can hold them.
const MAX_RESULTS: usize = 2 * 1024 * 1024;

/// The tools of a run.
#[derive(Debug)]
pub(crate) struct Tools<'a> {
    mcp: Mcp<'a>,
    definitions: Vec<Value>,
    /// From the names that the model knows to those of the gateway.
    names: HashMap<String, String>,
}

/// One call that the model asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    id: String,
    name: String,
    input: Value,
}

/// The calls in a message.
pub(crate) fn calls(message: &Message) -> Vec<Call> {
    let call = |block: &Value| {
        let text = |member| block.get(member).and_then(Value::as_str).map(str::to_owned);
        (text("type")? == "tool_use").then_some(())?;
        Some(Call {
            id: text("id")?,
            name: text("name")?,
            input: block.get("input").cloned().unwrap_or_else(|| json!({})),
        })
    };
    message.content.iter().filter_map(call).collect()
}

impl<'a> Tools<'a> {
    /// Asks the gateway which there are.
    pub(crate) async fn list(mcp: Mcp<'a>) -> Result<Self, NoResult> {
        let listed = mcp.tools().await?;
        let mut tools = Self {
            mcp,
            definitions: Vec::new(),
            names: HashMap::new(),
        };
        // A name that fits is what it says, whoever else would like to be called so.
        let (plain, odd): (Vec<_>, Vec<_>) = listed
            .iter()
            .filter_map(|tool| Some((tool.get("name")?.as_str()?, tool)))
            .partition(|(name, _)| fits(name));
        for (name, tool) in plain.into_iter().chain(odd) {
            tools.add(name, tool);
        }
        Ok(tools)
    }

    fn add(&mut self, name: &str, tool: &Value) {
        let known = fitted(name);
        if self.names.contains_key(&known) {
            return;
        }
        let text = tool.get("description").and_then(Value::as_str);
        self.definitions.push(json!({
            "name": known,
            "description": text.unwrap_or_default(),
            "input_schema": schema(tool.get("inputSchema")),
        }));
        self.names.insert(known, name.to_owned());
    }

    /// As the model's provider takes them.
    pub(crate) fn definitions(&self) -> &[Value] {
        &self.definitions
    }

    /// Makes the calls and returns their results in the same order. Each result is reported when it
    /// is there. Those that are `known` from before a restart are not made again; others may have
    /// been made then, if `resumed`.
    pub(crate) async fn answer(
        &self,
        calls: &[Call],
        known: &[Value],
        resumed: bool,
        limits: &Limits,
        outbox: &Outbox,
    ) -> Vec<Value> {
        let room = limits.result_bytes.min(MAX_RESULTS / calls.len().max(1));
        let answered =
            futures::stream::iter(calls.iter().enumerate().map(async |(place, call)| {
                let id = |block: &&Value| block.get("tool_use_id").is_some_and(|id| *id == call.id);
                if let Some(block) = known.iter().find(id) {
                    return (place, block.clone());
                }
                let block = self.one(call, resumed, room).await;
                outbox
                    .event(Event::Result {
                        block: block.clone(),
                    })
                    .await;
                (place, block)
            }));
        let mut answered: Vec<_> = answered
            .buffer_unordered(limits.parallel.max(1))
            .collect()
            .await;
        answered.sort_by_key(|(place, _)| *place);
        answered.into_iter().map(|(_, block)| block).collect()
    }

    async fn one(&self, call: &Call, resumed: bool, room: usize) -> Value {
        let Some(name) = self.names.get(&call.name) else {
            let text = "there is no such tool; use one of those that are listed";
            return not_done(call, text);
        };
        match self.mcp.call(name, &call.input, resumed).await {
            Ok(result) => result::block(&call.id, &result, room),
            Err(error) => result::error(&call.id, &error.to_string(), room),
        }
    }
}

/// The result of a call that was not made.
pub(crate) fn not_done(call: &Call, why: &str) -> Value {
    result::error(&call.id, why, usize::MAX)
}

fn fits(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(good)
}

/// The name by which the model knows a tool: its own where that fits, else one made of it, the same
/// in every run.
fn fitted(name: &str) -> String {
    if fits(name) {
        return name.to_owned();
    }
    // FNV-1a: for telling names apart, not for keeping anybody out.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let good = |c: char| {
        if c.is_ascii_alphanumeric() || c == '-' {
            c
        } else {
            '_'
        }
    };
    let start: String = name.chars().map(good).take(MAX_NAME - 9).collect();
    format!("{start}_{:08x}", hash >> 32)
}

/// A schema that the provider takes. One that it would refuse would end every run of the group, so
/// what it cannot take is left out; the gateway checks arguments against the whole schema.
fn schema(said: Option<&Value>) -> Value {
    let mut schema = match said {
        Some(Value::Object(members)) => members.clone(),
        _ => Map::new(),
    };
    for name in ["oneOf", "anyOf", "allOf", "$schema"] {
        schema.remove(name);
    }
    schema.insert("type".to_owned(), "object".into());
    let good = |name: &str| fits(&name.replace('.', "_"));
    match schema.get_mut("properties") {
        Some(Value::Object(properties)) => properties.retain(|name, _| good(name)),
        Some(_) => _ = schema.remove("properties"),
        None => {}
    }
    if let Some(Value::Array(required)) = schema.get_mut("required") {
        required.retain(|name| name.as_str().is_some_and(good));
    }
    Value::Object(schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_stay_apart() {
        assert_eq!(fitted("wiki__search"), "wiki__search");
        let (a, b) = (fitted("wiki__a.b"), fitted("wiki__a/b"));
        assert!(fits(&a) && fits(&b) && a != b, "{a} {b}");
        assert!(a.starts_with("wiki__a_b_"));
        let long = fitted(&format!("wiki__{}", "é".repeat(100)));
        assert!(fits(&long), "{long}");
    }

    #[test]
    fn a_schema_that_would_be_refused_is_made_to_fit() {
        let said = json!({
            "$schema": "x", "anyOf": [], "properties": { "$filter": {}, "a.b": { "anyOf": [] } },
            "required": ["$filter", "a.b"],
        });
        let made = json!({
            "properties": { "a.b": { "anyOf": [] } }, "required": ["a.b"], "type": "object",
        });
        assert_eq!(schema(Some(&said)), made);
        assert_eq!(schema(None), json!({ "type": "object" }));
    }
}
