//! Calls of a hosted run that may have been made before its agent was restarted, and the end of a
//! run: nothing is done a second time, and nothing is done for a task that is over.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use policy::action::{Action, Digest, canonical};
use policy::approval;
use policy::decision::Decision;
use policy::ids::RunId;
use policy::record::{Entry, Event};
use serde_json::json;

use super::{Broker, Done};
use crate::approvals::Held;
use crate::db::approvals::Decided;
use crate::db::{Db, DbError};
use crate::fault;
use crate::hosted;
use crate::identity::runs::Hosted;
use crate::keys::Keys;

/// What makes two actions of a run the same one, whatever of their arguments is hidden in the log:
/// `tool` as it is there, and the keyed digest over the arguments.
fn trace(tool: &str, sealed: &str) -> Digest {
    Digest::of_json(&json!([tool, sealed]))
}

impl Broker {
    fn trace(&self, action: &Action) -> Digest {
        let sealed = self.keys.mac(&canonical(&action.args));
        trace(&self.shown_tool(action), &sealed)
    }

    /// Notes that a hosted run has begun an action.
    pub(super) fn note_begun(&self, action: &Action) {
        if hosted::is_hosted(action) {
            let begun = self.trace(action);
            self.identity.runs.began(&action.run, begun);
        }
    }

    /// The answer to a call that was made again, where the run has begun the same action before and
    /// its answer is not here any more. What only reads is simply done again.
    pub(super) fn begun_before(&self, action: &Action, resumed: bool) -> Option<Done> {
        if !resumed || self.reads_only(action) {
            return None;
        }
        let begun = self.trace(action);
        if !self.identity.runs.has_begun(&action.run, &begun) {
            return None;
        }
        Some(Done::refused(format!(
            "UNKNOWN. `{}` was called with these arguments before this agent was restarted, and its answer is lost: \
             it may or may not have happened. Look before you try again.",
            action.tool()
        )))
    }

    /// A run that was under way before this start goes on.
    ///
    /// # Errors
    /// [`DbError`], if what it has begun cannot be read from the log.
    pub async fn run_goes_on(&self, db: &Db, hosted: Hosted) -> Result<(), DbError> {
        let begun = begun(db, &self.keys, &hosted.run).await?;
        self.identity.runs.open(hosted, begun);
        Ok(())
    }

    /// A run is over: its token is dead, what it asked is withdrawn, what was simply allowed is
    /// cancelled, what people allowed for it ends. What they approved and has begun goes on.
    pub async fn run_over(self: &Arc<Self>, run: &RunId, reason: &str) {
        fault::point("run.over").await;
        let over = self.identity.runs.over(run);
        // Whoever asks now finds the run over; whoever asked before is in the list.
        let _one = self.asking.lock().await;
        for held in self.approvals.of_run(run) {
            fault::point("run.withdraws").await;
            self.withdraw(&held, reason).await;
        }
        if let Some(over) = over {
            over.cancel();
        }
        self.flights.run_over(run);
    }

    /// After a start: what was asked for runs that did not go on is withdrawn.
    pub async fn withdraw_orphans(self: &Arc<Self>) {
        for held in self.approvals.hosted() {
            if !self.goes_on(&held.action) {
                self.withdraw(&held, "the task it was asked for is over")
                    .await;
            }
        }
    }

    /// After a start: what people see of tool calls is what the log says; `closed` are the actions
    /// that ended with the start.
    pub async fn put_items_right(&self, db: &Db, closed: Vec<String>) {
        let groups: Vec<String> = self
            .config
            .now()
            .groups
            .keys()
            .map(ToString::to_string)
            .collect();
        let held = self.approvals.hosted();
        let held = held.iter().map(|held| held.action.id.to_string());
        self.hosted
            .put_right(db, &groups, closed, &held.collect())
            .await;
    }

    async fn withdraw(&self, held: &Held, reason: &str) {
        if held.state().is_open() {
            let decided = Decided {
                by: None,
                reason: Some(reason.to_owned()),
                scope: None,
                at: Timestamp::now(),
            };
            let id = held.id.as_str();
            let withdrawn = self
                .approvals
                .decide(id, approval::Event::Withdraw, decided)
                .await;
            if let Err(error) = withdrawn {
                // It is not released either: that asks whether the run goes on.
                tracing::error!("question `{id}` cannot be withdrawn: {error}");
            }
        }
        if held.is_answered() {
            // Nobody of this run will come for it.
            self.approvals.delivered(&held.id).await;
        }
    }
}

/// The actions that a run has begun, by the log.
async fn begun(db: &Db, keys: &Keys, run: &RunId) -> Result<HashSet<Digest>, DbError> {
    let entries = db.entries_with(&format!("\"run\":{}", json!(run))).await?;
    let mut asked = HashMap::new();
    let mut begun = HashSet::new();
    for entry in &entries {
        read(entry, keys, run, &mut asked, &mut begun);
    }
    Ok(begun)
}

fn read(
    entry: &Entry,
    keys: &Keys,
    run: &RunId,
    asked: &mut HashMap<String, Digest>,
    begun: &mut HashSet<Digest>,
) {
    match serde_json::from_str(&entry.body) {
        Ok(Event::Decided {
            facts,
            why,
            sealed_args,
            ..
        }) if facts.action.run == *run => {
            // What was not masked is in the log as it was.
            let sealed = sealed_args.unwrap_or_else(|| keys.mac(&canonical(&facts.action.args)));
            let trace = trace(&facts.action.tool(), &sealed);
            match why.decision {
                Decision::Allow => drop(begun.insert(trace)),
                Decision::Ask => drop(asked.insert(entry.id.clone(), trace)),
                Decision::Deny => {}
            }
        }
        Ok(Event::Released { .. }) => begun.extend(asked.remove(&entry.id)),
        Ok(
            Event::Decided { .. }
            | Event::Agreed { .. }
            | Event::Answered { .. }
            | Event::Labelled { .. }
            | Event::Closed { .. }
            | Event::Refused { .. }
            | Event::Pinned(_)
            | Event::Declassified { .. }
            | Event::Noted { .. },
        )
        | Err(_) => {}
    }
}
