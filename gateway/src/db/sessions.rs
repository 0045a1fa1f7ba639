//! Rows of one-time links and of the console's sessions. Every secret is stored as a digest.

use jiff::Timestamp;
use policy::ids::UserName;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{Set, TransactionTrait as _};

use super::{Db, DbError};
use crate::fault;

mod link {
    use sea_orm::entity::prelude::*;
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "login_links")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub secret: String,
        pub person: String,
        pub origin: String,
        pub created_at: i64,
        pub expires_at: i64,
        pub used_at: Option<i64>,
        pub refused: i64,
    }
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

mod session {
    use sea_orm::entity::prelude::*;
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "sessions")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub cookie: String,
        pub token: String,
        pub person: String,
        pub origin: String,
        pub created_at: i64,
        pub seen_at: i64,
        pub expires_at: i64,
        pub ended_at: Option<i64>,
    }
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

/// Who asked for a link, and so for the session that it opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The gateway itself, when it started.
    Start,
    /// A command on the owner's socket.
    Command,
}

impl Origin {
    /// The origin's name, as stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Command => "command",
        }
    }

    fn from_stored(text: &str) -> Result<Self, DbError> {
        match text {
            "start" => Ok(Self::Start),
            "command" => Ok(Self::Command),
            _ => Err(UNREADABLE),
        }
    }
}

/// A one-time link as stored.
#[derive(Clone, Debug)]
pub struct Link {
    /// Its id, which is no secret.
    pub id: String,
    /// Digest over its secret.
    pub secret: String,
    /// Whom it logs in.
    pub person: UserName,
    /// Who asked for it.
    pub origin: Origin,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it is worthless.
    pub expires_at: Timestamp,
    /// Whether it was used.
    pub used: bool,
}

/// A session as stored.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its id, which is no secret.
    pub id: String,
    /// Digest over the cookie's secret.
    pub cookie: String,
    /// Digest over the token that the page keeps.
    pub token: String,
    /// Whose it is.
    pub person: UserName,
    /// Who asked for the link that opened it.
    pub origin: Origin,
    /// When it began.
    pub created_at: Timestamp,
    /// When it was last used, to a few minutes.
    pub seen_at: Timestamp,
    /// When it ends in any case.
    pub expires_at: Timestamp,
    /// Whether somebody ended it.
    pub ended: bool,
}

const UNREADABLE: DbError = DbError::Unreadable { what: "session" };

fn time(ms: i64) -> Result<Timestamp, DbError> {
    Timestamp::from_millisecond(ms).map_err(|_| UNREADABLE)
}

impl TryFrom<link::Model> for Link {
    type Error = DbError;
    fn try_from(row: link::Model) -> Result<Self, DbError> {
        Ok(Self {
            id: row.id,
            secret: row.secret,
            person: row.person.try_into().map_err(|_| UNREADABLE)?,
            origin: Origin::from_stored(&row.origin)?,
            created_at: time(row.created_at)?,
            expires_at: time(row.expires_at)?,
            used: row.used_at.is_some(),
        })
    }
}

impl TryFrom<session::Model> for Row {
    type Error = DbError;
    fn try_from(row: session::Model) -> Result<Self, DbError> {
        Ok(Self {
            id: row.id,
            cookie: row.cookie,
            token: row.token,
            person: row.person.try_into().map_err(|_| UNREADABLE)?,
            origin: Origin::from_stored(&row.origin)?,
            created_at: time(row.created_at)?,
            seen_at: time(row.seen_at)?,
            expires_at: time(row.expires_at)?,
            ended: row.ended_at.is_some(),
        })
    }
}

