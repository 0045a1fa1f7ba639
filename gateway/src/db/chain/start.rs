//! Where the chain begins, once its oldest part was removed.

use policy::record::Walk;
use sea_orm::{ConnectionTrait, Statement, TransactionTrait, Value};

use crate::db::{Db, DbError};

/// Where the chain begins: what its first entry follows, signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The position of the last entry that was removed; as many were.
    pub seq: i64,
    /// Its hash.
    pub hash: String,
    /// When that was signed, in milliseconds since 1970.
    pub at: i64,
    /// Who signs such: see `audit::retention`.
    pub signature: String,
}

impl Db {
    /// Where the chain begins; `None` while it does with its first entry.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be read.
    pub async fn chain_start(&self) -> Result<Option<Start>, DbError> {
        let sql = "SELECT seq, hash, at, signature FROM chain_start";
        let row = self.conn.query_one_raw(self.prepared(sql, vec![])).await?;
        row.map(|row| {
            Ok(Start {
                seq: row.try_get("", "seq")?,
                hash: row.try_get("", "hash")?,
                at: row.try_get("", "at")?,
                signature: row.try_get("", "signature")?,
            })
        })
        .transpose()
    }

    /// Where the chain could begin anew without what is older than a time (in milliseconds since
    /// 1970): the last of its oldest entries, at most `most`, before the first that is younger or
    /// about an action that is still open. `None` if there is none.
    ///
    /// # Errors
    /// [`DbError`], if it cannot be read.
    pub async fn oldest_before(&self, time: i64, most: i64) -> Result<Option<Walk>, DbError> {
        // The newest entry stays, or the chain had no end. What must run later is sealed in its
        // question.
        let sql = "WITH oldest AS (SELECT seq, at, hash FROM audit ORDER BY seq LIMIT ?), \
                   bound AS (SELECT MIN(seq) AS seq FROM ( \
                     SELECT MIN(seq) AS seq FROM oldest WHERE at >= ? \
                     UNION ALL SELECT MAX(seq) FROM audit \
                     UNION ALL SELECT MIN(seq) FROM audit WHERE id IN ( \
                       SELECT id FROM running UNION SELECT action FROM approvals \
                       WHERE sealed IS NOT NULL OR state IN ('pending', 'caller_gone')))) \
                   SELECT seq, hash FROM oldest WHERE seq < (SELECT seq FROM bound) ORDER BY seq DESC LIMIT 1";
        let row = self
            .conn
            .query_one_raw(self.prepared(sql, vec![most.into(), time.into()]))
            .await?;
        row.map(|row| {
            Ok(Walk {
                seq: row.try_get("", "seq")?,
                hash: row.try_get("", "hash")?,
            })
        })
        .transpose()
    }

    /// Begins the chain anew: removes the entries up to there, and the values that only they named.
    ///
    /// # Errors
    /// [`DbError`], and then nothing was removed.
    pub async fn chain_begin(&self, start: &Start) -> Result<(), DbError> {
        let tx = self.conn.begin().await?;
        let sql = "INSERT INTO chain_start (one, seq, hash, at, signature) VALUES (1, ?, ?, ?, ?) ON CONFLICT (one) DO UPDATE \
                   SET seq = excluded.seq, hash = excluded.hash, at = excluded.at, signature = excluded.signature";
        let values: Vec<Value> = vec![
            start.seq.into(),
            start.hash.clone().into(),
            start.at.into(),
            start.signature.clone().into(),
        ];
        tx.execute_raw(self.prepared(sql, values)).await?;
        for sql in [
            "DELETE FROM audit WHERE seq <= ?",
            "DELETE FROM payloads WHERE seq <= ?",
        ] {
            tx.execute_raw(self.prepared(sql, vec![start.seq.into()]))
                .await?;
        }
        Ok(tx.commit().await?)
    }

    fn prepared(&self, sql: &str, values: Vec<Value>) -> Statement {
        Statement::from_sql_and_values(self.conn.get_database_backend(), sql, values)
    }

    /// Does what only SQL by hand does.
    #[cfg(test)]
    pub(crate) async fn by_hand(&self, sql: &str) {
        self.try_by_hand(sql).await.unwrap();
    }

    /// The same, where it may be refused.
    #[cfg(test)]
    pub(crate) async fn try_by_hand(&self, sql: &str) -> Result<(), DbError> {
        self.conn.execute_unprepared(sql).await?;
        Ok(())
    }

    /// How many large values there are.
    #[cfg(test)]
    pub(crate) async fn payloads_stored(&self) -> i64 {
        let sql = "SELECT COUNT(*) AS n FROM payloads";
        let row = self
            .conn
            .query_one_raw(self.prepared(sql, vec![]))
            .await
            .unwrap()
            .unwrap();
        row.try_get("", "n").unwrap()
    }
}
