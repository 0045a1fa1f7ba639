//! The action behind a yes: it begins once, ends once, and its answer waits for its caller.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use policy::action::Action;
use policy::approval::Event;
use policy::ids::QuestionId;
use policy::record;
use serde::{Deserialize, Serialize};

use super::{Answer, Approvals, Held, lock};
use crate::audit::{Opens, Write};
use crate::db::DbError;
use crate::db::approvals::{Decided, Execution};
use crate::fault;

impl Approvals {
    /// The approved action begins; `false` if it has begun before.
    ///
    /// # Errors
    /// [`DbError`], and then it must not begin.
    pub async fn begin(&self, held: &Held) -> Result<bool, DbError> {
        let begun = self
            .db
            .execution_move(held.id.as_str(), Execution::None, Execution::Running, None)
            .await?;
        if begun {
            *lock(&held.execution) = Execution::Running;
            self.changed(held).await;
        }
        Ok(begun)
    }

    /// The approved action has ended; its answer is kept until a caller has it.
    pub async fn finish(&self, held: &Arc<Held>, outcome: record::Outcome, answer: Answer) {
        let to = match outcome {
            record::Outcome::Ok => Execution::Ok,
            record::Outcome::Error => Execution::Error,
            record::Outcome::Refused => Execution::Refused,
            record::Outcome::Running | record::Outcome::Unknown => Execution::Unknown,
        };
        self.settle(held, Execution::Running, to, answer).await;
    }

    /// An approved action that does not run after all: that is stored, then recorded, then told. A
    /// restart must not find it approved and run it.
    ///
    /// # Errors
    /// [`DbError`], and then nothing changed.
    pub async fn void(
        &self,
        held: &Held,
        outcome: record::Outcome,
        why: String,
        answer: Answer,
    ) -> Result<(), DbError> {
        self.store(held, Execution::None, Execution::Refused, &answer)
            .await?;
        fault::point("void.stored").await;
        self.close(held, outcome, Some(why), None).await;
        fault::point("void.closed").await;
        self.tell(held, Execution::Refused, answer).await;
        Ok(())
    }

    /// Stores and tells how an action ended. What cannot be stored is told all the same, and stored
    /// with a later tick.
    pub(super) async fn settle(
        &self,
        held: &Arc<Held>,
        from: Execution,
        to: Execution,
        answer: Answer,
    ) {
        if let Err(error) = self.store(held, from, to, &answer).await {
            tracing::error!("the end of question `{}`: {error}", held.id);
            lock(&self.owed).push((held.clone(), from, to, answer.clone()));
        }
        self.tell(held, to, answer).await;
    }

    /// Stores the ends that could not be stored before.
    async fn pay(&self) {
        let owed = std::mem::take(&mut *lock(&self.owed));
        for (held, from, to, answer) in owed {
            if self.store(&held, from, to, &answer).await.is_err() {
                lock(&self.owed).push((held, from, to, answer));
            } else if !lock(&self.held).contains_key(&held.id) {
                // It was handed over meanwhile.
                self.delivered(&held.id).await;
            }
        }
    }

    async fn tell(&self, held: &Held, to: Execution, answer: Answer) {
        *lock(&held.execution) = to;
        self.changed(held).await;
        held.answer.send_replace(Some(answer.clone()));
        self.hand_on(held, &answer).await;
    }

    pub(super) async fn store(
        &self,
        held: &Held,
        from: Execution,
        to: Execution,
        answer: &Answer,
    ) -> Result<(), DbError> {
        let stored = Stored {
            action: held.action.clone(),
            answer: answer.clone(),
        };
        let sealed = serde_json::to_vec(&stored)
            .ok()
            .and_then(|plain| self.keys.seal(held.id.as_str(), &plain).ok())
            .ok_or(DbError::Unreadable { what: "answer" })?;
        self.db
            .execution_move(held.id.as_str(), from, to, Some(sealed))
            .await
            .map(drop)
    }

    /// Closes the action's record.
    pub async fn close(
        &self,
        held: &Held,
        outcome: record::Outcome,
        detail: Option<String>,
        result: Option<record::Told>,
    ) {
        let closed = record::Event::Closed {
            outcome,
            detail,
            result,
        };
        let write = Write::new(held.action.id.as_str(), closed).opens(Opens::Ends);
        if let Err(error) = self.audit.write_or_keep(write).await {
            tracing::error!("{error}");
        }
    }

    /// The answer is in a caller's hands: from now on the identical call is a new one.
    pub async fn delivered(&self, id: &QuestionId) {
        lock(&self.held).remove(id);
        if let Err(error) = self.db.question_delivered(id.as_str()).await {
            tracing::warn!("question `{id}` cannot be stored: {error}");
        }
    }

    /// Settles what has expired, and forgets answers that nobody fetched for as long again.
    pub async fn tick(&self, now: Timestamp) {
        self.pay().await;
        let all: Vec<Arc<Held>> = lock(&self.held).values().cloned().collect();
        for held in all {
            if now < held.expires_at {
                continue;
            }
            if held.state().is_open() {
                let decided = Decided::by_time(now);
                if let Err(error) = self.decide(held.id.as_str(), Event::Tick, decided).await {
                    tracing::debug!("question `{}` was not expired: {error}", held.id);
                }
            } else if held.answer.borrow().is_some()
                && held.waiting.load(Ordering::SeqCst) == 0
                && now
                    > held
                        .expires_at
                        .checked_add(self.config.now().approvals.expire)
                        .unwrap_or(Timestamp::MAX)
            {
                self.delivered(&held.id).await;
            }
        }
    }
}

/// The end of an action that could not be stored yet: of which, from where to where, and its answer.
pub(super) type Owed = (Arc<Held>, Execution, Execution, Answer);

/// An answer as it is kept, with the action that it is of.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) action: Action,
    pub(super) answer: Answer,
}