impl Db {
    /// Stores a new one-time link, and forgets those that are long worthless.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be written.
    pub async fn link_add(&self, link: &Link) -> Result<(), DbError> {
        const KEPT_MS: i64 = 24 * 3600 * 1000;
        let now = link.created_at.as_millisecond();
        link::Entity::delete_many()
            .filter(link::Column::ExpiresAt.lt(now - KEPT_MS))
            .exec(&self.conn)
            .await?;
        let row = link::ActiveModel {
            id: Set(link.id.clone()),
            secret: Set(link.secret.clone()),
            person: Set(link.person.to_string()),
            origin: Set(link.origin.as_str().to_owned()),
            created_at: Set(now),
            expires_at: Set(link.expires_at.as_millisecond()),
            used_at: Set(None),
            refused: Set(0),
        };
        link::Entity::insert(row)
            .exec_without_returning(&self.conn)
            .await?;
        fault::db("link.stored").await
    }

    /// A one-time link.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be read.
    pub async fn link(&self, id: &str) -> Result<Option<Link>, DbError> {
        let row = link::Entity::find_by_id(id).one(&self.conn).await?;
        row.map(Link::try_from).transpose()
    }

    /// Uses a link up for a session, both or neither; `false` if somebody was first.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be written.
    pub async fn link_use(&self, id: &str, session: &Row) -> Result<bool, DbError> {
        let now = session.created_at.as_millisecond();
        let tx = self.conn.begin().await?;
        let used = link::Entity::update_many()
            .col_expr(link::Column::UsedAt, Expr::value(now))
            .filter(link::Column::Id.eq(id))
            .filter(link::Column::UsedAt.is_null())
            .filter(link::Column::ExpiresAt.gt(now))
            .exec(&tx)
            .await?;
        if used.rows_affected != 1 {
            return Ok(false);
        }
        // What has ended is of no use to anybody.
        session::Entity::delete_many()
            .filter(session::Column::ExpiresAt.lt(now))
            .exec(&tx)
            .await?;
        let row = session::ActiveModel {
            id: Set(session.id.clone()),
            cookie: Set(session.cookie.clone()),
            token: Set(session.token.clone()),
            person: Set(session.person.to_string()),
            origin: Set(session.origin.as_str().to_owned()),
            created_at: Set(now),
            seen_at: Set(session.seen_at.as_millisecond()),
            expires_at: Set(session.expires_at.as_millisecond()),
            ended_at: Set(None),
        };
        session::Entity::insert(row)
            .exec_without_returning(&tx)
            .await?;
        fault::db("link.use").await?;
        tx.commit().await?;
        fault::db("link.used").await?;
        Ok(true)
    }

    /// Counts an attempt to use a link that was turned away; how many there were with it.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be written.
    pub async fn link_refused(&self, id: &str) -> Result<i64, DbError> {
        link::Entity::update_many()
            .col_expr(
                link::Column::Refused,
                Expr::col(link::Column::Refused).add(1),
            )
            .filter(link::Column::Id.eq(id))
            .exec(&self.conn)
            .await?;
        let row = link::Entity::find_by_id(id).one(&self.conn).await?;
        Ok(row.map_or(0, |row| row.refused))
    }

    /// A session.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be read.
    pub async fn session(&self, id: &str) -> Result<Option<Row>, DbError> {
        let row = session::Entity::find_by_id(id).one(&self.conn).await?;
        row.map(Row::try_from).transpose()
    }

    /// Notes that a session was used.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be written.
    pub async fn session_seen(&self, id: &str, now: Timestamp) -> Result<(), DbError> {
        session::Entity::update_many()
            .col_expr(session::Column::SeenAt, Expr::value(now.as_millisecond()))
            .filter(session::Column::Id.eq(id))
            .exec(&self.conn)
            .await?;
        Ok(())
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be written.
    pub async fn session_end(&self, id: &str, now: Timestamp) -> Result<(), DbError> {
        session::Entity::update_many()
            .col_expr(session::Column::EndedAt, Expr::value(now.as_millisecond()))
            .filter(session::Column::Id.eq(id))
            .exec(&self.conn)
            .await?;
        Ok(())
    }
}
