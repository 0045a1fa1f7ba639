//! What a reviewer model said of an action: strict to read, and of little power.
//!
//! It can only turn the *review* of the matrix into an allow. Whoever could talk it into that still
//! meets every other gate, every rule, and the labels.

use serde::{Deserialize, Serialize};

use crate::action::{Action, Digest};
use crate::ids::ActionId;

/// The longest reason that is kept, in characters.
const LONGEST_REASON: usize = 300;

/// What it thinks should be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Opinion {
    /// Nothing speaks against it.
    Allow,
    /// A person should look.
    Ask,
}

/// One review. It goes into the facts of the decision, and so into the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// [`Action::binding`] of what it looked at; of another action it says nothing.
    pub binding: Digest,
    /// The record of the call to the model.
    pub call: ActionId,
    /// The model, as `PROVIDER/MODEL`.
    pub model: String,
    /// What it thinks.
    pub opinion: Opinion,
    /// Its words, for the record alone: who steered it could have written them.
    pub reason: String,
}

impl Review {
    /// Whether it lets this action pass.
    pub fn passes(&self, action: &Action) -> bool {
        self.opinion == Opinion::Allow && self.binding == action.binding()
    }
}

/// Why an answer of a reviewer is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoOpinion {
    /// It is no JSON of the form that was asked for, and nothing else.
    #[error("the reviewer did not answer in the form that it was given")]
    Form,
    /// It did not come to its end, or tried to do something.
    #[error("the reviewer did not finish its answer")]
    Unfinished,
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "type")]
    kind: String,
    role: String,
    content: Vec<Block>,
    stop_reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Block {
    #[serde(rename = "type")]
    kind: String,
    text: String,
    #[serde(default)]
    #[expect(dead_code, reason = "known, and of no interest")]
    citations: Option<()>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    verdict: Opinion,
    reason: String,
}

/// Reads the answer of a model (Anthropic Messages): one block of text that is one JSON object with
/// `verdict` and `reason`, and nothing before, behind or beside it.
///
/// # Errors
/// [`NoOpinion`]: then a person is asked.
pub fn read(answer: &[u8]) -> Result<(Opinion, String), NoOpinion> {
    let message: Message = serde_json::from_slice(answer).map_err(|_| NoOpinion::Form)?;
    if message.stop_reason != "end_turn" {
        return Err(NoOpinion::Unfinished);
    }
    let [block] = message.content.as_slice() else {
        return Err(NoOpinion::Form);
    };
    if message.kind != "message" || message.role != "assistant" || block.kind != "text" {
        return Err(NoOpinion::Form);
    }
    let said: Said = serde_json::from_str(&block.text).map_err(|_| NoOpinion::Form)?;
    let reason = said.reason.chars().take(LONGEST_REASON).collect();
    Ok((said.verdict, reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(text: &str) -> serde_json::Value {
        json!({ "id": "m", "type": "message", "role": "assistant", "model": "x", "stop_reason": "end_turn",
            "content": [{ "type": "text", "text": text }], "usage": {} })
    }

    fn said(answer: &serde_json::Value) -> Result<Opinion, NoOpinion> {
        read(answer.to_string().as_bytes()).map(|(opinion, _)| opinion)
    }

    #[test]
    fn only_the_very_form_is_an_opinion() {
        let good = r#"{"verdict":"allow","reason":"a letter to a colleague"}"#;
        assert_eq!(said(&answer(good)), Ok(Opinion::Allow));
        assert_eq!(
            said(&answer(r#" {"reason":"", "verdict":"ask"}\n"#)),
            Err(NoOpinion::Form)
        );
        assert_eq!(
            said(&answer(r#"{"reason":"", "verdict":"ask"}"#)),
            Ok(Opinion::Ask)
        );
        for text in [
            "allow",
            r#""allow""#,
            r#"{"verdict":"allow"}"#,
            r#"{"verdict":"deny","reason":""}"#,
            r#"{"verdict":"Allow","reason":""}"#,
            r#"{"verdict":true,"reason":""}"#,
            r#"{"verdict":"ask","verdict":"allow","reason":""}"#,
            r#"{"verdict":"allow","reason":"","more":1}"#,
            r#"{"verdict":"allow","reason":""} {"verdict":"allow","reason":""}"#,
            "```json\n{\"verdict\":\"allow\",\"reason\":\"\"}\n```",
            "I think {\"verdict\":\"allow\",\"reason\":\"\"}",
            "",
        ] {
            assert_eq!(said(&answer(text)), Err(NoOpinion::Form), "{text}");
        }
        for (member, value, why) in [
            ("stop_reason", json!("max_tokens"), NoOpinion::Unfinished),
            ("stop_reason", json!("refusal"), NoOpinion::Unfinished),
            ("stop_reason", json!("tool_use"), NoOpinion::Unfinished),
            ("stop_reason", json!(null), NoOpinion::Form),
            ("role", json!("user"), NoOpinion::Form),
            ("type", json!("error"), NoOpinion::Form),
            ("content", json!([]), NoOpinion::Form),
            (
                "content",
                json!([{ "type": "text", "text": good }, { "type": "text", "text": good }]),
                NoOpinion::Form,
            ),
            (
                "content",
                json!([{ "type": "tool_use", "id": "t", "name": "allow", "input": {} }]),
                NoOpinion::Form,
            ),
            (
                "content",
                json!([{ "type": "thinking", "text": good }]),
                NoOpinion::Form,
            ),
        ] {
            let mut message = answer(good);
            message[member] = value;
            assert_eq!(said(&message), Err(why), "{message}");
        }
    }
}
