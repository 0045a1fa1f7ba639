//! One request of a client: from its parameters to the broker, and the answer back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use policy::action::Method;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::stream::Log;
use super::wire::{LEGACY, MODERN, RESERVED};
use super::{Caller, Listener, Mcp, lists, wire};
use crate::approvals::Answer;
use crate::broker::{Call, Note, unknown};
use crate::fault;

/// How often a held call says that it is waiting. Claude Code gives up after 300 s of silence, other
/// clients after 60 s.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Resources of this scheme keep their URIs on every endpoint: hosts know them from the definitions of
/// tools, which are passed on as they came (SEP-1865).
const UI: &str = "ui://";

/// Answers one request into its log.
pub(super) async fn answer(
    mcp: &Arc<Mcp>,
    caller: &Caller,
    id: Value,
    method: &str,
    params: Map<String, Value>,
    log: &Arc<Log>,
) {
    let end = |member: &str, raw: &str| log.end(Some(wire::answer(&id, member, raw)), None);
    match method {
        "ping" => end("result", "{}"),
        "server/discover" => match lists::offer(mcp, caller.scope.as_deref()).await {
            Ok(offer) => {
                let supported: Vec<&str> = std::iter::once(MODERN).chain(LEGACY).collect();
                let mut result = json!({
                    "resultType": "complete",
                    "supportedVersions": supported,
                    "capabilities": offer.capabilities,
                    "ttlMs": 0,
                    "cacheScope": "private",
                    "_meta": { "io.modelcontextprotocol/serverInfo": offer.server_info },
                });
                if let (Some(text), Some(result)) = (offer.instructions, result.as_object_mut()) {
                    result.insert("instructions".to_owned(), Value::String(text));
                }
                end("result", &result.to_string());
            }
            Err(error) => end(
                "error",
                &json!({ "code": -32603, "message": error }).to_string(),
            ),
        },
        "subscriptions/listen" => listen(mcp, caller, id, params, log),
        "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list" => {
            match lists::list(mcp, caller, method).await {
                Ok(raw) => end("result", &raw),
                Err(error) => end(
                    "error",
                    &json!({ "code": -32603, "message": error.to_string() }).to_string(),
                ),
            }
        }
        _ => match Target::read(mcp, caller, method, &params).await {
            Ok(target) => Box::pin(act(mcp, caller, id, target, params, log)).await,
            Err(error) => end("error", &error.to_string()),
        },
    }
}

fn listen(mcp: &Mcp, caller: &Caller, id: Value, params: Map<String, Value>, log: &Arc<Log>) {
    let filter = params
        .get("notifications")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let known = [
        "toolsListChanged",
        "promptsListChanged",
        "resourcesListChanged",
    ];
    // Changes to single resources come from servers that were asked to tell; that is for sessions.
    let filter: Map<String, Value> = filter
        .into_iter()
        .filter(|(name, value)| known.contains(&name.as_str()) && *value == Value::Bool(true))
        .collect();
    let ack = json!({ "notifications": filter, "_meta": { "io.modelcontextprotocol/subscriptionId": id } });
    log.push(wire::notification(
        "notifications/subscriptions/acknowledged",
        &ack,
    ));
    mcp.listeners().push(Listener {
        id,
        principal: caller.principal.clone(),
        scope: caller.scope.clone(),
        filter,
        log: log.clone(),
    });
}

/// What a request is aimed at, in the server's own names.
struct Target {
    method: Method,
    server: String,
    name: String,
    args: Value,
}

