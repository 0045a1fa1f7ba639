//! One question in memory, with whoever waits for it.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use futures::future::BoxFuture;
use jiff::Timestamp;
use policy::action::{Action, Digest};
use policy::approval::State;
use policy::decision::Approved;
use policy::ids::QuestionId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{broadcast, watch};

use super::lock;
use crate::db::approvals::Execution;

/// What a caller is told in the end. Also what is kept for a caller that is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The server's result, raw.
    Result(String),
    /// The server's JSON-RPC error object, raw.
    Error(String),
    /// Not done, or not known to be: words for the agent.
    Refused(String),
}

/// One question in memory, with whoever waits for it.
#[derive(Debug)]
pub struct Held {
    /// Its id.
    pub id: QuestionId,
    /// What was asked.
    pub action: Action,
    /// The tool and the arguments as people read them.
    pub shown: (String, Value),
    /// [`same`], which every call is compared with.
    pub(super) sameness: Digest,
    /// What a yes is bound to.
    pub approved: Approved,
    /// When it was asked.
    pub asked_at: Timestamp,
    /// When silence becomes a no.
    pub expires_at: Timestamp,
    pub(super) state: Mutex<State>,
    pub(super) execution: Mutex<Execution>,
    pub(super) waiting: AtomicUsize,
    pub(super) answer: watch::Sender<Option<Answer>>,
    /// The question whose arguments a person changed into these.
    pub(super) edits: Option<QuestionId>,
    /// The question with the arguments that a person changed these into.
    pub(super) edited_as: Mutex<Option<QuestionId>>,
    /// What is the same for all questions of one card.
    pub(super) batch: Option<String>,
    /// Raw parameters of progress notifications, once it runs.
    pub progress: broadcast::Sender<Value>,
}

impl Held {
    /// Where it stands.
    pub fn state(&self) -> State {
        *lock(&self.state)
    }

    /// How far its action has come.
    pub fn execution(&self) -> Execution {
        *lock(&self.execution)
    }

    /// Whether there is an answer.
    pub fn is_answered(&self) -> bool {
        self.answer.borrow().is_some()
    }

    /// Waits for what the caller is told in the end.
    pub async fn answered(&self) -> Answer {
        let mut answer = self.answer.subscribe();
        let answered = answer
            .wait_for(Option::is_some)
            .await
            .map(|answer| answer.clone());
        answered
            .ok()
            .flatten()
            .unwrap_or_else(|| Answer::Refused("the gateway is stopping".to_owned()))
    }
}

/// Who is told of every question that is put, moves or ends. It is told in order.
pub trait Watcher: std::fmt::Debug + Send + Sync {
    /// A question is now as it is.
    fn changed<'a>(&'a self, held: &'a Held) -> BoxFuture<'a, ()>;
}

/// What makes two calls the same one: of hosted agents, only within a run.
pub fn same(action: &Action) -> Digest {
    if crate::hosted::is_hosted(action) {
        Digest::of_json(&serde_json::json!([action.sameness(), action.run]))
    } else {
        action.sameness()
    }
}
