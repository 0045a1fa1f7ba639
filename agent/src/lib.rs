//! What an agent's sandbox and the gateway say to each other: `/agent/v1`.
//!
//! The library is this protocol and nothing else; the binary `portcullis-agent` speaks it from
//! inside. The agent dials home with its run's token and holds no other credential.
//!
//! - `GET /agent/v1/turns?after=N`: server-sent events, one [`Turn`] each; its `id` is
//!   [`Turn::seq`]. The first is [`Ask::Begin`].
//! - `POST /agent/v1/events`: [`Events`], numbered; answered with [`Acked`]. What was acknowledged
//!   is stored; the same number again is acknowledged again and does nothing.
//!
//! Tools are under `/mcp`, models under `/llm/…`, with the same token. So a restart of either side
//! loses and doubles nothing: what the agent has said is in [`Begin`], and a tool call without a
//! result is made again with [`RESUMED`] in its `_meta`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of this protocol.
pub const VERSION: u32 = 1;

/// The member of a request's `_meta`, with `true`, that says: this call may have been made before
/// the agent was restarted. The gateway then hands over the answer that is there, waits with the
/// question that is open, or says that the outcome is not known; it does nothing a second time.
pub const RESUMED: &str = "portcullis/resumed";

/// Something the gateway wants of the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// Counts from 1 within a run.
    pub seq: u64,
    /// What.
    #[serde(flatten)]
    pub ask: Ask,
}

/// What the gateway can want.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Ask {
    /// Work. Comes first, and again, with all that was acknowledged, to an agent that was restarted.
    Begin(Box<Begin>),
    /// People said more while it worked: for the next turn of the model.
    Say {
        /// Their messages, each of the role `user`.
        messages: Vec<Message>,
    },
    /// Stop at once; nothing more is expected.
    Stop {
        /// Why, for the agent's log.
        reason: String,
    },
}

/// All that a run starts from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Begin {
    /// [`VERSION`] of the gateway.
    pub protocol: u32,
    /// The run.
    pub run: String,
    /// The group it works for.
    pub group: String,
    /// Which model, by its provider's name.
    pub model: String,
    /// Who it is and for whom it works.
    pub system: String,
    /// The conversation so far; the last message is what is to be answered, or an assistant's whose
    /// tool calls have no results yet.
    pub history: Vec<Message>,
    /// `tool_result` blocks of the last message's tool calls that were acknowledged before a restart.
    pub results: Vec<Value>,
    /// The number of the agent's next event.
    pub next_event: u64,
    /// Whether the agent was restarted within this run.
    pub resumed: bool,
    /// How much it may do.
    pub limits: Limits,
}

/// How much an agent may do in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Calls to the model, from this beginning on.
    pub turns: u32,
    /// Seconds of work, from this beginning on: of the model and of the agent itself. Those inside
    /// tool calls do not count, for a person may have been waited for.
    pub seconds: u64,
    /// The longest answer of the model, in tokens.
    pub max_tokens: u32,
    /// The most bytes of one tool result that go into the conversation.
    pub result_bytes: usize,
    /// Tool calls at the same time.
    pub parallel: usize,
}

/// One message of a conversation, in the shape of Anthropic's Messages API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// Content blocks, as the model gave them: some must go back unchanged.
    pub content: Vec<Value>,
}

impl Message {
    /// A message of text alone.
    pub fn text(role: Role, text: &str) -> Self {
        Self {
            role,
            content: vec![serde_json::json!({ "type": "text", "text": text })],
        }
    }
}

/// Who speaks in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// People, and results of tools.
    User,
    /// The model.
    Assistant,
}

/// What the agent reports: the body of `POST /agent/v1/events`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Events {
    /// In the order of their numbers.
    pub events: Vec<Numbered>,
}

/// A numbered event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Numbered {
    /// Greater than that of the event before it.
    pub n: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// The answer to [`Events`]: all up to this number are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acked {
    /// The number of the last stored event.
    pub acked: u64,
}

/// What an agent can report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// It is there. Comes first after each start.
    Hello {
        /// [`VERSION`] of the agent.
        protocol: u32,
        /// Its core, such as `native/0.1.0`.
        core: String,
    },
    /// More of the text that the model is writing. Shown, and not kept: the message that comes is
    /// what was said, and a [`Event::Status`] in its place says that it is written anew.
    Delta {
        /// What is new.
        text: String,
    },
    /// A whole message, which belongs to the conversation from now on.
    Message {
        /// The model's, or one of the role `user` with all `tool_result` blocks that it asked for.
        message: Message,
    },
    /// What people said in the turns up to this one ([`Ask::Say`]) stands in the conversation from
    /// here on: after the messages before, ahead of those after. What was said and not heard when
    /// the run ends was not answered.
    Heard {
        /// [`Turn::seq`].
        seq: u64,
    },
    /// The result of one tool call, kept until the message that holds all of them.
    Result {
        /// A `tool_result` block.
        block: Value,
    },
    /// For people, while they wait: that the model is asked again, for example.
    Status {
        /// In one line.
        text: String,
    },
    /// The run is over; what there was to say was said in messages.
    Done,
    /// The run is over and could not do its work.
    Failed {
        /// What a person can do about it.
        failure: Failure,
        /// What happened, for people; no secrets, no paths.
        text: String,
    },
}

/// Why a run failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The provider does not accept the key.
    Credential,
    /// The provider has no room now; later it may.
    Overloaded,
    /// The provider refuses the request itself.
    Refused,
    /// Nothing, or nothing sensible, came from the provider.
    Provider,
    /// A limit of the run was reached.
    Limit,
    /// The agent itself failed.
    Agent,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_on_the_wire() {
        let turn = Turn {
            seq: 2,
            ask: Ask::Stop {
                reason: "asked to".into(),
            },
        };
        assert_eq!(
            json!(turn),
            json!({ "seq": 2, "type": "stop", "reason": "asked to" })
        );
        let events = Events {
            events: vec![
                Numbered {
                    n: 1,
                    event: Event::Message {
                        message: Message::text(Role::Assistant, "hello"),
                    },
                },
                Numbered {
                    n: 2,
                    event: Event::Done,
                },
            ],
        };
        let wire = json!({ "events": [
            { "n": 1, "type": "message", "message": { "role": "assistant", "content": [{ "type": "text", "text": "hello" }] } },
            { "n": 2, "type": "done" },
        ] });
        assert_eq!(json!(events), wire);
        assert_eq!(serde_json::from_value::<Events>(wire).unwrap(), events);
    }
}
