//! Reading the log, with or without a running instance.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use policy::action::Digest;
use policy::decision::{Facts, Why};
use policy::record::{Bad, Entry, Event, Story, Walk, apart};
use serde::Serialize;

use super::checkpoint::{self, Checkpoint, FileError};
use super::{end_text, retention};
use crate::db::chain::Start;
use crate::db::{Db, DbError};
use crate::keys::{KeyError, Keys, Mac, PublicKey};

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
    /// How many older ones were removed.
    pub removed: i64,
    /// The hash of the last.
    pub head: String,
    /// How many checkpoints were signed of it.
    pub checkpoints: usize,
    /// Up to which record.
    pub signed_to: i64,
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
    /// The checkpoints cannot be used.
    #[error(transparent)]
    Checkpoints(#[from] FileError),
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

/// Entries with what they say; one that says nothing that is known is left out.
pub fn events(entries: Vec<Entry>) -> impl Iterator<Item = (Entry, Event)> {
    read(entries)
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

/// Walks the whole chain, and compares it with what was signed of it: its end, its beginning where
/// older records were removed, and every checkpoint; `copies` are files of checkpoints in other places.
///
/// # Errors
/// [`VerifyError::Bad`] with the first record that does not fit; the others if the log cannot be
/// read.
pub async fn verify(data: &Path, copies: &[PathBuf]) -> Result<Verified, VerifyError> {
    let signed = Signed::open(data, copies)?;
    let db = Db::open_to_read(data).await?;
    let walked = loop {
        let start = db.chain_start().await?;
        let walked = walk(&db, &signed, start.as_ref()).await;
        // Where old records were removed meanwhile it is another log.
        if walked.is_ok() || db.chain_start().await? == start {
            break walked;
        }
    };
    db.close().await;
    walked
}

/// What was signed of a log.
struct Signed {
    mac: Option<Mac>,
    key: Option<PublicKey>,
    instance: Option<String>,
    checkpoints: Vec<Checkpoint>,
}

impl Signed {
    fn open(data: &Path, copies: &[PathBuf]) -> Result<Self, VerifyError> {
        let key = Keys::open_public(data)?;
        let mut checkpoints = Vec::new();
        if let Some(key) = &key {
            checkpoints = checkpoint::read(&data.join(checkpoint::FILE), key)?;
            for copy in copies {
                checkpoints.extend(checkpoint::read(copy, key)?);
            }
        }
        checkpoints.sort_by(|one, two| (one.seq, &one.hash).cmp(&(two.seq, &two.hash)));
        checkpoints.dedup_by(|one, two| (one.seq, &one.hash) == (two.seq, &two.hash));
        Ok(Self {
            mac: Keys::open_mac(data)?,
            key,
            instance: Keys::instance_of(data)?,
            checkpoints,
        })
    }

    /// Where the walk begins.
    fn begin(&self, start: Option<&Start>) -> Result<Walk, Bad> {
        let Some(start) = start else {
            return Ok(Walk::default());
        };
        let key = self.key.as_ref().zip(self.instance.as_ref());
        if key.is_some_and(|(key, instance)| retention::is_signed(start, instance, key)) {
            return Ok(Walk {
                seq: start.seq,
                hash: start.hash.clone(),
            });
        }
        let problem = "the mark of where the log begins is not the one that was signed".to_owned();
        let (seq, id) = (start.seq + 1, String::new());
        Err(Bad { seq, id, problem })
    }

    /// Compares some entries, each of which fits the one before, with the checkpoints.
    fn compare(&self, entries: &[Entry]) -> Result<(), Bad> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Ok(());
        };
        let from = self.checkpoints.partition_point(|one| one.seq < first.seq);
        let these = self.checkpoints.iter().skip(from);
        for checkpoint in these.take_while(|one| one.seq <= last.seq) {
            let at = usize::try_from(checkpoint.seq - first.seq).ok();
            let entry = at.and_then(|at| entries.get(at));
            if let Some(entry) = entry.filter(|entry| entry.hash != checkpoint.hash) {
                return Err(Bad {
                    seq: entry.seq,
                    id: entry.id.clone(),
                    problem: format!(
                        "another one was signed at {}: the log up to here was written anew, or an older copy was put back and went on",
                        checkpoint.when()
                    ),
                });
            }
        }
        Ok(())
    }

    /// The first checkpoint of what is no longer there.
    fn beyond(&self, walk: &Walk) -> Option<Bad> {
        let beyond = self.checkpoints.iter().find(|one| one.seq > walk.seq)?;
        Some(Bad {
            seq: walk.seq + 1,
            id: String::new(),
            problem: format!(
                "it was removed, or an older copy was put back: at {} the log went to record {}",
                beyond.when(),
                beyond.seq
            ),
        })
    }
}

