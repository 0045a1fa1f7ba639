//! Rules that came of a person's *always*.

use jiff::Timestamp;
use policy::approval::State;
use policy::rule::Rule;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::Expr;
use sea_orm::{QueryOrder, Set, TransactionTrait as _};

use super::approvals::{Decided, move_on};
use super::{Db, DbError};
use crate::fault;

mod row {
    use sea_orm::entity::prelude::*;
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "always_rules")]
    pub(super) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub question: String,
        pub group: String,
        pub rule: String,
        pub words: String,
        pub by: String,
        pub at: i64,
        pub until: i64,
        pub revoked_by: Option<String>,
        pub revoked_at: Option<i64>,
    }
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(super) enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

/// A rule that came of a person's *always*.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The question that was answered so; the rule's id.
    pub question: String,
    /// The group that it is for.
    pub group: String,
    /// The rule.
    pub rule: Rule,
    /// What it lets through, in words.
    pub words: String,
    /// Who made it.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Who took it back, and when.
    pub revoked: Option<(String, Timestamp)>,
}

impl Kept {
    /// Whether it still has a say.
    pub fn counts(&self, now: Timestamp) -> bool {
        self.revoked.is_none() && !self.rule.is_spent(now)
    }
}

const UNREADABLE: DbError = DbError::Unreadable { what: "rule" };

impl TryFrom<row::Model> for Kept {
    type Error = DbError;
    fn try_from(row: row::Model) -> Result<Self, DbError> {
        let time = |ms| Timestamp::from_millisecond(ms).map_err(|_| UNREADABLE);
        let revoked = match (row.revoked_by, row.revoked_at) {
            (Some(by), Some(at)) => Some((by, time(at)?)),
            _ => None,
        };
        Ok(Self {
            rule: serde_json::from_str(&row.rule).map_err(|_| UNREADABLE)?,
            at: time(row.at)?,
            question: row.question,
            group: row.group,
            words: row.words,
            by: row.by,
            revoked,
        })
    }
}

fn model(kept: &Kept) -> Result<row::ActiveModel, DbError> {
    let until = kept.rule.until.unwrap_or(Timestamp::MAX);
    Ok(row::ActiveModel {
        question: Set(kept.question.clone()),
        group: Set(kept.group.clone()),
        rule: Set(serde_json::to_string(&kept.rule).map_err(|_| UNREADABLE)?),
        words: Set(kept.words.clone()),
        by: Set(kept.by.clone()),
        at: Set(kept.at.as_millisecond()),
        until: Set(until.as_millisecond()),
        revoked_by: Set(None),
        revoked_at: Set(None),
    })
}

impl Db {
    /// Answers a question and stores the rule that comes of it, both or neither; `false` if somebody
    /// was first.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be written.
    pub async fn question_move_always(
        &self,
        id: &str,
        from: State,
        decided: &Decided,
        kept: &Kept,
    ) -> Result<bool, DbError> {
        let moved = async {
            fault::db("question.always").await?;
            let both = self.conn.begin().await?;
            let moved = move_on(id, from, State::Approved, Some(decided))
                .exec(&both)
                .await?;
            if moved.rows_affected != 1 {
                both.rollback().await?;
                return Ok(false);
            }
            row::Entity::insert(model(kept)?)
                .exec_without_returning(&both)
                .await?;
            both.commit().await?;
            fault::db("question.ruled").await?;
            Ok(true)
        };
        match moved.await {
            Ok(moved) => Ok(moved),
            Err(unsure) => {
                let to = State::Approved;
                self.is_moved(id, to, Some(decided), unsure).await
            }
        }
    }

    /// Stores a rule that comes of a question which was answered before.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be written; also if the question has one already.
    pub async fn always_add(&self, kept: &Kept) -> Result<(), DbError> {
        row::Entity::insert(model(kept)?)
            .exec_without_returning(&self.conn)
            .await?;
        Ok(())
    }

    /// All rules, newest first.
    ///
    /// # Errors
    /// [`DbError`], if they cannot be read.
    pub async fn always(&self) -> Result<Vec<Kept>, DbError> {
        let rows = row::Entity::find()
            .order_by_desc(row::Column::At)
            .all(&self.conn)
            .await?;
        rows.into_iter().map(Kept::try_from).collect()
    }

    /// Takes a rule back; `false` if there is none that counts.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be written.
    pub async fn always_revoke(
        &self,
        question: &str,
        by: &str,
        at: Timestamp,
    ) -> Result<bool, DbError> {
        let done = row::Entity::update_many()
            .col_expr(row::Column::RevokedBy, Expr::value(by))
            .col_expr(row::Column::RevokedAt, Expr::value(at.as_millisecond()))
            .filter(row::Column::Question.eq(question))
            .filter(row::Column::RevokedAt.is_null())
            .exec(&self.conn)
            .await?;
        Ok(done.rows_affected == 1)
    }
}
