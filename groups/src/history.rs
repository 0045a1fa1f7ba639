//! The conversation as an agent begins with it, and as a run leaves it.

use std::collections::BTreeMap;

use agent::{Message, Role};
use serde_json::{Value, json};

use crate::bounds::HISTORY_BYTES;
use crate::intake::Progress;

/// What a stored message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A person's: the only place where a conversation may be cut.
    Person,
    /// The agent's.
    Agent,
    /// Of the gateway, where a run ended before its time.
    Note,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Agent => "agent",
            Self::Note => "note",
        }
    }
}

/// A stored message.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) seq: i64,
    pub(crate) run: String,
    pub(crate) kind: Kind,
    pub(crate) message: Message,
    pub(crate) bytes: usize,
}

/// The newest messages within `budget` bytes, cut at a person's; those of `run` in any case.
pub(crate) fn window(stored: Vec<Stored>, run: &str, budget: usize) -> Vec<Message> {
    let own = stored.iter().position(|one| one.run == run);
    let mut cut = own.unwrap_or(stored.len());
    let mut bytes: usize = stored.iter().skip(cut).map(|one| one.bytes).sum();
    for (at, one) in stored.iter().enumerate().take(cut).rev() {
        bytes += one.bytes;
        if bytes > budget {
            break;
        }
        if one.kind == Kind::Person {
            cut = at;
        }
    }
    let mut names = BTreeMap::new();
    let kept = stored.into_iter().skip(cut);
    let kept = kept.filter_map(|one| {
        if one.run == run {
            return Some(one.message);
        }
        let content = earlier(one.seq, one.message.content, &mut names);
        let role = one.message.role;
        (!content.is_empty()).then_some(Message { role, content })
    });
    kept.collect()
}

/// The blocks of an earlier run: what the model thought is left out, and the ids of its tool calls
/// are made unique, for an agent chose them.
fn earlier(seq: i64, blocks: Vec<Value>, names: &mut BTreeMap<String, String>) -> Vec<Value> {
    let mut kept = Vec::new();
    for mut block in blocks {
        let text = |member| block.get(member).and_then(Value::as_str);
        let (member, id) = match text("type") {
            Some("tool_use") => ("id", text("id")),
            Some("tool_result") => ("tool_use_id", text("tool_use_id")),
            Some("text") => {
                kept.push(json!({ "type": "text", "text": text("text") }));
                continue;
            }
            _ => continue,
        };
        let id = id.unwrap_or_default().to_owned();
        if member == "id" {
            names.insert(id.clone(), format!("call_{seq}_{}", kept.len()));
        }
        if let (Some(name), Some(block)) = (names.get(&id), block.as_object_mut()) {
            block.insert(member.to_owned(), name.as_str().into());
        }
        if let Some(Value::Array(parts)) = block.get_mut("content") {
            parts.iter_mut().for_each(told);
        }
        kept.push(block);
    }
    kept
}

/// An image of an earlier run is told of and not shown: one that the provider cannot read, whoever
/// made it, would have it refuse whatever comes after.
fn told(part: &mut Value) {
    if part.get("type").is_some_and(|kind| kind == "image") {
        *part = json!({ "type": "text", "text": "[an image, which is not shown any more]" });
    }
}

/// How much of earlier runs is handed on, where the provider refused so many of the last few: if it is
/// something in there that it refuses, it does not do so for ever.
pub(crate) fn budget(refused: usize) -> usize {
    match refused {
        0 => HISTORY_BYTES,
        1 => HISTORY_BYTES / 16,
        _ => 0,
    }
}

/// What closes a run that ends before its time: results for the calls that are open, and a word for
/// the next agent. Nothing, if there is nothing to close.
pub(crate) fn closing(progress: &Progress, note: Option<&str>) -> Option<Message> {
    let result = |call: &String| {
        progress.results.get(call).cloned().unwrap_or_else(|| {
            json!({
                "type": "tool_result",
                "tool_use_id": call,
                "content": "the task ended before the result of this call was known; it may have been done",
                "is_error": true,
            })
        })
    };
    let mut content: Vec<Value> = progress.calls.iter().map(result).collect();
    if let Some(note) = note {
        content.push(json!({ "type": "text", "text": note }));
    }
    let role = Role::User;
    (!content.is_empty()).then_some(Message { role, content })
}
