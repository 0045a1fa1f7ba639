//! What an agent does to the world, as one value.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::{ActionId, ConversationId, GroupName, RunId};

/// The five kinds of action; every one takes the same way through the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A request to an MCP server.
    Mcp,
    /// A call to a model.
    Model,
    /// A network connection out of a sandbox.
    Network,
    /// A tool of the agent's own harness.
    Local,
    /// A request to the gateway itself.
    Host,
}

/// How an action reaches its server: the MCP method, reduced to what policy distinguishes, or the
/// one way to a model's provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Method {
    /// `tools/call`.
    #[serde(rename = "tools/call")]
    Call,
    /// `resources/read`.
    #[serde(rename = "resources/read")]
    Read,
    /// `resources/subscribe`.
    #[serde(rename = "resources/subscribe")]
    Subscribe,
    /// `resources/unsubscribe`.
    #[serde(rename = "resources/unsubscribe")]
    Unsubscribe,
    /// `prompts/get`.
    #[serde(rename = "prompts/get")]
    Prompt,
    /// `completion/complete`.
    #[serde(rename = "completion/complete")]
    Complete,
    /// A request to a model's provider; the arguments say which and how large, not what was said.
    #[serde(rename = "model/request")]
    Model,
}

impl Method {
    /// The method's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Call => "tools/call",
            Self::Read => "resources/read",
            Self::Subscribe => "resources/subscribe",
            Self::Unsubscribe => "resources/unsubscribe",
            Self::Prompt => "prompts/get",
            Self::Complete => "completion/complete",
            Self::Model => "model/request",
        }
    }

    /// Whether the method can only read, whatever its arguments. A tool call is not known to, nor
    /// is a model that its provider gives tools of its own.
    pub fn reads_only(self) -> bool {
        !matches!(self, Self::Call | Self::Model)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing an agent wants done. It goes into [`decide`](crate::decision::decide) by value and
/// comes out only inside a verdict, so what was decided, and shown, is what runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// This action's id.
    pub id: ActionId,
    /// Which of the five kinds.
    pub kind: Kind,
    /// The group it acts for.
    pub group: GroupName,
    /// The conversation whose labels apply.
    pub conversation: ConversationId,
    /// The task it belongs to.
    pub run: RunId,
    /// Who asked: the credential, such as `token:tok_1 (laptop)`.
    pub principal: String,
    /// The server it goes to; `model:NAME` is a provider of models.
    pub server: String,
    /// What is asked of the server.
    pub method: Method,
    /// The tool, prompt, resource or model, by the server's own name.
    pub name: String,
    /// The arguments as they will be sent.
    pub args: Value,
    /// What is sent beside them as `_meta`, without what is reserved. It is no part of
    /// [`sameness`](Self::sameness): clients write trace and call ids there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<Map<String, Value>>,
    /// Digest over the definition that the server has for it. Where that is not the pinned one, which
    /// the arguments were written against, [`changed`](crate::decision::Facts::changed) says so.
    pub definition: Digest,
    /// Digest over what the server is: its command or address.
    pub identity: Digest,
}

impl Action {
    /// The name people and rules use: `server__tool` for a tool and `model:NAME__model` for a model,
    /// else `server method name`.
    pub fn tool(&self) -> String {
        match self.method {
            Method::Call | Method::Model => format!("{}__{}", self.server, self.name),
            Method::Read
            | Method::Subscribe
            | Method::Unsubscribe
            | Method::Prompt
            | Method::Complete => {
                format!("{} {} {}", self.server, self.method, self.name)
            }
        }
    }

    /// What makes two requests the same one: conversation, server, method, name and canonical
    /// arguments.
    pub fn sameness(&self) -> Digest {
        Digest::of_json(&serde_json::json!([
            self.conversation,
            self.server,
            self.method,
            self.name,
            self.args
        ]))
    }

    /// What an approval is bound to: [`sameness`](Self::sameness), the definition and the server.
    pub fn binding(&self) -> Digest {
        Digest::of_json(&serde_json::json!([
            self.sameness(),
            self.definition,
            self.identity
        ]))
    }
}

/// A SHA-256 digest, in lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// Digest of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(hex(digest(&SHA256, bytes).as_ref()))
    }

    /// Digest of a JSON value in [`canonical`] form.
    pub fn of_json(value: &Value) -> Self {
        Self::of(canonical(value).as_bytes())
    }

    /// The digest as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Takes the [`Digest`] of what comes in pieces.
#[derive(Clone)]
pub struct Digester(Context);

impl Digester {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Adds a piece.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all pieces.
    pub fn finish(self) -> Digest {
        Digest(hex(self.0.finish().as_ref()))
    }
}

impl Default for Digester {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digester")
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        })
}

/// A value with the members of every object in order of their names and no white space, after RFC
/// 8785 (JCS); numbers are written as `serde_json` writes them, which is also how they are sent.
pub fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write_canonical(value, &mut out);
    out
}

fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            // RFC 8785, 3.2.3: by UTF-16 code units.
            names.sort_by(|a, b| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (n, name) in names.into_iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                out.push_str(&Value::String(name.clone()).to_string());
                out.push(':');
                write_canonical(members.get(name).unwrap_or(&Value::Null), out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            out.push_str(&value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn member_order_and_white_space_do_not_change_a_digest() {
        let a: Value = serde_json::from_str(r#"{"b": [1, {"y":2,"x":1}], "a": "\u00e9"}"#).unwrap();
        let b = json!({"a": "é", "b": [1, {"x": 1, "y": 2}]});
        assert_eq!(canonical(&a), r#"{"a":"é","b":[1,{"x":1,"y":2}]}"#);
        assert_eq!(Digest::of_json(&a), Digest::of_json(&b));
    }

    #[test]
    fn another_value_is_another_digest() {
        for (a, b) in [
            (json!({"a": 1}), json!({"a": "1"})),
            (json!({"a": [1, 2]}), json!({"a": [2, 1]})),
            (json!({"a": null}), json!({})),
        ] {
            assert_ne!(Digest::of_json(&a), Digest::of_json(&b), "{a} and {b}");
        }
    }
}
