//! `audit tail`: stories as they begin and end.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use policy::record::Outcome;

use super::{Failure, Output, Wanted, found, settle};
use crate::cli::output::utc;
use crate::config::Paths;
use crate::text::printable;

/// How often it is looked for more.
const EVERY: Duration = Duration::from_millis(500);

/// Prints the newest stories, then what comes and how it ends, until it is stopped or nobody reads.
pub(super) async fn run(paths: &Paths, out: Output) -> Result<(), Failure> {
    const NEWEST: usize = 200;
    const FIRST: usize = 10;
    let wanted = Wanted {
        limit: Some(NEWEST),
        ..Wanted::default()
    };
    let mut told: BTreeMap<i64, Outcome> = BTreeMap::new();
    let mut first = true;
    loop {
        settle(paths).await;
        let mut stories = found(&paths.data, &wanted).await?;
        stories.sort_by_key(|story| story.seq);
        let old = if first {
            stories.len().saturating_sub(FIRST)
        } else {
            0
        };
        for (n, story) in stories.iter().enumerate() {
            let before = told.insert(story.seq, story.outcome);
            if before == Some(story.outcome) || n < old {
                continue;
            }
            let line = if out.json {
                serde_json::to_string(story).map_err(|error| Failure::of(&error))?
            } else {
                let line = format!(
                    "{} {} {} {} {} {}",
                    utc(story.at),
                    story.id,
                    if story.group.is_empty() {
                        "-"
                    } else {
                        &story.group
                    },
                    story.tool,
                    story.decision.as_str(),
                    story.outcome.as_str()
                );
                printable(&line)
            };
            let mut stdout = std::io::stdout().lock();
            if writeln!(stdout, "{line}")
                .and_then(|()| stdout.flush())
                .is_err()
            {
                return Ok(());
            }
        }
        first = false;
        while told.len() > 4 * NEWEST {
            told.pop_first();
        }
        tokio::time::sleep(EVERY).await;
    }
}
