//! Questions to people: rows that outlive their callers, the gateway and its restarts.
//!
//! Here a question is asked, joined, answered and settled. What runs after a yes is the
//! [broker's](crate::broker) business.
//!
//! Reading order: `held`, `ask`, `decide`, `end`, `recall`, `shown`.

mod always;
mod ask;
mod decide;
pub mod destinations;
mod end;
mod held;
mod recall;
mod replace;
mod shown;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use policy::ids::{ConversationId, QuestionId, RunId};

use crate::audit::Audit;
use crate::db::Db;
use crate::keys::Keys;
use crate::live::Live;
use end::Owed;

pub use always::Effective;
pub use ask::AskError;
pub use policy::proposal::LIFTED;

pub use decide::{Assent, DecideError};
pub use held::{Answer, Held, Watcher, same};
pub use shown::{Agreed, Shown};

/// All questions that are open or whose answer was not handed over.
#[derive(Debug)]
pub struct Approvals {
    db: Db,
    keys: Arc<Keys>,
    audit: Audit,
    /// How long a question waits, and how many may be open.
    config: Arc<Live>,
    always: always::Always,
    held: Mutex<HashMap<QuestionId, Arc<Held>>>,
    watchers: Vec<Arc<dyn Watcher>>,
    /// One decision at a time: the state in memory and the row change together.
    deciding: tokio::sync::Mutex<()>,
    /// The ends of actions that could not be stored yet.
    owed: Mutex<Vec<Owed>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Approvals {
    /// A question that is open, or whose answer was not handed over.
    pub fn held(&self, id: &str) -> Option<Arc<Held>> {
        lock(&self.held).get(&QuestionId::new(id)).cloned()
    }

    /// Where the rows are.
    pub(crate) fn db(&self) -> &Db {
        &self.db
    }

    async fn changed(&self, held: &Held) {
        for watcher in &self.watchers {
            watcher.changed(held).await;
        }
    }

    /// Whether an action waits for a person.
    pub fn waits(&self, action: &str) -> bool {
        lock(&self.held)
            .values()
            .any(|held| held.action.id.as_str() == action && held.state().is_open())
    }

    /// Whether a question was put about an action, and is open or not handed over.
    pub fn asked_about(&self, action: &str) -> bool {
        lock(&self.held)
            .values()
            .any(|held| held.action.id.as_str() == action)
    }

    /// The questions of a run that are open or whose answer was not handed over.
    pub fn of_run(&self, run: &RunId) -> Vec<Arc<Held>> {
        let all = lock(&self.held);
        let of_run = all.values().filter(|held| held.action.run == *run);
        of_run.cloned().collect()
    }

    /// The questions of a conversation that are open or whose answer was not handed over.
    pub fn of_conversation(&self, id: &ConversationId) -> Vec<Arc<Held>> {
        let all = lock(&self.held);
        let own = all.values().filter(|held| held.action.conversation == *id);
        own.cloned().collect()
    }

    /// Every question of hosted runs that is open or whose answer was not handed over.
    pub fn hosted(&self) -> Vec<Arc<Held>> {
        let all = lock(&self.held);
        let hosted = all
            .values()
            .filter(|held| crate::hosted::is_hosted(&held.action));
        hosted.cloned().collect()
    }

    /// How many wait for a person.
    pub fn open_count(&self) -> usize {
        lock(&self.held)
            .values()
            .filter(|held| held.state().is_open())
            .count()
    }
}
