//! `policy replay`: what a configuration would have made of what is in the log.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use policy::decision::Decision;
use policy::ids::QuestionId;
use policy::record::Event;
use policy::replay::{Past, Replayed, replay};
use serde::Serialize;

use super::super::Failure;
use super::super::output::Output;
use crate::audit::read;
use crate::config::{Config, Paths};
use crate::db::Db;
use crate::text::printable;

/// How many entries are read at once.
const AT_ONCE: u64 = 500;
/// How many that differ are listed.
const LISTED: usize = 50;

#[derive(Debug, Default, Serialize)]
struct Told {
    revision: String,
    decisions: usize,
    same: usize,
    otherwise: usize,
    untold: usize,
    /// How many of each: `ask → allow`.
    changes: BTreeMap<String, usize>,
    list: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    id: String,
    at: Timestamp,
    group: String,
    tool: String,
    was: Decision,
    now: Decision,
    rules: Vec<String>,
    approval: Option<QuestionId>,
}

pub(super) async fn run(
    config: &Config,
    paths: &Paths,
    since: Option<Timestamp>,
    out: Output,
) -> Result<(), Failure> {
    let db = Db::open_to_read(&paths.data)
        .await
        .map_err(|error| Failure::of(&error))?;
    let told = over(config, &db, since).await;
    db.close().await;
    let told = told.map_err(|error| Failure::of(&error))?;
    out.print(&told, || text(&told))
}

async fn over(
    config: &Config,
    db: &Db,
    since: Option<Timestamp>,
) -> Result<Told, crate::db::DbError> {
    let mut told = Told {
        revision: config.revision.clone(),
        ..Told::default()
    };
    let mut after = 0;
    loop {
        let entries = db.chain_page(after, AT_ONCE).await?;
        let Some(last) = entries.last() else { break };
        after = last.seq;
        let entries = db.whole(entries).await?;
        for (entry, event) in read::events(entries) {
            let Event::Decided {
                facts,
                why,
                sealed_args,
                approval,
                ..
            } = event
            else {
                continue;
            };
            if since.is_some_and(|since| facts.now < since) {
                continue;
            }
            told.decisions += 1;
            let past = Past {
                facts: &facts,
                why: &why,
                masked: sealed_args.is_some(),
            };
            match replay(&config.policy, past) {
                Replayed::Same => told.same += 1,
                Replayed::Untold { .. } => told.untold += 1,
                Replayed::Otherwise(now) => {
                    told.otherwise += 1;
                    let change = format!("{} → {}", why.decision.as_str(), now.decision.as_str());
                    *told.changes.entry(change).or_default() += 1;
                    told.list.push(Line {
                        id: entry.id,
                        at: facts.now,
                        group: facts.action.group.to_string(),
                        tool: facts.action.tool(),
                        was: why.decision,
                        now: now.decision,
                        rules: now.rules,
                        approval,
                    });
                    if told.list.len() > LISTED {
                        told.list.remove(0);
                    }
                }
            }
        }
    }
    Ok(told)
}

fn text(told: &Told) -> String {
    let mut text = format!(
        "{} decisions: {} the same, {} otherwise, {} cannot be told (their arguments are masked in the log)\n",
        told.decisions, told.same, told.otherwise, told.untold
    );
    for (change, count) in &told.changes {
        let _ = writeln!(text, "    {change}: {count}");
    }
    if told.otherwise > told.list.len() {
        let _ = writeln!(text, "the newest {}:", told.list.len());
    }
    for line in &told.list {
        let rules = if line.rules.is_empty() {
            String::new()
        } else {
            format!(" ({})", line.rules.join(", "))
        };
        let _ = writeln!(
            text,
            "{} {} {}: {} → {}{}",
            line.id,
            printable(&line.group),
            printable(&line.tool),
            line.was.as_str(),
            line.now.as_str(),
            printable(&rules),
        );
    }
    text
}
