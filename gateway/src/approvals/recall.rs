//! After a start: questions are read back from their rows.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use policy::approval::State;
use policy::ids::QuestionId;
use policy::record;
use tokio::sync::{broadcast, watch};

use super::always::Always;
use super::decide::not_done;
use super::end::Stored;
use super::held::same;
use super::{Answer, Approvals, Held, Watcher, lock};
use crate::audit::{Audit, Opens, Write};
use crate::db::approvals::{Decided, Execution, Row};
use crate::db::{Db, DbError};
use crate::fault;
use crate::keys::Keys;
use crate::live::Live;

impl Approvals {
    /// Reads back what was open. Second: the approved questions whose action has not begun.
    ///
    /// # Errors
    /// [`DbError`], if the rows cannot be read.
    pub async fn open(
        db: Db,
        keys: Arc<Keys>,
        audit: Audit,
        config: Arc<Live>,
        watchers: Vec<Arc<dyn Watcher>>,
    ) -> Result<(Self, Vec<Arc<Held>>), DbError> {
        let approvals = Self {
            always: Always::open(&db).await?,
            db,
            keys,
            audit,
            config,
            held: Mutex::default(),
            watchers,
            deciding: tokio::sync::Mutex::default(),
            owed: Mutex::default(),
        };
        let mut to_run = Vec::new();
        let mut edited = Vec::new();
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
                            .await;
                    } else if row.execution == Execution::None && row.state == State::Approved {
                        to_run.push(held.clone());
                    } else if row.edited_as.is_some() && !held.is_answered() {
                        // What took its place answers it.
                        edited.push(held.clone());
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
                            .await;
                    }
                    fault::point("start.question").await;
                    lock(&approvals.held).insert(held.id.clone(), held.clone());
                    approvals.changed(&held).await;
                }
                Err(error) => {
                    tracing::error!("question `{}` cannot be read back: {error}", row.id);
                    approvals.give_up(&row).await?;
                }
            }
        }
        for held in edited {
            approvals.answer_edited(&held).await;
        }
        Ok((approvals, to_run))
    }

    /// The gateway stopped before what came of changed arguments was handed on, or knows nothing of
    /// it any more.
    async fn answer_edited(&self, held: &Arc<Held>) {
        let new = self.latest(held);
        if new.id == held.id {
            let words = not_done(State::Withdrawn, Some("a person changed its arguments"));
            let answer = Answer::Refused(words);
            self.settle(held, Execution::None, Execution::Refused, answer)
                .await;
            return;
        }
        let answer = new.answer.borrow().clone();
        if let Some(answer) = answer {
            self.hand_on(&new, &answer).await;
        }
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
            fault::point("unreadable.withdrawn").await;
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
        fault::point("unreadable.closed").await;
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
            edits: row.edits.clone().map(QuestionId::new),
            edited_as: Mutex::new(row.edited_as.clone().map(QuestionId::new)),
            batch: row.batch.clone(),
            progress: broadcast::channel(64).0,
        }))
    }
}

fn interrupted(held: &Held) -> String {
    format!(
        "UNKNOWN. The gateway stopped while `{}` was being done: it may or may not have happened. Look before you try again.",
        held.action.tool()
    )
}
