//! The index over the log: which stories hold which words. A file of its own, beside the database.
//!
//! Everything in it was read from the log and can be read again, so it is not as durable as the log,
//! its writer never waits for the log's nor the log's for it, and a file that is damaged, or of
//! another version, is made anew. What it finds is shown from the log itself.

use std::path::Path;

use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr, Statement, TransactionTrait, Value};
use serde_json::json;

use super::{Db, DbError, Durable, connect};

/// The index's file in the data directory.
pub const FILE: &str = "search.db";

/// Which tables are in it.
const VERSION: i64 = 1;

const TABLES: [&str; 5] = [
    // One row: how far the log was read, and the hash there, which says that it is still that log.
    "CREATE TABLE place (one INTEGER PRIMARY KEY NOT NULL, seq BIGINT NOT NULL, hash TEXT NOT NULL)",
    "INSERT INTO place VALUES (1, 0, '')",
    "CREATE TABLE stories (seq INTEGER PRIMARY KEY NOT NULL, id TEXT NOT NULL, at BIGINT NOT NULL)",
    "CREATE INDEX stories_by_time ON stories (at)",
    // No contents: they are in the log. `rowid` is the position of the story's first entry.
    "CREATE VIRTUAL TABLE words USING fts5(text, tags, content = '', contentless_delete = 1, \
     tokenize = \"unicode61 remove_diacritics 2\")",
];

/// What the index knows of one story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The position of its first entry.
    pub seq: i64,
    /// Its id.
    pub id: String,
    /// When it began, in milliseconds since 1970.
    pub at: i64,
    /// Its words.
    pub text: String,
    /// What it can be filtered by, as words of their own.
    pub tags: String,
}

/// Where in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The position of an entry; 0 before the first.
    pub seq: i64,
    /// Its hash.
    pub hash: String,
}

/// Which stories.
#[derive(Clone, Debug, Default)]
pub struct Bounds {
    /// In the syntax of FTS5; `None` for all.
    pub words: Option<String>,
    /// Before this position.
    pub before: i64,
    /// Not older than this, in milliseconds since 1970.
    pub since: Option<i64>,
    /// Older than this.
    pub until: Option<i64>,
}

/// The open index.
#[derive(Clone, Debug)]
pub struct Search {
    conn: DatabaseConnection,
}

