//! Keeps the index over the log behind the log, and finds stories with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use policy::record::{Entry, Story};
use tokio_util::sync::CancellationToken;

use super::find::{NoTime, Wanted, document};
use super::{Audit, read};
use crate::db::search::{Document, Place, Search};
use crate::db::{Db, DbError};

/// How many entries are read for one step.
const STEP: u64 = 500;
/// How long new entries wait for others before they are indexed.
const PAUSE: Duration = Duration::from_millis(500);

/// The log, with an index over it.
#[derive(Clone, Debug)]
pub struct Index {
    db: Db,
    search: Search,
}

/// Nothing can be looked for.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The database said no.
    #[error(transparent)]
    Db(#[from] DbError),
    /// A time cannot be read.
    #[error(transparent)]
    Time(#[from] NoTime),
}

impl Index {
    /// Opens the index of a data directory, over its log.
    ///
    /// # Errors
    /// [`DbError`], if it can be neither opened nor made.
    pub async fn open(data: &Path, db: Db) -> Result<Self, DbError> {
        let search = Search::open(data).await?;
        Ok(Self { db, search })
    }

    /// Waits for what is being written, and closes.
    pub async fn close(self) {
        self.search.close().await;
    }

    /// Follows the log until the gateway stops.
    pub async fn follow(self, audit: Audit, stopping: CancellationToken) {
        let mut grown = audit.grown();
        drop(audit);
        loop {
            if let Err(error) = self.catch_up().await {
                tracing::error!("the index over the log cannot be written: {error}");
            }
            let wait = async {
                let _ = grown.changed().await;
                tokio::time::sleep(PAUSE).await;
            };
            tokio::select! {
                () = stopping.cancelled() => return,
                () = wait => {}
            }
        }
    }

    /// Reads what of the log was not read yet.
    ///
    /// # Errors
    /// [`DbError`], if the log cannot be read or the index not be written.
    pub async fn catch_up(&self) -> Result<(), DbError> {
        let mut place = self.search.place().await?;
        if place.seq > 0 && self.db.place_at(place.seq).await?.as_ref() != Some(&place) {
            // Another log than the one that was read: a copy was put back.
            self.search.clear().await?;
            place = self.search.place().await?;
        }
        loop {
            let page = self.db.chain_page(place.seq, STEP).await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            let next = Place {
                seq: last.seq,
                hash: last.hash.clone(),
            };
            let documents = self.documents(self.db.whole(page).await?).await?;
            place = if self.search.take(&documents, &place, &next).await? {
                next
            } else {
                self.search.place().await?
            };
        }
    }

    /// The stories that entries belong to, as they are now.
    async fn documents(&self, page: Vec<Entry>) -> Result<Vec<Document>, DbError> {
        let mut stories: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        let mut begun = BTreeSet::new();
        for entry in page {
            if begins(&entry) {
                begun.insert(entry.id.clone());
            }
            stories.entry(entry.id.clone()).or_default().push(entry);
        }
        // What began before this page is read whole.
        let older: Vec<String> = stories
            .keys()
            .filter(|id| !begun.contains(*id))
            .cloned()
            .collect();
        stories.retain(|id, _| begun.contains(id));
        for entry in self.db.entries_of(older).await? {
            stories.entry(entry.id.clone()).or_default().push(entry);
        }
        Ok(stories
            .values()
            .filter_map(|entries| document(entries))
            .collect())
    }

    /// Forgets the stories up to a position, which are no longer in the log.
    ///
    /// # Errors
    /// [`DbError`], if the index cannot be written.
    pub async fn forget(&self, upto: i64) -> Result<(), DbError> {
        self.search.forget(upto).await
    }

    /// The stories that are wanted and may be seen, newest first, and the position to go on before,
    /// if there may be more. `groups` are those that the reader may see; `None` for all.
    ///
    /// # Errors
    /// [`FindError`], if the log cannot be read or a time is none.
    pub async fn find(
        &self,
        wanted: &Wanted,
        groups: Option<&[String]>,
        limit: usize,
        may_see: impl Fn(&Story) -> bool,
    ) -> Result<(Vec<Story>, Option<i64>), FindError> {
        self.catch_up().await?;
        let found = self.look(wanted, groups, false, limit, &may_see).await?;
        // Whole words before beginnings of words: what nobody has may still begin one.
        if found.0.is_empty() && wanted.has_words() {
            return self.look(wanted, groups, true, limit, &may_see).await;
        }
        Ok(found)
    }

    async fn look(
        &self,
        wanted: &Wanted,
        groups: Option<&[String]>,
        begins: bool,
        limit: usize,
        may_see: &impl Fn(&Story) -> bool,
    ) -> Result<(Vec<Story>, Option<i64>), FindError> {
        /// Every story may be as large as a request: few of them are in memory at a time.
        const AT_ONCE: u64 = 50;
        /// How many steps a page takes at most: a search for what is rare comes in several pages.
        const STEPS: usize = 40;
        let now = Timestamp::now();
        let mut bounds = wanted.bounds(groups, begins, now)?;
        let mut found = Vec::new();
        for _ in 0..STEPS {
            let hits = self.search.find(&bounds, AT_ONCE).await?;
            let full = u64::try_from(hits.len()).is_ok_and(|hits| hits == AT_ONCE);
            let Some(last) = hits.last().map(|(seq, _)| *seq) else {
                return Ok((found, None));
            };
            let ids = hits.into_iter().map(|(_, id)| id).collect();
            let mut stories = read::stories_of(&self.db, ids).await?;
            stories.reverse();
            for story in stories {
                if !may_see(&story) || !wanted.fits(&story, now)? {
                    continue;
                }
                if found.len() == limit {
                    return Ok((found, Some(bounds.before)));
                }
                bounds.before = story.seq;
                found.push(story);
            }
            bounds.before = last;
            if !full {
                return Ok((found, None));
            }
        }
        Ok((found, Some(bounds.before)))
    }
}

/// Whether an entry begins the story of an action: the tag of an event is the first thing in its
/// text. Of what is not known to begin one, all entries are read.
fn begins(entry: &Entry) -> bool {
    entry.body.starts_with("{\"event\":\"decided\"")
}

#[cfg(test)]
mod tests;