async fn walk(db: &Db, signed: &Signed, start: Option<&Start>) -> Result<Verified, VerifyError> {
    const PAGE: u64 = 1000;
    // The end first: what is written while we walk comes after it.
    let end = db.chain_end().await?;
    let mut walk = signed.begin(start)?;
    let from = walk.seq;
    let mut at_end = None;
    let mut page = db.chain_page(i64::MIN, PAGE).await?;
    while let Some(after) = page.last().map(|entry| entry.seq) {
        if let Some(end) = &end {
            let found = page.iter().find(|entry| entry.seq == end.walk.seq);
            at_end = at_end.or_else(|| found.cloned());
        }
        // The next page is read while this one is checked.
        let checked = tokio::task::spawn_blocking(move || {
            let walked = check(walk, &page);
            (walked, page)
        });
        let (checked, next) = tokio::join!(checked, db.chain_page(after, PAGE));
        let (walked, entries) = match checked {
            Ok(done) => done,
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        };
        walk = walked?;
        signed.compare(&entries)?;
        values(db, &entries).await?;
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
                && (signed.mac.as_ref())
                    .is_some_and(|mac| mac.fits(&end_text(&end.walk), &end.mac));
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
    if let Some(bad) = signed.beyond(&walk) {
        return Err(bad.into());
    }
    let of_this = signed.checkpoints.iter().filter(|one| one.seq > from);
    let (checkpoints, signed_to) = of_this.fold((0, from), |(n, _), one| (n + 1, one.seq));
    Ok(Verified {
        entries: walk.seq - from,
        removed: from,
        head: walk.hash,
        checkpoints,
        signed_to,
    })
}

/// What the last checkpoint says that the log does not: it was cut off, written anew, or an older copy
/// was put back. For the next start to tell; `None` where all is well.
pub async fn behind(data: &Path, db: &Db) -> Option<String> {
    let signed = match Signed::open(data, &[]) {
        Ok(signed) => signed,
        Err(error) => {
            return Some(format!(
                "the checkpoints of the log cannot be read: {error}"
            ));
        }
    };
    let last = signed.checkpoints.last()?;
    match db.place_at(last.seq).await {
        Ok(Some(place)) if place.hash == last.hash => None,
        Ok(found) => {
            let start = db.chain_start().await.ok().flatten();
            if found.is_none() && start.is_some_and(|start| start.seq >= last.seq) {
                return None;
            }
            Some(format!(
                "the log was found without record {} as it was signed at {}: it was cut off or written anew, or an older copy was put back",
                last.seq,
                last.when()
            ))
        }
        Err(error) => Some(format!("the log cannot be read: {error}")),
    }
}

/// Looks at the large values that entries name.
async fn values(db: &Db, entries: &[Entry]) -> Result<(), VerifyError> {
    for entry in entries {
        let parts = apart::parts(&entry.body);
        if parts.is_empty() {
            continue;
        }
        let digests = parts.iter().map(|part| part.digest.to_string()).collect();
        let values = db.payloads(digests).await?;
        for part in parts {
            let value = values.get(part.digest.as_str());
            if value.is_none_or(|value| Digest::of(value.as_bytes()) != part.digest) {
                return Err(Bad {
                    seq: entry.seq,
                    id: entry.id.clone(),
                    problem: format!("its value at `{}` was changed or removed", part.at),
                }
                .into());
            }
        }
    }
    Ok(())
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
            about: None,
        }
    }

    #[tokio::test]
    async fn a_record_that_fits_but_comes_after_the_signed_end_is_bad() {
        let data = tempfile::tempdir().unwrap();
        let keys = Arc::new(Keys::open(data.path()).unwrap());
        let db = Db::open(data.path()).await.unwrap();
        let (audit, _writer) = Audit::start(db.clone(), keys, None).await.unwrap();
        audit.write(Write::new("note_1", noted())).await.unwrap();
        assert_eq!(verify(data.path(), &[]).await.unwrap().entries, 1);

        let end = db.chain_end().await.unwrap().unwrap();
        let body = serde_json::to_string(&noted()).unwrap();
        let entry = Entry::seal(2, "note_2".to_owned(), 0, body, end.walk.hash.clone());
        let forged = Link {
            entry,
            apart: Vec::new(),
            opens: Opens::No,
            labels: Vec::new(),
            put: None,
            loses: None,
        };
        db.chain_forge(&forged, &end).await.unwrap();
        let bad = verify(data.path(), &[]).await.unwrap_err();
        assert!(
            matches!(&bad, VerifyError::Bad(bad) if bad.seq == 2),
            "{bad}"
        );
    }
}
