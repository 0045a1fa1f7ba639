//! Rows of what each server last said it offers, so that lists are served while it is stopped.

use jiff::Timestamp;
use sea_orm::Set;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::OnConflict;

use super::{Db, DbError};

mod listings {
    use sea_orm::entity::prelude::*;
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "listings")]
    pub(super) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub server: String,
        pub identity: String,
        pub listing: String,
        pub at: i64,
    }
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(super) enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

impl Db {
    /// The stored listing of a server (JSON), if it is of this very server.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be read.
    pub async fn listing(&self, server: &str, identity: &str) -> Result<Option<String>, DbError> {
        let row = listings::Entity::find_by_id(server).one(&self.conn).await?;
        Ok(row
            .filter(|row| row.identity == identity)
            .map(|row| row.listing))
    }

    /// Stores the listing of a server.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be written.
    pub async fn set_listing(
        &self,
        server: &str,
        identity: &str,
        listing: String,
        now: Timestamp,
    ) -> Result<(), DbError> {
        let row = listings::ActiveModel {
            server: Set(server.to_owned()),
            identity: Set(identity.to_owned()),
            listing: Set(listing),
            at: Set(now.as_millisecond()),
        };
        let columns = [
            listings::Column::Identity,
            listings::Column::Listing,
            listings::Column::At,
        ];
        listings::Entity::insert(row)
            .on_conflict(
                OnConflict::column(listings::Column::Server)
                    .update_columns(columns)
                    .to_owned(),
            )
            .exec_without_returning(&self.conn)
            .await?;
        Ok(())
    }
}
