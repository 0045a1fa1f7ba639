//! Other people's MCP servers, as the gateway reaches them.
//!
//! [`Upstreams`] starts a server with the first call that needs it, greets it in the protocol era it
//! speaks, sends requests, and stops it when it was idle long enough. Requests and replies pass as
//! raw JSON: only the envelope and the reserved part of `_meta` are read or written here, so nothing
//! a server says is lost. It decides nothing; whoever calls it already holds a permit.
//!
//! Reading order: this file, `server` (start, stop, back-off), `link` (one living connection and
//! its greeting), `inbox` (who waits for what), `stdio` and `http` (the two transports), `in_process`
//! (servers inside the gateway). Under which uid and directory a server lives is
//! [`runtimes::house`].

mod http;
pub mod in_process;
mod inbox;
mod link;
mod message;
mod server;
mod sse;
mod stdio;

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use jiff::Timestamp;
use runtimes::house::House;
use serde::Serialize;
use serde_json::{Value, value::RawValue};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::secrets::{Kept, Secret};
use in_process::{InProcess, Inside};
use server::Server;

pub use server::Hold;

/// The longest message a server may send unless its configuration says otherwise: 16 MiB.
pub const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// How to reach one server; made by the configuration.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its name, unique and `[a-z][a-z0-9-]{0,31}`.
    pub name: String,
    /// Where it is.
    pub transport: Transport,
    /// How long it is kept after the last call has finished.
    pub idle_timeout: Duration,
    /// How long it may take from the first byte to the end of its greeting.
    pub start_timeout: Duration,
    /// The longest message it may send, in bytes.
    pub max_message: usize,
}

/// Where a server is and what it gets.
#[derive(Clone, Debug)]
pub enum Transport {
    /// A program that speaks over its standard input and output.
    Stdio {
        /// The program, looked up in `PATH`.
        command: String,
        /// Its arguments.
        args: Vec<String>,
        /// Its environment beyond `PATH`, `HOME`, `LANG` and `TMPDIR`.
        env: BTreeMap<String, Secret>,
        /// Its working directory; without one, its `HOME`.
        cwd: Option<PathBuf>,
    },
    /// A server that speaks streamable HTTP.
    Http {
        /// Its endpoint.
        url: String,
        /// Headers of every request to it.
        headers: BTreeMap<String, Secret>,
    },
}

/// One request to a server.
#[derive(Debug)]
pub struct Request {
    /// The MCP method.
    pub method: String,
    /// Its parameters, with the server's own names.
    pub params: Value,
    /// How long the caller waits, starting the server included.
    pub deadline: Duration,
    /// Ends the wait and cancels the request upstream.
    pub cancel: CancellationToken,
    /// Gets the raw parameters of progress notifications; those that do not fit are dropped.
    pub progress: Option<mpsc::Sender<Value>>,
    /// Only over this connection, by [`Hold::connection`]; a newer one may lead to another program.
    pub only: Option<u64>,
}

/// What a server answered.
#[derive(Debug)]
pub enum Reply {
    /// The result as it came.
    Result(Box<RawValue>),
    /// The JSON-RPC error object as it came.
    Error(Value),
}

/// Why there is no answer. The messages are safe for an agent: no paths, no secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// No server has this name.
    #[error("there is no such server")]
    Unknown,
    /// The request was provably not sent.
    #[error("the server could not be reached and nothing was sent to it: {reason}")]
    NotStarted {
        /// Why, in words for an agent.
        reason: String,
    },
    /// It was to go over one connection, and there is another now; nothing was sent.
    #[error("the server was started anew meanwhile, and nothing was sent to it")]
    Another,
    /// The connection ended after the request was sent; whether it took effect is unknown.
    #[error(
        "the server ended while it worked on this; whether it took effect is unknown, check before \
         you repeat it"
    )]
    Died,
    /// The request was sent and not answered in time.
    #[error("the server did not answer within {0:?}; whether this took effect is unknown")]
    TimedOut(Duration),
    /// The answer is longer than the server may send.
    #[error("the server's answer was too long; ask for less")]
    TooLarge,
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The server answered with something that is no MCP.
    #[error("the server's answer could not be understood: {0}")]
    Protocol(String),
}

impl UpstreamError {
    /// Whether the server may have received the request.
    pub fn sent(&self) -> bool {
        match self {
            Self::Unknown | Self::NotStarted { .. } | Self::Another => false,
            Self::Died
            | Self::TimedOut(_)
            | Self::TooLarge
            | Self::Cancelled
            | Self::Protocol(_) => true,
        }
    }

    fn unsent(reason: impl Into<String>) -> Self {
        Self::NotStarted {
            reason: reason.into(),
        }
    }
}

/// What a server said of itself when it was greeted.
#[derive(Clone, Debug, PartialEq)]
pub struct Greeting {
    /// Its capabilities as it sent them.
    pub capabilities: Value,
    /// What it wants models to know.
    pub instructions: Option<String>,
    /// Its name and version as it sent them.
    pub server_info: Value,
    /// The protocol version spoken with it.
    pub protocol: String,
}

/// A list a server offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum List {
    /// Its tools.
    Tools,
    /// Its prompts.
    Prompts,
    /// Its resources and resource templates.
    Resources,
}

