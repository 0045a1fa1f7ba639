//! JSON-RPC and the headers of MCP: reading what came in, refusing what does not fit.

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// The newest revision: no sessions, every request for itself.
pub(super) const MODERN: &str = "2026-07-28";
/// The session-based revisions, newest first.
pub(super) const LEGACY: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];
/// What `_meta` names are reserved for the protocol's own use; they end at every hop.
pub(super) const RESERVED: &str = "io.modelcontextprotocol/";

/// The code for headers that do not fit their body, or each other.
pub(super) const MISMATCH: i64 = -32020;

/// Something that is answered with a JSON-RPC error.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    /// The JSON-RPC code.
    pub code: i64,
    /// In words.
    pub message: String,
    /// The error's `data`.
    pub data: Option<Value>,
}

impl Problem {
    /// A problem that is the request's own fault, under HTTP 400.
    pub(super) fn bad(code: i64, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code,
            message: message.into(),
            data: None,
        }
    }

    /// As a whole response.
    pub(super) fn respond(&self, id: &Value) -> Response {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let (Some(data), Some(error)) = (&self.data, error.as_object_mut()) {
            error.insert("data".to_owned(), data.clone());
        }
        json_response(
            self.status,
            json!({ "jsonrpc": "2.0", "id": id, "error": error }).to_string(),
        )
    }
}

/// One message of a client.
#[derive(Debug)]
pub(super) enum Message {
    /// A request.
    Request {
        /// Its id, a string or a number.
        id: Value,
        /// Its method.
        method: String,
        /// Its parameters.
        params: Map<String, Value>,
    },
    /// A notification.
    Notification {
        /// Its method.
        method: String,
        /// Its parameters.
        params: Map<String, Value>,
    },
    /// An answer to a request of ours.
    Response,
}

/// Reads one message.
///
/// # Errors
/// The id to answer to, and what is wrong.
pub(super) fn message(value: Value) -> Result<Message, Box<(Value, Problem)>> {
    let Value::Object(mut members) = value else {
        let problem = Problem::bad(-32600, "a message is a JSON object");
        return Err(Box::new((Value::Null, problem)));
    };
    let id = members.remove("id");
    let known = match &id {
        Some(id @ (Value::String(_) | Value::Number(_))) => id.clone(),
        Some(_) | None => Value::Null,
    };
    let wrong = |text: &str| Err(Box::new((known.clone(), Problem::bad(-32600, text))));
    if members.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return wrong("`jsonrpc` is not \"2.0\"");
    }
    let method = match members.remove("method") {
        Some(Value::String(method)) => method,
        None if members.contains_key("result") || members.contains_key("error") => {
            return Ok(Message::Response);
        }
        Some(_) | None => return wrong("`method` is missing or no text"),
    };
    let params = match members.remove("params") {
        None => Map::new(),
        Some(Value::Object(params)) => params,
        Some(_) => return wrong("`params` is not an object"),
    };
    match id {
        None => Ok(Message::Notification { method, params }),
        Some(Value::String(_) | Value::Number(_)) => Ok(Message::Request {
            id: known,
            method,
            params,
        }),
        Some(_) => wrong("`id` is neither a text nor a number"),
    }
}

/// The only value of a header.
///
/// # Errors
/// A second value, or one that is no text: whoever reads the other one would decide differently.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Problem::bad(
            MISMATCH,
            format!("the header {name} is there twice"),
        ));
    }
    value
        .to_str()
        .map(Some)
        .map_err(|_| Problem::bad(MISMATCH, format!("the header {name} is no plain text")))
}

/// A member of `_meta`.
pub(super) fn meta<'a>(params: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    params.get("_meta")?.get(name)
}

/// Compares the headers of the 2026-07-28 revision with the body. A header that is there must fit,
/// in every revision; in the newest they must be there (SEP-2243).
///
/// # Errors
/// What does not fit.
pub(super) fn headers_fit(
    headers: &HeaderMap,
    method: &str,
    params: &Map<String, Value>,
    modern: bool,
) -> Result<(), Problem> {
    let mismatch = |text: String| Problem::bad(MISMATCH, text);
    match single(headers, "mcp-method")? {
        Some(said) if said != method => {
            return Err(mismatch(format!(
                "the header Mcp-Method says `{said}`, the body `{method}`"
            )));
        }
        None if modern => return Err(mismatch("the header Mcp-Method is missing".to_owned())),
        Some(_) | None => {}
    }
    let member = match method {
        "tools/call" | "prompts/get" => "name",
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => "uri",
        _ => return Ok(()),
    };
    let name = params
        .get(member)
        .and_then(Value::as_str)
        .unwrap_or_default();
    match single(headers, "mcp-name")? {
        Some(said) => {
            let said = decoded(said)
                .ok_or_else(|| mismatch("the header Mcp-Name cannot be decoded".to_owned()))?;
            if said != name {
                return Err(mismatch(format!(
                    "the header Mcp-Name says `{said}`, the body `{name}`"
                )));
            }
        }
        None if modern && matches!(method, "tools/call" | "prompts/get" | "resources/read") => {
            return Err(mismatch("the header Mcp-Name is missing".to_owned()));
        }
        None => {}
    }
    Ok(())
}

/// A header value in plain or as `=?base64?…?=` (SEP-2243, *Value Encoding*).
fn decoded(value: &str) -> Option<String> {
    match value
        .strip_prefix("=?base64?")
        .and_then(|rest| rest.strip_suffix("?="))
    {
        Some(text) => String::from_utf8(base64(text)?).ok(),
        None => Some(value.to_owned()),
    }
}

/// Base 64 with padding (RFC 4648, section 4).
fn base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from((bits >> count) & 0xff).ok()?);
        }
    }
    Some(out)
}

/// A response of one JSON text.
pub(super) fn json_response(status: StatusCode, text: impl Into<Body>) -> Response {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("no-store"),
    );
    response
}

/// A JSON-RPC answer around a raw result or error.
pub(super) fn answer(id: &Value, member: &str, raw: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"{member}":{raw}}}"#).into()
}

/// A notification.
pub(super) fn notification(method: &str, params: &Value) -> Bytes {
    json!({ "jsonrpc": "2.0", "method": method, "params": params })
        .to_string()
        .into()
}

/// Gives a raw object another member in place of one it has. The rest stays as it was written.
pub(super) fn with_member(raw: &RawValue, name: &str, value: Value) -> String {
    let mut members: Map<String, Value> = serde_json::from_str(raw.get()).unwrap_or_default();
    members.insert(name.to_owned(), value);
    Value::Object(members).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_may_be_wrapped() {
        assert_eq!(decoded("=?base64?w6nDqQ==?=").as_deref(), Some("éé"));
        assert_eq!(decoded("plain").as_deref(), Some("plain"));
        assert_eq!(decoded("=?base64?!!?="), None);
    }

    #[test]
    fn what_is_no_message_is_refused_with_its_id() {
        for (text, id) in [
            (r#"[]"#, Value::Null),
            (r#"{"jsonrpc":"2.0","id":1}"#, json!(1)),
            (r#"{"jsonrpc":"1.0","id":"a","method":"x"}"#, json!("a")),
            (r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#, Value::Null),
            (
                r#"{"jsonrpc":"2.0","id":7,"method":"x","params":[1]}"#,
                json!(7),
            ),
        ] {
            let (answered, problem) = *message(serde_json::from_str(text).unwrap()).unwrap_err();
            assert_eq!((answered, problem.code), (id, -32600), "{text}");
        }
    }
}
