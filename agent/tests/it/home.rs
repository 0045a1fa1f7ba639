//! The stand-in of a gateway on loopback, and the agent that dials it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use agent::{Acked, Ask, Begin, Event, Events, Limits, Message, Numbered, Role, Turn, VERSION};
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::sync::{Notify, mpsc, watch};

use crate::script::Script;
use crate::tools;

pub(crate) const TOKEN: &str = "run-token-4b1d0c";
/// How long a test waits for what it expects before it fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// The gateway.
#[derive(Clone, Debug)]
pub(crate) struct Home(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    port: u16,
    state: Mutex<Known>,
    changed: Notify,
    /// Ends the server and all its connections.
    stop: watch::Sender<bool>,
}

/// What the gateway knows and is to do.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) turns: Vec<Turn>,
    /// Who followed the turns, by the number after which.
    pub(crate) followed: Vec<u64>,
    /// Followers are sent away until there are this many.
    pub(crate) cut_followers: usize,
    pub(crate) history: Vec<Message>,
    pub(crate) stored: Vec<Numbered>,
    /// The numbers in each request with events, in the order in which they came.
    pub(crate) posts: Vec<Vec<u64>>,
    /// What happens to the next of these requests.
    pub(crate) post_faults: VecDeque<PostFault>,
    /// What the first of them waits for.
    pub(crate) post_gate: Option<&'static str>,
    /// More than one event at once is too long.
    pub(crate) one_by_one: bool,
    /// The status that `/agent/v1` answers, instead.
    pub(crate) over: Option<u16>,
    pub(crate) scripts: VecDeque<Script>,
    /// What the model was asked.
    pub(crate) asked: Vec<Value>,
    pub(crate) calls: Vec<tools::Seen>,
    /// Calls whose caller went away before the answer.
    pub(crate) dropped: usize,
    pub(crate) strangers: usize,
    pub(crate) elsewhere: usize,
    gates: HashSet<String>,
}

/// What may go wrong with events.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum PostFault {
    /// They are not stored.
    Refused,
    /// They are stored and the answer is lost.
    Unanswered,
    /// Only the first is stored.
    First,
    /// They are too long.
    TooLong,
    /// They are stored, and what is acknowledged is from before.
    Late,
}

impl Known {
    /// What was reported, a line each; text that streamed is left out.
    pub(crate) fn story(&self) -> Vec<String> {
        let lines = self.stored.iter().map(|one| line(&one.event));
        lines.flatten().collect()
    }
}

pub(crate) fn limits() -> Limits {
    Limits {
        turns: 10,
        seconds: 60,
        max_tokens: 1000,
        result_bytes: 2000,
        parallel: 4,
    }
}

