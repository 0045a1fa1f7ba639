//! Rows of questions. Whatever must run later is sealed; a state changes by compare-and-set.

use std::collections::BTreeSet;

use jiff::Timestamp;
use policy::approval::{Scope, State};
use policy::decision::Approved;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::Expr;
use sea_orm::{QueryOrder, QuerySelect, Set, TransactionTrait as _, UpdateMany};
use serde_json::Value;

use super::{Db, DbError};
use crate::fault;

mod row {
    use sea_orm::entity::prelude::*;
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "approvals")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub action: String,
        pub state: String,
        pub execution: String,
        pub group: String,
        pub conversation: String,
        pub tool: String,
        pub shown: String,
        pub sealed: Option<Vec<u8>>,
        pub approved: String,
        pub reasons: String,
        pub scope: Option<String>,
        pub decided_by: Option<String>,
        pub decided_at: Option<i64>,
        pub reason: Option<String>,
        pub asked_at: i64,
        pub expires_at: i64,
        pub answer: Option<Vec<u8>>,
        pub delivered: bool,
        pub edits: Option<String>,
        pub edited_as: Option<String>,
        pub batch: Option<String>,
    }
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

/// How far the approved action has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Execution {
    /// Not begun.
    None,
    /// Begun.
    Running,
    /// Done.
    Ok,
    /// Tried, and the server said no or could not be reached.
    Error,
    /// Not done.
    Refused,
    /// Begun, and nobody knows whether it was done.
    Unknown,
}

impl Execution {
    const ALL: [Self; 6] = [
        Self::None,
        Self::Running,
        Self::Ok,
        Self::Error,
        Self::Refused,
        Self::Unknown,
    ];

