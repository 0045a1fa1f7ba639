//! *Always*: rules are proposed for a question, each replayed against what was asked before, and one
//! may be taken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use policy::approval::{Scope, State};
use policy::decision::{Decision, Facts, Policy, Why};
use policy::proposal::{self, Proposal, Width, Wish};
use policy::replay::{Past, Replayed, replay};
use policy::rule::Rule;
use serde::Serialize;

use super::Broker;
use crate::approvals::{Assent, DecideError, Effective, destinations};
use crate::audit::read;
use crate::config::Config;
use crate::db::DbError;
use crate::db::always::Kept;
use crate::db::approvals::Row;

/// How many questions of the group a rule is tried on.
const TRIED: u64 = 100;

/// A rule that a person may take, with what it would have done.
#[derive(Clone, Debug, Serialize)]
pub struct Offer {
    /// How wide it is.
    pub width: Width,
    /// What it lets through, in words.
    pub words: String,
    /// As it would stand in the configuration.
    pub toml: String,
    /// Its condition; what is taken is bound to it.
    pub when: Option<String>,
    /// Until when it counts.
    pub until: Option<Timestamp>,
    /// What it would have done.
    pub tried: Tried,
    /// The same in a sentence.
    pub said: String,
    #[serde(skip)]
    rule: Rule,
}

/// What a rule would have done with the questions that were put in its group before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// How many were put.
    pub asks: usize,
    /// How many of them it would have spared.
    pub allowed: usize,
    /// How many of them a person denied.
    pub denied: usize,
    /// How many of those it would have let through.
    pub denied_allowed: usize,
    /// Of how many that cannot be told.
    pub untold: usize,
}

impl Tried {
    fn said(self) -> String {
        let many = |n: usize| {
            if n == 0 {
                "none".to_owned()
            } else {
                n.to_string()
            }
        };
        let mut said = match self.asks {
            0 => "nothing else was asked in this group yet".to_owned(),
            asks => format!(
                "would have allowed {} of the last {asks} asks",
                many(self.allowed)
            ),
        };
        match self.denied {
            0 => {}
            1 if self.denied_allowed == 0 => said.push_str(", not the one that was denied"),
            1 => said.push_str(", also the one that was denied"),
            denied => {
                said = format!(
                    "{said}, {} of the {denied} that were denied",
                    many(self.denied_allowed)
                );
            }
        }
        if self.untold > 0 {
            said = format!("{said}; of {} it cannot be told", self.untold);
        }
        said
    }
}

/// Which of the proposed rules a person takes, by what they were shown of it.
#[derive(Clone, Debug)]
pub struct Taken {
    /// How wide it is.
    pub width: String,
    /// Its condition.
    pub when: Option<String>,
    /// How long it counts.
    pub lasts: Duration,
}

/// Questions that were put before, with what they were decided from.
#[derive(Debug)]
pub struct Before {
    rows: Vec<Row>,
    decided: BTreeMap<String, (Facts, Why)>,
}

impl Before {
    /// The newest questions of a group, or of all.
    ///
    /// # Errors
    /// [`DbError`], if they cannot be read.
    pub async fn of(broker: &Broker, group: Option<&str>, most: u64) -> Result<Self, DbError> {
        let db = broker.approvals.db();
        let rows = db.questions_of(group, most).await?;
        let actions = rows.iter().map(|row| row.action.clone()).collect();
        let decided = read::decided(db, actions).await?;
        Ok(Self { rows, decided })
    }

    /// Each question that is still in the log.
    pub fn all(&self) -> impl Iterator<Item = (&Row, &Facts, &Why)> {
        self.rows.iter().filter_map(|row| {
            let (facts, why) = self.decided.get(&row.action)?;
            Some((row, facts, why))
        })
    }

    /// What a policy with one rule more would have done with those of a group but one.
    fn tried(&self, policy: &Policy, rule: &Rule, group: &str, but: &str) -> Tried {
        let policy = proposal::with(policy, rule);
        let mut tried = Tried::default();
        for (row, facts, why) in self.all() {
            if row.id == but || row.group != group || why.decision != Decision::Ask {
                continue;
            }
            let masked = !facts.credentials.is_empty();
            let (lets, told) = match replay(&policy, Past { facts, why, masked }) {
                Replayed::Same => (false, true),
                Replayed::Otherwise(now) => {
                    let by_it = now.rules.contains(&rule.name);
                    (now.decision == Decision::Allow && by_it, true)
                }
                Replayed::Untold { .. } => (false, false),
            };
            let denied = row.state == State::Denied;
            tried.asks += 1;
            tried.allowed += usize::from(lets);
            tried.denied += usize::from(denied);
            tried.denied_allowed += usize::from(denied && lets);
            tried.untold += usize::from(!told);
        }
        tried
    }
}

