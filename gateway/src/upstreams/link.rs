//! One living connection to a server: how it is greeted, and how a request goes over it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Greeting, Reply, Shared, Spec, Transport, UpstreamError,
    http::Http,
    inbox::Inbox,
    message::{self, Era, LEGACY, LEGACY_VERSIONS, MODERN},
    stdio::{Pipes, Program},
};
use crate::fault;
use crate::secrets::{Kept, Secret};

/// One request on its way.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) method: &'a str,
    pub(super) params: Value,
    pub(super) progress: Option<mpsc::Sender<Value>>,
    /// Becomes true when the server may have it.
    pub(super) sent: Arc<AtomicBool>,
}

impl<'a> Call<'a> {
    fn plain(method: &'a str, params: Value) -> Self {
        Self {
            method,
            params,
            progress: None,
            sent: Arc::default(),
        }
    }
}

#[derive(Debug)]
enum Wire {
    Stdio(Pipes),
    Http(Http),
}

static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

/// A connection that was greeted, or is about to be.
#[derive(Debug)]
pub(super) struct Link {
    /// No two have the same.
    pub(super) number: u64,
    wire: Wire,
    inbox: Arc<Inbox>,
    settled: OnceLock<(Era, Arc<Greeting>)>,
    /// Cancelled when the connection ends, from either side.
    pub(super) closed: CancellationToken,
    tasks: TaskTracker,
}

/// Why a server did not start, for its two readers.
#[derive(Clone, Debug)]
pub(super) struct StartError {
    pub(super) agent: String,
    pub(super) operator: String,
}

impl StartError {
    pub(super) fn new(agent: &str, operator: impl ToString) -> Self {
        Self {
            agent: agent.to_owned(),
            operator: operator.to_string(),
        }
    }
}

const NOT_RUNNING: &str = "it could not be started; its operator finds the reason in its status";

impl Link {
    /// Starts the server and greets it; when that fails, nothing of it is left.
    pub(super) async fn start(
        spec: &Spec,
        shared: &Arc<Shared>,
        stop: &CancellationToken,
    ) -> Result<Arc<Self>, StartError> {
        let inbox = Inbox::new(spec.name.clone(), shared.events.clone());
        let closed = stop.child_token();
        let tasks = TaskTracker::new();
        let opening = open(spec, shared, &inbox, &closed, &tasks);
        let stopped = || StartError::new("it was stopped", "it was stopped while it started");
        let wire = closed
            .run_until_cancelled(opening)
            .await
            .unwrap_or_else(|| Err(stopped()))?;
        fault::point("server.started").await;
        let settled = OnceLock::new();
        let link = Arc::new(Self {
            number: NEXT_NUMBER.fetch_add(1, Ordering::Relaxed),
            wire,
            inbox,
            settled,
            closed,
            tasks,
        });
        let announcing = Arc::clone(&link.inbox).announce();
        let closed = link.closed.clone();
        link.tasks
            .spawn(async move { closed.run_until_cancelled(announcing).await });

        let error = match timeout(spec.start_timeout, link.handshake()).await {
            Ok(Ok(())) => {
                fault::point("server.greeted").await;
                return Ok(link);
            }
            Ok(Err(error)) => error,
            Err(_) => StartError::new(
                "it did not finish its greeting in time",
                format!(
                    "it did not finish its greeting within {:?}",
                    spec.start_timeout
                ),
            ),
        };
        link.end().await;
        let operator = match &link.wire {
            Wire::Stdio(pipes) => format!("{}; {}", error.operator, pipes.epitaph()),
            Wire::Http(_) => error.operator,
        };
        Err(StartError {
            agent: error.agent,
            operator,
        })
    }

    /// What the server said of itself.
    pub(super) fn greeting(&self) -> Arc<Greeting> {
        let empty = || Greeting {
            capabilities: Value::Null,
            instructions: None,
            server_info: Value::Null,
            protocol: String::new(),
        };
        self.settled
            .get()
            .map_or_else(|| Arc::new(empty()), |(_, greeting)| Arc::clone(greeting))
    }

