//! The gateway's MCP endpoint, in the revision of 2026-07-28: every request for itself.
//!
//! A call may wait for a person for hours. Its stream is then never silent; when it breaks, the same
//! call is made again and says so ([`RESUMED`]), and the gateway hands over what there is.

use std::time::{Duration, Instant};

use agent::RESUMED;
use serde_json::{Map, Value, json};

use crate::gateway::Gateway;
use crate::pause::Pause;
use crate::sse::{self, Broken, Stream};

/// Where it is.
pub(crate) const PATH: &str = "/mcp";
const REVISION: &str = "2026-07-28";
/// The longest answer.
const MAX_ANSWER: usize = 32 * 1024 * 1024;
/// How long an answer may be silent; the gateway says that it is there every 15 seconds.
const SILENCE: Duration = Duration::from_mins(1);
/// How long the end of a stream is waited for after the answer.
const LAST_BYTES: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const MOST_PAUSE: Duration = Duration::from_secs(10);
/// How many connections in a row may break soon after they were made.
const TRIES: u32 = 12;
const SOON: Duration = Duration::from_secs(10);
/// The most pages of a list, and the most items.
const MOST_PAGES: usize = 100;
const MOST_ITEMS: usize = 2000;

/// The endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mcp<'a>(pub(crate) &'a Gateway);

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoResult {
    /// The gateway or the server says so.
    #[error("{0}")]
    Error(String),
    /// The answer makes no sense.
    #[error("the answer cannot be read: {0}; whether it was done is not known")]
    Unreadable(String),
    /// The connection broke again and again.
    #[error(
        "the connection to the gateway broke again and again; whether it was done is not known"
    )]
    Unreached,
}

/// What became of one request.
enum Once {
    Answer(Result<Value, NoResult>),
    /// It did not arrive.
    Unsent,
    /// It may have arrived.
    Broken,
}

impl Mcp<'_> {
    /// All tools, as their servers describe them.
    pub(crate) async fn tools(self) -> Result<Vec<Value>, NoResult> {
        let mut all = Vec::new();
        let mut params = Map::new();
        for _ in 0..MOST_PAGES {
            let page = self.request("tools/list", params, false).await?;
            let tools = page.get("tools").and_then(Value::as_array);
            all.extend(tools.into_iter().flatten().cloned());
            match page.get("nextCursor") {
                Some(cursor @ Value::String(_)) if all.len() < MOST_ITEMS => {
                    params = Map::from_iter([("cursor".to_owned(), cursor.clone())]);
                }
                _ => break,
            }
        }
        all.truncate(MOST_ITEMS);
        Ok(all)
    }

    /// The result of a tool's call; `resumed` if it may have been made before.
    pub(crate) async fn call(
        self,
        name: &str,
        arguments: &Value,
        resumed: bool,
    ) -> Result<Value, NoResult> {
        let params = [
            ("name".to_owned(), name.into()),
            ("arguments".to_owned(), arguments.clone()),
        ];
        self.request("tools/call", Map::from_iter(params), resumed)
            .await
    }

    async fn request(
        self,
        method: &str,
        params: Map<String, Value>,
        resumed: bool,
    ) -> Result<Value, NoResult> {
        let mut resumed = resumed;
        let mut pause = Pause::new(FIRST_PAUSE, MOST_PAUSE);
        let mut tries = 0;
        loop {
            let began = Instant::now();
            match self.once(method, &params, resumed).await {
                Once::Answer(answer) => return answer,
                // The link to the gateway decides how long that may last.
                Once::Unsent => {}
                Once::Broken => {
                    resumed = method == "tools/call";
                    tries += 1;
                    if began.elapsed() > SOON {
                        tries = 0;
                        pause.reset();
                    }
                    if tries >= TRIES {
                        return Err(NoResult::Unreached);
                    }
                }
            }
            pause.wait().await;
        }
    }

    async fn once(self, method: &str, params: &Map<String, Value>, resumed: bool) -> Once {
        let mut meta = json!({
            "io.modelcontextprotocol/protocolVersion": REVISION,
            "io.modelcontextprotocol/clientInfo": {
                "name": "portcullis-agent", "version": env!("CARGO_PKG_VERSION"),
            },
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        if let (true, Some(meta)) = (resumed, meta.as_object_mut()) {
            meta.insert(RESUMED.to_owned(), true.into());
        }
        let mut params = params.clone();
        params.insert("_meta".to_owned(), meta);
        let mut request = self
            .0
            .post(PATH)
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", REVISION)
            .header("mcp-method", method);
        if let Some(name) = params.get("name").and_then(Value::as_str) {
            request = request.header("mcp-name", header(name));
        }
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let sent = tokio::time::timeout(SILENCE, request.json(&body).send());
        let response = match sent.await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if error.is_connect() => return Once::Unsent,
            Ok(Err(_)) | Err(_) => return Once::Broken,
        };
        let status = response.status().as_u16();
        if status >= 500 {
            return Once::Broken;
        }
        let is_json = response
            .headers()
            .get("content-type")
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
        if status != 200 && !is_json {
            let text = format!("the gateway refuses the request: HTTP {status}");
            return Once::Answer(Err(NoResult::Error(text)));
        }
        if sse::is_stream(&response) {
            return follow(response).await;
        }
        match sse::body(response, MAX_ANSWER, SILENCE).await {
            Ok(body) => match answer(&body) {
                Some(answer) => Once::Answer(answer),
                None => unreadable("it is no answer"),
            },
            Err(broken @ Broken::TooLong(_)) => unreadable(&broken.to_string()),
            Err(Broken::Cut | Broken::Silent) => Once::Broken,
        }
    }
}

