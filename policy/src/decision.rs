//! The decision: from facts to a verdict.
//!
//! Never does anything but compute. A [`Permit`] comes from here and from nowhere else; it cannot
//! be stored, copied or made from its parts.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::action::{Action, Digest, Kind};
use crate::condition::{Scope, Untold};
use crate::destination::{self, Destination};
use crate::ids::RunId;
use crate::label::{Label, Labels};
use crate::review::{Opinion, Review};
use crate::rule::{Effect, Gate, Rule, Target, one};
use crate::traits::{Level, Traits};

/// A person's rules; the default matrix is built in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Their order never matters.
    pub rules: Vec<Rule>,
}

/// Everything a decision depends on. It goes into the record whole, so that the decision can be
/// made again from it.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// What is asked.
    pub action: Action,
    /// What its target can do.
    pub traits: Traits,
    /// What the conversation has read.
    pub labels: Labels,
    /// The group's whole workspace counts as secret.
    pub contains_secrets: bool,
    /// The group is one into which nothing comes that strangers wrote.
    #[serde(default)]
    pub clean_room: bool,
    /// Whether the definition is another than the one that was pinned, or was since and nobody has
    /// answered to that.
    pub changed: bool,
    /// Where the arguments hold a credential (JSON pointers).
    pub credentials: Vec<String>,
    /// Whom or what it reaches, and who named that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<Destination>,
    /// It has read something, and what its people wrote is known: an address that nobody named can only
    /// come from what it read, whoever that is said to be from.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read: bool,
    /// What people have allowed for a while.
    pub grants: Vec<Grant>,
    /// The person the agent works for, where it is hosted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    /// What a reviewer model said of the action, where one was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review: Option<Review>,
    /// The time of the decision.
    pub now: Timestamp,
}

/// A person's *for this task*: one tool, one run, the gates that were shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The question it answers, for explanations.
    pub question: String,
    /// The run it is for.
    pub run: RunId,
    /// The tool, as [`Action::tool`].
    pub tool: String,
    /// The definition and the server that were shown.
    pub definition: Digest,
    /// See [`Action::identity`].
    pub identity: Digest,
    /// The gates that it lifts.
    pub lifts: BTreeSet<Gate>,
    /// When it ends.
    pub until: Timestamp,
}

impl Grant {
    fn fits(&self, action: &Action, now: Timestamp) -> bool {
        now < self.until
            && self.run == action.run
            && self.tool == action.tool()
            && self.definition == action.definition
            && self.identity == action.identity
    }
}

/// Allow, ask or deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It runs.
    Allow,
    /// A person decides.
    Ask,
    /// It never runs.
    Deny,
}

impl Decision {
    /// The decision's name in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Deny => "deny",
        }
    }
}

/// Why it was decided so: for the record, the card and `policy explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// What was decided.
    pub decision: Decision,
    /// The gates that are closed.
    pub gates: BTreeSet<Gate>,
    /// The gates that a rule or a grant lifted.
    pub lifted: BTreeSet<Gate>,
    /// The rules that had a say, sorted.
    pub rules: Vec<String>,
    /// Sentences for people.
    pub reasons: Vec<String>,
    /// The labels that the answer adds to the conversation.
    pub adds: BTreeSet<Label>,
    /// How many people must say yes, where it asks.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub people: u8,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over a reference"
)]
fn is_one(people: &u8) -> bool {
    *people == 1
}

/// Proof that an action may run. It holds the action: what was decided is what runs.
#[derive(Debug, PartialEq)]
#[must_use = "a permit does nothing until the action is done"]
pub struct Permit {
    action: Action,
    adds: BTreeSet<Label>,
}

impl Permit {
    /// The action that may run.
    pub fn action(&self) -> &Action {
        &self.action
    }

    /// The labels that its answer adds: who is handed it reads what these stand for.
    pub fn adds(&self) -> &BTreeSet<Label> {
        &self.adds
    }
}

/// An action that waits for a person.
#[derive(Debug, PartialEq)]
#[must_use = "a question must be put to somebody"]
pub struct Question {
    /// What is asked.
    pub action: Action,
    /// Why.
    pub why: Why,
}

/// An action that never runs.
#[derive(Debug, PartialEq)]
pub struct Refusal {
    /// What was refused.
    pub action: Action,
    /// Why.
    pub why: Why,
}

/// What comes out of [`decide`].
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// It may run.
    Allow(Permit, Why),
    /// A person decides.
    Ask(Question),
    /// It may not.
    Deny(Refusal),
}

impl Verdict {
    /// Why it was decided so.
    pub fn why(&self) -> &Why {
        match self {
            Self::Allow(_, why) => why,
            Self::Ask(question) => &question.why,
            Self::Deny(refusal) => &refusal.why,
        }
    }
}