    pub(super) fn pid(&self) -> Option<u32> {
        match &self.wire {
            Wire::Stdio(pipes) => Some(pipes.pid),
            Wire::Http(_) => None,
        }
    }

    /// How it ended, for operators.
    pub(super) fn epitaph(&self) -> String {
        let dropped = match self.inbox.dropped() {
            0 => String::new(),
            count => format!(" ({count} messages of it were garbage or too many)"),
        };
        match &self.wire {
            Wire::Stdio(pipes) => pipes.epitaph() + &dropped,
            Wire::Http(_) => format!("its session ended{dropped}"),
        }
    }

    pub(super) async fn exchange(&self, call: Call<'_>) -> Result<Reply, UpstreamError> {
        let era = self.settled.get().map_or(&Era::Opening, |(era, _)| era);
        self.exchange_as(call, era).await
    }

    async fn exchange_as(&self, call: Call<'_>, era: &Era) -> Result<Reply, UpstreamError> {
        match &self.wire {
            Wire::Stdio(pipes) => pipes.exchange(call, era).await,
            Wire::Http(http) => http.exchange(call, era).await,
        }
    }

    pub(super) async fn notify(&self, method: &str, params: Value) {
        let Some((era, _)) = self.settled.get() else {
            return;
        };
        self.notify_as(method, params, era).await;
    }

    async fn notify_as(&self, method: &str, params: Value, era: &Era) {
        match &self.wire {
            Wire::Stdio(pipes) => pipes.notify(method, params, era).await,
            Wire::Http(http) => http.notify(method, params, era).await,
        }
    }

