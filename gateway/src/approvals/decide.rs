//! A person, or time, decides; what comes of it is told to whoever waits.

use std::sync::Arc;

use policy::approval::{self, Event, State, Unmoved};
use policy::ids::QuestionId;
use policy::record;

use super::{Answer, Approvals, Held, lock};
use crate::audit::{NoRecord, Write};
use crate::db::DbError;
use crate::db::approvals::{Decided, Execution};

/// Why an answer of a person did not take effect.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// There is none of that id.
    #[error("there is no question `{0}`")]
    Unknown(String),
    /// Somebody was first, or it expired.
    #[error("`{id}` was already {state}{by}", state = .state.as_str(), by = .by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default())]
    Settled {
        /// Which question.
        id: String,
        /// How it ended.
        state: State,
        /// Who was first.
        by: Option<String>,
    },
    /// It needs more than that.
    #[error(transparent)]
    Unmoved(#[from] Unmoved),
    /// It cannot be stored.
    #[error("the decision cannot be stored: {0}")]
    Db(#[from] DbError),
    /// It cannot be recorded.
    #[error(transparent)]
    Record(#[from] NoRecord),
}

impl Approvals {
    /// A person, or time, decides. The decision is stored when this returns.
    ///
    /// # Errors
    /// [`DecideError`], and then nothing changed.
    pub async fn decide(
        &self,
        id: &str,
        event: Event,
        decided: Decided,
    ) -> Result<Arc<Held>, DecideError> {
        let _one = self.deciding.lock().await;
        let held = lock(&self.held).get(&QuestionId::new(id)).cloned();
        let Some(held) = held else {
            return Err(self.was_first(id).await);
        };
        let from = held.state();
        let to = match approval::apply(from, event, decided.at, held.expires_at) {
            Ok(to) => to,
            Err(Unmoved::Settled(_)) => return Err(self.was_first(id).await),
            Err(other) => return Err(other.into()),
        };
        // Late: time was first, whatever the person said.
        let expired = to == State::Expired && event != Event::Tick;
        let decided = if to == State::Expired {
            Decided {
                by: None,
                reason: None,
                scope: None,
                ..decided
            }
        } else {
            decided
        };
        let answered = record::Event::Answered {
            approval: held.id.clone(),
            state: to,
            by: decided.by.clone(),
            reason: decided.reason.clone(),
        };
        self.audit
            .write(Write::new(held.action.id.as_str(), answered))
            .await?;
        if !self.db.question_move(id, from, to, Some(&decided)).await? {
            return Err(self.was_first(id).await);
        }
        *lock(&held.state) = to;
        self.changed(&held).await;
        if to != State::Approved {
            let words = not_done(to, decided.reason.as_deref());
            self.close(&held, record::Outcome::Refused, None).await;
            self.settle(
                &held,
                Execution::None,
                Execution::Refused,
                Answer::Refused(words),
            )
            .await?;
        }
        if expired {
            Err(self.was_first(id).await)
        } else {
            Ok(held)
        }
    }

    async fn was_first(&self, id: &str) -> DecideError {
        match self.db.question(id).await {
            Ok(Some(row)) => DecideError::Settled {
                id: id.to_owned(),
                state: row.state,
                by: row.decided_by,
            },
            Ok(None) => DecideError::Unknown(id.to_owned()),
            Err(error) => error.into(),
        }
    }
}

/// What the caller of a question is told that ended without a yes.
pub(super) fn not_done(state: State, reason: Option<&str>) -> String {
    match (state, reason) {
        (State::Denied, Some(reason)) => format!(
            "NOT EXECUTED. A person denied this call: {reason}. Do not try it in another way."
        ),
        (State::Denied, None) => {
            "NOT EXECUTED. A person denied this call. Do not try it in another way.".to_owned()
        }
        (State::Expired, _) => {
            "NOT EXECUTED. Nobody answered in time, which counts as a no.".to_owned()
        }
        (State::Withdrawn, Some(reason)) => {
            format!("NOT EXECUTED. The question was withdrawn: {reason}.")
        }
        (State::Pending | State::Approved | State::Withdrawn | State::CallerGone, _) => {
            "NOT EXECUTED. The question was withdrawn.".to_owned()
        }
    }
}
