//! Rules that came of a person's *always*, and where people's attention goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use jiff::{SignedDuration, Timestamp};
use policy::approval::State as Stands;
use policy::decision::Decision;
use policy::proposal;
use serde::{Deserialize, Serialize};

use super::approvals::{decider, taken};
use super::{Api, Refused, Who};
use crate::approvals::DecideError;
use crate::broker::{Before, Offer};
use crate::db::always::Kept;
use crate::db::approvals::Row;

/// How far back is counted.
const DAYS: i64 = 30;
/// How many questions are counted at most.
const MOST: u64 = 2000;

/// A rule as people see it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ruled {
    /// The question it came of: its id.
    pub(crate) id: String,
    /// Its name in explanations.
    pub(crate) name: String,
    /// The group that it is for.
    pub(crate) group: String,
    /// `counts`, `spent` or `revoked`.
    pub(crate) state: &'static str,
    /// What it lets through.
    pub(crate) words: String,
    /// As it would stand in the configuration.
    pub(crate) toml: String,
    /// Who made it.
    pub(crate) by: String,
    /// When.
    pub(crate) at: Timestamp,
    /// Until when it counts.
    pub(crate) until: Option<Timestamp>,
    /// Who took it back.
    pub(crate) revoked_by: Option<String>,
    /// When.
    pub(crate) revoked_at: Option<Timestamp>,
}

impl Ruled {
    fn new(kept: &Kept, now: Timestamp) -> Self {
        let state = match (&kept.revoked, kept.counts(now)) {
            (Some(_), _) => "revoked",
            (None, true) => "counts",
            (None, false) => "spent",
        };
        Self {
            id: kept.question.clone(),
            name: kept.rule.name.clone(),
            group: kept.group.clone(),
            state,
            words: kept.words.clone(),
            toml: proposal::toml(&kept.rule),
            by: kept.by.clone(),
            at: kept.at,
            until: kept.rule.until,
            revoked_by: kept.revoked.as_ref().map(|(by, _)| by.clone()),
            revoked_at: kept.revoked.as_ref().map(|(_, at)| *at),
        }
    }
}

/// The rules of the groups that a person sees, newest first.
pub(crate) fn seen(api: &Api, who: &Who) -> Vec<Ruled> {
    let now = Timestamp::now();
    let all = api.broker.approvals.rules();
    let theirs = all
        .iter()
        .filter(|kept| who.may_see(&api.broker.config.now(), &kept.group));
    theirs.map(|kept| Ruled::new(kept, now)).collect()
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
) -> Json<Vec<Ruled>> {
    Json(seen(&api, &who))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Take {
    question: String,
    #[serde(default)]
    rule: Option<String>,
    #[serde(default)]
    when: Option<String>,
    #[serde(default)]
    ttl_seconds: Option<u64>,
}

/// A rule is taken that is proposed for a question which was answered before.
pub(super) async fn take(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Json(body): Json<Take>,
) -> Result<Json<Vec<Ruled>>, Refused> {
    let by = decider(&api, &who, &body.question).await?;
    let taken = taken(body.rule, body.when, body.ttl_seconds)?;
    api.broker.keep_rule(&body.question, &by, &taken).await?;
    Ok(Json(seen(&api, &who)))
}

/// A rule is taken back.
pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
) -> Result<Json<Ruled>, Refused> {
    // Whoever may answer the question may take back what came of it.
    let by = decider(&api, &who, &id).await?;
    let approvals = &api.broker.approvals;
    approvals.revoke_rule(&id, &by, Timestamp::now()).await?;
    let mut all = seen(&api, &who).into_iter();
    let found = all.find(|one| one.id == id);
    found
        .map(Json)
        .ok_or_else(|| DecideError::NoRule(id).into())
}

/// How many questions came of one thing, and how they were answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Count {
    /// The group.
    pub(crate) group: String,
    /// `tool`, `gate` or `rule`.
    pub(crate) of: &'static str,
    /// Its name.
    pub(crate) name: String,
    /// How many were put.
    pub(crate) asks: usize,
    /// How many were allowed.
    pub(crate) allowed: usize,
    /// How many were denied.
    pub(crate) denied: usize,
    /// How many nobody answered in time.
    pub(crate) expired: usize,
    /// Of those that a person answered, how many of a hundred were allowed.
    pub(crate) allow_percent: Option<usize>,
    /// Half of the answers took no longer than this, in seconds.
    pub(crate) answer_p50_seconds: Option<i64>,
}

#[derive(Debug, Default)]
struct Tally {
    asks: usize,
    allowed: usize,
    denied: usize,
    expired: usize,
    took: Vec<i64>,
}

impl Tally {
    fn add(&mut self, row: &Row) {
        self.asks += 1;
        match row.state {
            Stands::Approved => self.allowed += 1,
            Stands::Denied => self.denied += 1,
            Stands::Expired => self.expired += 1,
            Stands::Pending | Stands::CallerGone | Stands::Withdrawn => {}
        }
        if let (Some(at), Some(_)) = (row.decided_at, &row.decided_by) {
            self.took
                .push(at.duration_since(row.asked_at).as_secs().max(0));
        }
    }
}

