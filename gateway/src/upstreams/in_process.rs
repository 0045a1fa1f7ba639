//! Servers that run inside the gateway: they are told who calls as typed values, and what they tell
//! comes back with the labels of what is in it.
//!
//! Only these may name labels. What another server writes into `_meta` of a result labels nothing.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use futures::future::BoxFuture;
use jiff::Timestamp;
use policy::ids::{ConversationId, GroupName};
use policy::label::{Label, Labels};
use serde_json::{Value, json};

use super::{Greeting, Reply, State, Status, UpstreamError, message};

/// For whom a server does something.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The group.
    pub group: GroupName,
    /// The conversation.
    pub conversation: ConversationId,
    /// Who asked, as in the log.
    pub principal: String,
    /// What the conversation has read so far.
    pub labels: Labels,
    /// The time of the call.
    pub now: Timestamp,
}

/// What a server told.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The MCP result.
    pub result: Value,
    /// The labels of what is in it.
    pub labels: BTreeSet<Label>,
}

/// A server inside the gateway. It has tools, and nothing else of MCP.
pub trait InProcess: Debug + Send + Sync {
    /// What it tells a model of itself.
    fn instructions(&self) -> Option<&str>;

    /// Its tools, as MCP lists them.
    fn tools(&self) -> Vec<Value>;

    /// Does what a tool does; `None` if there is no such tool.
    fn call<'a>(
        &'a self,
        caller: Caller,
        tool: &'a str,
        args: &'a Value,
    ) -> BoxFuture<'a, Option<Told>>;
}

impl InProcess for notes::Server {
    fn instructions(&self) -> Option<&str> {
        Some(notes::INSTRUCTIONS)
    }

    fn tools(&self) -> Vec<Value> {
        Self::tools()
    }

    fn call<'a>(
        &'a self,
        caller: Caller,
        tool: &'a str,
        args: &'a Value,
    ) -> BoxFuture<'a, Option<Told>> {
        Box::pin(async move {
            let Caller {
                group, labels, now, ..
            } = caller;
            let caller = notes::Caller { group, labels, now };
            let notes::Told { result, labels } = Self::call(self, caller, tool, args).await?;
            Some(Told { result, labels })
        })
    }
}

/// A server inside, as the gateway keeps it: always ready.
#[derive(Clone, Debug)]
pub struct Inside {
    name: String,
    server: Arc<dyn InProcess>,
    since: Timestamp,
    calls: Arc<AtomicU64>,
    in_flight: Arc<AtomicUsize>,
}

/// Counts a call that is being worked on.
struct Working<'a>(&'a AtomicUsize);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Inside {
    pub(super) fn new(name: String, server: Arc<dyn InProcess>) -> Self {
        Self {
            name,
            server,
            since: Timestamp::now(),
            calls: Arc::default(),
            in_flight: Arc::default(),
        }
    }

    /// Does what a tool does; `None` if there is no such tool.
    pub async fn call(&self, caller: Caller, tool: &str, args: &Value) -> Option<Told> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let _working = Working(&self.in_flight);
        self.server.call(caller, tool, args).await
    }

    pub(super) fn greet(&self) -> Greeting {
        Greeting {
            capabilities: json!({ "tools": {} }),
            instructions: self.server.instructions().map(str::to_owned),
            server_info: message::client_info(),
            protocol: message::MODERN.to_owned(),
        }
    }

    /// Its lists. A call has a caller, and another way.
    pub(super) fn request(&self, method: &str) -> Result<Reply, UpstreamError> {
        if method != "tools/list" {
            let error =
                json!({ "code": -32601, "message": "the server does not know this method" });
            return Ok(Reply::Error(error));
        }
        serde_json::value::to_raw_value(&json!({ "tools": self.server.tools() }))
            .map(Reply::Result)
            .map_err(|_| UpstreamError::Protocol("its tools have no JSON".to_owned()))
    }

    pub(super) fn status(&self) -> Status {
        Status {
            name: self.name.clone(),
            transport: "in_process",
            state: State::Ready,
            last_error: None,
            since: self.since,
            pid: None,
            in_flight: self.in_flight.load(Ordering::Relaxed),
            calls: self.calls.load(Ordering::Relaxed),
        }
    }
}
