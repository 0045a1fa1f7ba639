//! The log as a stream, for other programs and other places: whole and verifiable, or as a table, or
//! as events of a schema.

mod csv;
mod ocsf;
mod verify;

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::Path;

use jiff::Timestamp;
use policy::record::{Bad, Entry, Walk, apart};
use serde::{Deserialize, Serialize};

use super::checkpoint::{self, Checkpoint, FileError};
use super::find::NoTime;
use super::{end_text, read};
use crate::db::{Db, DbError};
use crate::keys::{KeyError, Keys, PublicKey};

pub use verify::{CheckError, Checked, check};

/// How many entries are in memory at once.
const PAGE: u64 = 500;

/// The forms of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Every record as it is in the chain, to be verified without the database.
    Jsonl,
    /// A table with a line for each story.
    Csv,
    /// A line for each story, as *API Activity* of OCSF.
    Ocsf,
}

/// A line of an export that can be verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line {
    /// The first.
    Export {
        version: u32,
        instance: String,
        /// The key that signs checkpoints.
        key: Option<PublicKey>,
        /// What the first record follows.
        after: i64,
        /// The hash there.
        hash: String,
    },
    /// A value that records name by its digest; before the first that does.
    Value { digest: String, body: String },
    /// A record, as it was hashed.
    Record(Entry),
    /// Where the log ended, signed; after the record that it is about.
    Checkpoint(Checkpoint),
    /// The last.
    End { records: i64, hash: String },
}

/// An export that was not finished.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The log does not fit, so what follows is not its own.
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
    /// A time cannot be read.
    #[error(transparent)]
    Time(#[from] NoTime),
    /// It cannot be written where it should go.
    #[error("the export cannot be written")]
    Output(#[from] io::Error),
}

/// From when until when.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    /// Not older than this.
    pub since: Option<Timestamp>,
    /// Older than this.
    pub until: Option<Timestamp>,
}

impl Span {
    fn begins(&self, at: i64) -> bool {
        self.since.is_none_or(|since| since.as_millisecond() <= at)
    }

    fn ends(&self, at: i64) -> bool {
        self.until.is_some_and(|until| until.as_millisecond() <= at)
    }
}

/// Writes the log of a data directory, whether an instance runs or not. Returns how many records or
/// stories were written.
///
/// # Errors
/// [`ExportError`]; what was written until then lacks its end.
pub async fn export(
    data: &Path,
    format: Format,
    span: Span,
    out: &mut impl Write,
) -> Result<i64, ExportError> {
    let db = Db::open_to_read(data).await?;
    let written = match format {
        Format::Jsonl => chain(data, &db, span, out).await,
        Format::Csv => {
            out.write_all(csv::HEAD.as_bytes())?;
            stories(&db, span, out, csv::line).await
        }
        Format::Ocsf => stories(&db, span, out, |story| format!("{}\n", ocsf::event(story))).await,
    };
    db.close().await;
    out.flush()?;
    written
}

/// Every record from the first of the span to the last. The chain has no gaps, so neither has this.
#[expect(
    clippy::too_many_lines,
    reason = "one pass over the chain, in its order"
)]
async fn chain(data: &Path, db: &Db, span: Span, out: &mut impl Write) -> Result<i64, ExportError> {
    let key = Keys::open_public(data)?;
    let mac = Keys::open_mac(data)?;
    let keys = key.as_ref().map(|_| Keys::open(data)).transpose()?;
    let mut checkpoints = match &key {
        Some(key) => checkpoint::read(&data.join(checkpoint::FILE), key)?,
        None => Vec::new(),
    };
    checkpoints.sort_by_key(|checkpoint| checkpoint.seq);
    let mut checkpoints = checkpoints.into_iter().peekable();
    let end = db.chain_end().await?;
    let mut walk = db
        .chain_start()
        .await?
        .map_or_else(Walk::default, |start| Walk {
            seq: start.seq,
            hash: start.hash,
        });
    let mut head: Option<Walk> = None;
    let mut told = HashSet::new();
    let mut records = 0;
    'pages: loop {
        let page = db.chain_page(walk.seq, PAGE).await?;
        if page.is_empty() {
            break;
        }
        let named = page.iter().flat_map(|entry| apart::parts(&entry.body));
        let values = db
            .payloads(named.map(|part| part.digest.to_string()).collect())
            .await?;
        for entry in page {
            if span.ends(entry.at) {
                break 'pages;
            }
            let before = walk.clone();
            walk.step(&entry)?;
            if head.is_none() && !span.begins(entry.at) {
                continue;
            }
            if head.is_none() {
                let instance = keys
                    .as_ref()
                    .map_or_else(String::new, |keys| keys.instance.clone());
                let first = Line::Export {
                    version: 1,
                    instance,
                    key: key.clone(),
                    after: before.seq,
                    hash: before.hash.clone(),
                };
                line(out, &first)?;
                head = Some(before);
            }
            for part in apart::parts(&entry.body) {
                let digest = part.digest.to_string();
                if let Some(body) = values.get(&digest)
                    && told.insert(digest.clone())
                {
                    let body = body.clone();
                    line(out, &Line::Value { digest, body })?;
                }
            }
            let seq = entry.seq;
            line(out, &Line::Record(entry))?;
            records += 1;
            while let Some(checkpoint) = checkpoints.next_if(|one| one.seq <= seq) {
                if checkpoint.seq == seq {
                    line(out, &Line::Checkpoint(checkpoint))?;
                }
            }
        }
    }
    if head.is_none() {
        let first = Line::Export {
            version: 1,
            instance: keys
                .as_ref()
                .map_or_else(String::new, |keys| keys.instance.clone()),
            key,
            after: walk.seq,
            hash: walk.hash.clone(),
        };
        line(out, &first)?;
    }
    // What was just read up to the signed end of the log is signed for whoever reads it elsewhere;
    // nothing else is.
    let fits = |end: &crate::db::chain::End| {
        end.walk == walk
            && mac
                .as_ref()
                .is_some_and(|mac| mac.fits(&end_text(&end.walk), &end.mac))
    };
    let now = db.chain_end().await?;
    if let Some(keys) = keys.filter(|_| records > 0 && (end.iter().chain(&now)).any(fits)) {
        line(
            out,
            &Line::Checkpoint(Checkpoint::sign(&keys, &walk, Timestamp::now())),
        )?;
    }
    let hash = walk.hash;
    line(out, &Line::End { records, hash })?;
    Ok(records)
}

fn line(out: &mut impl Write, line: &Line) -> Result<(), ExportError> {
    serde_json::to_writer(&mut *out, line).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}

/// Every story that began in the span, oldest first.
async fn stories(
    db: &Db,
    span: Span,
    out: &mut impl Write,
    tell: impl Fn(&policy::record::Story) -> String,
) -> Result<i64, ExportError> {
    let mut after = i64::MIN;
    let mut told = 0;
    loop {
        let page = db.chain_page(after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(told);
        };
        after = last.seq;
        let ids: HashSet<String> = page
            .iter()
            .filter(|entry| span.begins(entry.at) && !span.ends(entry.at))
            .map(|entry| entry.id.clone())
            .collect();
        let first = page.first().map_or(after, |entry| entry.seq);
        let stories = read::stories_of(db, ids.into_iter().collect()).await?;
        // One that began on a page before was told there.
        for story in stories.iter().filter(|story| story.seq >= first) {
            let at = story.at.as_millisecond();
            if span.begins(at) && !span.ends(at) {
                out.write_all(tell(story).as_bytes())?;
                told += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests;