/// A tool whose calls were always allowed, and the rules that would spare asking.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Spare {
    /// The group.
    pub(crate) group: String,
    /// The tool.
    pub(crate) tool: String,
    /// How many of its calls a person allowed; none was denied.
    pub(crate) allowed: usize,
    /// The newest of these questions: rules are taken by it.
    pub(crate) question: String,
    /// The rules.
    pub(crate) rules: Vec<Offer>,
}

/// Where people's attention goes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Attention {
    /// How far back is counted.
    pub(crate) days: i64,
    /// What asked, most first.
    pub(crate) counts: Vec<Count>,
    /// What could be spared.
    pub(crate) digest: Vec<Spare>,
}

/// Where people's attention goes in the groups that a person sees.
pub(crate) async fn attention_of(api: &Api, who: &Who) -> Result<Attention, Refused> {
    const OFTEN: usize = 3;
    const LASTS: Duration = Duration::from_hours(30 * 24);
    let before = Before::of(&api.broker, None, MOST).await?;
    let since = Timestamp::now()
        .checked_sub(SignedDuration::from_hours(DAYS * 24))
        .unwrap_or(Timestamp::MIN);
    let theirs = |group: &str| who.may_see(&api.broker.config.now(), group);
    let mut tallies: BTreeMap<(String, &'static str, String), Tally> = BTreeMap::new();
    let mut newest = BTreeMap::new();
    for (row, facts, why) in before.all() {
        // A person's change of the arguments is no question that anybody asked.
        if row.asked_at < since || !theirs(&row.group) || row.edits.is_some() {
            continue;
        }
        if why.decision == Decision::Ask && row.state == Stands::Approved {
            let key = (row.group.clone(), row.tool.clone());
            newest.entry(key).or_insert((row, facts));
        }
        let gates = why
            .gates
            .iter()
            .map(|gate| ("gate", gate.as_str().to_owned()));
        let rules = why.rules.iter().map(|rule| ("rule", rule.clone()));
        let all = gates.chain(rules).chain([("tool", row.tool.clone())]);
        for (of, name) in all {
            let tally = tallies.entry((row.group.clone(), of, name)).or_default();
            tally.add(row);
        }
    }
    let kept = api.broker.approvals.rules();
    let mut digest = Vec::new();
    for ((group, of, tool), tally) in &tallies {
        let always = tally.allowed >= OFTEN && tally.denied == 0;
        let found = newest.get(&(group.clone(), tool.clone()));
        let (true, "tool", Some((row, facts))) = (always, *of, found) else {
            continue;
        };
        let rules = api.broker.offers_of(row, facts, &before, LASTS);
        // What a rule spares already is not asked any more; a question has one rule.
        let has_one = kept.iter().any(|one| one.question == row.id);
        if !rules.is_empty() && !has_one && facts.credentials.is_empty() {
            digest.push(Spare {
                group: group.clone(),
                tool: tool.clone(),
                allowed: tally.allowed,
                question: row.id.clone(),
                rules,
            });
        }
    }
    let mut counts: Vec<Count> = tallies.into_iter().map(count).collect();
    counts.sort_by_key(|one| std::cmp::Reverse(one.asks));
    digest.sort_by_key(|one| std::cmp::Reverse(one.allowed));
    Ok(Attention {
        days: DAYS,
        counts,
        digest,
    })
}

fn count(((group, of, name), mut tally): ((String, &'static str, String), Tally)) -> Count {
    tally.took.sort_unstable();
    let answered = tally.allowed + tally.denied;
    Count {
        group,
        of,
        name,
        asks: tally.asks,
        allowed: tally.allowed,
        denied: tally.denied,
        expired: tally.expired,
        allow_percent: (tally.allowed * 100).checked_div(answered),
        answer_p50_seconds: tally
            .took
            .get(tally.took.len().saturating_sub(1) / 2)
            .copied(),
    }
}

/// The same in a few words: all questions together.
pub(super) async fn in_short(api: &Api, who: &Who) -> Result<String, Refused> {
    let since = Timestamp::now()
        .checked_sub(SignedDuration::from_hours(DAYS * 24))
        .unwrap_or(Timestamp::MIN);
    let mut tally = Tally::default();
    for row in api.broker.approvals.db().questions_of(None, MOST).await? {
        if row.asked_at >= since && who.may_see(&api.broker.config.now(), &row.group) {
            tally.add(&row);
        }
    }
    let count = count(((String::new(), "all", String::new()), tally));
    let Some(percent) = count.allow_percent else {
        return Ok(format!("{} in {DAYS} days", count.asks));
    };
    let took = count.answer_p50_seconds.unwrap_or(0);
    Ok(format!(
        "{} in {DAYS} days, {percent} % of those answered allowed, half of them answered within {took} s",
        count.asks
    ))
}

pub(super) async fn attention(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
) -> Result<Json<Attention>, Refused> {
    attention_of(&api, &who).await.map(Json)
}
