//! The log: one writer, groups of entries to a commit, and every entry on the disk before its
//! action begins.

pub mod read;

use std::sync::Arc;

use jiff::Timestamp;
use policy::ids::ConversationId;
use policy::label::{Label, Provenance};
use policy::record::{Entry, Event, Walk};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::db::chain::Link;
pub use crate::db::chain::Opens;
use crate::db::{Db, DbError};
use crate::keys::Keys;

/// No record, so no action.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the log cannot be written, so nothing is done: {0}")]
pub struct NoRecord(String);

impl NoRecord {
    /// The gateway stops, so nothing is written any more.
    pub(crate) fn stopped() -> Self {
        Self("the gateway is stopping".to_owned())
    }
}

/// One entry to be written.
#[derive(Clone, Debug)]
pub struct Write {
    /// The action it is about.
    pub id: String,
    /// What it says.
    pub event: Event,
    /// What it does to the list of open actions.
    pub opens: Opens,
    /// The labels that a conversation takes on with it.
    pub labels: Vec<(ConversationId, Label, Provenance)>,
}

impl Write {
    /// An entry that opens and labels nothing.
    pub fn new(id: impl Into<String>, event: Event) -> Self {
        Self {
            id: id.into(),
            event,
            opens: Opens::No,
            labels: Vec::new(),
        }
    }

    /// The same, with what it does to the list of open actions.
    #[must_use]
    pub fn opens(self, opens: Opens) -> Self {
        Self { opens, ..self }
    }
}

struct Job {
    /// Nothing, for a job that only waits for those before it.
    write: Option<Write>,
    at: Timestamp,
    done: Option<oneshot::Sender<Result<(), NoRecord>>>,
}

/// The most entries that wait for the writer; past that, callers wait too.
const QUEUE: usize = 4096;
/// The most entries of one commit.
const GROUP: usize = 256;

/// The way to the one writer.
#[derive(Clone, Debug)]
pub struct Audit {
    jobs: mpsc::Sender<Job>,
}

impl Audit {
    /// Starts the writer where the chain ends. It stops when the last [`Audit`] is gone.
    ///
    /// # Errors
    /// [`DbError`], if the chain's end cannot be read.
    pub async fn start(db: Db, keys: Arc<Keys>) -> Result<(Self, JoinHandle<()>), DbError> {
        let walk = db
            .chain_end()
            .await?
            .map(|end| end.walk)
            .unwrap_or_default();
        let (jobs, queue) = mpsc::channel(QUEUE);
        let writer = tokio::spawn(write_all(db, keys, walk, queue));
        Ok((Self { jobs }, writer))
    }

    /// Writes an entry; it is on the disk when this returns.
    ///
    /// # Errors
    /// [`NoRecord`]: then what it is about must not be done.
    pub async fn write(&self, write: Write) -> Result<(), NoRecord> {
        let (done, wait) = oneshot::channel();
        let job = Job {
            write: Some(write),
            at: Timestamp::now(),
            done: Some(done),
        };
        self.jobs.send(job).await.map_err(|_| NoRecord::stopped())?;
        wait.await.map_err(|_| NoRecord::stopped())?
    }

    /// Writes an entry that nothing waits for: the end of an action that was simply allowed.
    pub async fn write_later(&self, write: Write) {
        let job = Job {
            write: Some(write),
            at: Timestamp::now(),
            done: None,
        };
        if self.jobs.send(job).await.is_err() {
            tracing::error!("an entry came after the log was closed");
        }
    }
}

impl Audit {
    /// Waits until everything that was given to the writer so far is on the disk, or has failed.
    pub async fn settle(&self) {
        let (done, wait) = oneshot::channel();
        let job = Job {
            write: None,
            at: Timestamp::now(),
            done: Some(done),
        };
        if self.jobs.send(job).await.is_ok() {
            let _ = wait.await;
        }
    }
}

async fn write_all(db: Db, keys: Arc<Keys>, mut walk: Walk, mut queue: mpsc::Receiver<Job>) {
    let mut jobs = Vec::with_capacity(GROUP);
    while queue.recv_many(&mut jobs, GROUP).await > 0 {
        let result = write_group(&db, &keys, &walk, &jobs).await;
        let answer = match result {
            Ok(next) => {
                walk = next;
                Ok(())
            }
            Err(error) => {
                tracing::error!("the log cannot be written: {error}");
                // Whether the commit took effect is not known: ask where the chain ends now.
                if let Ok(end) = db.chain_end().await {
                    walk = end.map(|end| end.walk).unwrap_or_default();
                }
                Err(NoRecord(error.to_string()))
            }
        };
        for job in jobs.drain(..) {
            if let Some(done) = job.done {
                let _ = done.send(answer.clone());
            } else if let (Err(_), Some(write)) = (&answer, &job.write) {
                tracing::error!(action.id = %write.id, "the end of `{}` is not in the log", write.id);
            }
        }
    }
}

async fn write_group(db: &Db, keys: &Keys, walk: &Walk, jobs: &[Job]) -> Result<Walk, DbError> {
    let mut next = walk.clone();
    let mut links = Vec::with_capacity(jobs.len());
    for (write, at) in jobs
        .iter()
        .filter_map(|job| Some((job.write.as_ref()?, job.at)))
    {
        let body = serde_json::to_string(&write.event)
            .map_err(|_| DbError::Unreadable { what: "entry" })?;
        let entry = Entry::seal(
            next.seq + 1,
            write.id.clone(),
            at.as_millisecond(),
            body,
            next.hash,
        );
        next = Walk {
            seq: entry.seq,
            hash: entry.hash.clone(),
        };
        links.push(Link {
            entry,
            opens: write.opens,
            labels: write.labels.clone(),
        });
    }
    db.chain_add(&links, keys.mac(&end_text(&next))).await?;
    Ok(next)
}

/// What the keyed digest over the chain's end is taken of.
fn end_text(walk: &Walk) -> String {
    format!("{}:{}", walk.seq, walk.hash)
}
