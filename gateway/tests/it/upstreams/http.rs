//! Servers over streamable HTTP.

use std::{
    convert::Infallible,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State as Here,
    http::{
        HeaderMap, Method, Request as HttpRequest, StatusCode, header::CONTENT_TYPE, request::Parts,
    },
    response::{IntoResponse, Response},
    routing::any,
};
use futures::{StreamExt, stream};
use rmcp::{
    ServerHandler, tool, tool_handler, tool_router,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};
use tokio::net::TcpListener;

use super::*;

/// An MCP server in process that does what the tool's name says.
#[derive(Default)]
struct Fake {
    session: AtomicU64,
    seen: Mutex<Vec<(String, HeaderMap)>>,
}

impl Fake {
    fn saw(&self, what: &str) -> Vec<HeaderMap> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|(name, _)| name == what)
            .map(|(_, headers)| headers.clone())
            .collect()
    }

    fn forget_sessions(&self) {
        self.session.fetch_add(1, Ordering::SeqCst);
    }

    fn session(&self) -> String {
        format!("s{}", self.session.load(Ordering::SeqCst))
    }
}

async fn serve(fake: Arc<Fake>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let app = Router::new().route("/mcp", any(handle)).with_state(fake);
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

async fn handle(
    Here(fake): Here<Arc<Fake>>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let id = message["id"].clone();
    let tool = message["params"]["name"].as_str().unwrap_or_default();
    let name = [
        method.as_str(),
        message["method"].as_str().unwrap_or_default(),
        tool,
    ]
    .join(" ");
    fake.seen
        .lock()
        .unwrap()
        .push((name.trim().to_owned(), headers.clone()));
    if headers
        .get("authorization")
        .is_none_or(|key| key != "Bearer t")
    {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if message["method"] == "initialize" {
        let result =
            json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {} });
        return ([("mcp-session-id", fake.session())], reply(&id, &result)).into_response();
    }
    if headers
        .get("mcp-session-id")
        .is_none_or(|key| key.to_str().unwrap() != fake.session())
    {
        return StatusCode::NOT_FOUND.into_response();
    }
    let answer =
        |text: &str| json!({ "content": [{ "type": "text", "text": json!(text).to_string() }] });
    let event = |text: &str| {
        let data = json!({ "jsonrpc": "2.0", "id": id, "result": answer(text) });
        format!("data: {data}\n\n")
    };
    match (method, tool) {
        (Method::GET, _) => match headers.get("last-event-id") {
            Some(last) => {
                let id = last.to_str().unwrap();
                let data = json!({ "jsonrpc": "2.0", "id": id.parse::<u64>().unwrap(),
                    "result": answer("resumed") });
                events(vec![format!("data: {data}\n\n")], false)
            }
            None => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        },
        (Method::DELETE, _) => StatusCode::NO_CONTENT.into_response(),
        (_, "json") => reply(&id, &answer("json")),
        (_, "sse") => {
            let token = &message["params"]["_meta"]["progressToken"];
            let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress",
                "params": { "progressToken": token, "progress": 1 } });
            let ping = json!({ "jsonrpc": "2.0", "id": "p", "method": "ping" });
            let lead = format!(": hello\n\ndata: {progress}\n\ndata: {ping}\n\n");
            events(vec![lead, event("sse")], false)
        }
        (_, "break") => events(vec![": nothing yet\n\n".to_owned()], false),
        (_, "resume") => events(vec![format!("id: {id}\nretry: 1\ndata:\n\n")], false),
        (_, "never") => events(vec![": waiting\n\n".to_owned()], true),
        (_, "long") => reply(&id, &answer(&"x".repeat(200_000))),
        (_, "long-sse") => events(vec![event(&"x".repeat(200_000))], false),
        (_, "redirect") => {
            (StatusCode::TEMPORARY_REDIRECT, [("location", "/other")]).into_response()
        }
        (_, "refuse") => {
            let error = json!({ "jsonrpc": "2.0", "id": null,
                "error": { "code": -32602, "message": "no" } });
            (StatusCode::BAD_REQUEST, error.to_string()).into_response()
        }
        _ => StatusCode::ACCEPTED.into_response(),
    }
}

