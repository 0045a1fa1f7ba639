//! What would change a decision: the facts and rules, each changed by itself, decided again.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::decision::{Decision, Facts, Policy, explain};
use crate::destination::{self, Origin};
use crate::label::Label;
use crate::rule::{Effect, Gate, Rule};
use crate::traits::Level;

/// One change, and what would be decided then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Otherwise {
    /// The change, such as "without the label `untrusted`".
    pub with: String,
    /// What would be decided.
    pub decision: Decision,
    /// The gates that would still be closed.
    pub gates: BTreeSet<Gate>,
}

/// The changes that would make a decision another one, the smallest first.
#[expect(
    clippy::too_many_lines,
    reason = "a list of what could be otherwise, one after the other"
)]
pub fn otherwise(policy: &Policy, facts: &Facts) -> Vec<Otherwise> {
    let now = explain(policy, facts);
    let mut found = Vec::new();
    let mut tried = |with: String, policy: &Policy, facts: &Facts| {
        let then = explain(policy, facts);
        if (then.decision, &then.gates) != (now.decision, &now.gates) {
            found.push(Otherwise {
                with,
                decision: then.decision,
                gates: then.gates,
            });
        }
    };
    for label in [Label::Untrusted, Label::Secret] {
        let mut labels = facts.labels.clone();
        let slot = match label {
            Label::Untrusted => &mut labels.untrusted,
            Label::Secret => &mut labels.secret,
        };
        if slot.take().is_some() {
            let facts = Facts {
                labels,
                ..facts.clone()
            };
            tried(
                format!("without the label `{}`", label.as_str()),
                policy,
                &facts,
            );
        }
    }
    if !facts.destinations.is_empty() && !destination::all_chosen(&facts.destinations) {
        let mut facts = facts.clone();
        for one in &mut facts.destinations {
            one.found.get_or_insert_with(|| Origin::Person {
                by: String::new(),
                message: 0,
            });
        }
        tried(
            "if every destination were chosen by the group's people".to_owned(),
            policy,
            &facts,
        );
    }
    if !facts.traits.read_only && now.gates.contains(&Gate::DangerousWrites) {
        let mut facts = facts.clone();
        facts.traits.read_only = true;
        tried(
            "if the tool were declared `read_only`".to_owned(),
            policy,
            &facts,
        );
    }
    let traits = [
        ("public_sink", facts.traits.public_sink),
        ("dangerous_writes", facts.traits.dangerous_writes),
        ("public_source", facts.traits.public_source),
        ("secret_data", facts.traits.secret_data),
    ];
    for (name, level) in traits.into_iter().filter(|(_, level)| level.holds()) {
        let mut facts = facts.clone();
        let slot = match name {
            "public_sink" => &mut facts.traits.public_sink,
            "dangerous_writes" => &mut facts.traits.dangerous_writes,
            "public_source" => &mut facts.traits.public_source,
            _ => &mut facts.traits.secret_data,
        };
        *slot = Level::No;
        let was = if level == Level::Forbidden {
            "forbidden"
        } else {
            "true"
        };
        tried(format!("if `{name}` were not {was} of it"), policy, &facts);
    }
    for (n, rule) in policy.rules.iter().enumerate() {
        if !now.rules.contains(&rule.name) {
            continue;
        }
        let mut rules = policy.rules.clone();
        rules.remove(n);
        let policy = Policy { rules };
        tried(format!("without the rule `{}`", rule.name), &policy, facts);
    }
    let silent = |rule: &&Rule| {
        rule.when.is_some()
            && !now.rules.contains(&rule.name)
            && rule.fits(&facts.action, facts.now)
    };
    for rule in policy.rules.iter().filter(silent) {
        let mut rules = policy.rules.clone();
        for one in rules.iter_mut().filter(|one| one.name == rule.name) {
            one.when = None;
        }
        let policy = Policy { rules };
        tried(
            format!("if the condition of the rule `{}` held", rule.name),
            &policy,
            facts,
        );
    }
    if !now.gates.is_empty() {
        let names: Vec<&str> = now.gates.iter().map(|gate| gate.as_str()).collect();
        let mut rules = policy.rules.clone();
        rules.push(Rule {
            name: String::new(),
            groups: None,
            servers: None,
            tools: None,
            when: None,
            until: None,
            then: Effect::Allow,
            lifts: now.gates.iter().copied().collect(),
            people: 1,
        });
        let policy = Policy { rules };
        tried(
            format!("with a rule that allows it and lifts {}", names.join(", ")),
            &policy,
            facts,
        );
    }
    found
}