impl Home {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let home = Self(Arc::new(Inner {
            port: listener.local_addr().unwrap().port(),
            state: Mutex::default(),
            changed: Notify::new(),
            stop: watch::Sender::new(false),
        }));
        let router = Router::new()
            .route("/agent/v1/turns", get(turns))
            .route("/agent/v1/events", post(events))
            .route("/llm/anthropic/v1/messages", post(messages))
            .route("/mcp", post(tools::post))
            .layer(from_fn_with_state(home.clone(), known))
            .route("/elsewhere", post(elsewhere))
            .with_state(home.clone());
        let mut stop = home.0.stop.subscribe();
        tokio::spawn(async move {
            let serving = axum::serve(listener, router).into_future();
            tokio::select! { _ = serving => {}, _ = stop.wait_for(|stop| *stop) => {} }
        });
        home
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.state.lock().unwrap()
    }

    /// Changes what the gateway knows.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        let changed = change(&mut self.lock());
        self.0.changed.notify_waiters();
        changed
    }

    /// Waits until something is so.
    pub(crate) async fn until(&self, so: impl Fn(&Known) -> bool) {
        let waiting = async {
            loop {
                let changed = self.0.changed.notified();
                if so(&self.lock()) {
                    return;
                }
                changed.await;
            }
        };
        let came = tokio::time::timeout(PATIENCE, waiting).await.is_ok();
        assert!(came, "it never came to that: {:#?}", self.story());
    }

    /// Nobody answers here any more, and every connection breaks.
    pub(crate) fn vanish(&self) {
        self.0.stop.send_replace(true);
    }

    pub(crate) async fn vanished(&self) {
        _ = self.0.stop.subscribe().wait_for(|stop| *stop).await;
    }

    pub(crate) fn open(&self, gate: &str) {
        self.change(|known| known.gates.insert(gate.to_owned()));
    }

    pub(crate) async fn passed(&self, gate: &str) {
        loop {
            let changed = self.0.changed.notified();
            if self.lock().gates.contains(gate) {
                return;
            }
            changed.await;
        }
    }

    pub(crate) fn script(&self, scripts: impl IntoIterator<Item = Script>) {
        self.change(|known| known.scripts.extend(scripts));
    }

    /// What is to be answered.
    pub(crate) fn begin(&self, text: &str) {
        self.begin_with(text, limits());
    }

    pub(crate) fn begin_with(&self, text: &str, limits: Limits) {
        self.change(|known| known.history.push(Message::text(Role::User, text)));
        self.ask(|known| begin(known, limits, false));
    }

    /// As after a restart of the agent: with all that was stored.
    pub(crate) fn begin_again(&self) {
        self.change(|known| known.turns.clear());
        self.ask(|known| begin(known, limits(), true));
    }

    /// A later run of the same conversation.
    pub(crate) fn begin_anew(&self, text: &str) {
        self.change(|known| known.turns.clear());
        self.ask(|known| {
            let mut begin = begin(known, limits(), false);
            if let Ask::Begin(begin) = &mut begin {
                begin.history.push(Message::text(Role::User, text));
            }
            begin
        });
    }

    pub(crate) fn say(&self, text: &str) {
        let messages = vec![Message::text(Role::User, text)];
        self.ask(|_| Ask::Say { messages });
    }

    pub(crate) fn say_stop(&self) {
        let reason = "a person said so".to_owned();
        self.ask(|_| Ask::Stop { reason });
    }

    fn ask(&self, ask: impl FnOnce(&Known) -> Ask) {
        self.change(|known| {
            let seq = known.turns.last().map_or(1, |last| last.seq + 1);
            let ask = ask(known);
            known.turns.push(Turn { seq, ask });
        });
    }

    pub(crate) fn agent(&self) -> Agent {
        self.agent_with(&[], &[])
    }

    pub(crate) fn agent_with(&self, env: &[(&str, &str)], args: &[&str]) -> Agent {
        let child = Command::new(env!("CARGO_BIN_EXE_portcullis-agent"))
            .args(args)
            .env(
                "PORTCULLIS_URL",
                format!("http://127.0.0.1:{}", self.0.port),
            )
            .env("PORTCULLIS_RUN_TOKEN", TOKEN)
            .env("PORTCULLIS_RETRY_MS", "1")
            // Nobody is there, and nobody is to be asked.
            .env("HTTP_PROXY", "http://127.0.0.1:1")
            .env("http_proxy", "http://127.0.0.1:1")
            .env("ALL_PROXY", "http://127.0.0.1:1")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Agent(child)
    }

    /// Waits for the end of the run and tells what was reported.
    pub(crate) async fn told(&self) -> Vec<String> {
        let ended = |one: &Numbered| matches!(one.event, Event::Done | Event::Failed { .. });
        self.until(|known| known.stored.iter().any(ended)).await;
        self.story()
    }

    /// What was reported, a line each; text that streamed is left out.
    pub(crate) fn story(&self) -> Vec<String> {
        self.lock().story()
    }

    /// The text that streamed.
    pub(crate) fn streamed(&self) -> String {
        let known = self.lock();
        let mut streamed = String::new();
        for one in &known.stored {
            if let Event::Delta { text } = &one.event {
                streamed.push_str(text);
            }
        }
        streamed
    }
}

fn begin(known: &Known, limits: Limits, resumed: bool) -> Ask {
    let mut history = known.history.clone();
    let mut results = Vec::new();
    for one in &known.stored {
        if let Event::Message { message } = &one.event {
            history.push(message.clone());
            results.clear();
        } else if let Event::Result { block } = &one.event {
            results.push(block.clone());
        }
    }
    Ask::Begin(Box::new(Begin {
        protocol: VERSION,
        run: "run-1".to_owned(),
        group: "demo".to_owned(),
        model: "claude-of-tests".to_owned(),
        system: "You are a test.".to_owned(),
        history,
        results,
        next_event: known.stored.last().map_or(1, |last| last.n + 1),
        resumed,
        limits,
    }))
}

fn line(event: &Event) -> Option<String> {
    let blocks = |content: &[Value]| {
        content
            .iter()
            .map(block_line)
            .collect::<Vec<_>>()
            .join(" + ")
    };
    Some(match event {
        Event::Hello { core, .. } => format!("hello {}", core.split('/').next().unwrap()),
        Event::Delta { .. } => return None,
        Event::Message { message } => format!("{:?}: {}", message.role, blocks(&message.content)),
        Event::Heard { seq } => format!("heard {seq}"),
        Event::Result { block: one } => format!("result {}", block_line(one)),
        Event::Status { text } => format!("status: {text}"),
        Event::Done => "done".to_owned(),
        Event::Failed { failure, text } => format!("failed {failure:?}: {text}"),
    })
}

