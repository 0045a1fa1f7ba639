//! Keyed digests of the words of secrets that servers told; the words themselves are nowhere.

use jiff::Timestamp;
use sea_orm::entity::prelude::*;
use sea_orm::{Set, TransactionTrait as _};

use super::{Db, DbError};

mod row {
    use sea_orm::entity::prelude::*;
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "secret_words")]
    pub(super) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub digest: String,
        pub length: i64,
        pub at: i64,
    }
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(super) enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

impl Db {
    /// Length and digest of every word.
    ///
    /// # Errors
    /// [`DbError`], if they cannot be read.
    pub async fn secret_words(&self) -> Result<Vec<(usize, String)>, DbError> {
        let rows = row::Entity::find().all(&self.conn).await?;
        let word = |row: row::Model| (usize::try_from(row.length).unwrap_or_default(), row.digest);
        Ok(rows.into_iter().map(word).collect())
    }

    /// Stores words, all or none. Those that are there already stay.
    ///
    /// # Errors
    /// [`DbError`], if they cannot be written.
    pub async fn secret_words_add(
        &self,
        words: &[(usize, String)],
        at: Timestamp,
    ) -> Result<(), DbError> {
        let transaction = self.conn.begin().await?;
        for (length, digest) in words {
            let row = row::ActiveModel {
                digest: Set(digest.clone()),
                length: Set(i64::try_from(*length).unwrap_or(i64::MAX)),
                at: Set(at.as_millisecond()),
            };
            row::Entity::insert(row)
                .on_conflict_do_nothing()
                .exec_without_returning(&transaction)
                .await?;
        }
        Ok(transaction.commit().await?)
    }
}
