//! The conversation so far, as the script reads it.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// What the script knows.
#[derive(Debug)]
pub(super) struct Talk {
    /// What the person said last.
    pub(super) asked: String,
    /// The tools that are offered.
    pub(super) tools: Vec<String>,
    /// What was done since, oldest first.
    pub(super) done: Vec<Done>,
    /// What was done before that.
    pub(super) before: Vec<Done>,
    /// How many messages there are.
    pub(super) length: usize,
    /// The answer is to come as a stream.
    pub(super) stream: bool,
}

/// A call of a tool, and what came back.
#[derive(Clone, Debug)]
pub(super) struct Done {
    id: String,
    pub(super) tool: String,
    input: Value,
    pub(super) text: String,
    pub(super) failed: bool,
}

impl Done {
    /// Why it was not done, in the words that came back.
    pub(super) fn reason(&self) -> String {
        const LONGEST: usize = 400;
        let text = self.text.trim();
        let text = text.strip_prefix("NOT EXECUTED.").unwrap_or(text);
        // What the agent is told to do about it is not the reason.
        let text = text.split(" Do not try it").next().unwrap_or(text).trim();
        let mut reason: String = text.chars().take(LONGEST).collect();
        if reason.is_empty() {
            "nothing came back".clone_into(&mut reason);
        }
        reason
    }

    /// An argument that it was called with.
    pub(super) fn text_of(&self, argument: &str) -> &str {
        let value = self.input.get(argument);
        value.and_then(Value::as_str).unwrap_or_default()
    }

    /// The tool by its last two parts, `server__tool`, however the agent's harness prefixes it.
    pub(super) fn is(&self, name: &str) -> bool {
        is(&self.tool, name)
    }
}

/// Whether an offered name is a tool's name, bare or behind a prefix.
pub(super) fn is(offered: &str, name: &str) -> bool {
    offered
        .strip_suffix(name)
        .is_some_and(|prefix| prefix.is_empty() || prefix.ends_with("__"))
}

impl Talk {
    /// The name under which a tool is offered.
    pub(super) fn offered(&self, name: &str) -> Option<&str> {
        let mut tools = self.tools.iter();
        tools.find(|tool| is(tool, name)).map(String::as_str)
    }

    /// What came of a tool since the person spoke.
    pub(super) fn done(&self, name: &str) -> Vec<&Done> {
        self.done.iter().filter(|done| done.is(name)).collect()
    }
}

#[derive(Deserialize)]
struct Body {
    messages: Vec<Message>,
    tools: Option<Vec<Tool>>,
    stream: Option<bool>,
}

#[derive(Deserialize)]
struct Tool {
    name: String,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: Value,
}

impl<'de> Deserialize<'de> for Talk {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let body = Body::deserialize(from)?;
        let mut talk = Self {
            asked: String::new(),
            tools: body
                .tools
                .into_iter()
                .flatten()
                .map(|tool| tool.name)
                .collect(),
            done: Vec::new(),
            before: Vec::new(),
            length: body.messages.len(),
            stream: body.stream.unwrap_or(false),
        };
        for message in &body.messages {
            if let ("user", Some(said)) = (message.role.as_str(), said(&message.content)) {
                talk.asked = said;
                talk.before.append(&mut talk.done);
            }
            for block in message.content.as_array().into_iter().flatten() {
                talk.see(block);
            }
        }
        Ok(talk)
    }
}

impl Talk {
    fn see(&mut self, block: &Value) {
        let text = |name: &str| block.get(name).and_then(Value::as_str).unwrap_or_default();
        match text("type") {
            "tool_use" => self.done.push(Done {
                id: text("id").to_owned(),
                tool: text("name").to_owned(),
                input: block.get("input").cloned().unwrap_or_default(),
                text: String::new(),
                failed: true,
            }),
            "tool_result" => {
                let id = text("tool_use_id");
                let mut all = self.done.iter_mut().chain(&mut self.before).rev();
                if let Some(done) = all.find(|done| done.id == id) {
                    done.text = block.get("content").map(words).unwrap_or_default();
                    done.failed = block.get("is_error") == Some(&Value::Bool(true))
                        || done.text.trim_start().starts_with("NOT EXECUTED")
                        || done.text.trim_start().starts_with("UNKNOWN.");
                }
            }
            _ => {}
        }
    }
}

/// What a person said in a message; `None` where it only brings results of tools. What comes last is
/// the person's: before it, results and a word of the gateway may stand. What is in tags is a harness's.
fn said(content: &Value) -> Option<String> {
    let said = match content.as_array() {
        None => words(content),
        Some(blocks) => {
            let mut last = blocks.iter().rev().take_while(|block| !is_result(block));
            let text = last.find_map(|block| {
                let text = block.get("text")?.as_str()?;
                (!text.trim_start().starts_with('<')).then_some(text)
            });
            text.unwrap_or_default().to_owned()
        }
    };
    Some(said).filter(|text| !text.trim().is_empty())
}

fn is_result(block: &Value) -> bool {
    block.get("type").is_some_and(|kind| kind == "tool_result")
}

fn words(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => blocks
            .iter()
            .filter_map(|block| block.get("text").and_then(Value::as_str))
            .map(policy::fence::within)
            .collect::<Vec<_>>()
            .join("\n"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
    }
}
