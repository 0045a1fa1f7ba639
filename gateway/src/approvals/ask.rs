//! A question is put, joined by whoever makes the identical call, and left.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use policy::action::{Action, Digest, canonical};
use policy::approval::{self, Event, State};
use policy::decision::{Approved, Question};
use policy::ids::QuestionId;
use serde_json::Value;
use tokio::sync::{broadcast, watch};

use super::held::same;
use super::{Approvals, Held, LIFTED, lock};
use crate::audit::NoRecord;
use crate::db::DbError;
use crate::db::approvals::{Execution, Row};
use crate::keys::short_id;

/// The longest arguments of a question that may share a card with others, in bytes of JSON.
const SMALL: usize = 1000;
/// Questions that come within this time of each other share a card.
const TOGETHER: SignedDuration = SignedDuration::from_secs(10);

/// Why a question could not be put.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Too many are open in this conversation.
    #[error(
        "{0} questions of this conversation are waiting for a person already; wait for these to be answered"
    )]
    TooMany(usize),
    /// Too many are open in this task.
    #[error(
        "{0} questions of this task are waiting for a person already; do not ask for more, and go on with what needs nobody's word or wait for these to be answered"
    )]
    TooManyOfRun(usize),
    /// It is asked for a run that is over.
    #[error("the task it is asked for is over")]
    Over,
    /// It cannot be stored.
    #[error("the question cannot be stored, so nothing is done")]
    Db(#[from] DbError),
    /// Its arguments cannot be encrypted.
    #[error("the question cannot be stored, so nothing is done")]
    Seal(#[from] crate::keys::Unsealable),
    /// It cannot be written as JSON.
    #[error("the question cannot be stored, so nothing is done")]
    Json(#[from] serde_json::Error),
    /// It cannot be recorded.
    #[error(transparent)]
    Record(#[from] NoRecord),
}

impl Approvals {
    /// The question, or the answer nobody has taken, of an identical call: by its [`same`].
    pub fn find(&self, sameness: &Digest) -> Option<Arc<Held>> {
        lock(&self.held)
            .values()
            .find(|held| held.sameness == *sameness)
            .cloned()
    }

    /// The id for a new question.
    pub fn new_id(&self) -> QuestionId {
        QuestionId::new(short_id(8))
    }

    /// Whether a conversation may ask once more.
    ///
    /// # Errors
    /// [`AskError::TooMany`].
    pub fn room(&self, action: &Action) -> Result<(), AskError> {
        let open = lock(&self.held)
            .values()
            .filter(|held| {
                held.action.conversation == action.conversation && held.state().is_open()
            })
            .count();
        let of_run = self.of_run(&action.run);
        let of_run = of_run.iter().filter(|held| held.state().is_open()).count();
        let most = self.config.now().approvals.clone();
        if open >= most.max_open {
            Err(AskError::TooMany(open))
        } else if of_run >= most.max_open_run {
            Err(AskError::TooManyOfRun(of_run))
        } else {
            Ok(())
        }
    }

    /// Puts a question that was recorded: from here on it outlives everything. Where the identical
    /// call was put in the meantime, that question is returned.
    ///
    /// # Errors
    /// [`AskError`], and then nothing will be done.
    pub async fn ask(
        &self,
        id: QuestionId,
        question: Question,
        shown: (String, Value),
        now: Timestamp,
    ) -> Result<Arc<Held>, AskError> {
        let (row, held) = self.prepare(id.clone(), question, shown, now)?;
        self.db.question_add(&row).await?;
        let held = Arc::new(held);
        lock(&self.held).insert(id, held.clone());
        self.changed(&held).await;
        Ok(held)
    }

    /// A new question, as a row and in memory; nothing of it is stored.
    pub(super) fn prepare(
        &self,
        id: QuestionId,
        question: Question,
        shown: (String, Value),
        now: Timestamp,
    ) -> Result<(Row, Held), AskError> {
        let Question { action, why } = question;
        let approved = Approved {
            binding: action.binding(),
            gates: why.gates,
            people: why.people,
        };
        let expires_at = now
            .checked_add(self.config.now().approvals.expire)
            .unwrap_or(Timestamp::MAX);
        let batch = self.batch(&action, &approved, now, &id);
        let row = Row {
            id: id.to_string(),
            action: action.id.to_string(),
            state: State::Pending,
            execution: Execution::None,
            group: action.group.to_string(),
            conversation: action.conversation.to_string(),
            tool: shown.0.clone(),
            shown: shown.1.clone(),
            sealed: Some(self.keys.seal(id.as_str(), &serde_json::to_vec(&action)?)?),
            approved: approved.clone(),
            reasons: why.reasons,
            scope: None,
            decided_by: None,
            decided_at: None,
            reason: None,
            asked_at: now,
            expires_at,
            answer: None,
            delivered: false,
            edits: None,
            edited_as: None,
            batch: batch.clone(),
        };
        let held = Held {
            id: id.clone(),
            shown,
            sameness: same(&action),
            action,
            approved,
            asked_at: now,
            expires_at,
            state: Mutex::new(State::Pending),
            execution: Mutex::new(Execution::None),
            waiting: AtomicUsize::new(0),
            answer: watch::Sender::new(None),
            edits: None,
            edited_as: Mutex::default(),
            batch,
            progress: broadcast::channel(64).0,
        };
        Ok((row, held))
    }

    /// Small questions of one conversation about one tool that come together are shown on one card.
    fn batch(
        &self,
        action: &Action,
        approved: &Approved,
        now: Timestamp,
        id: &QuestionId,
    ) -> Option<String> {
        let small = canonical(&action.args).len() <= SMALL;
        let plain = approved.people == 1 && approved.gates.iter().all(|gate| LIFTED.contains(gate));
        if !small || !plain {
            return None;
        }
        let all = lock(&self.held);
        let alike = all.values().filter(|held| {
            held.state() == State::Pending
                && held.action.conversation == action.conversation
                && held.action.run == action.run
                && held.action.tool() == action.tool()
                && now.duration_since(held.asked_at).abs() <= TOGETHER
        });
        let newest = alike.max_by_key(|held| held.asked_at);
        newest
            .and_then(|held| held.batch.clone())
            .or_else(|| Some(id.to_string()))
    }

    /// A caller begins to wait.
    pub async fn join(&self, held: &Arc<Held>) {
        held.waiting.fetch_add(1, Ordering::SeqCst);
        let _one = self.deciding.lock().await;
        self.shift(&self.latest(held), Event::CallerBack).await;
    }

    /// A caller stops waiting because it cancelled or went away; the last one makes it *caller gone*.
    pub async fn leave(&self, held: &Arc<Held>) {
        let _one = self.deciding.lock().await;
        if held.waiting.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.shift(&self.latest(held), Event::CallerLeft).await;
        }
    }

    /// A caller stops waiting for another reason: it was answered, or the gateway is stopping.
    pub fn part(&self, held: &Held) {
        held.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// A transition between the two open states; where it cannot be stored it is not made.
    async fn shift(&self, held: &Held, event: Event) {
        let from = held.state();
        let Ok(to) = approval::apply(from, event, Timestamp::now(), held.expires_at) else {
            return;
        };
        if !to.is_open() {
            return; // It expired; the next tick settles it.
        }
        match self
            .db
            .question_move(held.id.as_str(), from, to, None)
            .await
        {
            Ok(true) => {
                *lock(&held.state) = to;
                self.changed(held).await;
            }
            Ok(false) => {}
            Err(error) => tracing::warn!("question `{}` cannot be stored: {error}", held.id),
        }
    }
}
