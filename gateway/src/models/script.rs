//! The provider `scripted`: no model at all, but a script that behaves like a gullible one, so that
//! the demo needs no account. What it says follows from the conversation alone, and it never says
//! that it is a model.

mod letters;
mod plan;
mod talk;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use bytes::Bytes;
use policy::action::Digest;
use serde_json::{Value, json};

use super::{Answered, Incoming, Route, answer};
use plan::Part;
use talk::Talk;

/// The longest conversation that it reads, in bytes.
const LONGEST: usize = 4 * 1024 * 1024;

/// Answers a request as the API would.
pub(super) fn answer(incoming: &Incoming) -> Answered {
    let model = &incoming.asked.model;
    match incoming.route {
        Route::CountTokens => whole(StatusCode::OK, &json!({ "input_tokens": 0 })),
        Route::Models => whole(
            StatusCode::OK,
            &json!({ "data": [{ "type": "model", "id": "script", "display_name": "A script, not a model",
                "created_at": "2026-01-01T00:00:00Z" }], "has_more": false, "first_id": "script", "last_id": "script" }),
        ),
        Route::Messages if incoming.body.len() > LONGEST => {
            let text = "the script reads conversations of up to 4 MiB";
            let body = answer::body("request_too_large", text);
            whole(StatusCode::PAYLOAD_TOO_LARGE, &body)
        }
        Route::Messages => match serde_json::from_slice::<Talk>(&incoming.body) {
            Ok(talk) => {
                let id = Digest::of(&incoming.body);
                let id = format!("msg_script_{}", id.as_str().get(..16).unwrap_or_default());
                let blocks = blocks(&talk, plan::next(&talk));
                if talk.stream {
                    streamed(&id, model, &blocks)
                } else {
                    whole(StatusCode::OK, &message(&id, model, &blocks, true))
                }
            }
            Err(error) => {
                let text = format!("the conversation cannot be read: {error}");
                let body = answer::body("invalid_request_error", &text);
                whole(StatusCode::BAD_REQUEST, &body)
            }
        },
    }
}

/// Content blocks in the form of the API. The ids of tool calls differ within a conversation, and are
/// the same for the same conversation.
fn blocks(talk: &Talk, parts: Vec<Part>) -> Vec<Value> {
    let block = |(n, part)| match part {
        Part::Say(text) => json!({ "type": "text", "text": text }),
        Part::Use { tool, input } => json!({
            "type": "tool_use",
            "id": format!("toolu_script_{:03}_{n}", talk.length),
            "name": tool,
            "input": input,
        }),
    };
    parts.into_iter().enumerate().map(block).collect()
}

fn stop_reason(blocks: &[Value]) -> &'static str {
    let uses = |block: &Value| block.get("type").is_some_and(|kind| kind == "tool_use");
    if blocks.iter().any(uses) {
        "tool_use"
    } else {
        "end_turn"
    }
}

fn message(id: &str, model: &str, blocks: &[Value], over: bool) -> Value {
    json!({
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": if over { blocks } else { &[] },
        "stop_reason": over.then(|| stop_reason(blocks)),
        "stop_sequence": null,
        "usage": { "input_tokens": 0, "output_tokens": 0 },
    })
}

fn whole(status: StatusCode, body: &Value) -> Answered {
    let pieces = [Ok(Bytes::from(body.to_string()))];
    Answered {
        status,
        headers: kind("application/json"),
        problem: (!status.is_success()).then(|| status.to_string()),
        pieces: Box::pin(futures::stream::iter(pieces)),
    }
}

fn kind(kind: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers
}

/// The events of an answer, a text word by word.
fn streamed(id: &str, model: &str, blocks: &[Value]) -> Answered {
    let mut events =
        vec![json!({ "type": "message_start", "message": message(id, model, blocks, false) })];
    for (index, block) in blocks.iter().enumerate() {
        let text = block.get("text").and_then(Value::as_str);
        let mut empty = block.clone();
        let mut deltas: Vec<Value> = Vec::new();
        if let Some(text) = text {
            empty = json!({ "type": "text", "text": "" });
            let words = text.split_inclusive(' ');
            deltas.extend(words.map(|word| json!({ "type": "text_delta", "text": word })));
        } else if let Some(input) = empty.get_mut("input") {
            let whole = std::mem::replace(input, json!({})).to_string();
            deltas.push(json!({ "type": "input_json_delta", "partial_json": whole }));
        }
        events
            .push(json!({ "type": "content_block_start", "index": index, "content_block": empty }));
        let delta =
            |delta| json!({ "type": "content_block_delta", "index": index, "delta": delta });
        events.extend(deltas.into_iter().map(delta));
        events.push(json!({ "type": "content_block_stop", "index": index }));
    }
    let delta = json!({ "stop_reason": stop_reason(blocks), "stop_sequence": null });
    events
        .push(json!({ "type": "message_delta", "delta": delta, "usage": { "output_tokens": 0 } }));
    events.push(json!({ "type": "message_stop" }));
    let pieces = events.into_iter().map(|event| {
        let name = event
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        Ok(Bytes::from(format!("event: {name}\ndata: {event}\n\n")))
    });
    Answered {
        status: StatusCode::OK,
        headers: kind("text/event-stream; charset=utf-8"),
        problem: None,
        pieces: Box::pin(futures::stream::iter(pieces)),
    }
}

#[cfg(test)]
mod tests;
