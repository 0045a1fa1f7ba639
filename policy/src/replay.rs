//! What another policy would have decided about what is in the record.
//!
//! Each decision is made again by itself, from the facts that it was made from. What it would have
//! led to is not played on: a call that would have been denied would not have brought its labels.

use std::cell::Cell;

use crate::condition::{Scope, Untold};
use crate::decision::{Decision, Facts, Policy, Why, explain_by};
use crate::rule::{Effect, Rule};

/// A decision that was recorded.
#[derive(Clone, Copy, Debug)]
pub struct Past<'a> {
    /// What it was made from.
    pub facts: &'a Facts,
    /// What was decided.
    pub why: &'a Why,
    /// The record keeps some of the arguments masked or not at all, so that a condition over them
    /// cannot be told any more.
    pub masked: bool,
}

/// What another policy would have made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// The same decision, with the same gates left closed.
    Same,
    /// This instead.
    Otherwise(Why),
    /// It depends on what the record does not keep.
    Untold {
        /// The rules whose conditions cannot be told.
        rules: Vec<String>,
    },
}

/// Decides a recorded decision again under another policy.
pub fn replay(policy: &Policy, past: Past<'_>) -> Replayed {
    let facts = past.facts;
    let tool = facts.action.tool();
    let scope = Scope::new(facts, &tool);
    let hidden = |rule: &Rule| {
        let when = rule.when.as_ref();
        past.masked && when.is_some_and(|when| when.reads("args") || when.reads("tool"))
    };
    // The one end of what it may have been, or the other: with every condition that cannot be told
    // taken for the call, and against it.
    let met = Cell::new(false);
    let bound = |lenient: bool| {
        explain_by(policy, facts, &tool, |rule| match &rule.when {
            Some(_) if hidden(rule) => {
                met.set(true);
                Ok((rule.then == Effect::Allow) == lenient)
            }
            Some(when) => when.holds(&scope),
            None => Ok::<bool, Untold>(true),
        })
    };
    let why = bound(false);
    if met.get() {
        let lenient = bound(true);
        if !same(&lenient, &why) {
            let rules = policy.rules.iter();
            let mut rules: Vec<String> = rules
                .filter(|rule| hidden(rule) && rule.fits(&facts.action, facts.now))
                .map(|rule| rule.name.clone())
                .collect();
            rules.sort();
            return Replayed::Untold { rules };
        }
    }
    if same(&why, past.why) {
        Replayed::Same
    } else {
        Replayed::Otherwise(why)
    }
}

/// Whether a person would notice no difference. A denied call is denied whatever its gates are.
fn same(one: &Why, other: &Why) -> bool {
    one.decision == other.decision
        && (one.decision == Decision::Deny
            || (&one.gates, one.people) == (&other.gates, other.people))
}

#[cfg(test)]
mod tests;