/// Decides one action: the matrix closes gates, rules and grants lift them, the strictest wins.
pub fn decide(policy: &Policy, facts: Facts) -> Verdict {
    let why = explain(policy, &facts);
    let action = facts.action;
    match why.decision {
        Decision::Allow => {
            let adds = why.adds.clone();
            Verdict::Allow(Permit { action, adds }, why)
        }
        Decision::Ask => Verdict::Ask(Question { action, why }),
        Decision::Deny => Verdict::Deny(Refusal { action, why }),
    }
}

/// The decision without the permit: what `policy explain` shows.
pub fn explain(policy: &Policy, facts: &Facts) -> Why {
    let tool = facts.action.tool();
    let scope = Scope::new(facts, &tool);
    explain_by(policy, facts, &tool, |rule| match &rule.when {
        None => Ok(true),
        Some(when) => when.holds(&scope),
    })
}

/// As [`explain`], with the word of `holds` on whether what a rule says `when` is so.
pub(crate) fn explain_by(
    policy: &Policy,
    facts: &Facts,
    tool: &str,
    holds: impl Fn(&Rule) -> Result<bool, Untold>,
) -> Why {
    let action = &facts.action;
    let mut reasons = Vec::new();
    let mut gates = BTreeSet::new();
    for (gate, reason) in matrix(facts) {
        gates.insert(gate);
        reasons.push(format!("{}: {reason}", gate.as_str()));
    }
    // What the owner's own provider is told is recorded, not held: a prompt repeats all that was
    // said before, and would be asked about for ever.
    if action.kind == Kind::Model && !facts.credentials.is_empty() {
        reasons.push("the request to the model holds a credential".to_owned());
    }
    if let Some(review) = &facts.review {
        reasons.push(match review.opinion {
            Opinion::Allow => format!("the reviewer `{}` found nothing against it", review.model),
            Opinion::Ask => format!("the reviewer `{}` wants a person to look", review.model),
        });
    }
    let sink = facts.traits.public_sink.holds() && facts.labels.has(Label::Untrusted);
    if sink && destination::all_chosen(&facts.destinations) {
        reasons.push(destination::chosen(&facts.destinations));
    }
    let forbidden = forbidden(action, facts.traits);
    let soils = facts.clean_room && facts.traits.public_source.holds();
    if soils {
        reasons
            .push("this group is a clean room, and it may deliver what strangers wrote".to_owned());
    }
    reasons.extend(
        forbidden
            .iter()
            .map(|name| format!("`{name}` is forbidden here")),
    );

    let mut rules = Vec::new();
    let mut people = one();
    let mut lifted = BTreeSet::new();
    let mut strictest = if forbidden.is_empty() && !soils {
        Decision::Allow
    } else {
        Decision::Deny
    };
    let target = Target::new(action, tool, facts.now);
    for rule in policy.rules.iter().filter(|rule| rule.speaks_of(&target)) {
        // What cannot be told counts against the call.
        let untold = match (holds(rule), rule.then) {
            (Ok(false), _) => continue,
            (Ok(true), _) => String::new(),
            (Err(why), Effect::Allow) => {
                reasons.push(format!(
                    "rule `{}` does not allow it: its condition cannot be told, for {why}",
                    rule.name
                ));
                continue;
            }
            (Err(why), Effect::Ask | Effect::Deny) => {
                format!(": its condition cannot be told, for {why}")
            }
        };
        rules.push(rule.name.clone());
        match rule.then {
            Effect::Allow => lifted.extend(rule.lifts.iter().filter(|gate| gates.contains(gate))),
            Effect::Ask => {
                strictest = strictest.max(Decision::Ask);
                people = people.max(rule.people);
                reasons.push(format!("rule `{}` asks{untold}", rule.name));
            }
            Effect::Deny => {
                strictest = Decision::Deny;
                reasons.push(format!("rule `{}` denies it{untold}", rule.name));
            }
        }
    }
    for grant in facts
        .grants
        .iter()
        .filter(|grant| grant.fits(action, facts.now))
    {
        rules.push(format!("approval {}", grant.question));
        lifted.extend(grant.lifts.iter().filter(|gate| gates.contains(gate)));
    }
    gates.retain(|gate| !lifted.contains(gate));
    if !gates.is_empty() {
        strictest = strictest.max(Decision::Ask);
    }
    rules.sort();
    rules.dedup();
    reasons.sort();
    reasons.dedup();
    Why {
        decision: strictest,
        gates,
        lifted,
        rules,
        reasons,
        adds: adds(facts),
        people,
    }
}

/// Whether a reviewer's word could let an action run that waits for a person otherwise: whether the
/// *review* of the matrix is all that asks.
pub fn wants_review(policy: &Policy, facts: &Facts) -> bool {
    let passed = Facts {
        review: Some(Review {
            binding: facts.action.binding(),
            call: facts.action.id.clone(),
            model: String::new(),
            opinion: Opinion::Allow,
            reason: String::new(),
        }),
        ..facts.clone()
    };
    explain(policy, facts).decision == Decision::Ask
        && explain(policy, &passed).decision == Decision::Allow
}

