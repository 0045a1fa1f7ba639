//! The JSON-RPC envelope and the reserved part of `_meta`; everything else passes as it came.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json, value::RawValue};

/// The revision asked for at `initialize`.
pub(super) const LEGACY: &str = "2025-11-25";
/// The session-based revisions we speak.
pub(super) const LEGACY_VERSIONS: [&str; 4] = [LEGACY, "2025-06-18", "2025-03-26", "2024-11-05"];
/// The revision without sessions.
pub(super) const MODERN: &str = "2026-07-28";

const RESERVED: &str = "io.modelcontextprotocol/";

/// How requests to a server are marked.
#[derive(Clone, Debug)]
pub(super) enum Era {
    /// Not agreed upon yet: the handshake itself.
    Opening,
    /// A session, with the version both sides agreed on.
    Legacy(String),
    /// Every request carries everything.
    Modern,
}

/// A message of a server: a reply, a request or a notification.
#[derive(Deserialize)]
pub(super) struct Incoming<'a> {
    #[serde(borrow, default)]
    pub(super) id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) error: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Outgoing<'a> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<&'a Value>,
}

/// One message, or the messages of a batch.
pub(super) fn split(raw: &[u8]) -> Option<Vec<&RawValue>> {
    if raw.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        serde_json::from_slice(raw).ok()
    } else {
        serde_json::from_slice(raw).ok().map(|one| vec![one])
    }
}

/// A request of ours, or without an id a notification, on one line without its line break.
pub(super) fn encode(id: Option<u64>, method: &str, params: &Value) -> Vec<u8> {
    let params = Some(params).filter(|params| !params.is_null());
    // A `Value` always has a JSON text.
    serde_json::to_vec(&Outgoing {
        jsonrpc: "2.0",
        id,
        method,
        params,
    })
    .unwrap_or_default()
}

/// The notification that a request is no longer wanted.
pub(super) fn cancelled(id: u64, era: &Era) -> Vec<u8> {
    let params = json!({ "requestId": id, "reason": "the caller no longer waits" });
    encode(None, "notifications/cancelled", &stamp(params, era, None))
}

/// The answer to a request of the server: only `ping` is served.
pub(super) fn answer(id: &RawValue, method: &str) -> Vec<u8> {
    let answer = if method == "ping" {
        json!({ "jsonrpc": "2.0", "id": id, "result": {} })
    } else {
        let error = json!({ "code": -32601, "message": "the gateway does not serve this method" });
        json!({ "jsonrpc": "2.0", "id": id, "error": error })
    };
    answer.to_string().into_bytes()
}

/// Replaces what is reserved in `_meta` by what holds between us and the server.
pub(super) fn stamp(params: Value, era: &Era, progress: Option<u64>) -> Value {
    let mut params = match params {
        Value::Object(params) => params,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    };
    let mut meta = match params.get_mut("_meta").map(Value::take) {
        Some(Value::Object(meta)) => meta,
        Some(_) | None => Map::new(),
    };
    meta.retain(|key, _| key != "progressToken" && !key.starts_with(RESERVED));
    if let Some(token) = progress {
        meta.insert("progressToken".to_owned(), token.into());
    }
    match era {
        Era::Opening | Era::Legacy(_) => {}
        Era::Modern => {
            let mut reserve = |key: &str, value| meta.insert(format!("{RESERVED}{key}"), value);
            reserve("protocolVersion", MODERN.into());
            reserve("clientInfo", client_info());
            reserve("clientCapabilities", json!({}));
        }
    }
    if meta.is_empty() {
        params.shift_remove("_meta");
    } else {
        params.insert("_meta".to_owned(), Value::Object(meta));
    }
    Value::Object(params)
}

/// Who we are to a server.
pub(super) fn client_info() -> Value {
    json!({ "name": "portcullis", "version": env!("CARGO_PKG_VERSION") })
}

/// The value of `Mcp-Name`: what a request is about, where its method has such a thing.
pub(super) fn name<'a>(method: &str, params: &'a Value) -> Option<&'a str> {
    let key = match method {
        "tools/call" | "prompts/get" => "name",
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => "uri",
        "tasks/get" | "tasks/update" | "tasks/cancel" => "taskId",
        _ => return None,
    };
    params.get(key)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_meta_is_ours_and_the_rest_stays() {
        let params = json!({
            "name": "t",
            "_meta": { "progressToken": "theirs", "io.modelcontextprotocol/x": 1, "vendor": true },
            "odd": [1.0, 2]
        });
        let legacy = stamp(params.clone(), &Era::Legacy(LEGACY.into()), Some(7));
        assert_eq!(
            legacy,
            json!({ "name": "t", "_meta": { "vendor": true, "progressToken": 7 }, "odd": [1.0, 2] })
        );
        let modern = stamp(params, &Era::Modern, None);
        let meta = modern.get("_meta").unwrap();
        assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], MODERN);
        assert!(meta.get("progressToken").is_none() && meta["vendor"] == true);
        assert_eq!(stamp(Value::Null, &Era::Opening, None), json!({}));
    }
}
