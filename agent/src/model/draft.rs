//! An answer of the model while it is being written: events in, a whole message out, or nothing.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value, json};

use super::Wrong;

/// The most content blocks of one answer.
const MOST_BLOCKS: usize = 512;

/// What has come so far.
#[derive(Debug, Default)]
pub(super) struct Draft {
    blocks: BTreeMap<u64, Block>,
    stop: Option<String>,
    whole: bool,
}

#[derive(Debug)]
struct Block {
    block: Map<String, Value>,
    /// The pieces of a tool call's input.
    input: String,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    /// Its content blocks, as the model gave them.
    pub(crate) content: Vec<Value>,
    /// Why it ended.
    pub(crate) stop: Stop,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It is complete, or waits for tools.
    End,
    /// It was cut off for its length.
    Length,
    /// The model declined.
    Refusal,
    /// It is to be continued by asking again.
    Pause,
}

impl Draft {
    /// Takes one event; returns text that is new.
    pub(super) fn event(&mut self, data: &[u8]) -> Result<Option<String>, Wrong> {
        let event: Value = serde_json::from_slice(data).map_err(|_| Wrong::Nonsense)?;
        match event.get("type").and_then(Value::as_str) {
            Some("content_block_start") => {
                let block = event.get("content_block").and_then(Value::as_object);
                let block = block.ok_or(Wrong::Nonsense)?.clone();
                if self.blocks.len() >= MOST_BLOCKS {
                    return Err(Wrong::Nonsense);
                }
                let new = text(&block, "text");
                let input = String::new();
                let held = Block { block, input };
                if self.blocks.insert(index(&event)?, held).is_some() {
                    return Err(Wrong::Nonsense);
                }
                Ok(new)
            }
            Some("content_block_delta") => {
                let delta = event.get("delta").and_then(Value::as_object);
                let delta = delta.ok_or(Wrong::Nonsense)?;
                let block = self.blocks.get_mut(&index(&event)?);
                block.ok_or(Wrong::Nonsense)?.grow(delta)
            }
            Some("message_delta") => {
                let reason = event.pointer("/delta/stop_reason").and_then(Value::as_str);
                self.stop = reason.map(str::to_owned).or(self.stop.take());
                Ok(None)
            }
            Some("message_stop") => {
                self.whole = true;
                Ok(None)
            }
            Some("error") => Err(Wrong::told(&event)),
            // `message_start`, `content_block_stop`, `ping`, and what is new one day.
            Some(_) => Ok(None),
            None => Err(Wrong::Nonsense),
        }
    }

    /// Whether the last event has come.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// The whole answer.
    pub(super) fn finish(self) -> Result<Answer, Wrong> {
        let reason = self.stop.filter(|_| self.whole).ok_or(Wrong::Half)?;
        let stop = match reason.as_str() {
            "max_tokens" | "model_context_window_exceeded" => Stop::Length,
            "refusal" => Stop::Refusal,
            "pause_turn" => Stop::Pause,
            _ => Stop::End,
        };
        let mut calls = HashSet::new();
        let mut content = Vec::new();
        for held in self.blocks.into_values() {
            let Some(block) = held.finish(stop)? else {
                continue;
            };
            if block.get("type").and_then(Value::as_str) == Some("tool_use") {
                let id = text(&block, "id").ok_or(Wrong::Nonsense)?;
                if !calls.insert(id) || text(&block, "name").is_none() {
                    return Err(Wrong::Nonsense);
                }
            }
            content.push(Value::Object(block));
        }
        Ok(Answer { content, stop })
    }
}

impl Block {
    fn grow(&mut self, delta: &Map<String, Value>) -> Result<Option<String>, Wrong> {
        let member = match delta.get("type").and_then(Value::as_str) {
            Some("text_delta") => "text",
            Some("thinking_delta") => "thinking",
            Some("signature_delta") => "signature",
            Some("input_json_delta") => {
                let piece = delta.get("partial_json").and_then(Value::as_str);
                self.input.push_str(piece.ok_or(Wrong::Nonsense)?);
                return Ok(None);
            }
            Some("citations_delta") => {
                let one = delta.get("citation").ok_or(Wrong::Nonsense)?;
                let all = self.block.entry("citations").or_insert(Value::Null);
                if let Some(all) = all.as_array_mut() {
                    all.push(one.clone());
                } else {
                    *all = json!([one]);
                }
                return Ok(None);
            }
            Some(_) => return Ok(None),
            None => return Err(Wrong::Nonsense),
        };
        let new = delta.get(member).and_then(Value::as_str);
        let new = new.ok_or(Wrong::Nonsense)?;
        let whole = self.block.entry(member).or_insert_with(|| "".into());
        if let Value::String(whole) = whole {
            whole.push_str(new);
        } else {
            *whole = new.into();
        }
        Ok((member == "text").then(|| new.to_owned()))
    }

    /// The block, unless nothing of it is left that a conversation may hold.
    fn finish(mut self, stop: Stop) -> Result<Option<Map<String, Value>>, Wrong> {
        match self.block.get("type").and_then(Value::as_str) {
            Some("text") => {
                // The API takes no text of nothing but white space.
                let blank = text(&self.block, "text").is_none_or(|text| text.trim().is_empty());
                Ok((!blank).then_some(self.block))
            }
            Some("tool_use" | "server_tool_use") => {
                if !self.input.is_empty() {
                    match serde_json::from_str(&self.input) {
                        Ok(input @ Value::Object(_)) => {
                            self.block.insert("input".to_owned(), input);
                        }
                        // Cut off in the middle of its arguments: not a call.
                        _ if stop == Stop::Length => return Ok(None),
                        _ => return Err(Wrong::Nonsense),
                    }
                }
                let object = self.block.get("input").is_some_and(Value::is_object);
                object.then_some(Some(self.block)).ok_or(Wrong::Nonsense)
            }
            Some(_) => Ok(Some(self.block)),
            None => Err(Wrong::Nonsense),
        }
    }
}

