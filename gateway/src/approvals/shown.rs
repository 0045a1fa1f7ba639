//! A question as people see it, and the lists of them.

use jiff::Timestamp;
use policy::approval::{Scope, State};
use policy::record;
use serde::Serialize;
use serde_json::Value;

use super::Approvals;
use crate::db::DbError;
use crate::db::approvals::{Execution, Row};
use crate::db::yes::Yes;

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
    /// How many people must say yes.
    pub(crate) people: u8,
    /// Who did, where it takes more than one.
    pub(crate) agreed: Vec<Agreed>,
    /// The question whose arguments a person changed into these.
    pub(crate) edits: Option<String>,
    /// The question with the arguments that a person changed these into.
    pub(crate) edited_as: Option<String>,
    /// What is the same for all questions of one card.
    pub(crate) batch: Option<String>,
}

/// One of several people who must say yes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Agreed {
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
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
            people: row.approved.people,
            agreed: Vec::new(),
            edits: row.edits,
            edited_as: row.edited_as,
            batch: row.batch,
        }
    }
}

/// For how long a yes counted, as shown.
fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Once => "once",
        Scope::Run => "run",
        Scope::Always => "always",
    }
}

impl Approvals {
    /// The open questions as people see them, newest first.
    ///
    /// # Errors
    /// [`DbError`], if they cannot be read.
    pub async fn list_open(&self) -> Result<Vec<Shown>, DbError> {
        let most = u64::try_from(self.config.now().approvals.max_open).unwrap_or(u64::MAX);
        let rows = self.db.questions(true, 0, most).await?;
        self.with_yeses(rows.into_iter().map(Shown::from).collect())
            .await
    }

    /// With who said yes to those that take more than one person.
    async fn with_yeses(&self, mut all: Vec<Shown>) -> Result<Vec<Shown>, DbError> {
        let several = all.iter().filter(|shown| shown.people > 1);
        let ids = several.map(|shown| shown.id.clone()).collect();
        for yes in self.db.yeses(ids).await? {
            let of = all.iter_mut().find(|shown| shown.id == yes.question);
            if let Some(shown) = of {
                let Yes { by, at, .. } = yes;
                shown.agreed.push(Agreed { by, at });
            }
        }
        Ok(all)
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
        self.with_yeses(found).await
    }

    /// One question as people see it.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be read.
    pub async fn show(&self, id: &str) -> Result<Option<Shown>, DbError> {
        let shown = self.db.question(id).await?.map(Shown::from);
        Ok(self.with_yeses(shown.into_iter().collect()).await?.pop())
    }
}
