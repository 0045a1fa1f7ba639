//! The one database: opening it, bringing its tables up to date, and the stores over them.
//!
//! No database type leaves this module. `SQLite` in WAL mode with `synchronous = FULL`: a commit is on
//! the disk when it returns.

pub mod always;
pub mod approvals;
pub mod catalog;
pub mod chain;
pub mod known;
mod migrations;
pub mod payloads;
pub mod pins;
pub mod search;
pub mod secrets;
pub mod sessions;
pub mod tokens;
pub mod usage;
pub mod yes;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::{ConnectOptions, Database, DatabaseConnection, DbErr};
use sea_orm_migration::MigratorTrait as _;

use crate::fault;

/// The database's file in the data directory.
pub const FILE: &str = "portcullis.db";

/// Something the database could not do.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// There is no database there yet.
    #[error("there is no log at `{0}`; has `portcullis up` run on this directory?")]
    Absent(PathBuf),
    /// The engine said no: a full disk, a lock held too long, a damaged file.
    #[error("the database refused: {0}")]
    Refused(#[source] DbErr),
    /// A row that cannot be read as what it should be.
    #[error("a stored {what} cannot be read")]
    Unreadable {
        /// Which kind of row.
        what: &'static str,
    },
}

impl From<DbErr> for DbError {
    fn from(error: DbErr) -> Self {
        Self::Refused(error)
    }
}

/// The open database.
#[derive(Clone, Debug)]
pub struct Db {
    conn: DatabaseConnection,
}

impl Db {
    /// Opens, or makes, the database of a data directory.
    ///
    /// # Errors
    /// [`DbError::Refused`], if it cannot be opened or its tables cannot be brought up to date.
    pub async fn open(data: &Path) -> Result<Self, DbError> {
        let db = Self {
            conn: connect(data, FILE, "rwc", Durable::Always).await?,
        };
        migrations::Migrator::up(&db.conn, None).await?;
        fault::point("start.database").await;
        Ok(db)
    }

    /// Opens the database to read from it, beside a running instance or without one.
    ///
    /// # Errors
    /// [`DbError`], if there is none or it cannot be opened.
    pub async fn open_to_read(data: &Path) -> Result<Self, DbError> {
        let file = data.join(FILE);
        if !file.exists() {
            return Err(DbError::Absent(file));
        }
        Ok(Self {
            conn: connect(data, FILE, "rw", Durable::Always).await?,
        })
    }

    /// The tables of channels.
    pub fn channels(&self) -> channels::db::Db {
        channels::db::Db::new(self.conn.clone())
    }

    /// The tables of groups.
    pub fn groups(&self) -> groups::db::Db {
        groups::db::Db::new(self.conn.clone())
    }

    /// The notes of groups.
    pub fn notes(&self) -> groups::notes::Notes {
        groups::notes::Notes::new(self.conn.clone())
    }

    /// Waits for what is being written, and closes.
    pub async fn close(self) {
        if let Err(error) = self.conn.close().await {
            tracing::warn!("the database did not close cleanly: {error}");
        }
    }
}

/// What a power cut may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Durable {
    /// Nothing that was committed.
    Always,
    /// The newest commits, for what can be made again.
    Mostly,
}

async fn connect(
    data: &Path,
    file: &str,
    mode: &str,
    durable: Durable,
) -> Result<DatabaseConnection, DbError> {
    // Percent-encoded, so that no character of a path is read as a part of the address.
    let path: String = data.join(file).as_os_str().as_encoded_bytes().iter().fold(
        String::new(),
        |mut out, byte| {
            if byte.is_ascii_alphanumeric() || b"/._-".contains(byte) {
                out.push(char::from(*byte));
            } else {
                use std::fmt::Write as _;
                let _ = write!(out, "%{byte:02X}");
            }
            out
        },
    );
    let mut options = ConnectOptions::new(format!("sqlite://{path}?mode={mode}"));
    options
        .max_connections(4)
        .sqlx_logging(false)
        .acquire_timeout(Duration::from_secs(10))
        .map_sqlx_sqlite_opts(move |sqlite| {
            sqlite
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(match durable {
                    Durable::Always => SqliteSynchronous::Full,
                    Durable::Mostly => SqliteSynchronous::Normal,
                })
                .busy_timeout(Duration::from_secs(5))
                .foreign_keys(true)
        });
    #[cfg_attr(
        not(feature = "faults"),
        expect(unused_mut, reason = "only faults listen")
    )]
    let mut conn = Database::connect(options).await?;
    #[cfg(feature = "faults")]
    conn.set_metric_callback(|told| fault::statement(&told.statement.sql));
    Ok(conn)
}
