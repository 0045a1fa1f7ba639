//! The tables of groups.

mod conversation;
pub(crate) mod notes;
mod queue;
mod runs;
mod tables;

use jiff::Timestamp;
use sea_orm::{
    DatabaseConnection, DatabaseTransaction, DbErr, SqliteTransactionMode, TransactionOptions,
    TransactionTrait as _,
};
use sea_orm_migration::MigrationTrait;

pub(crate) use queue::{Placed, Said};
pub(crate) use runs::{Change, Entry, Run, Unshown, conversation_of};

/// Something the database could not do.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The engine said no.
    #[error("the database refused: {0}")]
    Refused(#[from] DbErr),
    /// A row that cannot be read as what it should be.
    #[error("a stored {0} cannot be read")]
    Unreadable(&'static str),
    /// Somebody else changed it first.
    #[error("a stored {0} was changed by somebody else; does a second gateway use this database?")]
    Changed(&'static str),
    /// What people see could not be read or stored.
    #[error(transparent)]
    Channel(#[from] channels::db::DbError),
}

/// The store over the tables.
#[derive(Clone, Debug)]
pub struct Db {
    conn: DatabaseConnection,
}

/// The steps that make the tables; a step that has landed is never changed.
pub fn migrations() -> Vec<Box<dyn MigrationTrait>> {
    vec![Box::new(notes::Migration), Box::new(tables::Engine)]
}

impl Db {
    /// The store over an open database whose [`migrations`] have run.
    pub fn new(conn: DatabaseConnection) -> Self {
        Self { conn }
    }

    /// Begins as the one who writes: to read first and find then that another has written is an error
    /// that no waiting mends.
    async fn begin(&self) -> Result<DatabaseTransaction, DbErr> {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..Default::default()
        };
        self.conn.begin_with_options(options).await
    }
}

fn millis(at: Timestamp) -> i64 {
    at.as_millisecond()
}