fn index(event: &Value) -> Result<u64, Wrong> {
    let index = event.get("index").and_then(Value::as_u64);
    index.ok_or(Wrong::Nonsense)
}

fn text(block: &Map<String, Value>, member: &str) -> Option<String> {
    let text = block.get(member).and_then(Value::as_str);
    text.filter(|text| !text.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(events: &[Value]) -> Result<Answer, Wrong> {
        let mut draft = Draft::default();
        for event in events {
            draft.event(event.to_string().as_bytes())?;
        }
        draft.finish()
    }

    fn start(index: u64, block: Value) -> Value {
        json!({ "type": "content_block_start", "index": index, "content_block": block })
    }

    fn delta(index: u64, delta: Value) -> Value {
        json!({ "type": "content_block_delta", "index": index, "delta": delta })
    }

    fn end(reason: &str) -> [Value; 2] {
        let delta = json!({ "stop_reason": reason });
        [
            json!({ "type": "message_delta", "delta": delta, "usage": {} }),
            json!({ "type": "message_stop" }),
        ]
    }

    fn call(id: &str) -> Value {
        json!({ "type": "tool_use", "id": id, "name": "t", "input": {} })
    }

    #[test]
    fn thoughts_text_citations_and_calls_come_out_whole() {
        let mut events = vec![
            json!({ "type": "message_start", "message": {} }),
            start(
                0,
                json!({ "type": "thinking", "thinking": "", "signature": "" }),
            ),
            delta(0, json!({ "type": "thinking_delta", "thinking": "hm" })),
            delta(0, json!({ "type": "signature_delta", "signature": "sig" })),
            start(1, json!({ "type": "text", "text": "" })),
            json!({ "type": "ping" }),
            delta(1, json!({ "type": "text_delta", "text": "Hel" })),
            delta(1, json!({ "type": "text_delta", "text": "lo" })),
            delta(
                1,
                json!({ "type": "citations_delta", "citation": { "a": 1 } }),
            ),
            start(2, json!({ "type": "redacted_thinking", "data": "x" })),
            start(3, call("1")),
            delta(
                3,
                json!({ "type": "input_json_delta", "partial_json": "{\"a\":" }),
            ),
            delta(
                3,
                json!({ "type": "input_json_delta", "partial_json": "1}" }),
            ),
            start(4, call("2")),
            start(5, json!({ "type": "text", "text": " \n" })),
            delta(5, json!({ "type": "of tomorrow" })),
        ];
        events.extend(end("tool_use"));
        let answer = check(&events).unwrap();
        let whole = vec![
            json!({ "type": "thinking", "thinking": "hm", "signature": "sig" }),
            json!({ "type": "text", "text": "Hello", "citations": [{ "a": 1 }] }),
            json!({ "type": "redacted_thinking", "data": "x" }),
            json!({ "type": "tool_use", "id": "1", "name": "t", "input": { "a": 1 } }),
            call("2"),
        ];
        assert_eq!(answer.content, whole);
        assert_eq!(answer.stop, Stop::End);
    }

    #[test]
    fn a_call_that_was_cut_off_is_no_call() {
        let cut = delta(
            1,
            json!({ "type": "input_json_delta", "partial_json": "{\"to\":\"a" }),
        );
        let events = [
            start(0, json!({ "type": "text", "text": "x" })),
            start(1, call("1")),
            cut,
        ];
        let length: Vec<Value> = events.iter().cloned().chain(end("max_tokens")).collect();
        let answer = check(&length).unwrap();
        assert_eq!(answer.content, [json!({ "type": "text", "text": "x" })]);
        assert_eq!(answer.stop, Stop::Length);
        let odd: Vec<Value> = events.into_iter().chain(end("tool_use")).collect();
        assert_eq!(check(&odd), Err(Wrong::Nonsense));
    }

    #[test]
    fn what_is_not_whole_or_makes_no_sense_is_nothing() {
        let start_text = start(0, json!({ "type": "text", "text": "x" }));
        assert_eq!(check(std::slice::from_ref(&start_text)), Err(Wrong::Half));
        let no_reason = [start_text.clone(), json!({ "type": "message_stop" })];
        assert_eq!(check(&no_reason), Err(Wrong::Half));
        for odd in [
            vec![json!([])],
            vec![json!({ "type": "content_block_start", "index": 0 })],
            vec![delta(0, json!({ "type": "text_delta", "text": "x" }))],
            vec![start_text.clone(), start_text.clone()],
            vec![
                start_text.clone(),
                delta(0, json!({ "type": "text_delta" })),
            ],
            [
                vec![start(0, call("1")), start(1, call("1"))],
                end("tool_use").to_vec(),
            ]
            .concat(),
            [vec![start(0, call(""))], end("tool_use").to_vec()].concat(),
        ] {
            assert_eq!(check(&odd), Err(Wrong::Nonsense), "{odd:?}");
        }
    }
}
