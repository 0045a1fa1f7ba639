//! Rows of what was pinned of each server, one for every way in which it was configured.

use jiff::Timestamp;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::OnConflict;
use sea_orm::{QueryOrder as _, Set};

use super::{Db, DbError};

mod rows {
    use sea_orm::entity::prelude::*;
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "pins")]
    pub(super) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub server: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub identity: String,
        pub digest: String,
        pub state: String,
        pub at: i64,
    }
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(super) enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

impl Db {
    /// The stored pin (JSON) of a server as it is configured.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be read.
    pub async fn pin(&self, server: &str, identity: &str) -> Result<Option<String>, DbError> {
        let key = (server.to_owned(), identity.to_owned());
        let row = rows::Entity::find_by_id(key).one(&self.conn).await?;
        Ok(row.map(|row| row.state))
    }

    /// The digest over what was pinned last of a server, however it was configured.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be read.
    pub async fn pinned_before(&self, server: &str) -> Result<Option<String>, DbError> {
        let row = rows::Entity::find()
            .filter(rows::Column::Server.eq(server))
            .order_by_desc(rows::Column::At)
            .one(&self.conn)
            .await?;
        Ok(row.map(|row| row.digest))
    }

    /// Stores the pin of a server.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be written.
    pub async fn set_pin(
        &self,
        server: &str,
        identity: &str,
        digest: &str,
        state: String,
        now: Timestamp,
    ) -> Result<(), DbError> {
        let row = rows::ActiveModel {
            server: Set(server.to_owned()),
            identity: Set(identity.to_owned()),
            digest: Set(digest.to_owned()),
            state: Set(state),
            at: Set(now.as_millisecond()),
        };
        let columns = [rows::Column::Digest, rows::Column::State, rows::Column::At];
        rows::Entity::insert(row)
            .on_conflict(
                OnConflict::columns([rows::Column::Server, rows::Column::Identity])
                    .update_columns(columns)
                    .to_owned(),
            )
            .exec_without_returning(&self.conn)
            .await?;
        Ok(())
    }
}
