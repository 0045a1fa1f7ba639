//! Reading the log, with or without a running instance.

use std::collections::BTreeMap;
use std::path::Path;

use policy::decision::{Facts, Why};
use policy::record::{Bad, Entry, Event, Story, Walk};
use serde::Serialize;

use super::end_text;
use crate::db::{Db, DbError};
use crate::keys::{KeyError, Keys};

/// The log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The database said no.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// A log in which every record fits.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    /// How many records it has.
    pub entries: i64,
    /// The hash of the last.
    pub head: String,
}

/// A log that does not fit, or could not be read.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The first record that does not fit.
    #[error(transparent)]
    Bad(#[from] Bad),
    /// The database said no.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The key of the log cannot be read.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// The story of an action; a question's id finds the action it was about.
///
/// # Errors
/// [`ReadError`], if the log cannot be read.
pub async fn story(data: &Path, id: &str) -> Result<Option<Story>, ReadError> {
    let db = Db::open_to_read(data).await?;
    let found = async {
        let action = match db.question(id).await? {
            Some(question) => question.action,
            None => id.to_owned(),
        };
        Ok::<_, DbError>(fold(&db.entries_of(vec![action]).await?).pop())
    }
    .await;
    db.close().await;
    Ok(found?)
}

/// What the log says of an action, entry by entry; a question's id finds the action it was about.
///
/// # Errors
/// [`DbError`], if the log cannot be read.
pub async fn entries(db: &Db, id: &str) -> Result<Vec<(Entry, Event)>, DbError> {
    let action = match db.question(id).await? {
        Some(question) => question.action,
        None => id.to_owned(),
    };
    let entries = db.entries_of(vec![action]).await?;
    Ok(read(entries).collect())
}

/// What some actions were decided from, and why, by the action's id.
///
/// # Errors
/// [`DbError`], if the log cannot be read.
pub async fn decided(
    db: &Db,
    actions: Vec<String>,
) -> Result<BTreeMap<String, (Facts, Why)>, DbError> {
    const AT_ONCE: usize = 200;
    let mut found = BTreeMap::new();
    for actions in actions.chunks(AT_ONCE) {
        let entries = db.entries_of(actions.to_vec()).await?;
        for (entry, event) in read(entries) {
            if let Event::Decided { facts, why, .. } = event {
                found.insert(entry.id, (*facts, why));
            }
        }
    }
    Ok(found)
}

fn read(entries: Vec<Entry>) -> impl Iterator<Item = (Entry, Event)> {
    entries.into_iter().filter_map(|entry| {
        let event = serde_json::from_str(&entry.body).ok()?;
        Some((entry, event))
    })
}

/// The story that entries tell; `None` if they tell none.
pub fn told(entries: &[Entry]) -> Option<Story> {
    fold(entries).pop()
}

/// The stories of some actions, oldest first.
///
/// # Errors
/// [`DbError`], if the log cannot be read.
pub async fn stories_of(db: &Db, actions: Vec<String>) -> Result<Vec<Story>, DbError> {
    Ok(fold(&db.entries_of(actions).await?))
}

/// Puts entries, in the order of the chain, together into stories.
fn fold(entries: &[Entry]) -> Vec<Story> {
    let mut stories: BTreeMap<i64, Story> = BTreeMap::new();
    let mut first: BTreeMap<&str, i64> = BTreeMap::new();
    for entry in entries {
        if let Some(story) = first
            .get(entry.id.as_str())
            .and_then(|seq| stories.get_mut(seq))
        {
            story.go_on(entry);
        } else if let Some(story) = Story::begin(entry) {
            first.insert(&entry.id, entry.seq);
            stories.insert(entry.seq, story);
        }
    }
    stories.into_values().collect()
}

/// Walks the whole chain, and compares its end with the keyed digest over it.
///
/// # Errors
/// [`VerifyError::Bad`] with the first record that does not fit; the others if the log cannot be
/// read.
pub async fn verify(data: &Path) -> Result<Verified, VerifyError> {
    let key = Keys::open_mac(data)?;
    let db = Db::open_to_read(data).await?;
    let walked = walk(&db, key.as_ref()).await;
    db.close().await;
    walked
}

async fn walk(db: &Db, key: Option<&crate::keys::Mac>) -> Result<Verified, VerifyError> {
    const PAGE: u64 = 1000;
    // The end first: what is written while we walk comes after it.
    let end = db.chain_end().await?;
    let mut walk = Walk::default();
    let mut at_end = None;
    let mut page = db.chain_page(i64::MIN, PAGE).await?;
    while let Some(after) = page.last().map(|entry| entry.seq) {
        if let Some(end) = &end {
            let found = page.iter().find(|entry| entry.seq == end.walk.seq);
            at_end = at_end.or_else(|| found.cloned());
        }
        // The next page is read while this one is checked.
        let checked = tokio::task::spawn_blocking(move || check(walk, &page));
        let (checked, next) = tokio::join!(checked, db.chain_page(after, PAGE));
        walk = match checked {
            Ok(walk) => walk?,
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        };
        page = next?;
    }
    let missing = |seq: i64, problem: &str| Bad {
        seq,
        id: String::new(),
        problem: problem.to_owned(),
    };
    match end {
        None if walk.seq == 0 => {
            if db.chain_is_missing().await? {
                let problem = "the log is empty, though there are tokens, questions or labels that it recorded";
                return Err(missing(1, problem).into());
            }
        }
        None => return Err(missing(walk.seq, "the mark of where the log ends was removed").into()),
        Some(end) => {
            let Some(entry) = at_end else {
                return Err(missing(walk.seq + 1, "it was removed: the log should go on").into());
            };
            let fits = entry.hash == end.walk.hash
                && key.is_some_and(|key| key.fits(&end_text(&end.walk), &end.mac));
            if !fits {
                let problem =
                    "the log was written anew up to here: its end is not the one that was signed"
                        .to_owned();
                return Err(Bad {
                    seq: entry.seq,
                    id: entry.id,
                    problem,
                }
                .into());
            }
            // An entry and the end are one commit, so what was just read is before the end of now.
            let now = db.chain_end().await?;
            if walk.seq > end.walk.seq && now.is_none_or(|now| now.walk.seq < walk.seq) {
                let problem = "it was added after the signed end of the log";
                return Err(missing(end.walk.seq + 1, problem).into());
            }
        }
    }
    Ok(Verified {
        entries: walk.seq,
        head: walk.hash,
    })
}

/// Walks on over some entries.
fn check(mut walk: Walk, entries: &[Entry]) -> Result<Walk, Bad> {
    for entry in entries {
        walk.step(entry)?;
    }
    Ok(walk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Audit, Write};
    use crate::db::chain::{Link, Opens};
    use std::sync::Arc;

    fn noted() -> Event {
        Event::Noted {
            by: "user:ana".to_owned(),
            what: "something".to_owned(),
        }
    }

    #[tokio::test]
    async fn a_record_that_fits_but_comes_after_the_signed_end_is_bad() {
        let data = tempfile::tempdir().unwrap();
        let keys = Arc::new(Keys::open(data.path()).unwrap());
        let db = Db::open(data.path()).await.unwrap();
        let (audit, _writer) = Audit::start(db.clone(), keys).await.unwrap();
        audit.write(Write::new("note_1", noted())).await.unwrap();
        assert_eq!(verify(data.path()).await.unwrap().entries, 1);

        let end = db.chain_end().await.unwrap().unwrap();
        let body = serde_json::to_string(&noted()).unwrap();
        let entry = Entry::seal(2, "note_2".to_owned(), 0, body, end.walk.hash.clone());
        let forged = Link {
            entry,
            opens: Opens::No,
            labels: Vec::new(),
            put: None,
        };
        db.chain_forge(&forged, &end).await.unwrap();
        let bad = verify(data.path()).await.unwrap_err();
        assert!(
            matches!(&bad, VerifyError::Bad(bad) if bad.seq == 2),
            "{bad}"
        );
    }
}
