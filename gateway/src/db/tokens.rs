//! Rows of issued tokens. A row holds no token: only what is needed to list and revoke it.

use jiff::Timestamp;
use policy::ids::GroupName;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::Expr;
use sea_orm::{QueryOrder, Set};
use serde::{Deserialize, Serialize};

use super::{Db, DbError};

mod row {
    use sea_orm::entity::prelude::*;
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "tokens")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub group: String,
        pub name: String,
        pub kid: String,
        pub created_at: i64,
        pub expires_at: i64,
        pub revoked_at: Option<i64>,
    }
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

/// What is known of an issued token. The field names stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// Its id, which is no secret.
    pub id: String,
    /// The group it speaks for.
    pub group: GroupName,
    /// What its owner calls it.
    pub name: String,
    /// Which key signed it.
    #[serde(skip)]
    pub kid: String,
    /// When it was issued.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

impl TryFrom<row::Model> for Issued {
    type Error = DbError;
    fn try_from(row: row::Model) -> Result<Self, DbError> {
        let unreadable = || DbError::Unreadable { what: "token" };
        let time = |ms| Timestamp::from_millisecond(ms).map_err(|_| unreadable());
        Ok(Self {
            id: row.id,
            group: row.group.try_into().map_err(|_| unreadable())?,
            name: row.name,
            kid: row.kid,
            created_at: time(row.created_at)?,
            expires_at: time(row.expires_at)?,
            revoked_at: row.revoked_at.map(time).transpose()?,
        })
    }
}

impl Db {
    /// Stores what is known of a new token.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be written.
    pub async fn token_add(&self, token: &Issued) -> Result<(), DbError> {
        let row = row::ActiveModel {
            id: Set(token.id.clone()),
            group: Set(token.group.to_string()),
            name: Set(token.name.clone()),
            kid: Set(token.kid.clone()),
            created_at: Set(token.created_at.as_millisecond()),
            expires_at: Set(token.expires_at.as_millisecond()),
            revoked_at: Set(None),
        };
        row::Entity::insert(row)
            .exec_without_returning(&self.conn)
            .await?;
        Ok(())
    }

    /// Every token ever issued, oldest first.
    ///
    /// # Errors
    /// [`DbError`], if they cannot be read.
    pub async fn tokens(&self) -> Result<Vec<Issued>, DbError> {
        let rows = row::Entity::find()
            .order_by_asc(row::Column::CreatedAt)
            .all(&self.conn)
            .await?;
        rows.into_iter().map(Issued::try_from).collect()
    }

    /// Revokes a token; whether this was the first time.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be written.
    pub async fn token_revoke(&self, id: &str, now: Timestamp) -> Result<bool, DbError> {
        let changed = row::Entity::update_many()
            .col_expr(row::Column::RevokedAt, Expr::value(now.as_millisecond()))
            .filter(row::Column::Id.eq(id))
            .filter(row::Column::RevokedAt.is_null())
            .exec(&self.conn)
            .await?;
        Ok(changed.rows_affected == 1)
    }
}
