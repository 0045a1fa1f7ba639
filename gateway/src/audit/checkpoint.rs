//! Signed checkpoints: from time to time, and when the gateway stops, where the log ends is signed
//! with a key outside the database and added to a file outside it.
//!
//! A database that was cut off, written anew, or exchanged for an older copy no longer has what was
//! signed. Whoever has a copy of the file in another place, or of one line of it, can say so even of
//! a whole data directory.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use policy::record::Walk;
use serde::{Deserialize, Serialize};

use crate::keys::{Keys, PublicKey};

/// The file of checkpoints, in the data directory.
pub const FILE: &str = "keys/checkpoints.jsonl";
/// After how many entries the next is signed.
const ENTRIES: i64 = 1000;
/// How long an entry is without a checkpoint after it.
const TIME: Duration = Duration::from_mins(10);

/// Where the log ended at a time, signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The instance whose log it is.
    pub instance: String,
    /// The position of the last entry.
    pub seq: i64,
    /// Its hash.
    pub hash: String,
    /// When it was signed, in milliseconds since 1970 (UTC).
    pub at: i64,
    /// Ed25519 over [`Checkpoint::text`], in hexadecimal.
    pub signature: String,
}

impl Checkpoint {
    /// Signs where the log ends.
    pub fn sign(keys: &Keys, walk: &Walk, at: Timestamp) -> Self {
        let mut checkpoint = Self {
            instance: keys.instance.clone(),
            seq: walk.seq,
            hash: walk.hash.clone(),
            at: at.as_millisecond(),
            signature: String::new(),
        };
        checkpoint.signature = keys.sign(&checkpoint.text());
        checkpoint
    }

    /// What is signed. No other text that this key signs begins so.
    pub fn text(&self) -> String {
        let Self {
            instance,
            seq,
            hash,
            at,
            signature: _,
        } = self;
        format!("portcullis checkpoint 1\n{instance}\n{seq}\n{hash}\n{at}\n")
    }

    /// Whether this key signed it.
    pub fn is_signed(&self, key: &PublicKey) -> bool {
        key.fits(&self.text(), &self.signature)
    }

    /// When it was signed, for people.
    pub fn when(&self) -> String {
        Timestamp::from_millisecond(self.at).map_or_else(|_| "?".to_owned(), |at| at.to_string())
    }
}

/// A file of checkpoints that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read or written.
    #[error("the checkpoints `{path}` cannot be read or written")]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A line of it is no checkpoint, or not of this key.
    #[error("line {line} of `{path}` is no checkpoint that the key of this log signed")]
    Forged {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
}

/// Reads a file of checkpoints, each signed with this key. One that is not there has none. What a
/// power cut left of a last line is none.
///
/// # Errors
/// [`FileError`], if it cannot be read or a line is not what it should be.
pub fn read(path: &Path, key: &PublicKey) -> Result<Vec<Checkpoint>, FileError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            let path = path.to_owned();
            return Err(FileError::Unusable { path, source });
        }
    };
    let whole = text
        .rfind('\n')
        .and_then(|end| text.get(..end))
        .unwrap_or_default();
    let mut all = Vec::new();
    for (n, line) in whole.lines().enumerate() {
        let read = serde_json::from_str::<Checkpoint>(line).ok();
        let Some(checkpoint) = read.filter(|checkpoint| checkpoint.is_signed(key)) else {
            let (path, line) = (path.to_owned(), n + 1);
            return Err(FileError::Forged { path, line });
        };
        all.push(checkpoint);
    }
    Ok(all)
}

/// Where checkpoints are written, and when the next is due.
#[derive(Debug)]
pub(super) struct Checkpoints {
    keys: Arc<Keys>,
    files: Vec<PathBuf>,
    /// The position of the last.
    last: i64,
    since: Instant,
}

impl Checkpoints {
    /// To the file in the data directory, and, where another place is named, there too. `last` is
    /// the position of the last one.
    pub(super) fn new(keys: Arc<Keys>, copy: Option<PathBuf>, last: i64) -> Self {
        let mut files = vec![keys.checkpoints.clone()];
        files.extend(copy);
        Self {
            keys,
            files,
            last,
            since: Instant::now(),
        }
    }

    /// How long until the next is due, if there is anything to sign.
    pub(super) fn due(&self, walk: &Walk) -> Option<Duration> {
        let news = walk.seq - self.last;
        if news == 0 {
            return None;
        }
        let waits = TIME.saturating_sub(self.since.elapsed());
        Some(if news >= ENTRIES {
            Duration::ZERO
        } else {
            waits
        })
    }

