//! A person, or time, decides; what comes of it is told to whoever waits.

use std::sync::Arc;

use jiff::Timestamp;
use policy::approval::{self, Event, Scope, State, Unmoved};
use policy::ids::QuestionId;
use policy::record;

use super::{Answer, Approvals, AskError, Held, lock};
use crate::audit::{NoRecord, Write};
use crate::db::DbError;
use crate::db::always::Kept;
use crate::db::approvals::{Decided, Execution};
use crate::db::yes::Yes;
use crate::fault;

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
    /// It takes somebody else's yes.
    #[error("you have said yes to `{0}` already; it takes somebody else's yes, too")]
    Twice(String),
    /// It takes several people each time.
    #[error("`{0}` takes {1} people each time, so a yes counts once; say `once`")]
    OnceOnly(String, u8),
    /// The rules that would be proposed are others.
    #[error("this rule is not proposed for `{0}`; look at what is, and choose again")]
    NotProposed(String),
    /// No rule comes of it.
    #[error("no rule can be proposed for `{0}`: {1}")]
    NoProposal(String, &'static str),
    /// One comes of it already.
    #[error("a rule comes of `{0}` already")]
    Ruled(String),
    /// There is none, or it was revoked.
    #[error("there is no rule from question `{0}` on")]
    NoRule(String),
    /// There are too many.
    #[error(
        "{0} rules of this kind count already; revoke some, or write them into the configuration"
    )]
    Full(usize),
    /// The arguments as changed cannot be used.
    #[error("{0}")]
    Edit(String),
    /// It cannot be put as a new question.
    #[error(transparent)]
    Ask(#[from] AskError),
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

/// A person's yes.
#[derive(Clone, Debug)]
pub struct Assent {
    /// Whose.
    pub by: String,
    /// For how long it counts.
    pub scope: Scope,
    /// Run it although the caller is gone.
    pub anyway: bool,
    /// When.
    pub at: Timestamp,
    /// The rule that comes of it, where it counts for good.
    pub rule: Option<Kept>,
}

impl Approvals {
    /// A person says yes; `true` if it may now run, `false` if it still takes others. Of those who
    /// said yes before, only somebody who `may` still answer counts. It is stored when this returns.
    ///
    /// # Errors
    /// [`DecideError`], and then nothing changed.
    pub async fn approve(
        &self,
        id: &str,
        assent: Assent,
        may: impl Fn(&Held, &str) -> bool,
    ) -> Result<(Arc<Held>, bool), DecideError> {
        let _one = self.deciding.lock().await;
        let held = self.open_held(id).await?;
        let missing = self.missing(&held, &assent, may).await?;
        let Assent {
            by,
            scope,
            anyway,
            at,
            rule,
        } = assent;
        let event = Event::Approve { anyway, missing };
        if missing == 0 {
            let decided = Decided {
                by: Some(by),
                reason: None,
                scope: Some(scope),
                at,
            };
            let held = self.settle_as(held, event, decided, rule).await?;
            return Ok((held, true));
        }
        if !approval::apply(held.state(), event, at, held.expires_at)?.is_open() {
            self.settle_as(held, Event::Tick, Decided::by_time(at), None)
                .await?;
            return Err(self.was_first(id).await);
        }
        let agreed = record::Event::Agreed {
            approval: held.id.clone(),
            by: by.clone(),
            of: held.approved.people,
        };
        let write = Write::new(held.action.id.as_str(), agreed);
        self.audit.write(write).await?;
        fault::point("yes.recorded").await;
        let question = id.to_owned();
        self.db.yes_add(&Yes { question, by, at }).await?;
        self.changed(&held).await;
        Ok((held, false))
    }

    /// How many others must still say yes after this one.
    async fn missing(
        &self,
        held: &Held,
        assent: &Assent,
        may: impl Fn(&Held, &str) -> bool,
    ) -> Result<u8, DecideError> {
        let id = held.id.to_string();
        let needed = held.approved.people;
        if needed <= 1 {
            return Ok(0);
        }
        if assent.scope != Scope::Once {
            return Err(DecideError::OnceOnly(id, needed));
        }
        let mut others = self.db.yeses(vec![id.clone()]).await?;
        others.retain(|yes| may(held, &yes.by));
        let before = others.len();
        others.retain(|yes| yes.by != assent.by);
        let said = u8::try_from(others.len() + 1).unwrap_or(u8::MAX);
        let missing = needed.saturating_sub(said);
        if missing > 0 && others.len() < before {
            return Err(DecideError::Twice(id));
        }
        Ok(missing)
    }

    /// A person says no, or time decides. The decision is stored when this returns.
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
        let held = self.open_held(id).await?;
        self.settle_as(held, event, decided, None).await
    }

    /// The question, where it is not settled.
    pub(super) async fn open_held(&self, id: &str) -> Result<Arc<Held>, DecideError> {
        let held = lock(&self.held).get(&QuestionId::new(id)).cloned();
        match held {
            Some(held) if held.state().is_open() => Ok(held),
            Some(_) | None => Err(self.was_first(id).await),
        }
    }

    pub(super) async fn settle_as(
        &self,
        held: Arc<Held>,
        event: Event,
        decided: Decided,
        rule: Option<Kept>,
    ) -> Result<Arc<Held>, DecideError> {
        let id = held.id.as_str();
        let from = held.state();
        let to = match approval::apply(from, event, decided.at, held.expires_at) {
            Ok(to) => to,
            Err(Unmoved::Settled(_)) => return Err(self.was_first(id).await),
            Err(other) => return Err(other.into()),
        };
        // Late: time was first, whatever the person said.
        let expired = to == State::Expired && event != Event::Tick;
        let decided = if to == State::Expired {
            Decided::by_time(decided.at)
        } else {
            decided
        };
        let answered = record::Event::Answered {
            approval: held.id.clone(),
            state: to,
            by: decided.by.clone(),
            reason: decided.reason.clone(),
        };
        let rule = rule.filter(|_| to == State::Approved);
        if let Some(kept) = &rule {
            self.room_for_rule(kept.at)?;
            self.record_rule(kept).await?;
        }
        self.audit
            .write(Write::new(held.action.id.as_str(), answered))
            .await?;
        fault::point("decide.recorded").await;
        let moved = match &rule {
            None => self.db.question_move(id, from, to, Some(&decided)).await?,
            Some(kept) => {
                let moved = self.db.question_move_always(id, from, &decided, kept);
                moved.await?
            }
        };
        if !moved {
            return Err(self.was_first(id).await);
        }
        if let Some(kept) = rule {
            self.rule_counts(kept);
        }
        *lock(&held.state) = to;
        self.changed(&held).await;
        if to != State::Approved {
            let words = not_done(to, decided.reason.as_deref());
            fault::point("decide.no").await;
            self.close(&held, record::Outcome::Refused, None, None)
                .await;
            fault::point("decide.closed").await;
            let answer = Answer::Refused(words);
            self.settle(&held, Execution::None, Execution::Refused, answer)
                .await;
        }
        if expired {
            Err(self.was_first(id).await)
        } else {
            Ok(held)
        }
    }

    /// Why a question that is not open cannot be answered.
    pub async fn was_first(&self, id: &str) -> DecideError {
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
