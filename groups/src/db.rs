//! The tables of groups.
//!
//! Each transaction writes first, so that none finds in the middle that another was quicker.

mod conversation;
pub(crate) mod notes;
mod queue;
mod runs;
mod tables;

use jiff::Timestamp;
use sea_orm::{DatabaseConnection, DbErr};
use sea_orm_migration::MigrationTrait;

pub(crate) use queue::{Placed, Said};
pub(crate) use runs::{Change, Entry, Run, Unshown};

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
}

fn millis(at: Timestamp) -> i64 {
    at.as_millisecond()
}
