//! The MCP endpoint: `/mcp` and `/mcp/{server}`, for the revision of 2026-07-28 and for the
//! session-based ones before it.
//!
//! It reads what is decided on (method, names, arguments, reserved `_meta`), hands it to the
//! [broker](crate::broker) and passes everything else on as it came.

mod call;
mod lists;
mod session;
mod stream;
mod wire;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::broker::Broker;
use crate::catalog::Change;
use crate::identity::Principal;
use crate::upstreams::List;

use session::{Session, Sessions};
use stream::{Follow, Guard, Log, Style};
use wire::{LEGACY, MODERN, Message, Problem};

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// How long an answer may take before the caller gets a stream instead of plain JSON.
const PLAIN: Duration = Duration::from_millis(400);

/// The most requests of one token that are under way, held ones too; past that, one is refused.
const UNDER_WAY: usize = 256;
/// The most KiB of these together; one alone may always be as long as a body.
const UNDER_WAY_KIB: usize = 64 * 1024;

/// The endpoint's state.
#[derive(Debug)]
pub struct Mcp {
    broker: Arc<Broker>,
    sessions: Sessions,
    listeners: Mutex<Vec<Listener>>,
    under_way: Mutex<HashMap<String, UnderWay>>,
}

/// Room for the requests of one token.
#[derive(Debug)]
struct UnderWay {
    requests: Arc<Semaphore>,
    kib: Arc<Semaphore>,
}

/// A `subscriptions/listen` stream (2026-07-28).
#[derive(Debug)]
struct Listener {
    id: Value,
    principal: Principal,
    scope: Option<String>,
    filter: Map<String, Value>,
    log: Arc<Log>,
}

/// Who asks what, in which era.
#[derive(Clone, Debug)]
struct Caller {
    principal: Principal,
    scope: Option<String>,
    session: Option<Arc<Session>>,
}

impl Caller {
    fn modern(&self) -> bool {
        self.session.is_none()
    }
}

impl Mcp {
    /// An endpoint in front of a broker.
    pub fn new(broker: Arc<Broker>) -> Arc<Self> {
        Arc::new(Self {
            broker,
            sessions: Sessions::default(),
            listeners: Mutex::default(),
            under_way: Mutex::default(),
        })
    }

    /// Tells clients of changed lists until the gateway stops.
    pub async fn tell_changes(self: Arc<Self>) {
        let mut changes = self.broker.catalog.changes();
        loop {
            tokio::select! {
                () = self.broker.stopping.cancelled() => break,
                change = changes.recv() => match change {
                    Ok(change) => self.changed(&change),
                    Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => break,
                },
            }
        }
        for session in self.sessions.all() {
            session.own.end(None, None);
        }
        for listener in self.listeners().drain(..) {
            let result = json!({ "resultType": "complete", "_meta": { "io.modelcontextprotocol/subscriptionId": listener.id } });
            listener.log.end(
                Some(wire::answer(&listener.id, "result", &result.to_string())),
                None,
            );
        }
    }