fn reply(id: &Value, result: &Value) -> Response {
    let body = json!({ "jsonrpc": "2.0", "id": id, "result": result });
    ([(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn events(parts: Vec<String>, forever: bool) -> Response {
    let parts = stream::iter(parts);
    let body = if forever {
        Body::from_stream(parts.chain(stream::pending()).map(Ok::<_, Infallible>))
    } else {
        Body::from_stream(parts.map(Ok::<_, Infallible>))
    };
    ([(CONTENT_TYPE, "text/event-stream")], body).into_response()
}

fn web(url: &str, key: &str) -> Spec {
    let headers = BTreeMap::from([("Authorization".to_owned(), Secret::Plain(key.to_owned()))]);
    let max_message = 100_000;
    Spec {
        max_message,
        ..spec(
            "web",
            Transport::Http {
                url: url.to_owned(),
                headers,
            },
        )
    }
}

async fn fake() -> (Arc<Fake>, House) {
    let fake = Arc::new(Fake::default());
    let house = house(vec![web(&serve(Arc::clone(&fake)).await, "Bearer t")]);
    (fake, house)
}

#[tokio::test]
async fn json_and_event_answers_pass_and_the_session_is_kept() {
    let (fake, house) = fake().await;
    assert_eq!(house.call("json", json!({})).await.unwrap(), "json");
    let (tx, mut progress) = mpsc::channel(4);
    let answer = house
        .send(Request {
            progress: Some(tx),
            ..request("sse", json!({}))
        })
        .await;
    assert_eq!(told(answer.unwrap()), "sse");
    assert_eq!(progress.recv().await.unwrap()["progress"], 1);
    until("the ping was answered", || fake.saw("POST").len() == 1).await;

    assert_eq!(fake.saw("POST initialize").len(), 1);
    let headers = fake.saw("POST tools/call sse").remove(0);
    assert_eq!(headers["mcp-session-id"], "s0");
    assert_eq!(headers["mcp-protocol-version"], "2025-06-18");
    assert_eq!(headers["accept"], "application/json, text/event-stream");
    house.upstreams.shutdown().await;
    assert_eq!(fake.saw("DELETE").len(), 1);
}

#[tokio::test]
async fn a_lost_session_is_opened_again_and_the_call_is_sent_once_more() {
    let (fake, house) = fake().await;
    house.call("json", json!({})).await.unwrap();
    fake.forget_sessions();
    assert_eq!(house.call("json", json!({})).await.unwrap(), "json");
    assert_eq!(fake.saw("POST initialize").len(), 2);
    assert_eq!(fake.saw("POST tools/call json").len(), 3);
    house.upstreams.shutdown().await;
}

#[tokio::test]
async fn a_broken_stream_is_resumed_where_the_server_gave_ids() {
    let (_fake, house) = fake().await;
    assert_eq!(house.call("resume", json!({})).await.unwrap(), "resumed");
    assert_eq!(
        house.call("break", json!({})).await.unwrap_err(),
        UpstreamError::Died
    );
    house.upstreams.shutdown().await;
}

#[tokio::test]
async fn what_is_too_long_or_no_mcp_fails_that_call_alone() {
    let (_fake, house) = fake().await;
    for tool in ["long", "long-sse"] {
        assert_eq!(
            house.call(tool, json!({})).await.unwrap_err(),
            UpstreamError::TooLarge
        );
    }
    let redirected = house.call("redirect", json!({})).await.unwrap_err();
    assert!(
        matches!(redirected, UpstreamError::Protocol(_)),
        "{redirected}"
    );
    let Reply::Error(error) = house.send(request("refuse", json!({}))).await.unwrap() else {
        panic!("no error")
    };
    assert_eq!(error["message"], "no");
    assert_eq!(house.call("json", json!({})).await.unwrap(), "json");
    house.upstreams.shutdown().await;
}

#[tokio::test]
async fn a_call_given_up_is_cancelled_at_the_server() {
    let (fake, house) = fake().await;
    let deadline = Duration::from_millis(200);
    let late = house
        .send(Request {
            deadline,
            ..request("never", json!({}))
        })
        .await
        .unwrap_err();
    assert_eq!(late, UpstreamError::TimedOut(deadline));
    until("it was told", || {
        !fake.saw("POST notifications/cancelled").is_empty()
    })
    .await;
    let stopping = Arc::clone(&house.upstreams);
    let (held, ()) = tokio::join!(house.call("never", json!({})), async {
        let held = || fake.saw("POST tools/call never").len() == 2;
        until("the second is held", held).await;
        stopping.stop("web").await;
    });
    assert_eq!(held.unwrap_err(), UpstreamError::Died);
    house.upstreams.shutdown().await;
}

#[tokio::test]
async fn what_was_not_sent_is_said_to_be_so() {
    let fake = Arc::new(Fake::default());
    let refused = house(vec![web(&serve(fake).await, "Bearer wrong")]);
    let error = refused.call("json", json!({})).await.unwrap_err();
    assert!(!error.sent());
    assert!(
        error
            .to_string()
            .contains("the server refused the gateway's credential"),
        "{error}"
    );

    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", nobody.local_addr().unwrap());
    drop(nobody);
    let error = house(vec![web(&url, "Bearer t")])
        .call("json", json!({}))
        .await
        .unwrap_err();
    assert!(
        !error.sent() && error.to_string().contains("cannot be connected to"),
        "{error}"
    );
}

/// A server built with rmcp, which checks what the newer era must carry.
struct Real;

#[tool_router]
impl Real {
    #[tool(description = "says that it is real")]
    async fn real(&self) -> String {
        json!("real").to_string()
    }
}

#[tool_handler]
impl ServerHandler for Real {}

type RealService = StreamableHttpService<Real, LocalSessionManager>;

async fn serve_real(modern_only: bool) -> String {
    let sessions = Arc::new(LocalSessionManager::default());
    let config = StreamableHttpServerConfig::default();
    let service = StreamableHttpService::new(|| Ok(Real), sessions, config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let app = if modern_only {
        Router::new()
            .route("/mcp", any(without_initialize))
            .with_state(service)
    } else {
        Router::new().route_service("/mcp", service)
    };
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

async fn without_initialize(
    Here(service): Here<RealService>,
    mut head: Parts,
    body: Bytes,
) -> Response {
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    if message["method"] == "initialize" {
        let error = json!({ "jsonrpc": "2.0", "id": message["id"],
            "error": { "code": -32022, "message": "unsupported protocol version" } });
        return (StatusCode::BAD_REQUEST, error.to_string()).into_response();
    }
    head.extensions.clear();
    service
        .handle(HttpRequest::from_parts(head, Body::from(body)))
        .await
        .into_response()
}

#[tokio::test]
async fn a_server_built_with_rmcp_answers_in_both_eras() {
    for (modern_only, version) in [(false, "2025-11-25"), (true, "2026-07-28")] {
        let house = house(vec![web(&serve_real(modern_only).await, "Bearer t")]);
        assert_eq!(house.call("real", json!({})).await.unwrap(), "real");
        let greeting = house.upstreams.greet("web").await.unwrap();
        assert_eq!(greeting.protocol, version);
        assert!(greeting.server_info["name"].is_string(), "{greeting:?}");
        house.upstreams.shutdown().await;
    }
}