fn block_line(block: &Value) -> String {
    let text = |member: &str| block[member].as_str().unwrap_or_default();
    match text("type") {
        "text" => text("text").to_owned(),
        "tool_use" => format!("{}={}({})", text("id"), text("name"), block["input"]),
        "tool_result" => {
            let content = block["content"].as_array().unwrap();
            let content: Vec<_> = content.iter().map(block_line).collect();
            let error = if block["is_error"] == true {
                " error"
            } else {
                ""
            };
            format!("{}{error}[{}]", text("tool_use_id"), content.join(", "))
        }
        other => format!("<{other}>"),
    }
}

/// The agent.
#[derive(Debug)]
pub(crate) struct Agent(pub(crate) Child);

impl Agent {
    /// Waits until it has ended: its exit status, and what it wrote.
    pub(crate) async fn ended(self) -> (Option<i32>, String) {
        let output = tokio::time::timeout(PATIENCE, self.0.wait_with_output());
        let output = output.await.unwrap().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert!(!said.contains(TOKEN), "{said}");
        (output.status.code(), said)
    }
}

/// Lets nobody in without the token, and breaks every connection when the gateway vanishes.
async fn known(State(home): State<Home>, request: Request, next: Next) -> Response {
    let said = request.headers().get(header::AUTHORIZATION);
    if said.and_then(|said| said.to_str().ok()) != Some(&format!("Bearer {TOKEN}")) {
        home.change(|known| known.strangers += 1);
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let over = home.lock().over;
    if let (Some(status), true) = (over, request.uri().path().starts_with("/agent/")) {
        return StatusCode::from_u16(status).unwrap().into_response();
    }
    let (parts, body) = next.run(request).await.into_parts();
    let gone = Box::pin(async move { home.vanished().await });
    let body = futures::StreamExt::take_until(body.into_data_stream(), gone);
    Response::from_parts(parts, Body::from_stream(body))
}

async fn elsewhere(State(home): State<Home>) -> StatusCode {
    home.change(|known| known.elsewhere += 1);
    StatusCode::OK
}

async fn turns(State(home): State<Home>, Query(query): Query<HashMap<String, u64>>) -> Response {
    let after = query["after"];
    let cut = home.change(|known| {
        known.followed.push(after);
        known.followed.len() <= known.cut_followers
    });
    let (send, mut frames) = mpsc::channel::<Result<String, std::io::Error>>(1);
    let mut seen = after;
    tokio::spawn(async move {
        _ = send.send(Ok(": here\n\n".to_owned())).await;
        loop {
            let changed = home.0.changed.notified();
            let next: Vec<Turn> = {
                let known = home.lock();
                let new = known.turns.iter().filter(|turn| turn.seq > seen);
                new.cloned().collect()
            };
            for turn in next {
                seen = turn.seq;
                let text = serde_json::to_string(&turn).unwrap();
                let frame = format!("id: {seen}\ndata: {text}\n\n");
                if send.send(Ok(frame)).await.is_err() {
                    return;
                }
                if cut {
                    _ = send.send(Err(std::io::Error::other("cut"))).await;
                    return;
                }
            }
            tokio::select! { () = changed => {}, () = send.closed() => return }
        }
    });
    let body = Body::from_stream(futures::stream::poll_fn(move |cx| frames.poll_recv(cx)));
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

async fn events(State(home): State<Home>, Json(body): Json<Events>) -> Response {
    let gate = home.change(|known| known.post_gate.take());
    if let Some(gate) = gate {
        home.passed(gate).await;
    }
    home.change(|known| {
        let numbers: Vec<u64> = body.events.iter().map(|one| one.n).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        known.posts.push(numbers);
        let fault = known.post_faults.pop_front();
        if fault == Some(PostFault::Refused) {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let long = known.one_by_one && body.events.len() > 1;
        if long || fault == Some(PostFault::TooLong) {
            return StatusCode::PAYLOAD_TOO_LARGE.into_response();
        }
        let before = known.stored.last().map_or(0, |last| last.n);
        let new = body.events.into_iter().filter(|one| one.n > before);
        let most = if fault == Some(PostFault::First) {
            1
        } else {
            usize::MAX
        };
        known.stored.extend(new.take(most));
        match fault {
            Some(PostFault::Unanswered) => StatusCode::BAD_GATEWAY.into_response(),
            Some(PostFault::Late) => Json(Acked { acked: before }).into_response(),
            _ => {
                let acked = known.stored.last().map_or(0, |last| last.n);
                Json(Acked { acked }).into_response()
            }
        }
    })
}

async fn messages(State(home): State<Home>, request: Request) -> Response {
    assert_eq!(request.headers()["anthropic-version"], "2023-06-01");
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await;
    let body = serde_json::from_slice(&body.unwrap()).unwrap();
    let script = home.change(|known| {
        known.asked.push(body);
        known.scripts.pop_front()
    });
    let script = script.unwrap_or_else(|| Script::refuse(400, "other"));
    script.respond(home)
}