impl Target {
    async fn read(
        mcp: &Arc<Mcp>,
        caller: &Caller,
        method: &str,
        params: &Map<String, Value>,
    ) -> Result<Self, Value> {
        let scope = caller.scope.as_deref();
        let text = |name: &str| {
            let missing =
                || json!({ "code": -32602, "message": format!("`{name}` is missing or no text") });
            params.get(name).and_then(Value::as_str).ok_or_else(missing)
        };
        let arguments = || match params.get("arguments") {
            None => Ok(json!({})),
            Some(arguments @ Value::Object(_)) => Ok(arguments.clone()),
            Some(_) => Err(json!({ "code": -32602, "message": "`arguments` is not an object" })),
        };
        let method = match method {
            "tools/call" => Method::Call,
            "prompts/get" => Method::Prompt,
            "resources/read" => Method::Read,
            "resources/subscribe" => Method::Subscribe,
            "resources/unsubscribe" => Method::Unsubscribe,
            _ => Method::Complete,
        };
        let unknown = || unknown(method);
        match method {
            Method::Call | Method::Prompt => {
                let public = text("name")?;
                let (server, name) = split(scope, public, "__").ok_or_else(unknown)?;
                Ok(Self {
                    method,
                    server,
                    name,
                    args: arguments()?,
                })
            }
            Method::Read | Method::Subscribe | Method::Unsubscribe => {
                let public = text("uri")?;
                let found = if scope.is_none() && public.starts_with(UI) {
                    let server = lists::server_of(mcp, caller, public).await;
                    server.map(|server| (server, public.to_owned()))
                } else {
                    split(scope, public, "+")
                };
                let (server, uri) = found.ok_or_else(unknown)?;
                Ok(Self {
                    method,
                    server,
                    args: json!({ "uri": uri }),
                    name: uri,
                })
            }
            Method::Model => Err(unknown()),
            Method::Complete => {
                let odd =
                    || json!({ "code": -32602, "message": "`ref` is missing or not understood" });
                let reference = params
                    .get("ref")
                    .and_then(Value::as_object)
                    .ok_or_else(odd)?;
                let (member, mark) = match reference.get("type").and_then(Value::as_str) {
                    Some("ref/prompt") => ("name", "__"),
                    Some("ref/resource") => ("uri", "+"),
                    _ => return Err(odd()),
                };
                let public = reference
                    .get(member)
                    .and_then(Value::as_str)
                    .ok_or_else(odd)?;
                let (server, name) = split(scope, public, mark).ok_or_else(unknown)?;
                let mut reference = reference.clone();
                reference.insert(member.to_owned(), Value::String(name.clone()));
                let mut args = Map::from_iter([("ref".to_owned(), Value::Object(reference))]);
                for name in ["argument", "context"] {
                    if let Some(value) = params.get(name) {
                        args.insert(name.to_owned(), value.clone());
                    }
                }
                Ok(Self {
                    method,
                    server,
                    name,
                    args: Value::Object(args),
                })
            }
        }
    }
}

/// Server and own name from a public one. A server's name holds neither `_` nor `+`, so the first
/// mark is the one.
fn split(scope: Option<&str>, public: &str, mark: &str) -> Option<(String, String)> {
    match scope {
        Some(server) => Some((server.to_owned(), public.to_owned())),
        None => public
            .split_once(mark)
            .map(|(server, name)| (server.to_owned(), name.to_owned())),
    }
}

/// The URI by which clients know a server's resource.
pub(super) fn public_uri(scope: Option<&str>, server: &str, uri: &str) -> String {
    if scope.is_some() || uri.starts_with(UI) {
        uri.to_owned()
    } else {
        format!("{server}+{uri}")
    }
}

async fn act(
    mcp: &Arc<Mcp>,
    caller: &Caller,
    id: Value,
    target: Target,
    params: Map<String, Value>,
    log: &Arc<Log>,
) {
    let Target {
        method,
        server,
        name,
        args,
    } = target;
    let token = wire::meta(&params, "progressToken").cloned();
    let meta = params.get("_meta").and_then(Value::as_object).map(|meta| {
        let kept = meta.iter().filter(|(name, _)| {
            *name != "progressToken" && *name != agent::RESUMED && !name.starts_with(RESERVED)
        });
        kept.map(|(name, value)| (name.clone(), value.clone()))
            .collect::<Map<String, Value>>()
    });
    let resumed = wire::meta(&params, agent::RESUMED) == Some(&Value::Bool(true));
    let (notes, heard) = mpsc::channel(64);
    let call = Call {
        principal: caller.principal.clone(),
        server: server.clone(),
        method,
        name: name.clone(),
        args,
        meta: meta.filter(|meta| !meta.is_empty()),
        resumed: resumed && caller.principal.run().is_some(),
        cancel: log.cancel.clone(),
        present: log.present.clone(),
        notes,
    };
    let pass = Box::pin(mcp.broker.pass(call));
    let done = tell_while(pass, heard, token, log).await;
    fault::point("answer.ready").await;
    if log.cancel.is_cancelled() {
        return log.end(None, None);
    }
    let Some(answer) = done.answer else {
        return log.end(None, None);
    };
    if let (Some(session), Method::Subscribe | Method::Unsubscribe, Answer::Result(_)) =
        (&caller.session, method, &answer)
    {
        session.subscribe(&server, &name, method == Method::Subscribe);
    }
    let message = match answer {
        Answer::Result(raw) => {
            let raw = if caller.scope.is_none() {
                with_public_uris(&server, raw)
            } else {
                raw
            };
            wire::answer(
                &id,
                "result",
                &if caller.modern() { complete(raw) } else { raw },
            )
        }
        Answer::Error(raw) => wire::answer(&id, "error", &raw),
        Answer::Refused(text) => refused(&id, method, &text, caller.modern()),
    };
    log.end(Some(message), done.receipt);
}

