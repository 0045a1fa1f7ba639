//! Hosted runs: what their people see of the broker's work, and the end of a run.
//!
//! The broker tells here what becomes of an action or a question of a hosted run; it is shown in the
//! group's place of the web channel. Nothing here decides anything, and nothing that fails here
//! stops an action: what could not be shown is put right at the next start.

pub mod demo;
mod host;
mod items;
mod open;
mod routes;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use channels::web::{ToolState, Web};
use futures::future::BoxFuture;
use policy::action::Action;
use policy::ids::{QuestionId, RunId};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::approvals::{Held, Watcher};
use crate::db::Db;

pub use host::PROGRAM;
pub use items::Item;
use items::Put;
pub(crate) use items::state_of;
pub use open::{OpenError, open};
pub use routes::router;

/// What a person is told of the runtime that there is.
pub const NO_SANDBOX: &str = "hosted agents run as processes of this machine, as root each as a user of its own, else under Landlock: that is no \
     sandbox, and their network is yours";

/// How the conversation of a group is named.
const CONVERSATION: &str = "group:";
/// The most states that wait to be stored; past that, whoever has one more waits.
const QUEUE: usize = 1024;
/// How long whoever has a state waits until it is stored.
const STORED_WITHIN: Duration = Duration::from_secs(2);

/// Whether an action is one of a hosted run.
pub fn is_hosted(action: &Action) -> bool {
    action.conversation.as_str().starts_with(CONVERSATION)
}

/// Who is told whether a run waits for a person.
type Waits = Box<dyn Fn(&RunId, bool) + Send + Sync>;

/// What hosted runs need of the gateway beyond the broker.
pub struct Hosted {
    /// What people see.
    pub web: Arc<Web>,
    puts: mpsc::Sender<(Put, oneshot::Sender<()>)>,
    /// The questions that are open.
    open: Mutex<HashMap<RunId, HashSet<QuestionId>>>,
    waits: OnceLock<Waits>,
}

impl std::fmt::Debug for Hosted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hosted").finish_non_exhaustive()
    }
}

impl Hosted {
    /// Begins to show. The task ends when the last [`Hosted`] is gone and all was shown.
    pub fn start(web: Arc<Web>) -> (Arc<Self>, JoinHandle<()>) {
        let (puts, queue) = mpsc::channel(QUEUE);
        let writer = tokio::spawn(items::write_all(web.clone(), queue));
        let hosted = Self {
            web,
            puts,
            open: Mutex::default(),
            waits: OnceLock::new(),
        };
        (Arc::new(hosted), writer)
    }

    /// Whoever is told from now on which runs wait for a person, beginning with those that do.
    pub fn tell_waits(&self, waits: Waits) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for run in open.keys() {
            waits(run, true);
        }
        if self.waits.set(waits).is_err() {
            tracing::error!("somebody is told already which runs wait");
        }
    }

    /// Shows how the action of an item goes. Stored when this returns, unless that fails or takes too
    /// long: so a call stands before whatever its agent says once it has the answer.
    pub async fn show(&self, item: &Item, state: ToolState) {
        self.put(item.put(state, None)).await;
    }

    /// Puts right what people see of tool calls, by the log; `held` tell themselves.
    pub(crate) async fn put_right(
        &self,
        db: &Db,
        groups: &[String],
        closed: Vec<String>,
        held: &BTreeSet<String>,
    ) {
        for put in items::put_right(&self.web, db, groups, closed, held).await {
            self.put(put).await;
        }
    }

    async fn put(&self, put: Put) {
        let (stored, told) = oneshot::channel();
        if self.puts.send((put, stored)).await.is_err() {
            tracing::warn!("the state of a tool call came after the channel was closed");
        } else if timeout(STORED_WITHIN, told).await.is_err() {
            tracing::warn!("the state of a tool call is not stored yet; the call goes on");
        }
    }

    /// The agent of a run waits for a question: said again, for whoever was not there before.
    pub fn joined(&self, held: &Held) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.contains_key(&held.action.run)
            && let Some(waits) = self.waits.get()
        {
            waits(&held.action.run, true);
        }
    }

    /// Notes whether a question is open, and tells whether its run waits.
    fn note(&self, held: &Held) {
        let run = &held.action.run;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let before = open.contains_key(run);
        let questions = open.entry(run.clone()).or_default();
        if held.state().is_open() {
            questions.insert(held.id.clone());
        } else {
            questions.remove(&held.id);
        }
        let now = !questions.is_empty();
        if !now {
            open.remove(run);
        }
        if now != before
            && let Some(waits) = self.waits.get()
        {
            waits(run, now);
        }
    }
}

impl Watcher for Hosted {
    fn changed<'a>(&'a self, held: &'a Held) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if is_hosted(&held.action) {
                self.note(held);
                self.put(items::of_question(held)).await;
            }
        })
    }
}
