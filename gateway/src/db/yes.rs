//! The yeses of questions that take more than one person.

use jiff::Timestamp;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::OnConflict;
use sea_orm::{QueryOrder, Set};

use super::{Db, DbError};
use crate::fault;

mod row {
    use sea_orm::entity::prelude::*;
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "approval_yes")]
    pub(super) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub question: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub person: String,
        pub at: i64,
    }
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(super) enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

/// One person's yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Yes {
    /// To which question.
    pub question: String,
    /// Whose.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

impl Db {
    /// Stores a yes; one person's second is none.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be written.
    pub async fn yes_add(&self, yes: &Yes) -> Result<(), DbError> {
        let model = row::ActiveModel {
            question: Set(yes.question.clone()),
            person: Set(yes.by.clone()),
            at: Set(yes.at.as_millisecond()),
        };
        let once = OnConflict::columns([row::Column::Question, row::Column::Person])
            .do_nothing()
            .to_owned();
        row::Entity::insert(model)
            .on_conflict(once)
            .exec_without_returning(&self.conn)
            .await?;
        fault::db("yes.stored").await
    }

    /// The yeses of some questions, first to last.
    ///
    /// # Errors
    /// [`DbError`], if they cannot be read.
    pub async fn yeses(&self, questions: Vec<String>) -> Result<Vec<Yes>, DbError> {
        if questions.is_empty() {
            return Ok(Vec::new());
        }
        let rows = row::Entity::find()
            .filter(row::Column::Question.is_in(questions))
            .order_by_asc(row::Column::At)
            .all(&self.conn)
            .await?;
        let yes = |row: row::Model| {
            let at = Timestamp::from_millisecond(row.at)
                .map_err(|_| DbError::Unreadable { what: "yes" })?;
            Ok(Yes {
                question: row.question,
                by: row.person,
                at,
            })
        };
        rows.into_iter().map(yes).collect()
    }
}
