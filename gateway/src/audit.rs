//! The log: one writer, groups of entries to a commit, and every entry on the disk before its
//! action begins.

pub mod checkpoint;
pub mod export;
pub mod find;
pub mod index;
pub mod read;
pub mod retention;
pub mod why;

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use policy::action::Digest;
use policy::destination::words::Mark;
use policy::ids::ConversationId;
use policy::label::{Label, Provenance};
use policy::record::{About, Entry, Event, Walk, apart};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::db::chain::Link;
pub use crate::db::chain::Opens;
use crate::db::{Db, DbError};
use crate::keys::Keys;

use checkpoint::Checkpoints;

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
    /// What the action puts into its server.
    pub put: Option<(String, Vec<Mark>)>,
    /// The labels that a conversation loses with it.
    pub loses: Option<(ConversationId, BTreeSet<Label>)>,
}

impl Write {
    /// An entry that opens and labels nothing.
    pub fn new(id: impl Into<String>, event: Event) -> Self {
        Self {
            id: id.into(),
            event,
            opens: Opens::No,
            labels: Vec::new(),
            put: None,
            loses: None,
        }
    }

    /// What somebody did to the gateway itself.
    pub fn noted(by: impl Into<String>, about: Option<About>, what: impl Into<String>) -> Self {
        let id = format!("note_{}", uuid::Uuid::now_v7().simple());
        let (by, what) = (by.into(), what.into());
        Self::new(id, Event::Noted { by, what, about })
    }

    /// The same, with what it does to the list of open actions.
    #[must_use]
    pub fn opens(self, opens: Opens) -> Self {
        Self { opens, ..self }
    }
}

struct Job {
    /// Nothing, for a job that only waits for those before it.
    line: Option<Line>,
    /// What it says has happened, so it is written once that can be done again.
    keep: bool,
    done: Option<oneshot::Sender<Result<(), NoRecord>>>,
}

/// An entry that only lacks its place.
#[derive(Clone)]
struct Line {
    id: String,
    at: Timestamp,
    body: String,
    apart: Vec<(Digest, String)>,
    opens: Opens,
    labels: Vec<(ConversationId, Label, Provenance)>,
    put: Option<(String, Vec<Mark>)>,
    loses: Option<(ConversationId, BTreeSet<Label>)>,
}

impl TryFrom<Write> for Line {
    type Error = NoRecord;
    fn try_from(write: Write) -> Result<Self, NoRecord> {
        let body =
            serde_json::to_string(&write.event).map_err(|error| NoRecord(error.to_string()))?;
        let (body, apart) = match apart::take(&body, INLINE) {
            Some(taken) => (taken.body, taken.values),
            None => (body, Vec::new()),
        };
        Ok(Self {
            body,
            apart,
            id: write.id,
            at: Timestamp::now(),
            opens: write.opens,
            labels: write.labels,
            put: write.put,
            loses: write.loses,
        })
    }
}

/// Values longer than this, in bytes, are kept apart from their entry, once each.
const INLINE: usize = 2048;
/// The most entries that wait for the writer; past that, callers wait too.
const QUEUE: usize = 4096;
/// The most entries of one commit.
const GROUP: usize = 256;

/// The most entries that are kept while the log cannot be written. Each ends an action whose beginning
/// could be written, so there are not many.
const KEPT: usize = 4096;
/// How soon these are tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The way to the one writer.
#[derive(Clone, Debug)]
pub struct Audit {
    jobs: mpsc::Sender<Job>,
    waiting: Arc<AtomicUsize>,
    grown: watch::Receiver<i64>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").finish_non_exhaustive()
    }
}