    /// Signs where the log ends now, if that is due.
    pub(super) fn sign_if_due(&mut self, walk: &Walk) {
        if self.due(walk).is_some_and(|wait| wait.is_zero()) {
            self.sign(walk);
        }
    }

    /// Signs where the log ends now, if it has grown.
    pub(super) fn sign(&mut self, walk: &Walk) {
        if walk.seq == self.last {
            return;
        }
        let checkpoint = Checkpoint::sign(&self.keys, walk, Timestamp::now());
        for file in &self.files {
            // The log goes on without: what it says is on the disk, and the end is signed each time.
            if let Err(error) = append(file, &checkpoint) {
                tracing::error!(
                    "a checkpoint cannot be added to `{}`: {error}",
                    file.display()
                );
            }
        }
        self.last = walk.seq;
        self.since = Instant::now();
    }
}

/// Forgets the checkpoints of what is no longer there: those up to a position.
///
/// # Errors
/// What the system said; then all of them stay.
pub(super) fn forget(path: &Path, upto: i64) -> io::Result<()> {
    #[derive(Deserialize)]
    struct Position {
        seq: i64,
    }
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // The last one stays: it says that the log went so far.
    let last = text.lines().count().saturating_sub(1);
    let mut kept = String::with_capacity(text.len());
    for (n, line) in text.lines().enumerate() {
        let position = serde_json::from_str::<Position>(line);
        if n == last || position.is_ok_and(|position| position.seq > upto) {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    // Written beside and moved, so that a power cut leaves one or the other.
    let fresh = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(kept.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

fn append(path: &Path, checkpoint: &Checkpoint) -> io::Result<()> {
    let mut line = serde_json::to_string(checkpoint)?;
    line.push('\n');
    let mut file = fs::OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    // Half a line that a power cut left is ended, so that this one stands alone.
    if !ends_whole(&mut file)? {
        let whole = whole_lines(path)?;
        file.set_len(whole)?;
    }
    file.write_all(line.as_bytes())?;
    file.sync_data()
}

fn ends_whole(file: &mut fs::File) -> io::Result<bool> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// How many bytes of a file are whole lines.
fn whole_lines(path: &Path) -> io::Result<u64> {
    let bytes = fs::read(path)?;
    let end = bytes.iter().rposition(|byte| *byte == b'\n');
    Ok(end.map_or(0, |end| end as u64 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(seq: i64) -> Walk {
        Walk {
            seq,
            hash: format!("{seq:064}"),
        }
    }

    #[test]
    fn a_checkpoint_is_due_after_a_number_of_entries_and_never_without_any() {
        let data = tempfile::tempdir().unwrap();
        let keys = Arc::new(Keys::open(data.path()).unwrap());
        let mut checkpoints = Checkpoints::new(keys.clone(), None, 5);
        assert_eq!(checkpoints.due(&walk(5)), None);
        assert!(checkpoints.due(&walk(6)).unwrap() > Duration::ZERO);
        checkpoints.sign_if_due(&walk(6));
        assert_eq!(read(&keys.checkpoints, &keys.public).unwrap().len(), 0);
        checkpoints.sign_if_due(&walk(1005));
        checkpoints.sign(&walk(1005));
        checkpoints.sign(&walk(1006));
        let all = read(&keys.checkpoints, &keys.public).unwrap();
        let seqs: Vec<i64> = all.iter().map(|one| one.seq).collect();
        assert_eq!(seqs, [1005, 1006]);
    }

    #[test]
    fn what_another_key_signed_or_somebody_changed_is_no_checkpoint_and_half_a_line_is_none() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let keys = Arc::new(Keys::open(one.path()).unwrap());
        let other = Arc::new(Keys::open(two.path()).unwrap());
        let mut checkpoints = Checkpoints::new(keys.clone(), None, 0);
        checkpoints.sign(&walk(7));
        let file = &keys.checkpoints;
        assert!(read(file, &other.public).is_err());
        let line = fs::read_to_string(file).unwrap();
        fs::write(file, format!("{line}{}", line.get(..20).unwrap())).unwrap();
        assert_eq!(read(file, &keys.public).unwrap().len(), 1);
        checkpoints.sign(&walk(8));
        assert_eq!(read(file, &keys.public).unwrap().len(), 2);
        fs::write(file, line.replace("\"seq\":7", "\"seq\":6")).unwrap();
        assert!(matches!(
            read(file, &keys.public),
            Err(FileError::Forged { line: 1, .. })
        ));
    }
}