/// The default matrix: which gates an action finds closed, each with a sentence.
fn matrix(facts: &Facts) -> Vec<(Gate, String)> {
    let Facts { traits, labels, .. } = facts;
    let reads = traits.read_only || facts.action.method.reads_only();
    // What strangers wrote matters less where they did not choose whom it reaches; and where they did,
    // it matters whatever brought their words here.
    let strangers = labels.has(Label::Untrusted) && !destination::all_chosen(&facts.destinations);
    let stray = facts.read && destination::has_stray_address(&facts.destinations);
    let untrusted = strangers || stray;
    let secret = labels.has(Label::Secret);
    let mut closed = Vec::new();
    if traits.dangerous_writes.holds() && !reads {
        closed.push((
            Gate::DangerousWrites,
            "it may change something that cannot be undone".to_owned(),
        ));
    }
    if traits.public_sink.holds() {
        let read = match (strangers, secret) {
            (true, true) => "this conversation has read both secrets and what strangers wrote",
            (true, false) => "this conversation has read what strangers wrote",
            (false, true) => "this conversation has read secrets, and an address from elsewhere",
            (false, false) => "this conversation has read an address from elsewhere",
        };
        let unchosen = destination::unchosen(&facts.destinations);
        let unchosen = unchosen.map_or_else(String::new, |unchosen| format!("; {unchosen}"));
        // *Review* of the matrix: without a reviewer who lets it pass, a person looks.
        let passes = |review: &Review| review.passes(&facts.action);
        let reviewed = !secret && facts.review.as_ref().is_some_and(passes);
        if untrusted && (secret || !reads) && !reviewed {
            closed.push((
                Gate::PublicSink,
                format!("it can reach strangers, and {read}{unchosen}"),
            ));
        }
    }
    if !facts.credentials.is_empty() && facts.action.kind != Kind::Model {
        let places: Vec<&str> = facts
            .credentials
            .iter()
            .map(|p| if p.is_empty() { "the arguments" } else { p })
            .collect();
        closed.push((
            Gate::Credential,
            format!("its arguments hold a credential, at {}", places.join(", ")),
        ));
    }
    if facts.changed {
        closed.push((
            Gate::ChangedTool,
            "the tool is not what it was when it was pinned".to_owned(),
        ));
    }
    closed
}

/// The forbidden traits that an action exercises. Every kind of MCP request returns content.
fn forbidden(action: &Action, traits: Traits) -> Vec<&'static str> {
    let writes = !(traits.read_only || action.method.reads_only());
    [
        ("public_source", traits.public_source, true),
        ("secret_data", traits.secret_data, true),
        ("public_sink", traits.public_sink, true),
        ("dangerous_writes", traits.dangerous_writes, writes),
    ]
    .into_iter()
    .filter(|(_, level, exercised)| *level == Level::Forbidden && *exercised)
    .map(|(name, ..)| name)
    .collect()
}

fn adds(facts: &Facts) -> BTreeSet<Label> {
    let mut labels = BTreeSet::new();
    if facts.traits.public_source.holds() {
        labels.insert(Label::Untrusted);
    }
    if facts.traits.secret_data.holds() || facts.contains_secrets {
        labels.insert(Label::Secret);
    }
    labels
}

/// What a person said yes to, read back from the question's row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approved {
    /// [`Action::binding`] of what was shown.
    pub binding: Digest,
    /// The gates that were shown.
    pub gates: BTreeSet<Gate>,
    /// How many people said yes.
    #[serde(default = "one")]
    pub people: u8,
}

/// Why an approved action does not run after all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Void {
    /// Other arguments, another definition or another server.
    #[error("the tool or its server is not the one that was shown")]
    Changed,
    /// A rule denies it now.
    #[error("the policy now denies it: {0}")]
    Denied(String),
    /// There is a reason to ask that the person did not see.
    #[error("there is a new reason to ask: {0}")]
    Stricter(String),
    /// More people must say yes than did.
    #[error("it now takes {needed} people, and {said} said yes")]
    Fewer {
        /// How many did.
        said: u8,
        /// How many must.
        needed: u8,
    },
}

/// Decides an approved action again, with the facts of now. Only a stricter verdict, or another
/// binding, voids the approval.
///
/// # Errors
/// [`Void`], when it must not run.
pub fn release(policy: &Policy, facts: Facts, approved: &Approved) -> Result<(Permit, Why), Void> {
    if facts.action.binding() != approved.binding {
        return Err(Void::Changed);
    }
    let why = explain(policy, &facts);
    match why.decision {
        Decision::Deny => Err(Void::Denied(why.reasons.join("; "))),
        Decision::Ask if why.people > approved.people => Err(Void::Fewer {
            said: approved.people,
            needed: why.people,
        }),
        Decision::Allow | Decision::Ask if why.gates.is_subset(&approved.gates) => {
            let (action, adds) = (facts.action, why.adds.clone());
            Ok((Permit { action, adds }, why))
        }
        Decision::Allow | Decision::Ask => Err(Void::Stricter(why.reasons.join("; "))),
    }
}

#[cfg(test)]
mod tests;