impl Audit {
    /// Starts the writer where the chain ends. It stops when the last [`Audit`] is gone. Checkpoints
    /// go to the file of the keys, and to a copy where one is named.
    ///
    /// # Errors
    /// [`DbError`], if the chain's end cannot be read.
    pub async fn start(
        db: Db,
        keys: Arc<Keys>,
        copy: Option<PathBuf>,
    ) -> Result<(Self, JoinHandle<()>), DbError> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let waiting = Arc::new(AtomicUsize::new(0));
        let walk = end_of(&db).await?;
        let (grows, length) = watch::channel(walk.seq);
        let writer = Writer {
            checkpoints: Checkpoints::new(keys.clone(), copy, walk.seq),
            walk,
            grows,
            db,
            keys,
            unsure: None,
            kept: VecDeque::new(),
            waiting: waiting.clone(),
        };
        let audit = Self {
            jobs,
            waiting,
            grown: length,
        };
        Ok((audit, tokio::spawn(writer.run(queue))))
    }

    /// Writes an entry; it is on the disk when this returns.
    ///
    /// # Errors
    /// [`NoRecord`]: then what it is about must not be done.
    pub async fn write(&self, write: Write) -> Result<(), NoRecord> {
        self.wait(Some(write.try_into()?), false).await
    }

    /// Gives an entry to the writer without waiting: whatever is given to it later comes after. It is on
    /// the disk when what this returns has come to its end.
    ///
    /// # Errors
    /// [`NoRecord`]: there is no room, or it is not written.
    pub fn give(
        &self,
        write: Write,
    ) -> Result<impl Future<Output = Result<(), NoRecord>> + use<>, NoRecord> {
        let (done, wait) = oneshot::channel();
        let job = Job {
            line: Some(write.try_into()?),
            keep: false,
            done: Some(done),
        };
        let full = |_| NoRecord("too much waits to be written".to_owned());
        self.jobs.try_send(job).map_err(full)?;
        Ok(async move { wait.await.map_err(|_| NoRecord::stopped())? })
    }

    /// Writes an entry about what has happened already; where that fails it is kept and written once
    /// it can be.
    ///
    /// # Errors
    /// [`NoRecord`]: it is not on the disk yet.
    pub async fn write_or_keep(&self, write: Write) -> Result<(), NoRecord> {
        self.wait(Some(write.try_into()?), true).await
    }

    /// As [`write_or_keep`](Self::write_or_keep), where nothing waits for it: the end of an action
    /// that was simply allowed.
    pub async fn write_later(&self, write: Write) {
        let sent = match Line::try_from(write) {
            Ok(line) => {
                let job = Job {
                    line: Some(line),
                    keep: true,
                    done: None,
                };
                self.jobs.send(job).await.is_ok()
            }
            Err(_) => false,
        };
        if !sent {
            tracing::error!("an entry came after the log was closed");
        }
    }

    /// Waits until everything that was given to the writer so far is on the disk, or has failed.
    pub async fn settle(&self) {
        let _ = self.wait(None, false).await;
    }

    /// How many entries wait because the log cannot be written.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The position of the last entry on the disk.
    pub fn grown(&self) -> watch::Receiver<i64> {
        self.grown.clone()
    }

    async fn wait(&self, line: Option<Line>, keep: bool) -> Result<(), NoRecord> {
        let (done, wait) = oneshot::channel();
        let stopped = || NoRecord("the gateway is stopping".to_owned());
        let done = Some(done);
        let job = Job { line, keep, done };
        self.jobs.send(job).await.map_err(|_| stopped())?;
        wait.await.map_err(|_| stopped())?
    }
}

