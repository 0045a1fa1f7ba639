//! Rows of what models were asked and what they said it took: one a call, kept for figures and
//! budgets. The log is the proof; these are its numbers.

use jiff::Timestamp;
use policy::ids::{ActionId, ConversationId, GroupName, RunId};
use sea_orm::entity::prelude::*;
use sea_orm::{FromQueryResult, QueryOrder, QuerySelect, Set};

use super::{Db, DbError};

mod row {
    use sea_orm::entity::prelude::*;
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "usage")]
    pub(super) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub action: String,
        pub at: i64,
        pub group: String,
        pub conversation: String,
        pub run: String,
        pub provider: String,
        #[sea_orm(column_name = "model")]
        pub asked: String,
        pub input: i64,
        pub output: i64,
        pub cache_read: i64,
        pub cache_write: i64,
        pub status: i32,
    }
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(super) enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

/// What one call took, in the provider's own count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Read, and in no cache.
    pub input: u64,
    /// Written.
    pub output: u64,
    /// Read from the provider's cache.
    pub cache_read: u64,
    /// Put into the provider's cache.
    pub cache_write: u64,
}

/// One call of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Its record in the log.
    pub action: ActionId,
    /// When it ended.
    pub at: Timestamp,
    /// For which group.
    pub group: GroupName,
    /// In which conversation.
    pub conversation: ConversationId,
    /// For which task.
    pub run: RunId,
    /// The provider, as configured.
    pub provider: String,
    /// The model, as it was asked for.
    pub model: String,
    /// What it took; nothing where the provider did not say.
    pub tokens: Tokens,
    /// The status of the answer (HTTP); 0 where there was none.
    pub status: u16,
}

/// All calls of one group to one model.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Total {
    /// The group.
    pub group: String,
    /// The provider.
    pub provider: String,
    /// The model.
    pub model: String,
    /// How many calls.
    pub calls: i64,
    /// See [`Tokens::input`].
    pub input: i64,
    /// See [`Tokens::output`].
    pub output: i64,
    /// See [`Tokens::cache_read`].
    pub cache_read: i64,
    /// See [`Tokens::cache_write`].
    pub cache_write: i64,
}

/// The most tokens of one call that are believed.
const MOST: i64 = 1_000_000_000;

impl Db {
    /// Stores what a call took.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be written.
    pub async fn usage_add(&self, usage: Usage) -> Result<(), DbError> {
        // What no call takes is a provider's mistake, and must not make the sums overflow.
        let count = |tokens: u64| Set(i64::try_from(tokens).unwrap_or(MOST).min(MOST));
        let row = row::ActiveModel {
            action: Set(usage.action.to_string()),
            at: Set(usage.at.as_millisecond()),
            group: Set(usage.group.to_string()),
            conversation: Set(usage.conversation.to_string()),
            run: Set(usage.run.to_string()),
            provider: Set(usage.provider),
            asked: Set(usage.model),
            input: count(usage.tokens.input),
            output: count(usage.tokens.output),
            cache_read: count(usage.tokens.cache_read),
            cache_write: count(usage.tokens.cache_write),
            status: Set(i32::from(usage.status)),
        };
        row::Entity::insert(row)
            .exec_without_returning(&self.conn)
            .await?;
        Ok(())
    }

    /// The calls of every group to every model, added up; those that ended at or after `since`.
    ///
    /// # Errors
    /// [`DbError`], if they cannot be read.
    pub async fn usage_totals(&self, since: Timestamp) -> Result<Vec<Total>, DbError> {
        use row::Column;
        let totals = row::Entity::find()
            .select_only()
            .columns([Column::Group, Column::Provider, Column::Asked])
            .column_as(Column::Action.count(), "calls")
            .column_as(Column::Input.sum(), "input")
            .column_as(Column::Output.sum(), "output")
            .column_as(Column::CacheRead.sum(), "cache_read")
            .column_as(Column::CacheWrite.sum(), "cache_write")
            .filter(Column::At.gte(since.as_millisecond()))
            .group_by(Column::Group)
            .group_by(Column::Provider)
            .group_by(Column::Asked)
            .order_by_asc(Column::Group)
            .order_by_asc(Column::Provider)
            .order_by_asc(Column::Asked)
            .into_model::<Total>()
            .all(&self.conn)
            .await?;
        Ok(totals)
    }
}