async fn follow(response: reqwest::Response) -> Once {
    let mut stream = Stream::new(response, MAX_ANSWER, SILENCE);
    loop {
        match stream.next().await {
            Ok(Some(data)) => {
                if let Some(answer) = answer(&data) {
                    // Taken to its end: the gateway hands a result over once.
                    _ = tokio::time::timeout(LAST_BYTES, stream.next()).await;
                    return Once::Answer(answer);
                }
            }
            Ok(None) | Err(Broken::Cut | Broken::Silent) => return Once::Broken,
            Err(broken @ Broken::TooLong(_)) => return unreadable(&broken.to_string()),
        }
    }
}

fn unreadable(why: &str) -> Once {
    Once::Answer(Err(NoResult::Unreadable(why.to_owned())))
}

/// The answer that a message is, unless it is something else.
fn answer(message: &[u8]) -> Option<Result<Value, NoResult>> {
    let Ok(mut message) = serde_json::from_slice::<Value>(message) else {
        return Some(Err(NoResult::Unreadable("it is no JSON".to_owned())));
    };
    if let Some(error) = message.get("error") {
        let text = error.get("message").and_then(Value::as_str);
        let text = text.unwrap_or("an error without a message").to_owned();
        return Some(Err(NoResult::Error(text)));
    }
    message.get_mut("result").map(Value::take).map(Ok)
}

/// A header's value, in the specification's Base64 form where it could not be sent as it is.
fn header(value: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let plain = value.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
    if plain && !value.starts_with("=?") {
        return value.to_owned();
    }
    let mut text = "=?base64?".to_owned();
    for group in value.as_bytes().chunks(3) {
        let byte = |at: usize| group.get(at).copied().map_or(0, usize::from);
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for (at, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let letter = ALPHABET
                .get(bits >> shift & 63)
                .filter(|_| at <= group.len());
            text.push(letter.copied().unwrap_or(b'=').into());
        }
    }
    text + "?="
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_header_can_carry_is_wrapped() {
        assert_eq!(header("wiki__search"), "wiki__search");
        assert_eq!(header(" a"), "=?base64?IGE=?=");
        assert_eq!(header("é"), "=?base64?w6k=?=");
        assert_eq!(header("日本"), "=?base64?5pel5pys?=");
        assert_eq!(header("=?x"), "=?base64?PT94?=");
    }
}
