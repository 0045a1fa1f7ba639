//! Checking an export, without the database it came from and without its keys.

use std::collections::HashSet;
use std::io::{self, BufRead};

use policy::action::Digest;
use policy::record::{Bad, Walk, apart};
use serde::Serialize;

use super::Line;
use crate::keys::PublicKey;

/// An export in which everything fits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// How many records it has.
    pub records: i64,
    /// The position before the first.
    pub after: i64,
    /// The hash of the last.
    pub head: String,
    /// How many checkpoints it has.
    pub checkpoints: usize,
    /// Up to which position a checkpoint covers it.
    pub signed_to: i64,
    /// The key of these checkpoints.
    pub key: Option<PublicKey>,
}

/// An export that does not fit, or is none.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The first record that does not fit.
    #[error(transparent)]
    Bad(#[from] Bad),
    /// A line that has no place there.
    #[error("line {line}: {problem}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// It ends before its end.
    #[error("it was cut off: the line that ends an export is missing")]
    Cut,
    /// It cannot be read.
    #[error("the export cannot be read")]
    Input(#[from] io::Error),
}

/// Walks through an export. With a key, its checkpoints have to be of this one; else of the one that
/// it names itself, which proves only that one key signed all of them.
///
/// # Errors
/// [`CheckError`], with the first line or record that does not fit.
pub fn check(input: impl BufRead, key: Option<&PublicKey>) -> Result<Checked, CheckError> {
    let mut lines = input.lines().enumerate();
    let wrong = |line: usize, problem| CheckError::Line {
        line: line + 1,
        problem,
    };
    let read = |n: usize, text: io::Result<String>| -> Result<Line, CheckError> {
        serde_json::from_str(&text?).map_err(|_| wrong(n, "it is no line of an export"))
    };
    let first = lines.next().ok_or(CheckError::Cut)?;
    let Line::Export {
        version: 1,
        key: named,
        after,
        hash,
        ..
    } = read(first.0, first.1)?
    else {
        return Err(wrong(0, "an export begins with another"));
    };
    let key = key.cloned().or(named);
    let mut walk = Walk { seq: after, hash };
    let mut values = HashSet::new();
    let mut checked = Checked {
        records: 0,
        after,
        head: String::new(),
        checkpoints: 0,
        signed_to: after,
        key: key.clone(),
    };
    for (n, text) in lines {
        match read(n, text)? {
            Line::Value { digest, body } => {
                if Digest::of(body.as_bytes()).as_str() != digest {
                    return Err(wrong(n, "the value is not the one of its digest"));
                }
                values.insert(digest);
            }
            Line::Record(entry) => {
                walk.step(&entry)?;
                let mut parts = apart::parts(&entry.body).into_iter();
                if parts.any(|part| !values.contains(part.digest.as_str())) {
                    let problem = "a value that it names is missing".to_owned();
                    let (seq, id) = (entry.seq, entry.id);
                    return Err(Bad { seq, id, problem }.into());
                }
                checked.records += 1;
            }
            Line::Checkpoint(checkpoint) => {
                if !key.as_ref().is_some_and(|key| checkpoint.is_signed(key)) {
                    return Err(wrong(n, "the checkpoint is not signed with the key"));
                }
                if (checkpoint.seq, &checkpoint.hash) != (walk.seq, &walk.hash) {
                    return Err(wrong(n, "the checkpoint is of another log"));
                }
                checked.checkpoints += 1;
                checked.signed_to = walk.seq;
            }
            Line::End { records, hash } => {
                if records != checked.records || hash != walk.hash {
                    return Err(wrong(n, "the export ends otherwise than it says"));
                }
                checked.head = hash;
                return Ok(checked);
            }
            Line::Export { .. } => return Err(wrong(n, "an export begins once")),
        }
    }
    Err(CheckError::Cut)
}
