//! `[audit]`.

use std::path::PathBuf;
use std::time::Duration;

use super::read::Table;

/// What the log keeps, and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// How long records are kept; `None` for ever.
    pub keep: Option<Duration>,
    /// How much of what an action brings back is kept, in bytes.
    pub max_result: usize,
    /// A second file that gets every checkpoint.
    pub checkpoints: Option<PathBuf>,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            keep: None,
            max_result: 64 * 1024,
            checkpoints: None,
        }
    }
}

/// A run that waits for a person still knows from the log what it has begun.
const SHORTEST: Duration = Duration::from_hours(7 * 24);

/// Reads `[audit]`.
pub(super) fn read(table: &Table<'_>) -> Audit {
    let default = Audit::default();
    let keep = table.get("keep").and_then(|item| {
        let keep = item.duration()?;
        if keep < SHORTEST {
            item.problem(
                "the log is kept for a week at least",
                "accepted: such as \"90d\"",
            );
            return None;
        }
        Some(keep)
    });
    let audit = Audit {
        keep,
        max_result: table
            .get("max_result")
            .and_then(|item| item.size(0..=16 * 1024 * 1024))
            .unwrap_or(default.max_result),
        checkpoints: table.get("checkpoints").and_then(|item| item.absolute()),
    };
    table.done();
    audit
}