    /// Ends the connection and waits until nothing of it is left.
    pub(super) async fn end(&self) {
        self.closed.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Greets the server in the older manner, and if it refuses that, in the newer one.
    async fn handshake(self: &Arc<Self>) -> Result<(), StartError> {
        let refused = match self.initialize().await? {
            Ok((era, greeting)) => return self.settle(era, greeting).await,
            Err(refused) => refused,
        };
        if let Ok(greeting) = self.discover().await? {
            return self.settle(Era::Modern, greeting).await;
        }
        let text = format!("it refused the greeting: {refused}");
        Err(StartError::new(
            "it speaks no protocol version the gateway speaks",
            text,
        ))
    }

    async fn initialize(&self) -> Result<Result<(Era, Greeting), Value>, StartError> {
        let params = json!({
            "protocolVersion": LEGACY,
            "capabilities": {},
            "clientInfo": message::client_info(),
        });
        let call = Call::plain("initialize", params);
        let result = match self
            .exchange_as(call, &Era::Opening)
            .await
            .map_err(start_error)?
        {
            Reply::Result(result) => result,
            Reply::Error(error) => return Ok(Err(error)),
        };
        let said: Initialized = read(&result)?;
        if !LEGACY_VERSIONS.contains(&said.protocol_version.as_str()) {
            return Ok(Err(json!({ "version": said.protocol_version })));
        }
        let greeting = Greeting {
            capabilities: said.capabilities,
            instructions: said.instructions,
            server_info: said.server_info,
            protocol: said.protocol_version.clone(),
        };
        Ok(Ok((Era::Legacy(said.protocol_version), greeting)))
    }

    async fn discover(&self) -> Result<Result<Greeting, Value>, StartError> {
        let call = Call::plain("server/discover", json!({}));
        let result = match self
            .exchange_as(call, &Era::Modern)
            .await
            .map_err(start_error)?
        {
            Reply::Result(result) => result,
            Reply::Error(error) => return Ok(Err(error)),
        };
        let mut said: Discovered = read(&result)?;
        if !said
            .supported_versions
            .iter()
            .any(|version| version == MODERN)
        {
            return Ok(Err(json!({ "versions": said.supported_versions })));
        }
        let info = said
            .meta
            .get_mut("io.modelcontextprotocol/serverInfo")
            .map(Value::take);
        Ok(Ok(Greeting {
            capabilities: said.capabilities,
            instructions: said.instructions,
            server_info: info.unwrap_or_default(),
            protocol: MODERN.to_owned(),
        }))
    }

    /// Takes the agreement into use and starts to listen for what the server tells unasked.
    async fn settle(self: &Arc<Self>, era: Era, greeting: Greeting) -> Result<(), StartError> {
        if let Era::Legacy(_) = era {
            self.notify_as("notifications/initialized", Value::Null, &era)
                .await;
            if let Wire::Http(http) = &self.wire {
                http.listen(era.clone());
            }
        } else {
            let listening = Arc::clone(self).subscribe(greeting.capabilities.clone());
            let closed = self.closed.clone();
            self.tasks
                .spawn(async move { closed.run_until_cancelled(listening).await });
        }
        _ = self.settled.set((era, Arc::new(greeting)));
        Ok(())
    }

    /// Keeps the newer era's subscription to list changes open, as far as the server offers it.
    async fn subscribe(self: Arc<Self>, capabilities: Value) {
        let offers = |list: &str| {
            let list = capabilities
                .get(list)
                .and_then(|list| list.get("listChanged"));
            list == Some(&Value::Bool(true))
        };
        if !["tools", "prompts", "resources"].into_iter().any(offers) {
            return;
        }
        let params = json!({ "notifications": {
            "toolsListChanged": offers("tools"),
            "promptsListChanged": offers("prompts"),
            "resourcesListChanged": offers("resources"),
        }});
        // Where it ends or is refused, lists are still read anew with each start.
        _ = self
            .exchange_as(Call::plain("subscriptions/listen", params), &Era::Modern)
            .await;
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Initialized {
    protocol_version: String,
    #[serde(default)]
    capabilities: Value,
    #[serde(default)]
    instructions: Option<String>,
    #[serde(default)]
    server_info: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Discovered {
    supported_versions: Vec<String>,
    #[serde(default)]
    capabilities: Value,
    #[serde(default)]
    instructions: Option<String>,
    #[serde(default, rename = "_meta")]
    meta: Value,
}

fn read<'a, T: Deserialize<'a>>(result: &'a RawValue) -> Result<T, StartError> {
    serde_json::from_str(result.get())
        .map_err(|error| StartError::new("its greeting could not be understood", error))
}

fn start_error(error: UpstreamError) -> StartError {
    match error {
        UpstreamError::NotStarted { reason } => StartError::new(&reason, &reason),
        UpstreamError::Died => StartError::new(NOT_RUNNING, "it ended before it was greeted"),
        UpstreamError::Unknown
        | UpstreamError::Another
        | UpstreamError::TimedOut(_)
        | UpstreamError::TooLarge
        | UpstreamError::Cancelled
        | UpstreamError::Protocol(_) => StartError::new(
            NOT_RUNNING,
            format!("it did not answer the greeting: {error}"),
        ),
    }
}

async fn open(
    spec: &Spec,
    shared: &Arc<Shared>,
    inbox: &Arc<Inbox>,
    closed: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<Wire, StartError> {
    match &spec.transport {
        Transport::Stdio {
            command,
            args,
            env,
            cwd,
        } => {
            let program = Program {
                server: &spec.name,
                command,
                args,
                env: resolve(env, &shared.kept).await?,
                cwd: cwd.as_deref(),
                max_message: spec.max_message,
            };
            Pipes::start(program, shared, Arc::clone(inbox), closed, tasks)
                .map(Wire::Stdio)
                .map_err(|error| StartError::new(NOT_RUNNING, format!("cannot start it: {error}")))
        }
        Transport::Http { url, headers } => {
            let headers = resolve(headers, &shared.kept).await?;
            Http::new(
                url,
                &headers,
                spec.max_message,
                Arc::clone(inbox),
                closed,
                tasks,
            )
            .map(Wire::Http)
            .map_err(|error| StartError::new(NOT_RUNNING, error))
        }
    }
}

async fn resolve(
    secrets: &BTreeMap<String, Secret>,
    kept: &Kept,
) -> Result<BTreeMap<String, SecretString>, StartError> {
    let mut resolved = BTreeMap::new();
    for (name, secret) in secrets {
        let value = secret.resolve(kept).await.map_err(|error| {
            StartError::new(
                "one of its secrets could not be had",
                format!("`{name}`: {error}"),
            )
        })?;
        resolved.insert(name.clone(), value);
    }
    Ok(resolved)
}
