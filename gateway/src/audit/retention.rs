//! How long the log is kept. What is older is removed from its beginning, never from its middle: the
//! log then begins with a signed statement of what its first record follows, so that it can still be
//! verified. What is still open is never removed, nor are labels.

use std::time::Duration;

use jiff::Timestamp;
use policy::record::{About, Walk};
use tokio_util::sync::CancellationToken;

use super::index::Index;
use super::{Audit, NoRecord, Write, checkpoint};
use crate::db::chain::Start;
use crate::db::{Db, DbError};
use crate::keys::{Keys, PublicKey};

/// How often it is looked for what is too old.
const EVERY: Duration = Duration::from_hours(1);
/// How many entries a transaction removes: calls wait for it.
const STEP: i64 = 2000;

/// What is signed of a beginning. No other text that this key signs begins so.
fn text(instance: &str, start: &Start) -> String {
    let Start { seq, hash, at, .. } = start;
    format!("portcullis anchor 1\n{instance}\n{seq}\n{hash}\n{at}\n")
}

/// Whether the key of this instance signed a beginning.
pub(super) fn is_signed(start: &Start, instance: &str, key: &PublicKey) -> bool {
    key.fits(&text(instance, start), &start.signature)
}

/// Nothing could be removed.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// The database said no.
    #[error(transparent)]
    Db(#[from] DbError),
    /// What is to be done cannot be recorded.
    #[error(transparent)]
    Record(#[from] NoRecord),
}

/// What is needed to remove what is too old.
#[derive(Debug)]
pub struct Retention<'a> {
    /// The database.
    pub db: &'a Db,
    /// The log.
    pub audit: &'a Audit,
    /// The keys.
    pub keys: &'a Keys,
    /// The index over the log.
    pub index: &'a Index,
}

impl Retention<'_> {
    /// Removes what is older until the gateway stops.
    pub async fn run(&self, keep: Duration, stopping: &CancellationToken) {
        let mut every = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                _ = every.tick() => {}
            }
            match self.prune(keep, Timestamp::now()).await {
                Ok(0) => {}
                Ok(removed) => tracing::info!(
                    "{removed} records were older than the log is kept, and were removed"
                ),
                Err(error) => tracing::error!("old records cannot be removed: {error}"),
            }
        }
    }

    /// Removes what is older than `keep`; returns how many entries that were.
    ///
    /// # Errors
    /// [`PruneError`]; what was removed until then is.
    pub async fn prune(&self, keep: Duration, now: Timestamp) -> Result<i64, PruneError> {
        let Ok(oldest) = now.checked_sub(keep) else {
            return Ok(0);
        };
        let before = self.db.chain_start().await?.map_or(0, |start| start.seq);
        let mut last = before;
        while let Some(walk) = self.db.oldest_before(oldest.as_millisecond(), STEP).await? {
            if last == before {
                // First the record, then what it tells of.
                let what = format!(
                    "records from {} on that are older than {oldest} are removed",
                    before + 1
                );
                let write = Write::noted("portcullis", Some(About::Log), what);
                self.audit.write(write).await?;
            }
            last = walk.seq;
            self.begin_at(walk, now).await?;
        }
        if last > before {
            self.index.forget(last).await?;
            if let Err(error) = checkpoint::forget(&self.keys.checkpoints, last) {
                tracing::warn!("checkpoints of what was removed stay: {error}");
            }
        }
        Ok(last - before)
    }

    async fn begin_at(&self, walk: Walk, now: Timestamp) -> Result<(), DbError> {
        let mut start = Start {
            seq: walk.seq,
            hash: walk.hash,
            at: now.as_millisecond(),
            signature: String::new(),
        };
        start.signature = self.keys.sign(&text(&self.keys.instance, &start));
        self.db.chain_begin(&start).await
    }
}