    fn listeners(&self) -> std::sync::MutexGuard<'_, Vec<Listener>> {
        let mut all = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| !one.log.cancel.is_cancelled());
        all
    }

    /// Room for one more request of a token: what it holds outlives its connection, so the number
    /// of connections is no limit.
    fn room(&self, principal: &Principal, bytes: usize) -> Option<[OwnedSemaphorePermit; 2]> {
        let longest = self
            .broker
            .config
            .now()
            .max_body
            .div_ceil(1024)
            .max(UNDER_WAY_KIB);
        let kib = u32::try_from(bytes.div_ceil(1024)).ok()?;
        let mut all = self
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Runs come and go; what nobody holds anything of is forgotten.
        all.retain(|_, room| room.requests.available_permits() < UNDER_WAY);
        let room = all.entry(principal.key()).or_insert_with(|| UnderWay {
            requests: Arc::new(Semaphore::new(UNDER_WAY)),
            kib: Arc::new(Semaphore::new(longest.min(Semaphore::MAX_PERMITS))),
        });
        let request = room.requests.clone().try_acquire_owned().ok()?;
        let kib = room.kib.clone().try_acquire_many_owned(kib).ok()?;
        Some([request, kib])
    }

    fn granted(&self, principal: &Principal, scope: Option<&str>, server: &str) -> bool {
        let config = self.broker.config.now();
        let group = config.groups.get(&principal.group);
        let granted =
            group.is_some_and(|group| group.servers.iter().any(|one| one.as_str() == server));
        granted && scope.is_none_or(|scope| scope == server)
    }

    fn changed(&self, change: &Change) {
        let (method, filter) = match change.list {
            List::Tools => ("notifications/tools/list_changed", "toolsListChanged"),
            List::Prompts => ("notifications/prompts/list_changed", "promptsListChanged"),
            List::Resources => (
                "notifications/resources/list_changed",
                "resourcesListChanged",
            ),
        };
        for session in self.sessions.all() {
            if self.granted(&session.principal, session.scope.as_deref(), &change.server) {
                session.own.push(wire::notification(method, &json!({})));
            }
        }
        for listener in self.listeners().iter() {
            let wanted = listener
                .filter
                .get(filter)
                .and_then(Value::as_bool)
                .unwrap_or(false);
            if wanted
                && self.granted(
                    &listener.principal,
                    listener.scope.as_deref(),
                    &change.server,
                )
            {
                let params =
                    json!({ "_meta": { "io.modelcontextprotocol/subscriptionId": listener.id } });
                listener.log.push(wire::notification(method, &params));
            }
        }
    }

    /// Tells the clients that subscribed to a resource that it has changed.
    pub fn resource_updated(&self, server: &str, params: &Value) {
        const METHOD: &str = "notifications/resources/updated";
        let Some(uri) = params.get("uri").and_then(Value::as_str) else {
            return;
        };
        for session in self.sessions.all() {
            if session.subscribed(server, uri) {
                let uri = call::public_uri(session.scope.as_deref(), server, uri);
                session
                    .own
                    .push(wire::notification(METHOD, &json!({ "uri": uri })));
            }
        }
        for listener in self.listeners().iter() {
            let uri = call::public_uri(listener.scope.as_deref(), server, uri);
            let wanted = listener
                .filter
                .get("resourceSubscriptions")
                .and_then(Value::as_array);
            if wanted.is_some_and(|wanted| wanted.iter().any(|one| *one == uri)) {
                let params = json!({ "uri": uri, "_meta": { "io.modelcontextprotocol/subscriptionId": listener.id } });
                listener.log.push(wire::notification(METHOD, &params));
            }
        }
    }
}

/// `POST` on an endpoint.
pub async fn post(
    State(mcp): State<Arc<Mcp>>,
    Extension(principal): Extension<Principal>,
    scope: Option<Path<String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let scope = scope.map(|Path(scope)| scope);
    if scope
        .as_ref()
        .is_some_and(|scope| !mcp.granted(&principal, None, scope))
    {
        return StatusCode::NOT_FOUND.into_response();
    }
    let is_json = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| {
            kind.split(';')
                .next()
                .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
        });
    if !is_json {
        return Problem {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ..Problem::bad(-32600, "the body must be `application/json`")
        }
        .respond(&Value::Null);
    }
    let Ok(value) = serde_json::from_slice::<Value>(&body) else {
        return Problem::bad(-32700, "the body is not JSON").respond(&Value::Null);
    };
    let bytes = body.len();
    drop(body);
    match value {
        Value::Array(batch) => post_batch(&mcp, principal, scope, &headers, batch, bytes).await,
        one @ (Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Object(_)) => post_one(&mcp, principal, scope, &headers, one, bytes).await,
    }
}

async fn post_one(
    mcp: &Arc<Mcp>,
    principal: Principal,
    scope: Option<String>,
    headers: &HeaderMap,
    one: Value,
    bytes: usize,
) -> Response {
    let message = match wire::message(one) {
        Ok(message) => message,
        Err(refused) => return refused.1.respond(&refused.0),
    };
    let id = match &message {
        Message::Request { id, .. } => id.clone(),
        Message::Notification { .. } | Message::Response => Value::Null,
    };
    if let Message::Request { method, params, .. } = &message
        && method == "initialize"
    {
        if let Err(problem) = wire::headers_fit(headers, method, params, false) {
            return problem.respond(&id);
        }
        return initialize(mcp, principal, scope, &id, params).await;
    }
    let label = principal.label();
    let caller = match era(mcp, principal, scope, headers, &message) {
        Ok(caller) => caller,
        Err(problem) => {
            two_faced(mcp, label, &problem).await;
            return problem.respond(&id);
        }
    };
    match message {
        Message::Request { id, method, params } => {
            request(mcp, caller, headers, (id, method, params), bytes).await
        }
        Message::Notification { method, params } => {
            notification(&caller, &method, &params);
            StatusCode::ACCEPTED.into_response()
        }
        Message::Response => StatusCode::ACCEPTED.into_response(),
    }
}