/// The one writer.
struct Writer {
    db: Db,
    keys: Arc<Keys>,
    /// Where the chain ends.
    walk: Walk,
    /// Signs that from time to time.
    checkpoints: Checkpoints,
    /// Says so to whoever follows.
    grows: watch::Sender<i64>,
    /// Where it ends if a commit took effect that seemed to fail, and how many of those kept it wrote.
    unsure: Option<(Walk, usize)>,
    /// What has happened and is not in the log yet, oldest first.
    kept: VecDeque<Line>,
    waiting: Arc<AtomicUsize>,
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut jobs = Vec::with_capacity(GROUP);
        loop {
            let due = self.checkpoints.due(&self.walk);
            tokio::select! {
                taken = queue.recv_many(&mut jobs, GROUP) => if taken == 0 { break },
                () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => {}
                () = tokio::time::sleep(AGAIN), if !self.kept.is_empty() => {}
            }
            let result = match self.write_kept().await {
                Ok(()) => self.write_jobs(&jobs).await,
                Err(error) => Err(error),
            };
            let answer = result.map_err(|error| {
                tracing::error!("the log cannot be written: {error}");
                NoRecord(error.to_string())
            });
            for job in jobs.drain(..) {
                if let (Err(_), true, Some(line)) = (&answer, job.keep, job.line) {
                    self.keep(line);
                }
                if let Some(done) = job.done {
                    let _ = done.send(answer.clone());
                }
            }
            self.waiting.store(self.kept.len(), Ordering::Relaxed);
            self.checkpoints.sign_if_due(&self.walk);
        }
        if self.write_kept().await.is_err() {
            for line in &self.kept {
                tracing::error!(action.id = %line.id, "the end of `{}` is not in the log", line.id);
            }
        }
        self.checkpoints.sign(&self.walk);
    }

    fn keep(&mut self, line: Line) {
        if self.kept.len() < KEPT {
            self.kept.push_back(line);
        } else {
            tracing::error!(action.id = %line.id, "the end of `{}` is not in the log", line.id);
        }
    }

    /// What was kept goes first: entries keep their order.
    async fn write_kept(&mut self) -> Result<(), DbError> {
        if let Some((end, count)) = self.unsure.clone() {
            self.walk = end_of(&self.db).await?;
            self.unsure = None;
            if self.walk == end {
                self.kept.drain(..count.min(self.kept.len()));
            }
        }
        while !self.kept.is_empty() {
            let lines: Vec<Line> = self.kept.iter().take(GROUP).cloned().collect();
            self.add(&lines, lines.len()).await?;
            self.kept.drain(..lines.len());
        }
        Ok(())
    }

    /// Writes what came now; nothing is kept from before.
    async fn write_jobs(&mut self, jobs: &[Job]) -> Result<(), DbError> {
        let lines: Vec<Line> = jobs.iter().filter_map(|job| job.line.clone()).collect();
        let kept = jobs.iter().filter(|job| job.keep).count();
        self.add(&lines, kept).await
    }

    /// Adds entries to the chain; of these, `kept` are first among those kept if that fails.
    async fn add(&mut self, lines: &[Line], kept: usize) -> Result<(), DbError> {
        let mut next = self.walk.clone();
        let mut chain = Vec::with_capacity(lines.len());
        for line in lines.iter().cloned() {
            let at = line.at.as_millisecond();
            let entry = Entry::seal(next.seq + 1, line.id, at, line.body, next.hash);
            next = Walk {
                seq: entry.seq,
                hash: entry.hash.clone(),
            };
            chain.push(Link {
                entry,
                apart: line.apart,
                opens: line.opens,
                labels: line.labels,
                put: line.put,
                loses: line.loses,
            });
        }
        let mac = self.keys.mac(&end_text(&next));
        if let Err(error) = self.db.chain_add(&chain, mac).await {
            // Whether the commit took effect is not known: ask where the chain ends now.
            match end_of(&self.db).await {
                Ok(end) if end == next => {}
                Ok(end) => {
                    self.walk = end;
                    return Err(error);
                }
                Err(_) => {
                    self.unsure = Some((next, kept));
                    return Err(error);
                }
            }
        }
        self.walk = next;
        self.grows.send_replace(self.walk.seq);
        Ok(())
    }
}

/// Where the chain ends, as stored.
async fn end_of(db: &Db) -> Result<Walk, DbError> {
    let end = db.chain_end().await?;
    Ok(end.map(|end| end.walk).unwrap_or_default())
}

/// What the keyed digest over the chain's end is taken of.
fn end_text(walk: &Walk) -> String {
    format!("{}:{}", walk.seq, walk.hash)
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