/// What servers tell without being asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A list is no longer what it was; bursts are told once.
    ListChanged {
        /// Which server.
        server: String,
        /// Which list.
        what: List,
    },
    /// A subscribed resource changed.
    ResourceUpdated {
        /// Which server.
        server: String,
        /// The notification's parameters.
        params: Value,
    },
    /// A log line; floods lose lines.
    Log {
        /// Which server.
        server: String,
        /// The notification's parameters.
        params: Value,
    },
    /// The server was started or stopped, or failed.
    StateChanged {
        /// Which server.
        server: String,
    },
}

/// Whether a server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is not needed right now.
    Stopped,
    /// It was started and has not finished its greeting.
    Starting,
    /// It takes calls.
    Ready,
    /// It did not start, or ended by itself; the next call after the back-off tries again.
    Failed,
}

/// One server as operators see it.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// `stdio`, `http` or `in_process`.
    pub transport: &'static str,
    /// Whether it runs.
    pub state: State,
    /// Why it last failed, for operators only: it may hold paths and the server's own words.
    pub last_error: Option<String>,
    /// Since when it is in this state.
    pub since: Timestamp,
    /// The process of its supervisor, where it has one.
    pub pid: Option<u32>,
    /// Calls that are being worked on.
    pub in_flight: usize,
    /// Calls since the gateway started.
    pub calls: u64,
}

/// All configured servers.
pub struct Upstreams {
    servers: BTreeMap<String, Arc<Server>>,
    inside: BTreeMap<String, Inside>,
    shared: Arc<Shared>,
}

/// What all servers share.
struct Shared {
    events: UnboundedSender<Event>,
    house: Arc<House>,
    kept: Arc<Kept>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstreams")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl Upstreams {
    /// Takes the configured servers, those `inside` by name; none is started yet. Programs live in
    /// `house`.
    pub fn new(
        specs: Vec<Spec>,
        inside: BTreeMap<String, Arc<dyn InProcess>>,
        house: Arc<House>,
        kept: Arc<Kept>,
        events: UnboundedSender<Event>,
    ) -> Arc<Self> {
        let shared = Arc::new(Shared {
            events,
            house,
            kept,
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        });
        let servers = specs
            .into_iter()
            .map(|spec| (spec.name.clone(), Server::new(spec, Arc::clone(&shared))))
            .collect();
        let inside = inside
            .into_iter()
            .map(|(name, server)| (name.clone(), Inside::new(name, server)))
            .collect();
        Arc::new(Self {
            servers,
            inside,
            shared,
        })
    }

    /// A server inside the gateway, which is called with who calls.
    pub fn inside(&self, server: &str) -> Option<Inside> {
        self.inside.get(server).cloned()
    }

    /// Sends a request, starting the server if needed, and waits for the answer. A server inside
    /// answers its lists alone.
    ///
    /// Dropping the future cancels the request upstream, as the deadline and the token do.
    ///
    /// # Errors
    /// When there is no answer. [`UpstreamError::sent`] tells whether it may have taken effect.
    pub async fn request(&self, server: &str, request: Request) -> Result<Reply, UpstreamError> {
        if let Some(inside) = self.inside.get(server) {
            return inside.request(&request.method);
        }
        self.server(server)?.request(request).await
    }

    /// What the server said when it was greeted, starting it if needed.
    ///
    /// # Errors
    /// [`UpstreamError::Unknown`] and [`UpstreamError::NotStarted`].
    pub async fn greet(&self, server: &str) -> Result<Arc<Greeting>, UpstreamError> {
        if let Some(inside) = self.inside.get(server) {
            return Ok(Arc::new(inside.greet()));
        }
        self.server(server)?.greet().await
    }

    /// Starts a server if it has to be, and keeps it from being idle: what is asked next with
    /// [`Request::only`] goes over the same connection, or nowhere. `None` of a server inside.
    ///
    /// # Errors
    /// [`UpstreamError::Unknown`] and [`UpstreamError::NotStarted`].
    pub async fn hold(&self, server: &str) -> Result<Option<Hold>, UpstreamError> {
        if self.inside.contains_key(server) {
            return Ok(None);
        }
        self.server(server)?.hold().await.map(Some)
    }

    /// Sends a notification if the server runs; best effort.
    pub async fn notify(&self, server: &str, method: &str, params: Value) {
        if let Ok(server) = self.server(server) {
            server.notify(method, params).await;
        }
    }

    /// All servers, by name.
    pub fn status(&self) -> Vec<Status> {
        let mut all: Vec<Status> = self
            .servers
            .values()
            .map(|server| server.status())
            .chain(self.inside.values().map(Inside::status))
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The supervisors' processes, of agents too: whoever descends from one is no owner.
    pub fn supervisors(&self) -> Vec<u32> {
        self.shared.house.supervisors()
    }

    /// Stops one server and waits until nothing of it is left; the next call starts it again.
    pub async fn stop(&self, server: &str) {
        if let Ok(server) = self.server(server) {
            server.stop().await;
        }
    }

    /// Stops all servers for good and waits until nothing of them is left.
    pub async fn shutdown(&self) {
        self.shared.closing.cancel();
        join_all(self.servers.values().map(|server| server.stop())).await;
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    fn server(&self, name: &str) -> Result<&Arc<Server>, UpstreamError> {
        self.servers.get(name).ok_or(UpstreamError::Unknown)
    }
}

/// Locks; a panic elsewhere does not make the data here unusable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