/// Several messages at once: only in sessions of 2025-03-26, the one revision that has it.
async fn post_batch(
    mcp: &Arc<Mcp>,
    principal: Principal,
    scope: Option<String>,
    headers: &HeaderMap,
    batch: Vec<Value>,
    bytes: usize,
) -> Response {
    const MOST: usize = 100;
    let session = headers.get(SESSION).and_then(|id| id.to_str().ok());
    let session = session.and_then(|id| mcp.sessions.get(id, &principal, scope.as_deref()));
    let Some(session) = session.filter(|session| session.version == "2025-03-26") else {
        return Problem::bad(
            -32600,
            "several messages at once are for sessions of 2025-03-26",
        )
        .respond(&Value::Null);
    };
    if batch.is_empty() || batch.len() > MOST {
        return Problem::bad(-32600, format!("a batch has 1 to {MOST} messages"))
            .respond(&Value::Null);
    }
    let caller = Caller {
        principal,
        scope,
        session: Some(session),
    };
    let bytes = bytes.div_ceil(batch.len());
    let mut answers = Vec::new();
    let mut guards = Vec::new();
    for one in batch {
        match wire::message(one) {
            Ok(Message::Request { id, method, .. }) if !knows(&method, false) => {
                let error =
                    json!({ "code": -32601, "message": format!("unknown method: {method}") });
                answers.push(Err(wire::answer(&id, "error", &error.to_string())));
            }
            Ok(Message::Request { id, method, params }) => {
                let guard = begin(mcp, &caller, &id, method, params, bytes);
                answers.push(Ok(guard.log()));
                guards.push(guard);
            }
            Ok(Message::Notification { method, params }) => notification(&caller, &method, &params),
            Ok(Message::Response) => {}
            Err(refused) => {
                let (id, problem) = *refused;
                let error = json!({ "code": problem.code, "message": problem.message });
                answers.push(Err(wire::answer(&id, "error", &error.to_string())));
            }
        }
    }
    if answers.is_empty() {
        return StatusCode::ACCEPTED.into_response();
    }
    let mut out = vec![b'['];
    for one in answers {
        let text = match one {
            Ok(log) => {
                log.finished().await;
                log.answer()
            }
            Err(text) => Some(text),
        };
        if let Some(text) = text {
            if out.len() > 1 {
                out.push(b',');
            }
            out.extend_from_slice(&text);
        }
    }
    out.push(b']');
    let follow = Follow::batch(guards, out.into());
    wire::json_response(StatusCode::OK, Body::from_stream(follow))
}

/// Records a request whose headers name something else than its body: a proxy in front that decides by
/// the headers would let pass what is not what runs. What they say is not in the log, whatever it holds.
async fn two_faced(mcp: &Mcp, principal: String, problem: &Problem) {
    if problem.code == wire::MISMATCH {
        let attempt = "a request whose headers do not fit its body".to_owned();
        crate::api::refused(&mcp.broker, principal, attempt).await;
    }
}

/// Which revision a message is in, and whose session.
fn era(
    mcp: &Mcp,
    principal: Principal,
    scope: Option<String>,
    headers: &HeaderMap,
    message: &Message,
) -> Result<Caller, Problem> {
    let version = wire::single(headers, "mcp-protocol-version")?;
    let empty = Map::new();
    let (method, params) = match message {
        Message::Request { method, params, .. } | Message::Notification { method, params } => {
            (method.as_str(), params)
        }
        Message::Response => ("", &empty),
    };
    let said = wire::meta(params, "io.modelcontextprotocol/protocolVersion")
        .map(|said| said.as_str().unwrap_or_default());
    if let Some(said) = said
        && version != Some(said)
    {
        let header = version.unwrap_or("nothing");
        return Err(Problem::bad(
            wire::MISMATCH,
            format!("the header MCP-Protocol-Version says `{header}`, the body `{said}`"),
        ));
    }
    if let Some(version) = version
        && version != MODERN
        && !LEGACY.contains(&version)
    {
        let supported: Vec<&str> = std::iter::once(MODERN).chain(LEGACY).collect();
        return Err(Problem {
            data: Some(json!({ "requested": version, "supported": supported })),
            ..Problem::bad(-32022, "unsupported protocol version")
        });
    }
    let modern = version == Some(MODERN);
    if !method.is_empty() {
        wire::headers_fit(
            headers,
            method,
            params,
            modern && matches!(message, Message::Request { .. }),
        )?;
    }
    if modern {
        if said.is_none() && matches!(message, Message::Request { .. }) {
            let text = "`_meta` lacks `io.modelcontextprotocol/protocolVersion`";
            return Err(Problem::bad(-32602, text));
        }
        return Ok(Caller {
            principal,
            scope,
            session: None,
        });
    }
    if method == "server/discover" {
        return Err(Problem::bad(
            -32602,
            "`server/discover` needs the header MCP-Protocol-Version: 2026-07-28",
        ));
    }
    let Some(id) = wire::single(headers, SESSION.as_str())? else {
        return Err(Problem::bad(
            -32600,
            "the header Mcp-Session-Id is missing; begin with `initialize`",
        ));
    };
    let session = mcp
        .sessions
        .get(id, &principal, scope.as_deref())
        .ok_or_else(|| Problem {
            status: StatusCode::NOT_FOUND,
            ..Problem::bad(
                -32001,
                "there is no such session; begin a new one with `initialize`",
            )
        })?;
    Ok(Caller {
        principal,
        scope,
        session: Some(session),
    })
}

