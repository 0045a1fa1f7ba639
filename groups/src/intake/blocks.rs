//! The shapes of content blocks: what an agent may put into a conversation.
//!
//! Only members that are known are kept, for a conversation that the provider refuses would stay
//! refused.

use serde_json::{Map, Value, json};

use super::Refused;
use crate::bounds::BLOCKS;

/// The longest id or name, in bytes.
const NAME_BYTES: usize = 128;

/// The blocks of a message of the model, and the ids of the tool calls among them.
pub(crate) fn assistant(content: &[Value]) -> Result<(Vec<Value>, Vec<String>), Refused> {
    let mut blocks = Vec::new();
    let mut calls = Vec::new();
    for block in bounded(content)? {
        match text(block, "type")? {
            "text" if text(block, "text")?.trim().is_empty() => {}
            "text" => blocks.push(only(block, &["type", "text", "citations"])),
            "tool_use" => {
                let id = name(block, "id")?;
                name(block, "name")?;
                if !block.get("input").is_some_and(Value::is_object) {
                    return Err(Refused::Shape("`input` of a `tool_use` block is an object"));
                }
                if calls.iter().any(|call| call == id) {
                    return Err(Refused::Shape("each `tool_use` block has an id of its own"));
                }
                calls.push(id.to_owned());
                blocks.push(only(block, &["type", "id", "name", "input"]));
            }
            "thinking" => {
                text(block, "thinking")?;
                text(block, "signature")?;
                blocks.push(only(block, &["type", "thinking", "signature"]));
            }
            "redacted_thinking" => {
                text(block, "data")?;
                blocks.push(only(block, &["type", "data"]));
            }
            _ => {
                return Err(Refused::Shape(
                    "the model's blocks are `text`, `tool_use`, `thinking` and `redacted_thinking`",
                ));
            }
        }
    }
    Ok((blocks, calls))
}

/// A `tool_result` block and the id of its call.
pub(crate) fn result(block: &Value) -> Result<(String, Value), Refused> {
    if text(block, "type")? != "tool_result" {
        return Err(Refused::Shape(
            "a message of the role `user` holds `tool_result` blocks alone",
        ));
    }
    let id = name(block, "tool_use_id")?.to_owned();
    let content = match block.get("content") {
        None => Value::from(""),
        Some(Value::String(text)) => Value::from(text.as_str()),
        Some(Value::Array(parts)) => {
            let parts = bounded(parts)?
                .iter()
                .filter_map(|one| part(one).transpose());
            Value::from(parts.collect::<Result<Vec<_>, _>>()?)
        }
        Some(_) => return Err(Refused::Shape("`content` is a text or an array of blocks")),
    };
    let mut kept = json!({ "type": "tool_result", "tool_use_id": id, "content": content });
    if let (Some(Value::Bool(true)), Some(kept)) = (block.get("is_error"), kept.as_object_mut()) {
        kept.insert("is_error".to_owned(), true.into());
    }
    Ok((id, kept))
}

fn part(part: &Value) -> Result<Option<Value>, Refused> {
    match text(part, "type")? {
        "text" if text(part, "text")?.trim().is_empty() => Ok(None),
        "text" => Ok(Some(only(part, &["type", "text"]))),
        "image" => {
            let source = part.get("source").unwrap_or(&Value::Null);
            let good = |c: u8| c.is_ascii_alphanumeric() || b"+/=".contains(&c);
            let data = text(source, "data")?;
            if text(source, "type")? != "base64"
                || !text(source, "media_type")?.starts_with("image/")
                || data.is_empty()
                || !data.bytes().all(good)
            {
                return Err(Refused::Shape("an `image` has a `base64` source"));
            }
            let source = only(source, &["type", "media_type", "data"]);
            Ok(Some(json!({ "type": "image", "source": source })))
        }
        _ => Err(Refused::Shape("a result holds `text` and `image` blocks")),
    }
}

fn bounded(content: &[Value]) -> Result<&[Value], Refused> {
    if content.len() > BLOCKS {
        return Err(Refused::Shape("too many blocks in a message"));
    }
    Ok(content)
}

fn text<'a>(block: &'a Value, member: &'static str) -> Result<&'a str, Refused> {
    let found = block.get(member).and_then(Value::as_str);
    found.ok_or(Refused::Shape("a block lacks a member that is a text"))
}

fn name<'a>(block: &'a Value, member: &'static str) -> Result<&'a str, Refused> {
    let name = text(block, member)?;
    let good = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b'-';
    if name.is_empty() || name.len() > NAME_BYTES || !name.bytes().all(good) {
        return Err(Refused::Shape(
            "an id or a name is 1 to 128 of `a-z`, `A-Z`, `0-9`, `_` and `-`",
        ));
    }
    Ok(name)
}

fn only(block: &Value, members: &[&str]) -> Value {
    let kept = members.iter().filter_map(|member| {
        let value = block.get(member)?;
        Some(((*member).to_owned(), value.clone()))
    });
    Value::Object(kept.collect::<Map<_, _>>())
}
