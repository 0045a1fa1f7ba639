//! Questions to people: rows that outlive their callers, the gateway and its restarts.
//!
//! Here a question is asked, joined, answered and settled. What runs after a yes is the
//! [broker's](crate::broker) business.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use policy::action::{Action, Digest};
use policy::approval::{self, Event, Scope, State, Unmoved};
use policy::decision::{Approved, Question};
use policy::ids::{QuestionId, RunId};
use policy::record;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{broadcast, watch};

use crate::audit::{Audit, NoRecord, Opens, Write};
use crate::db::approvals::{Decided, Execution, Row};
use crate::db::{Db, DbError};
use crate::keys::{Keys, short_id};

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

/// Why a question could not be put.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Too many are open in this conversation.
    #[error(
        "{0} questions of this conversation are waiting for a person already; wait for these to be answered"
    )]
    TooMany(usize),
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
    sameness: Digest,
    /// What a yes is bound to.
    pub approved: Approved,
    /// When it was asked.
    pub asked_at: Timestamp,
    /// When silence becomes a no.
    pub expires_at: Timestamp,
    state: Mutex<State>,
    execution: Mutex<Execution>,
    waiting: AtomicUsize,
    answer: watch::Sender<Option<Answer>>,
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

/// All questions that are open or whose answer was not handed over.
#[derive(Debug)]
pub struct Approvals {
    db: Db,
    keys: Arc<Keys>,
    audit: Audit,
    expire: Duration,
    max_open: usize,
    held: Mutex<HashMap<QuestionId, Arc<Held>>>,
    watchers: Vec<Arc<dyn Watcher>>,
    /// One decision at a time: the state in memory and the row change together.
    deciding: tokio::sync::Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Approvals {
    /// Reads back what was open. Second: the approved questions whose action has not begun.
    ///
    /// # Errors
    /// [`DbError`], if the rows cannot be read.
    pub async fn open(
        db: Db,
        keys: Arc<Keys>,
        audit: Audit,
        expire: Duration,
        max_open: usize,
        watchers: Vec<Arc<dyn Watcher>>,
    ) -> Result<(Self, Vec<Arc<Held>>), DbError> {
        let approvals = Self {
            db,
            keys,
            audit,
            expire,
            max_open,
            held: Mutex::default(),
            watchers,
            deciding: tokio::sync::Mutex::default(),
        };
        let mut to_run = Vec::new();
        for row in approvals.db.questions_unfinished().await? {
            match approvals.recall(&row) {
                Ok(held) => {
                    if row.execution == Execution::Running {
                        approvals
                            .settle(
                                &held,
                                Execution::Running,
                                Execution::Unknown,
                                Answer::Refused(interrupted(&held)),
                            )
                            .await?;
                    } else if row.execution == Execution::None && row.state == State::Approved {
                        to_run.push(held.clone());
                    } else if row.execution == Execution::None && !row.state.is_open() {
                        // Decided, and stopped before that was answered: the identical call must
                        // not wait for an answer that nobody gives.
                        let words = not_done(row.state, row.reason.as_deref());
                        approvals
                            .settle(
                                &held,
                                Execution::None,
                                Execution::Refused,
                                Answer::Refused(words),
                            )
                            .await?;
                    }
                    lock(&approvals.held).insert(held.id.clone(), held.clone());
                    approvals.changed(&held).await;
                }
                Err(error) => {
                    tracing::error!("question `{}` cannot be read back: {error}", row.id);
                    approvals.give_up(&row).await?;
                }
            }
        }
        Ok((approvals, to_run))
    }

    /// Settles a question whose action cannot be read: nobody could be shown what runs.
    async fn give_up(&self, row: &Row) -> Result<(), DbError> {
        const WHY: &str = "what was asked cannot be read back, so it is not done";
        let note = async |event, opens| {
            let write = Write::new(row.action.clone(), event).opens(opens);
            if let Err(error) = self.audit.write_or_keep(write).await {
                tracing::error!("{error}");
            }
        };
        if row.state.is_open() {
            let to = State::Withdrawn;
            let decided = Decided {
                by: None,
                reason: Some(WHY.to_owned()),
                scope: None,
                at: Timestamp::now(),
            };
            let answered = record::Event::Answered {
                approval: QuestionId::new(row.id.clone()),
                state: to,
                by: None,
                reason: decided.reason.clone(),
            };
            note(answered, Opens::No).await;
            self.db
                .question_move(&row.id, row.state, to, Some(&decided))
                .await?;
        }
        let (outcome, to) = match row.execution {
            Execution::None => (record::Outcome::Refused, Execution::Refused),
            Execution::Running => (record::Outcome::Unknown, Execution::Unknown),
            Execution::Ok | Execution::Error | Execution::Refused | Execution::Unknown => {
                return self.db.question_delivered(&row.id).await;
            }
        };
        let closed = record::Event::Closed {
            outcome,
            detail: Some(WHY.to_owned()),
            result: None,
        };
        note(closed, Opens::Ends).await;
        self.db
            .execution_move(&row.id, row.execution, to, None)
            .await?;
        self.db.question_delivered(&row.id).await
    }

    fn recall(&self, row: &Row) -> Result<Arc<Held>, DbError> {
        const UNREADABLE: DbError = DbError::Unreadable { what: "question" };
        let open = |sealed: &[u8]| self.keys.unseal(&row.id, sealed).map_err(|_| UNREADABLE);
        let answer: Option<Stored> = match &row.answer {
            Some(sealed) => Some(serde_json::from_slice(&open(sealed)?).map_err(|_| UNREADABLE)?),
            None => None,
        };
        let action = match (&row.sealed, &answer) {
            (Some(sealed), _) => serde_json::from_slice(&open(sealed)?).map_err(|_| UNREADABLE)?,
            (None, Some(stored)) => stored.action.clone(),
            (None, None) => return Err(UNREADABLE),
        };
        Ok(Arc::new(Held {
            id: QuestionId::new(row.id.clone()),
            shown: (row.tool.clone(), row.shown.clone()),
            sameness: same(&action),
            action,
            approved: row.approved.clone(),
            asked_at: row.asked_at,
            expires_at: row.expires_at,
            state: Mutex::new(row.state),
            execution: Mutex::new(row.execution),
            waiting: AtomicUsize::new(0),
            answer: watch::Sender::new(answer.map(|stored| stored.answer)),
            progress: broadcast::channel(64).0,
        }))
    }

    async fn changed(&self, held: &Held) {
        for watcher in &self.watchers {
            watcher.changed(held).await;
        }
    }

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
        if open >= self.max_open {
            Err(AskError::TooMany(open))
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
        let Question { action, why } = question;
        let approved = Approved {
            binding: action.binding(),
            gates: why.gates,
        };
        let expires_at = now.checked_add(self.expire).unwrap_or(Timestamp::MAX);
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
        };
        self.db.question_add(&row).await?;
        let held = Arc::new(Held {
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
            progress: broadcast::channel(64).0,
        });
        lock(&self.held).insert(id, held.clone());
        self.changed(&held).await;
        Ok(held)
    }