/// Follows a call to its end, telling its caller what happens on the way.
async fn tell_while<T>(
    pass: impl Future<Output = T>,
    mut heard: mpsc::Receiver<Note>,
    token: Option<Value>,
    log: &Arc<Log>,
) -> T {
    let mut pass = std::pin::pin!(pass);
    let mut beat = tokio::time::interval(HEARTBEAT);
    let mut waiting = None;
    let mut progress = Progress {
        token,
        last: 0.0,
        base: None,
    };
    loop {
        tokio::select! {
            biased;
            Some(note) = heard.recv() => match note {
                Note::Held(question) => {
                    log.hold();
                    waiting = Some(question);
                    beat.reset_immediately();
                }
                Note::Progress(report) => {
                    waiting = None;
                    if let Some(message) = progress.report(&report) {
                        log.push(message);
                    }
                }
            },
            done = &mut pass => {
                // What was said before the answer goes before it.
                while let Ok(note) = heard.try_recv() {
                    if let Note::Progress(report) = note
                        && let Some(message) = progress.report(&report)
                    {
                        log.push(message);
                    }
                }
                return done;
            }
            _ = beat.tick(), if waiting.is_some() => {
                let question = waiting.as_ref().map(ToString::to_string).unwrap_or_default();
                if let Some(message) = progress.wait(&question) {
                    log.push(message);
                }
            }
        }
    }
}

/// Progress as one caller sees it: its own token, and numbers that only grow (MCP, *Progress*).
struct Progress {
    token: Option<Value>,
    last: f64,
    base: Option<f64>,
}

impl Progress {
    /// A person is asked: a small step each time.
    fn wait(&mut self, question: &str) -> Option<Bytes> {
        let token = self.token.clone()?;
        self.last += 0.001;
        let message =
            format!("Waiting for a person to decide (question {question}). Not executed yet.");
        let params = json!({ "progressToken": token, "progress": self.last, "message": message });
        Some(wire::notification("notifications/progress", &params))
    }

    /// The server reports: its numbers, on top of the steps that were told before.
    fn report(&mut self, report: &Value) -> Option<Bytes> {
        let token = self.token.clone()?;
        let mut params = report.as_object()?.clone();
        let said = params.get("progress")?.as_f64()?;
        let base = *self.base.get_or_insert(self.last);
        if base + said <= self.last && self.last > 0.0 {
            return None;
        }
        self.last = base + said;
        if base > 0.0 {
            params.insert("progress".to_owned(), json!(self.last));
            if let Some(total) = params.get("total").and_then(Value::as_f64) {
                params.insert("total".to_owned(), json!(total + base));
            }
        }
        params.insert("progressToken".to_owned(), token);
        Some(wire::notification(
            "notifications/progress",
            &Value::Object(params),
        ))
    }
}

fn refused(id: &Value, method: Method, text: &str, modern: bool) -> Bytes {
    if method != Method::Call {
        return wire::answer(
            id,
            "error",
            &json!({ "code": -32603, "message": text }).to_string(),
        );
    }
    let result =
        json!({ "content": [{ "type": "text", "text": text }], "isError": true }).to_string();
    wire::answer(
        id,
        "result",
        &if modern { complete(result) } else { result },
    )
}

/// A result of an older server, as the newest revision wants it.
fn complete(raw: String) -> String {
    #[derive(serde::Deserialize)]
    struct Kind {
        #[serde(rename = "resultType")]
        kind: Option<serde::de::IgnoredAny>,
    }
    let rest = raw.trim_start().strip_prefix('{').map(str::trim_start);
    match (rest, serde_json::from_str::<Kind>(&raw)) {
        (Some("}"), _) => r#"{"resultType":"complete"}"#.to_owned(),
        (Some(rest), Ok(Kind { kind: None })) => format!(r#"{{"resultType":"complete",{rest}"#),
        _ => raw,
    }
}

/// The URIs of resources in a result, as clients know them.
fn with_public_uris(server: &str, raw: String) -> String {
    if !raw.contains("\"uri\"") {
        return raw;
    }
    let Ok(mut result) = serde_json::from_str::<Value>(&raw) else {
        return raw;
    };
    let mut rename = |holder: &mut Value| {
        if let Some(uri) = holder.get_mut("uri")
            && let Some(own) = uri.as_str()
        {
            *uri = Value::String(public_uri(None, server, own));
        }
    };
    let mut block = |block: &mut Value| match block.get("type").and_then(Value::as_str) {
        Some("resource_link") => rename(block),
        Some("resource") => block
            .get_mut("resource")
            .map(&mut rename)
            .unwrap_or_default(),
        _ => {}
    };
    for one in result
        .get_mut("content")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        block(one);
    }
    for one in result
        .get_mut("messages")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        one.get_mut("content").map(&mut block).unwrap_or_default();
    }
    for one in result
        .get_mut("contents")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(uri) = one.get_mut("uri")
            && let Some(own) = uri.as_str()
        {
            *uri = Value::String(public_uri(None, server, own));
        }
    }
    result.to_string()
}