async fn initialize(
    mcp: &Arc<Mcp>,
    principal: Principal,
    scope: Option<String>,
    id: &Value,
    params: &Map<String, Value>,
) -> Response {
    let wanted = params
        .get("protocolVersion")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let version = LEGACY
        .into_iter()
        .find(|one| *one == wanted)
        .unwrap_or(LEGACY[0]);
    let offer = match lists::offer(mcp, scope.as_deref()).await {
        Ok(offer) => offer,
        Err(error) => {
            return Problem {
                status: StatusCode::OK,
                ..Problem::bad(-32603, error)
            }
            .respond(id);
        }
    };
    let mut result = json!({ "protocolVersion": version, "capabilities": offer.capabilities, "serverInfo": offer.server_info });
    if let (Some(text), Some(result)) = (offer.instructions, result.as_object_mut()) {
        result.insert("instructions".to_owned(), Value::String(text));
    }
    let session = Session::new(principal, scope, version);
    let mut response = wire::json_response(
        StatusCode::OK,
        wire::answer(id, "result", &result.to_string()),
    );
    if let Ok(id) = HeaderValue::from_str(&session.id) {
        response.headers_mut().insert(SESSION, id);
    }
    mcp.sessions.add(session);
    response
}

fn notification(caller: &Caller, method: &str, params: &Map<String, Value>) {
    if let (Some(session), "notifications/cancelled", Some(id)) =
        (&caller.session, method, params.get("requestId"))
    {
        session.cancel(id);
    }
}

/// Whether the client takes a kind of answer; one that names none takes all.
fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    let mut named = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|one| one.to_str().ok())
        .peekable();
    if named.peek().is_none() {
        return kind == "application/json";
    }
    let family = kind.split('/').next().unwrap_or_default();
    named.flat_map(|line| line.split(',')).any(|one| {
        let one = one.split(';').next().unwrap_or_default().trim();
        one.eq_ignore_ascii_case(kind) || one == "*/*" || one.strip_suffix("/*") == Some(family)
    })
}

/// Whether the gateway knows a method in an era.
fn knows(method: &str, modern: bool) -> bool {
    match method {
        "tools/list"
        | "tools/call"
        | "resources/list"
        | "resources/templates/list"
        | "resources/read"
        | "prompts/list"
        | "prompts/get"
        | "completion/complete" => true,
        "ping" | "resources/subscribe" | "resources/unsubscribe" => !modern,
        "server/discover" | "subscriptions/listen" => modern,
        _ => false,
    }
}

async fn request(
    mcp: &Arc<Mcp>,
    caller: Caller,
    headers: &HeaderMap,
    (id, method, params): (Value, String, Map<String, Value>),
    bytes: usize,
) -> Response {
    let (plain, streamed) = (
        accepts(headers, "application/json"),
        accepts(headers, "text/event-stream"),
    );
    if !plain && !streamed {
        return StatusCode::NOT_ACCEPTABLE.into_response();
    }
    if !knows(&method, caller.modern()) {
        let status = if caller.modern() {
            StatusCode::NOT_FOUND
        } else {
            StatusCode::OK
        };
        return Problem {
            status,
            ..Problem::bad(-32601, format!("unknown method: {method}"))
        }
        .respond(&id);
    }
    let style = caller.session.as_ref().map_or(
        Style {
            primed: false,
            ids: false,
        },
        |session| Style {
            primed: session.version == "2025-11-25",
            ids: true,
        },
    );
    let guard = begin(mcp, &caller, &id, method, params, bytes);
    let log = guard.log();
    let answer = tokio::select! {
        () = log.begun() => log.only_answer(),
        () = tokio::time::sleep(PLAIN) => None,
    };
    match answer {
        Some(answer) if plain => wire::json_response(
            StatusCode::OK,
            Body::from_stream(Follow::json(guard, answer)),
        ),
        Some(_) | None if streamed => event_stream(Follow::events(guard, 0, style)),
        Some(_) | None => {
            log.finished().await;
            match log.answer() {
                Some(answer) => wire::json_response(
                    StatusCode::OK,
                    Body::from_stream(Follow::json(guard, answer)),
                ),
                None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            }
        }
    }
}