impl Search {
    /// Opens, or makes, the index of a data directory.
    ///
    /// # Errors
    /// [`DbError`], if it can be neither opened nor made.
    pub async fn open(data: &Path) -> Result<Self, DbError> {
        match Self::try_open(data).await {
            Ok(Some(search)) => return Ok(search),
            Ok(None) => {}
            Err(error) => tracing::warn!("the index over the log is made anew: {error}"),
        }
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(data.join(format!("{FILE}{end}")));
        }
        let made = Self::try_open(data).await?;
        made.ok_or(DbError::Unreadable { what: "index" })
    }

    /// `None` if it is of another version.
    async fn try_open(data: &Path) -> Result<Option<Self>, DbError> {
        let conn = connect(data, FILE, "rwc", Durable::Mostly).await?;
        let search = Self { conn };
        match search
            .number("SELECT user_version AS n FROM pragma_user_version", vec![])
            .await?
        {
            Some(VERSION) => return Ok(Some(search)),
            Some(0) => {}
            Some(_) | None => {
                search.conn.close().await?;
                return Ok(None);
            }
        }
        let tx = search.conn.begin().await?;
        for table in TABLES {
            tx.execute_unprepared(table).await?;
        }
        tx.execute_unprepared(&format!("PRAGMA user_version = {VERSION}"))
            .await?;
        tx.commit().await?;
        Ok(Some(search))
    }

    /// How far the log was read.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be read.
    pub async fn place(&self) -> Result<Place, DbError> {
        let row = self
            .conn
            .query_one_raw(self.statement("SELECT seq, hash FROM place", vec![]))
            .await?
            .ok_or(DbError::Unreadable { what: "index" })?;
        Ok(Place {
            seq: row.try_get("", "seq")?,
            hash: row.try_get("", "hash")?,
        })
    }

    /// Takes in stories, those that are there already anew, and goes on from one place to the next.
    /// Does nothing and says no if somebody else did meanwhile.
    ///
    /// # Errors
    /// [`DbError`], and then nothing was taken in.
    pub async fn take(
        &self,
        documents: &[Document],
        from: &Place,
        to: &Place,
    ) -> Result<bool, DbError> {
        /// How many rows a statement writes; few sizes, so that each is prepared once.
        const SIZES: [usize; 3] = [32, 8, 1];
        let tx = self.conn.begin().await?;
        let sql = "UPDATE place SET seq = ?, hash = ? WHERE seq = ? AND hash = ?";
        let values = vec![
            to.seq.into(),
            to.hash.clone().into(),
            from.seq.into(),
            from.hash.clone().into(),
        ];
        let moved = tx.execute_raw(self.statement(sql, values)).await?;
        if moved.rows_affected() == 0 {
            tx.rollback().await?;
            return Ok(false);
        }
        let rows = documents.iter().map(|one| json!([one.seq, one.id, one.at]));
        let rows = serde_json::Value::Array(rows.collect()).to_string();
        let sql = "INSERT OR REPLACE INTO stories (seq, id, at) \
                   SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?)";
        tx.execute_raw(self.statement(sql, vec![rows.into()]))
            .await?;
        let mut rest = documents;
        for size in SIZES {
            while let Some((some, others)) = rest.split_at_checked(size) {
                let rows = vec!["(?,?,?)"; size].join(",");
                let sql = format!("INSERT OR REPLACE INTO words (rowid, text, tags) VALUES {rows}");
                let values = some.iter().flat_map(|one| -> [Value; 3] {
                    [
                        one.seq.into(),
                        one.text.clone().into(),
                        one.tags.clone().into(),
                    ]
                });
                tx.execute_raw(self.statement(sql, values.collect()))
                    .await?;
                rest = others;
            }
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be written.
    pub async fn clear(&self) -> Result<(), DbError> {
        let tx = self.conn.begin().await?;
        tx.execute_unprepared("UPDATE place SET seq = 0, hash = ''")
            .await?;
        tx.execute_unprepared("DELETE FROM stories").await?;
        tx.execute_unprepared("INSERT INTO words (words) VALUES ('delete-all')")
            .await?;
        Ok(tx.commit().await?)
    }

    /// Forgets the stories up to a position.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be written.
    pub async fn forget(&self, upto: i64) -> Result<(), DbError> {
        let tx = self.conn.begin().await?;
        for sql in [
            "DELETE FROM words WHERE rowid IN (SELECT seq FROM stories WHERE seq <= ?)",
            "DELETE FROM stories WHERE seq <= ?",
        ] {
            tx.execute_raw(self.statement(sql, vec![upto.into()]))
                .await?;
        }
        Ok(tx.commit().await?)
    }

    /// The positions and ids of stories, newest first.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be read.
    pub async fn find(&self, wanted: &Bounds, limit: u64) -> Result<Vec<(i64, String)>, DbError> {
        let (low, high) = self.range(wanted).await?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let (sql, values) = match &wanted.words {
            // The words first: FTS5 gives positions in their order, and stops at the limit.
            Some(words) => (
                "SELECT stories.seq, stories.id FROM words CROSS JOIN stories ON stories.seq = words.rowid \
                 WHERE words MATCH ? AND words.rowid >= ? AND words.rowid < ? ORDER BY words.rowid DESC LIMIT ?",
                vec![words.clone().into(), low.into(), high.into(), limit.into()],
            ),
            None => (
                "SELECT seq, id FROM stories WHERE seq >= ? AND seq < ? ORDER BY seq DESC LIMIT ?",
                vec![low.into(), high.into(), limit.into()],
            ),
        };
        let rows = self.conn.query_all_raw(self.statement(sql, values)).await?;
        rows.into_iter()
            .map(|row| Ok((row.try_get("", "seq")?, row.try_get("", "id")?)))
            .collect()
    }

    /// The positions between which stories may be: entries are written almost in the order of their
    /// times, so whoever asks looks at the times again.
    async fn range(&self, wanted: &Bounds) -> Result<(i64, i64), DbError> {
        /// How many positions an entry may be out of the order of times.
        const SLACK: i64 = 5000;
        let mut low = 0;
        let mut high = wanted.before;
        if let Some(since) = wanted.since {
            let sql = "SELECT seq AS n FROM stories WHERE at >= ? ORDER BY at LIMIT 1";
            let first = self.number(sql, vec![since.into()]).await?;
            low = first.map_or(i64::MAX, |seq| seq.saturating_sub(SLACK));
        }
        if let Some(until) = wanted.until {
            let sql = "SELECT seq AS n FROM stories WHERE at < ? ORDER BY at DESC LIMIT 1";
            let last = self.number(sql, vec![until.into()]).await?;
            high = high.min(last.map_or(0, |seq| seq.saturating_add(SLACK)));
        }
        Ok((low, high))
    }

    /// Waits for what is being written, and closes.
    pub async fn close(self) {
        if let Err(error) = self.conn.close().await {
            tracing::warn!("the index over the log did not close cleanly: {error}");
        }
    }

    /// The number `n` of a row.
    async fn number(&self, sql: &str, values: Vec<Value>) -> Result<Option<i64>, DbErr> {
        let row = self.conn.query_one_raw(self.statement(sql, values)).await?;
        row.map_or(Ok(None), |row| row.try_get("", "n"))
    }

    fn statement(&self, sql: impl Into<String>, values: Vec<Value>) -> Statement {
        Statement::from_sql_and_values(self.conn.get_database_backend(), sql, values)
    }
}

impl Db {
    /// The entry at a position.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be read.
    pub async fn place_at(&self, seq: i64) -> Result<Option<Place>, DbError> {
        let entry = self.chain_page(seq.saturating_sub(1), 1).await?.pop();
        Ok(entry.filter(|entry| entry.seq == seq).map(|entry| Place {
            seq: entry.seq,
            hash: entry.hash,
        }))
    }
}