    /// A caller begins to wait.
    pub async fn join(&self, held: &Held) {
        held.waiting.fetch_add(1, Ordering::SeqCst);
        let _one = self.deciding.lock().await;
        self.shift(held, Event::CallerBack).await;
    }

    /// A caller stops waiting because it cancelled or went away; the last one makes it *caller gone*.
    pub async fn leave(&self, held: &Held) {
        let _one = self.deciding.lock().await;
        if held.waiting.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.shift(held, Event::CallerLeft).await;
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
    ///
    /// # Errors
    /// [`DbError`], if it cannot be stored; a caller that waits is told all the same.
    pub async fn finish(
        &self,
        held: &Held,
        outcome: record::Outcome,
        answer: Answer,
    ) -> Result<(), DbError> {
        let to = match outcome {
            record::Outcome::Ok => Execution::Ok,
            record::Outcome::Error => Execution::Error,
            record::Outcome::Refused => Execution::Refused,
            record::Outcome::Running | record::Outcome::Unknown => Execution::Unknown,
        };
        self.settle(held, Execution::Running, to, answer).await
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
        self.close(held, outcome, Some(why)).await;
        self.tell(held, Execution::Refused, answer).await;
        Ok(())
    }

    async fn settle(
        &self,
        held: &Held,
        from: Execution,
        to: Execution,
        answer: Answer,
    ) -> Result<(), DbError> {
        let stored = self.store(held, from, to, &answer).await;
        self.tell(held, to, answer).await;
        stored
    }

    async fn tell(&self, held: &Held, to: Execution, answer: Answer) {
        *lock(&held.execution) = to;
        self.changed(held).await;
        held.answer.send_replace(Some(answer));
    }

    async fn store(
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
    pub async fn close(&self, held: &Held, outcome: record::Outcome, detail: Option<String>) {
        let closed = record::Event::Closed {
            outcome,
            detail,
            result: None,
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
        let all: Vec<Arc<Held>> = lock(&self.held).values().cloned().collect();
        for held in all {
            if now < held.expires_at {
                continue;
            }
            if held.state().is_open() {
                let decided = Decided {
                    by: None,
                    reason: None,
                    scope: None,
                    at: now,
                };
                if let Err(error) = self.decide(held.id.as_str(), Event::Tick, decided).await {
                    tracing::debug!("question `{}` was not expired: {error}", held.id);
                }
            } else if held.answer.borrow().is_some()
                && held.waiting.load(Ordering::SeqCst) == 0
                && now
                    > held
                        .expires_at
                        .checked_add(self.expire)
                        .unwrap_or(Timestamp::MAX)
            {
                self.delivered(&held.id).await;
            }
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

    /// The open questions as people see them, newest first.
    ///
    /// # Errors
    /// [`DbError`], if they cannot be read.
    pub async fn list_open(&self) -> Result<Vec<Shown>, DbError> {
        let most = u64::try_from(self.max_open).unwrap_or(u64::MAX);
        let rows = self.db.questions(true, 0, most).await?;
        Ok(rows.into_iter().map(Shown::from).collect())
    }

    /// The newest questions that are settled, of those that `keep` wants.
    ///
    /// # Errors
    /// [`DbError`], if they cannot be read.
    pub async fn list_settled(
        &self,
        limit: usize,
        keep: impl Fn(&Shown) -> bool,
    ) -> Result<Vec<Shown>, DbError> {
        const AT_ONCE: u64 = 50;
        const SCANNED: u64 = 1000;
        let mut found = Vec::new();
        for skip in (0..SCANNED).step_by(usize::try_from(AT_ONCE).unwrap_or(1)) {
            let rows = self.db.questions(false, skip, AT_ONCE).await?;
            let last = rows.is_empty();
            found.extend(rows.into_iter().map(Shown::from).filter(&keep));
            if last || found.len() >= limit {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    /// One question as people see it.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be read.
    pub async fn show(&self, id: &str) -> Result<Option<Shown>, DbError> {
        Ok(self.db.question(id).await?.map(Shown::from))
    }
}

/// What the caller of a question is told that ended without a yes.
fn not_done(state: State, reason: Option<&str>) -> String {
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

fn interrupted(held: &Held) -> String {
    format!(
        "UNKNOWN. The gateway stopped while `{}` was being done: it may or may not have happened. Look before you try again.",
        held.action.tool()
    )
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    action: Action,
    answer: Answer,
}

/// For how long a yes counted, as shown.
fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Once => "once",
        Scope::Run => "run",
    }
}

/// A question as people see it. The field names stay.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    pub(crate) id: String,
    pub(crate) state: State,
    pub(crate) group: String,
    pub(crate) conversation: String,
    pub(crate) tool: String,
    pub(crate) args: Value,
    pub(crate) reasons: Vec<String>,
    pub(crate) asked_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) decided_by: Option<String>,
    pub(crate) outcome: record::Outcome,
    pub(crate) action: String,
    pub(crate) decided_at: Option<Timestamp>,
    pub(crate) reason: Option<String>,
    pub(crate) scope: Option<&'static str>,
}

impl Shown {
    /// The group it is asked for.
    pub fn group(&self) -> &str {
        &self.group
    }
}

impl From<Row> for Shown {
    fn from(row: Row) -> Self {
        let outcome = match (row.state, row.execution) {
            (State::Denied | State::Expired | State::Withdrawn, _) | (_, Execution::Refused) => {
                record::Outcome::Refused
            }
            (_, Execution::Ok) => record::Outcome::Ok,
            (_, Execution::Error) => record::Outcome::Error,
            (_, Execution::Unknown) => record::Outcome::Unknown,
            (
                State::Pending | State::CallerGone | State::Approved,
                Execution::None | Execution::Running,
            ) => record::Outcome::Running,
        };
        Self {
            id: row.id,
            state: row.state,
            group: row.group,
            conversation: row.conversation,
            tool: row.tool,
            args: row.shown,
            reasons: row.reasons,
            asked_at: row.asked_at,
            expires_at: row.expires_at,
            decided_by: row.decided_by,
            outcome,
            action: row.action,
            decided_at: row.decided_at,
            reason: row.reason,
            scope: row.scope.map(scope_name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::action::{Kind, Method};
    use policy::decision::{Decision, Why};
    use policy::ids::{ActionId, ConversationId, RunId};

    fn action(name: &str) -> Action {
        Action {
            id: ActionId::new(format!("act_{name}")),
            kind: Kind::Mcp,
            group: "work".parse().unwrap(),
            conversation: ConversationId::new("token:tok_1"),
            run: RunId::new("run_1"),
            principal: "token:tok_1".to_owned(),
            server: "files".to_owned(),
            method: Method::Call,
            name: name.to_owned(),
            args: serde_json::json!({ "a": 1 }),
            definition: Digest::of(b"definition"),
            meta: None,
            identity: Digest::of(b"identity"),
        }
    }

    async fn open(data: &std::path::Path) -> (Approvals, Vec<Arc<Held>>, Db) {
        let keys = Arc::new(Keys::open(data).unwrap());
        let db = Db::open(data).await.unwrap();
        let (audit, _writer) = Audit::start(db.clone(), keys.clone()).await.unwrap();
        let day = Duration::from_hours(24);
        let (approvals, to_run) = Approvals::open(db.clone(), keys, audit, day, 10, Vec::new())
            .await
            .unwrap();
        (approvals, to_run, db)
    }

    async fn ask(approvals: &Approvals, name: &str) -> Arc<Held> {
        let why = Why {
            decision: Decision::Ask,
            gates: [].into(),
            lifted: [].into(),
            rules: Vec::new(),
            reasons: Vec::new(),
            adds: [].into(),
        };
        let shown = (name.to_owned(), Value::Null);
        let question = Question {
            action: action(name),
            why,
        };
        approvals
            .ask(approvals.new_id(), question, shown, Timestamp::now())
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn nobody_is_told_of_a_void_that_is_not_stored() {
        let data = tempfile::tempdir().unwrap();
        let (approvals, _, db) = open(data.path()).await;
        let held = ask(&approvals, "one").await;
        db.close().await;
        let no = Answer::Refused("no".to_owned());
        let why = "why".to_owned();
        let void = approvals.void(&held, record::Outcome::Refused, why, no);
        void.await.unwrap_err();
        assert!(!held.is_answered());
    }

    #[tokio::test]
    async fn a_no_that_was_stored_before_a_crash_is_told_after_it() {
        let data = tempfile::tempdir().unwrap();
        let (approvals, _, db) = open(data.path()).await;
        let (denied, approved) = (ask(&approvals, "one").await, ask(&approvals, "two").await);
        for (held, to) in [(&denied, State::Denied), (&approved, State::Approved)] {
            let decided = Decided {
                by: Some("ana".to_owned()),
                reason: Some("not today".to_owned()),
                scope: None,
                at: Timestamp::now(),
            };
            // As far as the gateway came: the state is stored, the answer is not.
            assert!(
                db.question_move(held.id.as_str(), State::Pending, to, Some(&decided))
                    .await
                    .unwrap()
            );
        }
        drop(approvals);
        db.close().await;

        let (approvals, to_run, _) = open(data.path()).await;
        let again = approvals.find(&action("one").sameness()).unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(5), again.answered()).await;
        let Ok(Answer::Refused(words)) = answer else {
            panic!("no answer: {answer:?}");
        };
        assert!(words.contains("not today"), "{words}");
        let to_run: Vec<&str> = to_run.iter().map(|held| held.id.as_str()).collect();
        assert_eq!(to_run, [approved.id.as_str()]);
    }
}