/// Begins a request: what becomes of it is in its log.
fn begin(
    mcp: &Arc<Mcp>,
    caller: &Caller,
    id: &Value,
    method: String,
    params: Map<String, Value>,
    bytes: usize,
) -> Guard {
    let log = match &caller.session {
        Some(session) => session.open_log(id),
        None => Log::new(String::new()),
    };
    // From the start, so that nobody takes the caller for gone. A hosted agent that goes comes back,
    // or its run is over, which ends what it asked for.
    let cancels = caller.modern() && caller.principal.run().is_none();
    let guard = Guard::new(log.clone(), mcp.broker.clone(), cancels);
    let Some(room) = mcp.room(&caller.principal, bytes) else {
        let text = format!(
            "{UNDER_WAY} requests, or {} MiB of them, are under way; wait for their answers",
            UNDER_WAY_KIB / 1024
        );
        let error = json!({ "code": -32000, "message": text });
        log.end(Some(wire::answer(id, "error", &error.to_string())), None);
        return guard;
    };
    let (mcp, caller, id, ours) = (mcp.clone(), caller.clone(), id.clone(), log.clone());
    let broker = mcp.broker.clone();
    let over = caller
        .principal
        .run()
        .map(|run| broker.identity.runs.until_over(run));
    broker.tasks.spawn(async move {
        let mut answering = Box::pin(call::answer(&mcp, &caller, id, &method, params, &ours));
        let over = async {
            match over {
                Some(over) => over.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = &mut answering => {}
            () = over => {
                ours.cancel.cancel();
                answering.await;
            }
        }
        drop(room);
    });
    guard
}

/// A log as a stream. The door ends it with its credential.
fn event_stream(follow: Follow) -> Response {
    let mut response = Response::new(Body::from_stream(follow));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    response
}

/// `GET` on an endpoint: a session's own stream, or a broken one resumed.
pub async fn get(
    State(mcp): State<Arc<Mcp>>,
    Extension(principal): Extension<Principal>,
    scope: Option<Path<String>>,
    headers: HeaderMap,
) -> Response {
    let scope = scope.map(|Path(scope)| scope);
    let Some(id) = headers.get(SESSION).and_then(|id| id.to_str().ok()) else {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    };
    let Some(session) = mcp.sessions.get(id, &principal, scope.as_deref()) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if !accepts(&headers, "text/event-stream") {
        return StatusCode::NOT_ACCEPTABLE.into_response();
    }
    let style = Style {
        primed: session.version == "2025-11-25",
        ids: true,
    };
    let (log, seen) = match headers
        .get("last-event-id")
        .and_then(|event| event.to_str().ok())
    {
        Some(event) => match session.resume(event) {
            Some(found) => found,
            None => return StatusCode::NOT_FOUND.into_response(),
        },
        None => (session.own.clone(), session.own.sent()),
    };
    let guard = Guard::new(log, mcp.broker.clone(), false);
    event_stream(Follow::events(guard, seen, style))
}

/// `DELETE` on an endpoint: the session ends; a question it asked does not.
pub async fn delete(
    State(mcp): State<Arc<Mcp>>,
    Extension(principal): Extension<Principal>,
    scope: Option<Path<String>>,
    headers: HeaderMap,
) -> Response {
    let scope = scope.map(|Path(scope)| scope);
    let id = headers
        .get(SESSION)
        .and_then(|id| id.to_str().ok())
        .unwrap_or_default();
    if mcp.sessions.get(id, &principal, scope.as_deref()).is_none() {
        return StatusCode::NOT_FOUND.into_response();
    }
    mcp.sessions.remove(id);
    StatusCode::NO_CONTENT.into_response()
}