impl Broker {
    /// What decides now: the rules of the configuration and those that people made since.
    pub fn policy(&self) -> Arc<Effective> {
        self.policy_by(&self.config.now())
    }

    /// As [`policy`](Self::policy), by a configuration that was taken before.
    pub(super) fn policy_by(&self, config: &Config) -> Arc<Effective> {
        self.approvals.effective(&config.policy, &config.revision)
    }

    /// The rules that would let the call of a question through, narrow to wide.
    ///
    /// # Errors
    /// [`DecideError`], if there is no such question, or no rule would.
    pub async fn offers(&self, id: &str, lasts: Duration) -> Result<Vec<Offer>, DecideError> {
        let db = self.approvals.db();
        let unknown = || DecideError::Unknown(id.to_owned());
        let row = db.question(id).await?.ok_or_else(unknown)?;
        let mut decided = read::decided(db, vec![row.action.clone()]).await?;
        let (mut facts, _) = decided.remove(&row.action).ok_or_else(unknown)?;
        // The log hides what is secret; whoever waits has it as it is.
        if let Some(held) = self.approvals.held(id) {
            facts.action = held.action.clone();
        }
        let before = Before::of(self, Some(&row.group), TRIED).await?;
        let offers = self.offers_of(&row, &facts, &before, lasts);
        if offers.is_empty() {
            return Err(DecideError::NoProposal(
                id.to_owned(),
                why_none(&row, &facts),
            ));
        }
        Ok(offers)
    }

    pub(crate) fn offers_of(
        &self,
        row: &Row,
        facts: &Facts,
        before: &Before,
        lasts: Duration,
    ) -> Vec<Offer> {
        if row.approved.people > 1 {
            return Vec::new();
        }
        let until = Timestamp::now()
            .checked_add(lasts)
            .unwrap_or(Timestamp::MAX);
        // Whole seconds: it is written down.
        let until = Timestamp::from_second(until.as_second()).unwrap_or(until);
        let names = destinations::of(&self.config.now(), &facts.action);
        let name = format!("always {}", row.id);
        let wish = Wish {
            name: &name,
            destinations: &names,
            until,
        };
        let policy = self.policy();
        let all = proposal::proposals(&policy.policy, facts, wish);
        all.into_iter()
            .map(|Proposal { width, rule, words }| {
                let tried = before.tried(&policy.policy, &rule, &row.group, &row.id);
                Offer {
                    width,
                    words,
                    toml: proposal::toml(&rule),
                    when: rule.when.as_ref().map(|when| when.source().to_owned()),
                    until: rule.until,
                    tried,
                    said: tried.said(),
                    rule,
                }
            })
            .collect()
    }

    async fn take(&self, id: &str, by: &str, taken: &Taken) -> Result<Kept, DecideError> {
        let offers = self.offers(id, taken.lasts).await?;
        let of_width = |offer: &Offer| serde_json::json!(offer.width) == taken.width.as_str();
        let offer = offers
            .into_iter()
            .find(|offer| of_width(offer) && offer.when == taken.when)
            .ok_or_else(|| DecideError::NotProposed(id.to_owned()))?;
        let group = offer.rule.groups.iter().flatten().next();
        Ok(Kept {
            question: id.to_owned(),
            group: group.map(ToString::to_string).unwrap_or_default(),
            words: offer.words,
            rule: offer.rule,
            by: by.to_owned(),
            at: Timestamp::now(),
            revoked: None,
        })
    }

    /// A person says *always*, with one of the proposed rules. Returns when both the answer and the
    /// rule are stored; the action then runs by itself.
    ///
    /// # Errors
    /// [`DecideError`], and then neither counts.
    pub async fn approve_always(
        self: &Arc<Self>,
        id: &str,
        by: String,
        taken: &Taken,
        anyway: bool,
    ) -> Result<(), DecideError> {
        let rule = self.take(id, &by, taken).await?;
        let assent = Assent {
            by,
            scope: Scope::Always,
            anyway,
            at: Timestamp::now(),
            rule: Some(rule),
        };
        self.assent(id, assent).await
    }

    /// A person takes a rule that is proposed for a question which was answered before.
    ///
    /// # Errors
    /// [`DecideError`], and then it does not count.
    pub async fn keep_rule(&self, id: &str, by: &str, taken: &Taken) -> Result<(), DecideError> {
        let rule = self.take(id, by, taken).await?;
        self.approvals.keep_rule(rule).await
    }
}

fn why_none(row: &Row, facts: &Facts) -> &'static str {
    if row.approved.people > 1 {
        "it takes several people each time"
    } else if !facts.credentials.is_empty() {
        "its arguments hold a credential, which is asked about each time"
    } else if facts.changed {
        "the tool has changed, which is asked about each time"
    } else {
        "no rule of this kind would let this call through"
    }
}