    /// Whether it has come to its end.
    fn is_end(self) -> bool {
        !matches!(self, Self::None | Self::Running)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Running => "running",
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// A question as stored.
#[derive(Clone, Debug)]
pub struct Row {
    /// The question's id.
    pub id: String,
    /// The action's id.
    pub action: String,
    /// Where it stands.
    pub state: State,
    /// How far the action has come.
    pub execution: Execution,
    /// The group.
    pub group: String,
    /// The conversation.
    pub conversation: String,
    /// The tool, as people read it.
    pub tool: String,
    /// The arguments as they are shown: credentials masked.
    pub shown: Value,
    /// The action, encrypted; gone once settled.
    pub sealed: Option<Vec<u8>>,
    /// What a yes is bound to.
    pub approved: Approved,
    /// Why it is asked.
    pub reasons: Vec<String>,
    /// How long a yes counts.
    pub scope: Option<Scope>,
    /// Who decided.
    pub decided_by: Option<String>,
    /// When.
    pub decided_at: Option<Timestamp>,
    /// In which words.
    pub reason: Option<String>,
    /// When it was asked.
    pub asked_at: Timestamp,
    /// When silence becomes a no.
    pub expires_at: Timestamp,
    /// The answer for the caller, encrypted, until it is handed over.
    pub answer: Option<Vec<u8>>,
    /// Whether the answer was handed over.
    pub delivered: bool,
    /// The question whose arguments a person changed into these.
    pub edits: Option<String>,
    /// The question with the arguments that a person changed these into.
    pub edited_as: Option<String>,
    /// What is the same for all questions that are shown on one card.
    pub batch: Option<String>,
}

const UNREADABLE: DbError = DbError::Unreadable { what: "question" };

impl TryFrom<row::Model> for Row {
    type Error = DbError;
    fn try_from(row: row::Model) -> Result<Self, DbError> {
        let time = |ms| Timestamp::from_millisecond(ms).map_err(|_| UNREADABLE);
        let state = State::ALL
            .into_iter()
            .find(|state| state.as_str() == row.state)
            .ok_or(UNREADABLE)?;
        let execution = Execution::ALL
            .into_iter()
            .find(|execution| execution.as_str() == row.execution)
            .ok_or(UNREADABLE)?;
        let scope = match row.scope.as_deref() {
            None => None,
            Some("once") => Some(Scope::Once),
            Some("run") => Some(Scope::Run),
            Some("always") => Some(Scope::Always),
            Some(_) => return Err(UNREADABLE),
        };
        Ok(Self {
            state,
            execution,
            scope,
            shown: serde_json::from_str(&row.shown).map_err(|_| UNREADABLE)?,
            approved: serde_json::from_str(&row.approved).map_err(|_| UNREADABLE)?,
            reasons: serde_json::from_str(&row.reasons).map_err(|_| UNREADABLE)?,
            decided_at: row.decided_at.map(time).transpose()?,
            asked_at: time(row.asked_at)?,
            expires_at: time(row.expires_at)?,
            id: row.id,
            action: row.action,
            group: row.group,
            conversation: row.conversation,
            tool: row.tool,
            sealed: row.sealed,
            decided_by: row.decided_by,
            reason: row.reason,
            answer: row.answer,
            delivered: row.delivered,
            edits: row.edits,
            edited_as: row.edited_as,
            batch: row.batch,
        })
    }
}

/// How a question was answered.
#[derive(Clone, Debug)]
pub struct Decided {
    /// Who said so, where somebody did.
    pub by: Option<String>,
    /// In which words.
    pub reason: Option<String>,
    /// How long a yes counts.
    pub scope: Option<Scope>,
    /// When.
    pub at: Timestamp,
}

impl Decided {
    /// Nobody did: its time was over.
    pub fn by_time(at: Timestamp) -> Self {
        Self {
            by: None,
            reason: None,
            scope: None,
            at,
        }
    }
}

/// The statement that moves a question from one state to another.
pub(super) fn move_on(
    id: &str,
    from: State,
    to: State,
    decided: Option<&Decided>,
) -> UpdateMany<row::Entity> {
    let mut update = row::Entity::update_many()
        .col_expr(row::Column::State, Expr::value(to.as_str()))
        .filter(row::Column::Id.eq(id))
        .filter(row::Column::State.eq(from.as_str()));
    if let Some(decided) = decided {
        let scope = decided.scope.map(|scope| match scope {
            Scope::Once => "once",
            Scope::Run => "run",
            Scope::Always => "always",
        });
        update = update
            .col_expr(row::Column::DecidedBy, Expr::value(decided.by.clone()))
            .col_expr(row::Column::Reason, Expr::value(decided.reason.clone()))
            .col_expr(row::Column::Scope, Expr::value(scope))
            .col_expr(
                row::Column::DecidedAt,
                Expr::value(decided.at.as_millisecond()),
            );
    }
    update
}

fn model(row: &Row) -> Result<row::ActiveModel, DbError> {
    let text = |value: &Value| value.to_string();
    let approved = serde_json::to_value(&row.approved).map_err(|_| UNREADABLE)?;
    Ok(row::ActiveModel {
        id: Set(row.id.clone()),
        action: Set(row.action.clone()),
        state: Set(row.state.as_str().to_owned()),
        execution: Set(row.execution.as_str().to_owned()),
        group: Set(row.group.clone()),
        conversation: Set(row.conversation.clone()),
        tool: Set(row.tool.clone()),
        shown: Set(text(&row.shown)),
        sealed: Set(row.sealed.clone()),
        approved: Set(text(&approved)),
        reasons: Set(text(&row.reasons.iter().cloned().collect())),
        scope: Set(None),
        decided_by: Set(None),
        decided_at: Set(None),
        reason: Set(None),
        asked_at: Set(row.asked_at.as_millisecond()),
        expires_at: Set(row.expires_at.as_millisecond()),
        answer: Set(None),
        delivered: Set(false),
        edits: Set(row.edits.clone()),
        edited_as: Set(None),
        batch: Set(row.batch.clone()),
    })
}

impl Db {
    /// Stores a new question.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be written.
    pub async fn question_add(&self, row: &Row) -> Result<(), DbError> {
        let model = model(row)?;
        let added = async {
            fault::db("question.add").await?;
            row::Entity::insert(model)
                .exec_without_returning(&self.conn)
                .await?;
            fault::db("question.added").await
        };
        let unsure = match added.await {
            Ok(()) => return Ok(()),
            Err(unsure) => unsure,
        };
        // Whether it took effect is not known: a question that is there is put.
        match self.question(&row.id).await {
            Ok(Some(there)) if there.action == row.action => Ok(()),
            Ok(_) | Err(_) => Err(unsure),
        }
    }

    /// Moves a question from one state to another; `false` if somebody was first.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be written.
    pub async fn question_move(
        &self,
        id: &str,
        from: State,
        to: State,
        decided: Option<&Decided>,
    ) -> Result<bool, DbError> {
        let moved = async {
            fault::db("question.move").await?;
            let moved = move_on(id, from, to, decided).exec(&self.conn).await?;
            fault::db("question.moved").await?;
            Ok(moved.rows_affected == 1)
        };
        match moved.await {
            Ok(moved) => Ok(moved),
            Err(unsure) => self.is_moved(id, to, decided, unsure).await,
        }
    }

    /// Whether it took effect is not known. Nobody else moves a question, so one that is there where it
    /// should go, by this very word, was moved now.
    pub(super) async fn is_moved(
        &self,
        id: &str,
        to: State,
        decided: Option<&Decided>,
        unsure: DbError,
    ) -> Result<bool, DbError> {
        let at = decided.map(|decided| decided.at.as_millisecond());
        match self.question(id).await {
            Ok(Some(row))
                if row.state == to
                    && (at.is_none() || at == row.decided_at.map(Timestamp::as_millisecond)) =>
            {
                Ok(true)
            }
            Ok(_) | Err(_) => Err(unsure),
        }
    }

    /// Withdraws a question and puts another in its place, both or neither; `false` if somebody was
    /// first.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be written.
    pub async fn question_replace(
        &self,
        id: &str,
        from: State,
        decided: &Decided,
        by: &Row,
    ) -> Result<bool, DbError> {
        let replaced = async {
            fault::db("question.replace").await?;
            let both = self.conn.begin().await?;
            let moved = move_on(id, from, State::Withdrawn, Some(decided))
                .col_expr(row::Column::EditedAs, Expr::value(by.id.clone()))
                .exec(&both)
                .await?;
            if moved.rows_affected != 1 {
                both.rollback().await?;
                return Ok(false);
            }
            row::Entity::insert(model(by)?)
                .exec_without_returning(&both)
                .await?;
            both.commit().await?;
            fault::db("question.replaced").await?;
            Ok(true)
        };
        match replaced.await {
            Ok(replaced) => Ok(replaced),
            Err(unsure) => {
                let to = State::Withdrawn;
                self.is_moved(id, to, Some(decided), unsure).await
            }
        }
    }

    /// The newest questions of a group, or of all, settled or not.
    ///
    /// # Errors
    /// [`DbError`], if they cannot be read.
    pub async fn questions_of(&self, group: Option<&str>, limit: u64) -> Result<Vec<Row>, DbError> {
        let mut find = row::Entity::find();
        if let Some(group) = group {
            find = find.filter(row::Column::Group.eq(group));
        }
        find.order_by_desc(row::Column::AskedAt)
            .order_by_desc(row::Column::Id)
            .limit(limit)
            .all(&self.conn)
            .await?
            .into_iter()
            .map(Row::try_from)
            .collect()
    }

    /// Moves the execution from one step to the next; `false` if it is not where it should be. The
    /// sealed arguments are erased when it leaves `None` for an end.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be written.
    pub async fn execution_move(
        &self,
        id: &str,
        from: Execution,
        to: Execution,
        answer: Option<Vec<u8>>,
    ) -> Result<bool, DbError> {
        let mut update = row::Entity::update_many()
            .col_expr(row::Column::Execution, Expr::value(to.as_str()))
            .filter(row::Column::Id.eq(id))
            .filter(row::Column::Execution.eq(from.as_str()));
        if to.is_end() {
            update = update
                .col_expr(row::Column::Answer, Expr::value(answer))
                .col_expr(row::Column::Sealed, Expr::value(Option::<Vec<u8>>::None));
        }
        let moved = async {
            fault::db("execution.move").await?;
            let moved = update.exec(&self.conn).await?.rows_affected == 1;
            fault::db("execution.moved").await?;
            Ok(moved)
        };
        let unsure = match moved.await {
            Ok(moved) => return Ok(moved),
            Err(unsure) => unsure,
        };
        // Whether it took effect is not known. Nobody else moves an execution.
        match self.question(id).await {
            Ok(Some(row)) if row.execution == to => Ok(true),
            Ok(_) | Err(_) => Err(unsure),
        }
    }

    /// Notes that the answer was handed over, and erases it.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be written.
    pub async fn question_delivered(&self, id: &str) -> Result<(), DbError> {
        fault::db("question.deliver").await?;
        row::Entity::update_many()
            .col_expr(row::Column::Delivered, Expr::value(true))
            .col_expr(row::Column::Answer, Expr::value(Option::<Vec<u8>>::None))
            .filter(row::Column::Id.eq(id))
            .exec(&self.conn)
            .await?;
        fault::db("question.delivered").await
    }

    /// The questions that are open, or whose answer was not handed over yet.
    ///
    /// # Errors
    /// [`DbError`], if they cannot be read.
    pub async fn questions_unfinished(&self) -> Result<Vec<Row>, DbError> {
        let rows = row::Entity::find()
            .filter(row::Column::Delivered.eq(false))
            .order_by_asc(row::Column::AskedAt)
            .all(&self.conn)
            .await?;
        rows.into_iter().map(Row::try_from).collect()
    }

    /// Questions that are open, or those that are not, newest first, after the first `skip`.
    ///
    /// # Errors
    /// [`DbError`], if they cannot be read.
    pub async fn questions(&self, open: bool, skip: u64, limit: u64) -> Result<Vec<Row>, DbError> {
        let states: BTreeSet<&str> = [State::Pending.as_str(), State::CallerGone.as_str()].into();
        let state = row::Column::State;
        row::Entity::find()
            .filter(if open {
                state.is_in(states)
            } else {
                state.is_not_in(states)
            })
            .order_by_desc(row::Column::AskedAt)
            .order_by_desc(row::Column::Id)
            .offset(skip)
            .limit(limit)
            .all(&self.conn)
            .await?
            .into_iter()
            .map(Row::try_from)
            .collect()
    }

    /// One question.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be read.
    pub async fn question(&self, id: &str) -> Result<Option<Row>, DbError> {
        row::Entity::find_by_id(id)
            .one(&self.conn)
            .await?
            .map(Row::try_from)
            .transpose()
    }
}
