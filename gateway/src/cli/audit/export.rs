//! `audit export`, and the check of what it wrote.

use std::fs::OpenOptions;
use std::io::{self, BufReader, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use jiff::Timestamp;
use serde_json::json;

use super::{Failure, Form, Output};
use crate::audit::export::{CheckError, Format, Span, check, export};
use crate::audit::find::time;
use crate::keys::PublicKey;
use crate::text::printable;

pub(super) async fn run(
    data: &Path,
    form: Form,
    output: Option<&Path>,
    since: Option<String>,
    until: Option<String>,
) -> Result<(), Failure> {
    let now = Timestamp::now();
    let at = |text: Option<String>| {
        let at = text.map(|text| time(&text, now)).transpose();
        at.map_err(|error| Failure::Usage(error.to_string()))
    };
    let span = Span {
        since: at(since)?,
        until: at(until)?,
    };
    let format = match form {
        Form::Jsonl => Format::Jsonl,
        Form::Csv => Format::Csv,
        Form::Ocsf => Format::Ocsf,
    };
    let done = if let Some(path) = output {
        // Nobody else reads what the log holds.
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| Failure::Failed(format!("`{}`: {error}", path.display())))?;
        let mut out = BufWriter::new(file);
        let done = export(data, format, span, &mut out).await;
        let synced = out.flush().and_then(|()| out.get_ref().sync_all());
        synced.map_err(|error| Failure::of(&error))?;
        done
    } else {
        let mut out = BufWriter::new(io::stdout());
        let done = export(data, format, span, &mut out).await;
        out.flush().map_err(|error| Failure::of(&error))?;
        done
    };
    done.map(drop).map_err(|error| Failure::of(&error))
}

/// Checks an export.
pub(super) fn verify(file: &Path, key: Option<&PublicKey>, out: Output) -> Result<(), Failure> {
    let checked = if file == Path::new("-") {
        check(io::stdin().lock(), key)
    } else {
        let opened = std::fs::File::open(file);
        let opened =
            opened.map_err(|error| Failure::Failed(format!("`{}`: {error}", file.display())))?;
        check(BufReader::new(opened), key)
    };
    match checked {
        Ok(checked) => out.print(&json!({"ok": true, "export": checked}), || {
            let whose = match (key, &checked.key) {
                (Some(_), _) => "the key that you gave",
                (None, Some(_)) => {
                    "the key that the export names itself: compare it with `audit key`"
                }
                (None, None) => "no key",
            };
            format!(
                "{}: {} records after record {}, head {}, signed up to record {} with {whose}\n",
                out.word("ok"),
                checked.records,
                checked.after,
                checked.head,
                checked.signed_to
            )
        }),
        Err(error @ CheckError::Input(_)) => Err(Failure::of(&error)),
        Err(error) => {
            let value = json!({"ok": false, "problem": error.to_string()});
            out.print(&value, || {
                format!("{}: {}\n", out.word("fail"), printable(&error.to_string()))
            })?;
            Err(Failure::Told(1))
        }
    }
}
