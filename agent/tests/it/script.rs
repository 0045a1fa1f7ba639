//! What the stand-in of a model says, step by step.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::home::Home;

/// One answer of the model.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, &'static str)>,
    pub(crate) steps: Vec<Step>,
}

/// One step of an answer.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// An event.
    Event(Value),
    /// Bytes, whatever they are.
    Raw(&'static str),
    /// Waits until the test opens this gate.
    Gate(&'static str),
    /// Breaks the connection.
    Cut,
    /// Says nothing more and stays.
    Hang,
}

impl Script {
    pub(crate) fn stream(steps: Vec<Step>) -> Self {
        Self {
            status: 200,
            headers: vec![("content-type", "text/event-stream")],
            steps,
        }
    }

    /// A refusal with an error of a kind.
    pub(crate) fn refuse(status: u16, kind: &'static str) -> Self {
        let body = match kind {
            "" => "<html>no</html>",
            "overloaded_error" => {
                r#"{"type":"error","error":{"type":"overloaded_error","message":"full"}}"#
            }
            _ => r#"{"type":"error","error":{"type":"other","message":"not like this"}}"#,
        };
        Self {
            status,
            headers: vec![("content-type", "application/json")],
            steps: vec![Step::Raw(body)],
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// A text, whole.
    pub(crate) fn text(text: &str) -> Self {
        Self::blocks(&[json!({ "type": "text", "text": text })], "end_turn")
    }

    /// Calls of tools.
    pub(crate) fn calls(calls: &[(&str, &str, Value)]) -> Self {
        let block = |(id, name, input): &(&str, &str, Value)| json!({ "type": "tool_use", "id": id, "name": name, "input": input });
        let blocks: Vec<Value> = calls.iter().map(block).collect();
        Self::blocks(&blocks, "tool_use")
    }

    /// Blocks, streamed as the provider does.
    pub(crate) fn blocks(blocks: &[Value], stop: &str) -> Self {
        let mut steps = vec![Step::Event(
            json!({ "type": "message_start", "message": { "role": "assistant" } }),
        )];
        for (index, block) in blocks.iter().enumerate() {
            let (mut start, mut deltas) = (block.clone(), Vec::new());
            if let Some(text) = block["text"].as_str() {
                start["text"] = "".into();
                let half = text.floor_char_boundary(text.len() / 2);
                let (first, second) = text.split_at(half);
                for text in [first, second] {
                    deltas.push(json!({ "type": "text_delta", "text": text }));
                }
            }
            if block["input"].is_object() {
                let input = block["input"].to_string();
                start["input"] = json!({});
                deltas.push(json!({ "type": "input_json_delta", "partial_json": input }));
            }
            let event =
                json!({ "type": "content_block_start", "index": index, "content_block": start });
            steps.push(Step::Event(event));
            for delta in deltas {
                let event =
                    json!({ "type": "content_block_delta", "index": index, "delta": delta });
                steps.push(Step::Event(event));
            }
            steps.push(Step::Event(
                json!({ "type": "content_block_stop", "index": index }),
            ));
        }
        let delta = json!({ "stop_reason": stop });
        steps.push(Step::Event(
            json!({ "type": "message_delta", "delta": delta, "usage": { "output_tokens": 7 } }),
        ));
        steps.push(Step::Event(json!({ "type": "message_stop" })));
        Self::stream(steps)
    }

    /// Its first steps, and then another.
    pub(crate) fn broken(mut self, after: usize, then: Step) -> Self {
        self.steps.truncate(after);
        self.steps.push(then);
        self
    }

    pub(crate) fn insert(mut self, at: usize, step: Step) -> Self {
        self.steps.insert(at, step);
        self
    }

    pub(crate) fn respond(self, home: Home) -> Response {
        let (send, mut frames) = mpsc::channel::<Result<String, std::io::Error>>(1);
        tokio::spawn(async move {
            for step in self.steps {
                let frame = match step {
                    Step::Event(event) => {
                        let kind = event["type"].as_str().unwrap_or("message").to_owned();
                        Ok(format!("event: {kind}\ndata: {event}\n\n"))
                    }
                    Step::Raw(text) => Ok(text.to_owned()),
                    Step::Gate(name) => {
                        home.passed(name).await;
                        continue;
                    }
                    Step::Cut => Err(std::io::Error::other("cut")),
                    Step::Hang => {
                        send.closed().await;
                        return;
                    }
                };
                if send.send(frame).await.is_err() {
                    return;
                }
            }
        });
        let body = Body::from_stream(futures::stream::poll_fn(move |cx| frames.poll_recv(cx)));
        let headers: HeaderMap = self
            .headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        let status = StatusCode::from_u16(self.status).unwrap();
        (status, headers, body).into_response()
    }
}
